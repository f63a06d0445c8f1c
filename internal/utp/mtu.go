package utp

import "time"

// Sizes of a UDP packet's content.
const (
	smallestIPv4 = 576 - 28
	smallestIPv6 = 1280 - 48
	safeIPv4     = 1280 - 28 // what all but every path carries
	largestIPv4  = 1500 - 28
	largestIPv6  = 1500 - 48

	probeStep    = 12               // bytes that are not worth another probe
	probeTries   = 2                // a probe may be lost to something else than its size
	probeAgain   = 10 * time.Minute // after a search
	probeSpacing = 100 * time.Millisecond
)

// mtuSearch finds the largest packet that the path carries in one piece, by packets that no router may
// fragment. It never goes beyond the 1,500 bytes of Ethernet: some of those at the other end read into a
// buffer not much larger, and would take a cut packet for a whole one.
type mtuSearch struct {
	smallest, largest uint16
	size              uint16 // of packets now
	ceiling           uint16 // nothing larger is worth a try
	probing           uint16 // the size of the probe under way, or 0
	tries             uint8  // of this size
	searched          bool   // the ceiling was tried
	next              time.Duration
}

func newMTUSearch(ipv6 bool) mtuSearch {
	if ipv6 {
		return mtuSearch{smallest: smallestIPv6, largest: largestIPv6, size: smallestIPv6, ceiling: largestIPv6}
	}
	return mtuSearch{smallest: smallestIPv4, largest: largestIPv4, size: safeIPv4, ceiling: largestIPv4}
}

// probe is the size of the next probe, or 0 if none is due. Most paths carry what Ethernet does, so that is
// tried first.
func (m *mtuSearch) probe(now time.Duration) int {
	if m.probing != 0 || now < m.next {
		return 0
	}
	if m.largest-m.size < probeStep {
		return 0
	}
	if m.ceiling-m.size < probeStep {
		m.ceiling, m.searched = m.largest, false // the last search is long ago
	}
	if !m.searched {
		return int(m.ceiling)
	}
	return int(m.size + (m.ceiling-m.size+1)/2)
}

// sent records that a probe is under way.
func (m *mtuSearch) sent(size int) {
	if m.probing = uint16(size); m.probing == m.ceiling {
		m.searched = true
	}
}

// arrived records that a probe was acknowledged.
func (m *mtuSearch) arrived(size int, now time.Duration) {
	m.probing, m.tries = 0, 0
	m.size = max(m.size, min(uint16(size), m.ceiling))
	m.pause(now)
}

// lost records that a probe was lost.
func (m *mtuSearch) lost(size int, now time.Duration) {
	m.probing = 0
	if m.tries++; m.tries < probeTries {
		if uint16(size) == m.ceiling {
			m.searched = false
		}
		m.next = now + probeSpacing
		return
	}
	m.tooLarge(size, now)
}

// tooLarge records that the system knows without a try that a size is too large.
func (m *mtuSearch) tooLarge(size int, now time.Duration) {
	m.probing, m.tries = 0, 0
	m.ceiling = max(min(m.ceiling, uint16(size)-1), m.size)
	m.pause(now)
}

func (m *mtuSearch) pause(now time.Duration) {
	if m.ceiling-m.size < probeStep {
		m.next = now + probeAgain
	} else {
		m.next = now + probeSpacing
	}
}

// stop ends the search where probes cannot be sent.
func (m *mtuSearch) stop() {
	m.probing, m.largest, m.ceiling = 0, m.size, m.size
}

// vanished records that packets of the usual size no longer arrive: the path may have changed for one that
// carries less, without a word.
func (m *mtuSearch) vanished(now time.Duration) {
	if m.size == m.smallest {
		return
	}
	m.ceiling, m.size = m.size-1, m.smallest
	m.searched, m.probing, m.tries = true, 0, 0
	m.next = now + probeSpacing
}
