package utp

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shared is a link that several flows share, with another back that is never full.
type shared struct {
	*simulation
	there, back *simLink
}

func newShared(t *testing.T, rate float64, roundTrip time.Duration, buffer int) *shared {
	if RaceEnabled || testing.Short() {
		t.Skip("takes long, and has one goroutine only")
	}
	s := newSimulation(1)
	return &shared{s, &simLink{s: s, rate: rate, delay: roundTrip / 2, buffer: buffer}, &simLink{s: s, delay: roundTrip / 2}}
}

// flow is a connection that always has something to send.
type flow struct {
	a, b *node
	read int
}

// flow begins after a while.
func (s *shared) flow(at time.Duration) *flow {
	f := &flow{}
	f.a, f.b = s.connect(s.there, s.back)
	f.a.bulk()
	f.b.sink(&f.read)
	s.after(at, f.a.step)
	return f
}

// rates runs for a while and returns what the flows got of the link meanwhile, each in hundredths.
func (s *shared) rates(d time.Duration, flows ...*int) (percent []float64) {
	before := make([]int, len(flows))
	for i, f := range flows {
		before[i] = *f
	}
	s.there.longest = 0
	s.run(s.now + d)
	for i, f := range flows {
		percent = append(percent, 100*float64(*f-before[i])/d.Seconds()/s.there.rate)
	}
	return percent
}

// A path that changes the order of packets is not taken for one that loses them, again and again.
func TestFillsALinkThatChangesTheOrder(t *testing.T) {
	for _, by := range []time.Duration{10 * time.Millisecond, 40 * time.Millisecond} {
		s := newShared(t, 12.5e6, 50*time.Millisecond, 1250e3)
		s.there.reorder, s.there.reorderBy = 0.1, by
		f := s.flow(0)
		s.run(20 * time.Second)
		require.Greater(t, s.rates(30*time.Second, &f.read)[0], 90.0, by)
	}
}

func TestFillsALink(t *testing.T) {
	for _, c := range []struct {
		rate      float64
		roundTrip time.Duration
		buffer    int
		loss      float64
		least     float64 // of the link, with what it takes to begin
	}{
		{25e6, 50 * time.Millisecond, 2_000_000, 0, 90},
		{25e6, 50 * time.Millisecond, 256 << 10, 0, 90},
		{25e6, 50 * time.Millisecond, 64 << 10, 0, 75}, // a twentieth of what is under way
		{25e6, 50 * time.Millisecond, 2_000_000, 0.001, 60},
		{25e6, 50 * time.Millisecond, 256 << 10, 0.001, 60},
		{5e6, 200 * time.Millisecond, 1_000_000, 0, 75},
		{5e6, 200 * time.Millisecond, 1_000_000, 0.001, 60},
		{2e6, 50 * time.Millisecond, 4_000_000, 0, 90},
		{100e3, 50 * time.Millisecond, 200_000, 0, 90},
	} {
		s := newShared(t, c.rate, c.roundTrip, c.buffer)
		s.there.loss = c.loss
		f := s.flow(0)
		got := s.rates(10*time.Second, &f.read)[0]
		t.Logf("%.1f MB/s, %v, buffer of %v, loss %.1f%%: %.0f%% full, %d dropped",
			c.rate/1e6, c.roundTrip, time.Duration(float64(c.buffer)/c.rate*1e9).Round(time.Millisecond), 100*c.loss, got, s.there.dropped)
		require.Greater(t, got, c.least, "%+v", c)
	}
}

// A router that holds two seconds does not come to do so for us.
func TestAddsLittleDelay(t *testing.T) {
	s := newShared(t, 2e6, 50*time.Millisecond, 4_000_000)
	f := s.flow(0)
	s.rates(time.Second, &f.read)
	begins := s.there.longest
	got := s.rates(59*time.Second, &f.read)[0]
	t.Logf("%.0f%% full, added delay at most %v, %v in the first second", got, s.there.longest.Round(time.Millisecond), begins.Round(time.Millisecond))
	require.Less(t, begins, 150*time.Millisecond)
	require.Less(t, s.there.longest, 150*time.Millisecond)
	require.Greater(t, got, 90.0)
}

func TestYieldsToTCP(t *testing.T) {
	for _, c := range []struct {
		rate   float64
		buffer int
	}{{5e6, 125_000}, {5e6, 250_000}, {5e6, 500_000}, {5e6, 2_000_000}, {2e6, 4_000_000}} {
		for _, first := range []string{"uTP", "TCP"} {
			s := newShared(t, c.rate, 50*time.Millisecond, c.buffer)
			at, tcpAt := time.Duration(0), 10*time.Second
			if first == "TCP" {
				at, tcpAt = tcpAt, at
			}
			f, tcp := s.flow(at), s.reno(s.there, s.back, tcpAt)
			s.run(30 * time.Second)
			got := s.rates(60*time.Second, &f.read, &tcp.delivered)
			t.Logf("%.0f MB/s, buffer of %.0f ms, %s first: uTP %.0f%%, TCP %.0f%%", c.rate/1e6, 1000*float64(c.buffer)/c.rate, first, got[0], got[1])
			require.Greater(t, got[1]/(got[0]+got[1]), 0.85)
			require.Greater(t, got[0]+got[1], 85.0)
		}
	}
}

// A queue that overflows long before it is as long as our target says nothing by its length. TCP still keeps
// most of what it has there alone, which is less than the link.
func TestYieldsToTCPInAShortQueue(t *testing.T) {
	for _, c := range []struct {
		rate             float64
		roundTrip, queue time.Duration
	}{
		{5e6, 50 * time.Millisecond, 10 * time.Millisecond},
		{5e6, 50 * time.Millisecond, 5 * time.Millisecond},
		{5e6, 100 * time.Millisecond, 10 * time.Millisecond},
		{2e6, 50 * time.Millisecond, 10 * time.Millisecond},
	} {
		rates := func(at, tcpAt time.Duration) []float64 {
			s := newShared(t, c.rate, c.roundTrip, int(c.rate*c.queue.Seconds()))
			f, tcp := s.flow(at), s.reno(s.there, s.back, tcpAt)
			s.run(30 * time.Second)
			return s.rates(60*time.Second, &f.read, &tcp.delivered)
		}
		alone := rates(time.Hour, 0)[1]
		for _, first := range []string{"uTP", "TCP"} {
			at, tcpAt := time.Duration(0), 10*time.Second
			if first == "TCP" {
				at, tcpAt = tcpAt, at
			}
			got := rates(at, tcpAt)
			t.Logf("%.0f MB/s, %v, buffer of %v, %s first: uTP %.0f%%, TCP %.0f%%, alone %.0f%%", c.rate/1e6, c.roundTrip, c.queue, first, got[0], got[1], alone)
			require.Greater(t, got[1], 0.8*alone)
		}
	}
}

// The window is there again when TCP is gone.
func TestComesBackAfterTCP(t *testing.T) {
	s := newShared(t, 5e6, 50*time.Millisecond, 500_000)
	f, tcp := s.flow(0), s.reno(s.there, s.back, 10*time.Second)
	s.run(40 * time.Second)
	tcp.stop()
	s.run(s.now + 5*time.Second)
	require.Greater(t, s.rates(5*time.Second, &f.read)[0], 90.0)
}

func TestFlowsShareFairly(t *testing.T) {
	for _, c := range []struct {
		rate   float64
		buffer int
	}{{25e6, 256 << 10}, {5e6, 125_000}, {5e6, 500_000}, {5e6, 2_000_000}, {2e6, 4_000_000}} {
		for _, apart := range []time.Duration{0, 20 * time.Second} {
			if apart > 0 && c.rate > 10e6 {
				continue // takes too long
			}
			s := newShared(t, c.rate, 50*time.Millisecond, c.buffer)
			x, y, z := s.flow(0), s.flow(apart), s.flow(2*apart)
			s.run(s.now + 2*apart + 30*time.Second)
			got := s.rates(20*time.Second, &x.read, &y.read, &z.read)
			t.Logf("%.0f MB/s, buffer of %.0f ms, %v apart: %.0f%%", c.rate/1e6, 1000*float64(c.buffer)/c.rate, apart, got)
			// How the flows begin to take turns at the queue decides about a few hundredths.
			require.Less(t, max(got[0], got[1], got[2]), 1.5*min(got[0], got[1], got[2]))
			require.Greater(t, got[0]+got[1]+got[2], 90.0)
		}
	}
}

// One who comes late finds a queue that he takes for a part of the path. He may not push the others out for
// that.
func TestLateComer(t *testing.T) {
	for _, buffer := range []int{250_000, 500_000, 2_000_000} {
		s := newShared(t, 5e6, 50*time.Millisecond, buffer)
		old := s.flow(0)
		s.run(s.now + 30*time.Second)
		late := s.flow(0)
		var course []string
		starved := 0
		for range 12 {
			got := s.rates(2500*time.Millisecond, &old.read, &late.read)
			course = append(course, fmt.Sprintf("%.0f/%.0f", got[0], got[1]))
			if got[0] < 10 {
				starved++
			}
		}
		t.Logf("buffer of %.0f ms: %s", 1000*float64(buffer)/s.there.rate, course)
		require.LessOrEqual(t, starved, 6, "15 s")
		got := s.rates(10*time.Second, &old.read, &late.read)
		require.Less(t, max(got[0], got[1]), 1.5*min(got[0], got[1]))
	}
}

// Others of our kind have the target of BEP 29 however large their window is. One of ours does not let them
// starve it for long.
func TestBesideAFixedTarget(t *testing.T) {
	s := newShared(t, 5e6, 50*time.Millisecond, 2_000_000)
	other, f := s.flow(0), s.flow(10*time.Second)
	other.a.e.cong.target = target{limit: 2 * targetDelay, pressed: 1 << 62}
	s.run(60 * time.Second)
	got := s.rates(60*time.Second, &f.read, &other.read)
	t.Logf("%.0f%% beside %.0f%%", got[0], got[1])
	require.Greater(t, got[0], 10.0)
}

// Clocks that drift apart look like a queue that grows, or shrinks.
func TestFillsALinkDespiteDrift(t *testing.T) {
	for _, skew := range []float64{-200e-6, 200e-6} {
		s := newShared(t, 500e3, 50*time.Millisecond, 500_000)
		f := s.flow(0)
		f.a.skew = skew
		s.run(15 * time.Minute)
		got := s.rates(time.Minute, &f.read)[0]
		t.Logf("%+.0f ppm: %.0f%% full, added delay at most %v", skew*1e6, got, s.there.longest.Round(time.Millisecond))
		require.Greater(t, got, 90.0)
		require.Less(t, s.there.longest, 150*time.Millisecond)
	}
}
