package utp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// search probes a path that carries packets of up to limit bytes. It returns what was found and the probes
// it took.
func (m *mtuSearch) search(limit int, now *time.Duration) (size, probes int) {
	for range 200 {
		p := m.probe(*now)
		if p != 0 {
			m.sent(p)
			probes++
			if p <= limit {
				m.arrived(p, *now)
			} else {
				m.lost(p, *now)
			}
		}
		*now += probeSpacing
	}
	return int(m.size), probes
}

func TestMTUSearch(t *testing.T) {
	for _, c := range []struct {
		limit, least, most, probes int
		ipv6                       bool
	}{
		{1472, 1472, 1472, 1, false},
		{1464, 1453, 1464, 12, false}, // PPPoE
		{1400, 1389, 1400, 12, false},
		{1252, 1252, 1252, 12, false},
		{1452, 1452, 1452, 1, true},
		{1440, 1429, 1440, 12, true},
	} {
		m := newMTUSearch(c.ipv6)
		now := time.Hour
		size, probes := m.search(c.limit, &now)
		require.GreaterOrEqual(t, size, c.least, "%+v", c)
		require.LessOrEqual(t, size, c.most, "%+v", c)
		require.LessOrEqual(t, probes, c.probes, "%+v", c)

		now += probeAgain
		again, _ := m.search(1472, &now)
		require.GreaterOrEqual(t, again, int(m.largest)-probeStep, "the path carries more by now")
	}
}

func TestMTUOfAPathThatChanges(t *testing.T) {
	m := newMTUSearch(false)
	now := time.Hour
	m.search(1472, &now)
	m.vanished(now)
	require.EqualValues(t, smallestIPv4, m.size)
	size, _ := m.search(1000, &now)
	require.InDelta(t, 1000, size, probeStep)
}

// Between two ends that both say so packets are as large as the devices and the path between them carry.
func TestMTUBeyondEthernet(t *testing.T) {
	for _, c := range []struct {
		name         string
		ours, theirs bool
		device, path int
		least, most  int
	}{
		{"loopback", true, true, 65536, 65536, largestLocal, largestLocal},
		{"jumbo frames", true, true, 9000, 9000, jumbo, jumbo},
		{"jumbo frames on our side", true, true, 9000, 1500, largestIPv4, largestIPv4},
		{"odd", true, true, 65536, 20_000, jumbo, jumbo},
		{"Ethernet", true, true, 1500, 1500, largestIPv4, largestIPv4},
		{"PPPoE", true, true, 1500, 1492, 1492 - ipHeaders - probeStep, 1492 - ipHeaders},
		{"we alone", true, false, 65536, 65536, largestIPv4, largestIPv4},
		{"they alone", false, true, 65536, 65536, largestIPv4, largestIPv4},
	} {
		s := newSimulation(1)
		delay := 5 * time.Millisecond
		a, b := s.connect(&simLink{s: s, mtu: c.path, fragments: c.path < 1500, delay: delay, rate: 2e6, buffer: 1_000_000}, &simLink{s: s, delay: delay})
		a.local, b.local, a.device = c.ours, c.theirs, c.device
		a.dial()
		a.bulk()
		var read int
		b.sink(&read)
		s.after(0, a.step)
		s.run(s.now + 4*time.Second)
		require.GreaterOrEqual(t, int(a.e.mtu.size), c.least, c.name)
		require.LessOrEqual(t, int(a.e.mtu.size), c.most, c.name)
		require.Greater(t, read, 5_000_000, c.name)
	}
}

func TestMTUOfALargePathThatChanges(t *testing.T) {
	m := newMTUSearch(false)
	now := time.Hour
	m.beyond = largestLocal
	m.search(1472, &now)
	require.Equal(t, largestLocal, m.feeler(now))
	m.feels(largestLocal, time.Second, now)
	require.Zero(t, m.feeler(now), "under way")
	now += time.Second
	require.Equal(t, largestLocal, m.feeler(now), "the first may have been lost")
	m.feels(largestLocal, time.Second, now)
	m.answered(jumbo)
	require.EqualValues(t, largestIPv4, m.size, "not what was asked")
	m.answered(largestLocal)
	require.EqualValues(t, largestLocal, m.size)
	m.vanished(now)
	size, _ := m.search(1472, &now)
	require.InDelta(t, 1472, size, probeStep)
	require.Zero(t, m.feeler(now))
}

func TestMTUKnownToBeTooLarge(t *testing.T) {
	m := newMTUSearch(false)
	m.sent(m.probe(time.Hour))
	m.tooLarge(1472, time.Hour)
	require.Less(t, m.probe(2*time.Hour), 1472)
	m.stop()
	require.Zero(t, m.probe(3*time.Hour))
	require.EqualValues(t, safeIPv4, m.size)
}

// A connection that may hold little, because many do, goes on at some packets a round trip, be they as large as in a local network.
func TestLittleMayBeHeld(t *testing.T) {
	for _, c := range []struct {
		name        string
		path, least int // least is how many bytes come in four seconds
	}{{"loopback", 65536, 20_000_000}, {"Ethernet", 1500, 5_000_000}} {
		s := newSimulation(1)
		delay := 5 * time.Millisecond
		a, b := s.connect(&simLink{s: s, mtu: c.path, delay: delay, rate: 20e6, buffer: 1_000_000}, &simLink{s: s, delay: delay})
		a.local, b.local, a.device = true, true, c.path
		a.dial()
		a.bulk()
		var read int
		b.sink(&read)
		s.after(time.Second, func() { a.e.out.bound = unacknowledgedFree })
		s.after(time.Second+100*time.Millisecond, func() { read = 0 })
		s.after(0, a.step)
		s.run(s.now + 5*time.Second)
		t.Log(c.name, read)
		require.Greater(t, read, c.least, c.name)
	}
}
