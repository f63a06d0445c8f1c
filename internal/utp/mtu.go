package utp

import "time"

// Sizes of a UDP packet's content.
const (
	smallestIPv4 = 576 - 28
	smallestIPv6 = 1280 - 48
	safeIPv4     = 1280 - 28 // nearly every path carries this
	largestIPv4  = 1500 - 28
	largestIPv6  = 1500 - 48
	jumbo        = 9000 - 48
	largestLocal = 65000 // the largest content of a UDP packet, less some room for the headers of a tunnel

	probeStep    = 12               // bytes that are not worth another probe
	probeTries   = 2                // a probe may be lost for another reason than its size
	probeAgain   = 10 * time.Minute // after a search
	probeSpacing = 100 * time.Millisecond
)

// mtuSearch finds the largest packet that the path carries in one piece, by packets that no router may
// fragment. It goes beyond the 1,500 bytes of Ethernet only if the other end has said that it takes more: some read
// into a buffer not much larger, and would take a cut packet for a whole one. Larger packets pass only on a loopback
// or a local network of jumbo frames, which drop packets that are too large. So larger sizes are tried with feelers:
// packets without data, whose arrival the other end reports.
type mtuSearch struct {
	smallest, largest uint16
	size              uint16 // of packets now
	ceiling           uint16 // nothing larger is worth a try
	probing           uint16 // the size of the probe under way, or 0
	tries             uint8  // of this size
	searched          bool   // the ceiling was tried
	beyond            uint16 // the size of the next feeler; 0 if there is none to come
	feeling           uint16 // the size of the feeler under way, or 0
	felt              uint8  // feelers of this size
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

// feeler returns the size of a feeler to be sent, or 0. No feeler is sent before the path is known to carry
// Ethernet's size.
func (m *mtuSearch) feeler(now time.Duration) int {
	if m.largest-m.size >= probeStep || m.probing != 0 || now < m.next {
		return 0
	}
	if m.feeling != 0 && m.felt == probeTries {
		m.refused()
	}
	if m.beyond <= m.largest {
		return 0
	}
	return int(m.beyond)
}

// feels records that a feeler was sent. wait is how long its answer may take.
func (m *mtuSearch) feels(size int, wait, now time.Duration) {
	m.feeling, m.next = uint16(size), now+wait
	m.felt++
}

// answered records that the other end got a packet of this size.
func (m *mtuSearch) answered(size uint16) {
	if size == m.feeling && size > m.largest {
		m.size, m.largest, m.ceiling = size, size, size
		m.beyond, m.feeling = 0, 0
	}
}

// refused records that packets of the size of the feeler do not pass.
func (m *mtuSearch) refused() {
	m.feeling, m.felt = 0, 0
	if m.beyond > jumbo {
		m.beyond = jumbo
	} else {
		m.beyond = 0
	}
}

// unknown records that it will never be known whether a probe arrived.
func (m *mtuSearch) unknown(now time.Duration) {
	m.probing = 0
	m.next = now + probeSpacing
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
	if m.beyond > m.largest {
		m.next = now
	}
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
	m.probing, m.largest, m.ceiling, m.beyond = 0, m.size, m.size, 0
}

// vanished records that packets of the usual size no longer arrive: the path may have changed to one that carries
// less.
func (m *mtuSearch) vanished(now time.Duration) {
	if m.size == m.smallest {
		return
	}
	if ethernet := newMTUSearch(m.smallest == smallestIPv6).largest; m.largest > ethernet {
		m.largest, m.size = ethernet, ethernet+1
	}
	m.ceiling, m.size = m.size-1, m.smallest
	m.beyond = 0
	m.searched, m.probing, m.tries = true, 0, 0
	m.next = now + probeSpacing
}
