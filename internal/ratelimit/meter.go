package ratelimit

import "time"

const (
	meterSlots = 6 // the current second and the five before it
	meterSlot  = time.Second
)

// A Meter counts bytes, and measures their rate over the last five seconds, or since the first of them
// after a silence of as long. The zero value is ready.
type Meter struct {
	sum   int64             // all that was ever added
	slots [meterSlots]int64 // bytes by second; second k is in slot k%meterSlots
	last  int64             // the second of the newest slot, counted from start
	start time.Time         // when the first byte came after a silence; zero before any
}

// Add counts n bytes that came or went at now.
func (m *Meter) Add(n int64, now time.Time) {
	m.advance(now)
	if m.recent() == 0 {
		m.start, m.last = now, 0
	}
	m.slots[m.last%meterSlots] += n
	m.sum += n
}

// Rate returns the rate in bytes a second. Until a whole second has passed it is what that second holds
// so far, so that a single block does not look like a fast peer.
func (m *Meter) Rate(now time.Time) float64 {
	m.advance(now)
	n := m.recent()
	if n == 0 {
		return 0
	}
	oldest := time.Duration(max(0, m.last-meterSlots+1)) * meterSlot
	return float64(n) / max(now.Sub(m.start)-oldest, meterSlot).Seconds()
}

// Total returns the sum of all that was ever added.
func (m *Meter) Total() int64 { return m.sum }

// recent is the sum of the slots.
func (m *Meter) recent() (n int64) {
	for _, s := range m.slots {
		n += s
	}
	return n
}

// advance empties the slots of the seconds that began since the last call. A time before that of an
// earlier call counts as that time.
func (m *Meter) advance(now time.Time) {
	second := int64(now.Sub(m.start) / meterSlot) // saturates for a zero start, whose slots are empty anyway
	if second-m.last >= meterSlots {
		clear(m.slots[:])
		m.last = second
	}
	for ; m.last < second; m.last++ {
		m.slots[(m.last+1)%meterSlots] = 0
	}
}
