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

func TestMTUKnownToBeTooLarge(t *testing.T) {
	m := newMTUSearch(false)
	m.sent(m.probe(time.Hour))
	m.tooLarge(1472, time.Hour)
	require.Less(t, m.probe(2*time.Hour), 1472)
	m.stop()
	require.Zero(t, m.probe(3*time.Hour))
	require.EqualValues(t, safeIPv4, m.size)
}
