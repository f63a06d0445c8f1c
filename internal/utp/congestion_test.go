package utp

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// full is a window that has filled a path of 50 ms.
func full(window float64) (*congestion, measure) {
	c := newCongestion(1400)
	c.start.end()
	c.window = window
	return &c, measure{now: time.Hour, next: 1000, newest: 999, base: 50 * time.Millisecond, latest: 50 * time.Millisecond, limited: true}
}

func TestLossIsCongestionOnlyWithAQueue(t *testing.T) {
	for _, c := range []struct {
		name    string
		queue   time.Duration
		packets int // that arrived in the same round trip
		losses  int
		halves  bool
	}{
		{"a queue", 20 * time.Millisecond, 1000, 1, true},
		{"a short queue", 6 * time.Millisecond, 1000, 1, true},
		{"no queue", 2 * time.Millisecond, 1000, 1, false},
		{"one in a hundred", 0, 1000, 10, false},
		{"one in thirty", 0, 1000, 33, true},
		{"one of few", 0, 10, 1, false},
		{"two of few", 0, 10, 2, false},
		{"three of few", 0, 10, 3, true},
	} {
		w, m := full(1e6)
		m.queue = c.queue
		w.round.packets = c.packets
		w.lost(m, c.losses, 500)
		want := 1e6
		if c.halves {
			want = 5e5
		}
		require.Equal(t, want, w.window, c.name)
	}
}

// Transmissions are so many that their numbers go round before anything is lost.
func TestHalvesAfterTransmissionsWithoutNumber(t *testing.T) {
	w, m := full(1e6)
	m.queue = 20 * time.Millisecond
	w.lost(m, 1, 999)
	require.Equal(t, 5e5, w.window)
	m.queue, m.packets, m.bytes = 0, 1, 1400
	for range 10 {
		m.next += 1 << 28
		m.newest = m.next - 1
		w.acknowledged(m)
	}
	before := w.window
	m.queue = 20 * time.Millisecond
	w.lost(m, 1, m.newest)
	require.InDelta(t, before/2, w.window, 1)
}

func TestHalvesOnceARoundTrip(t *testing.T) {
	w, m := full(1e6)
	m.queue = 20 * time.Millisecond
	w.lost(m, 1, 500)
	w.lost(m, 5, 900)
	w.lost(m, 5, 999)
	require.Equal(t, 5e5, w.window)
	m.next = 2000
	w.lost(m, 1, 1000)
	require.Equal(t, 25e4, w.window)
	for range 30 {
		m.next += 1000
		w.lost(m, 1, m.next-1)
	}
	require.Equal(t, smallWindow*1400.0, w.window)
}

func TestMistakenLoss(t *testing.T) {
	w, m := full(1e6)
	w.start.begin(math.Inf(1))
	m.queue = 20 * time.Millisecond
	w.lost(m, 1, 500)
	require.Equal(t, 5e5, w.window)
	require.False(t, w.start.active())
	w.mistaken()
	require.Equal(t, 1e6, w.window)
	require.True(t, w.start.active(), "nothing has ended it")
	w.window = 3e5
	w.mistaken()
	require.Equal(t, 3e5, w.window, "once")
}

// pass lets a round trip go by in which all that fits in the window is acknowledged.
func (c *congestion) pass(m *measure) {
	const acks = 20
	end, bytes := m.next, int(c.window)/acks
	for i := range acks {
		m.bytes = bytes
		m.packets = max(m.bytes/1400, 1)
		m.newest = end - acks + uint32(i)
		m.flight = int(c.window)
		m.now += m.latest / acks
		m.next += acks
		c.acknowledged(*m)
	}
	m.newest = end
	m.bytes = 0
	c.acknowledged(*m)
}

func TestWindowGrowsOnlyWhileItIsFull(t *testing.T) {
	w, m := full(1e6)
	m.queue = 8 * time.Millisecond
	before := w.window
	w.pass(&m)
	require.Greater(t, w.window, before+gainBytes)
	m.limited = false
	before = w.window
	w.pass(&m)
	require.Equal(t, before, w.window)
}

func TestWindowFollowsTheQueue(t *testing.T) {
	w, m := full(1e6)
	m.queue, m.latest = 60*time.Millisecond, 110*time.Millisecond
	before := w.window
	w.pass(&m)
	w.pass(&m)
	require.Less(t, w.window, before)
	for range 50 {
		w.pass(&m)
	}
	require.InDelta(t, 60, w.goal(m).Seconds()*1000, 20, "to the window for which the queue is right")
	m.queue, m.latest = 400*time.Millisecond, 450*time.Millisecond
	for range 20 {
		w.pass(&m)
	}
	require.Equal(t, smallWindow*1400.0, w.window)
}

func TestGoal(t *testing.T) {
	w, m := full(2 * 1400)
	require.Equal(t, targetDelay, w.goal(m))
	for last := 2 * targetDelay; w.window < maxWindow; w.window *= 2 {
		goal := w.goal(m)
		require.Less(t, goal, last)
		last = goal
	}
	w.target.overflowed(30*time.Millisecond, m)
	require.Equal(t, 25*time.Millisecond, w.target.limit)
	w.target.overflowed(29*time.Millisecond, m)
	require.Equal(t, 25*time.Millisecond, w.target.limit)
	m.queue = 110 * time.Millisecond // it gets longer than that
	w.target.adjust(m)
	require.Equal(t, targetDelay, w.target.limit)
	m.queue = 0
	w.target.overflowed(time.Millisecond, m)
	require.Equal(t, lowestTarget, w.target.limit)
	m.now += forgetOverflow + 1
	w.target.adjust(m)
	require.Equal(t, targetDelay, w.target.limit)
}

func TestSlowStart(t *testing.T) {
	c := newCongestion(1400)
	m := measure{now: time.Hour, next: 1000, base: 50 * time.Millisecond, latest: 50 * time.Millisecond, limited: true}
	for range 6 {
		before := c.window
		c.pass(&m)
		require.InDelta(t, 2, c.window/before, 0.1)
	}
	// A queue makes it cautious, and then ends it.
	m.queue = 15 * time.Millisecond
	c.pass(&m)
	require.True(t, c.start.active())
	before := c.window
	c.pass(&m)
	require.InDelta(t, 1.25, c.window/before, 0.1)
	for range cautiousRounds {
		c.pass(&m)
	}
	require.False(t, c.start.active())

	// One that was a false alarm does not.
	c = newCongestion(1400)
	c.pass(&m)
	require.NotZero(t, c.start.cautious)
	m.queue = 0
	c.pass(&m)
	c.pass(&m)
	require.Zero(t, c.start.cautious)
	require.True(t, c.start.active())
}

func TestTimeoutBeginsAgain(t *testing.T) {
	w, m := full(1e6)
	w.timedOut(m)
	require.Equal(t, smallWindow*1400.0, w.window)
	for range 20 {
		w.pass(&m)
		if !w.start.active() {
			break
		}
	}
	require.InDelta(t, 5e5, w.window, 1e5)
}

// A slowdown comes after slow start and from time to time, if the queue was never seen empty.
func TestSlowdown(t *testing.T) {
	w, m := full(1e6)
	m.queue, m.latest = 14*time.Millisecond, 64*time.Millisecond
	w.down.first(m)
	slow := 0
	for m.now < time.Hour+100*time.Second {
		before := w.down.active()
		w.pass(&m)
		if w.down.active() && !before {
			slow++
			require.Less(t, w.allowed(), int(w.window/4))
			require.GreaterOrEqual(t, w.allowed(), int(smallWindow*w.packet))
		}
	}
	require.InDelta(t, 11, slow, 2)
	m.queue = 0
	for range 3 {
		w.pass(&m)
	}
	slow = 0
	for m.now < time.Hour+300*time.Second {
		m.queue, m.latest = 14*time.Millisecond, 64*time.Millisecond
		before := w.down.active()
		w.pass(&m)
		if w.down.active() && !before {
			slow++
		}
		m.queue = 0
		w.pass(&m)
	}
	require.LessOrEqual(t, slow, 1, "it was seen empty")
}

// In a real queue that overflows, the window halves and what was lost is known by then.
func TestOverflowHalves(t *testing.T) {
	for _, buffer := range []int{100_000, 250_000, 500_000} {
		s := newShared(t, 5e6, 50*time.Millisecond, buffer)
		f := s.flow(0)
		c := func() *congestion { return &f.a.e.cong }
		for s.now < 20*time.Second {
			before, reduced := c().window, c().reduced
			s.run(s.events.First().at)
			if c().reduced == reduced || f.a.e.loss.timeouts > 0 {
				continue
			}
			require.InDelta(t, before/2, c().window, before/50, "%d at %v", buffer, s.now)
			require.NotZero(t, s.there.dropped)
			require.NotZero(t, c().target.overflow)
		}
	}
}
