package utp

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLowestForgets(t *testing.T) {
	var l lowest
	for minute := range 40 {
		v := uint32(1000)
		if minute == 5 {
			v = 400
		}
		if minute == 9 {
			v = 600
		}
		l.add(v, time.Duration(minute)*time.Minute)
		want := uint32(1000)
		switch {
		case minute >= 5 && minute < 5+lowestEntries:
			want = 400
		case minute >= 9 && minute < 9+lowestEntries:
			want = 600
		}
		require.Equal(t, want, l.value(), "minute %d", minute)
	}
	l.add(5000, 10*time.Hour)
	require.EqualValues(t, 5000, l.value(), "after a long pause nothing is left")
}

func TestLowestGoesRound(t *testing.T) {
	var l lowest
	l.add(5, 0)
	l.add(1<<32-10, time.Second)
	l.add(20, 2*time.Second)
	require.Equal(t, uint32(1<<32-10), l.value())
}

// delaysAfter measures for so long over a path without a queue, but for what the last second adds, between
// clocks of which the other's runs ahead by a fraction.
func delaysAfter(lasts time.Duration, ahead float64, queue time.Duration) time.Duration {
	var d delays
	r := rand.New(rand.NewPCG(1, 2))
	for now := time.Second; now < lasts; now += 100 * time.Millisecond {
		theirs := time.Hour + time.Duration(float64(now)*(1+ahead))
		noise := func() time.Duration { return time.Duration(r.Int64N(int64(time.Millisecond))) }
		wait := noise()
		if now > lasts-time.Second {
			wait += queue
		}
		d.heard(stamp(now)-stamp(theirs-20*time.Millisecond-noise()), now)
		diff := stamp(theirs+20*time.Millisecond+wait) - stamp(now)
		d.told(diff, now)
		d.sample(diff)
	}
	return d.queueing()
}

func TestQueueingDespiteDrift(t *testing.T) {
	for _, ahead := range []float64{0, 20e-6, -20e-6, 200e-6, -200e-6} {
		for _, lasts := range []time.Duration{10 * time.Second, 5 * time.Minute, 2 * time.Hour} {
			for _, queue := range []time.Duration{0, 50 * time.Millisecond} {
				got := delaysAfter(lasts, ahead, queue)
				require.InDelta(t, queue.Seconds(), got.Seconds(), 0.003, "%v after %v, %v", ahead, lasts, queue)
			}
		}
	}
}

func TestNoDelayIsNone(t *testing.T) {
	var d delays
	for _, diff := range []uint32{0, noDelay, 1000, 0, noDelay} {
		d.told(diff, time.Second)
		d.sample(diff)
	}
	require.EqualValues(t, 1000, d.ours.value())
	require.EqualValues(t, 1, d.count)
}

func TestRoundTrip(t *testing.T) {
	var r roundTrip
	require.Equal(t, firstTimeout, r.timeout(0))
	require.Equal(t, 4*firstTimeout, r.timeout(2))
	require.Equal(t, longestTimeout, r.timeout(100))
	for range 100 {
		r.sample(40*time.Millisecond, time.Second)
	}
	require.Equal(t, minTimeout, r.timeout(0))
	require.Equal(t, 40*time.Millisecond, r.base())
	require.InDelta(t, 0.1, r.probeTimeout().Seconds(), 0.001)
	for range 100 {
		r.sample(time.Second, time.Second)
		r.sample(3*time.Second, time.Second)
	}
	require.Greater(t, r.timeout(0), 4*time.Second)
	require.Equal(t, 40*time.Millisecond, r.base())
}

func TestPacer(t *testing.T) {
	var p pacer
	const rate, packet = 1e6, 1000
	p.refill(rate, packet, time.Hour)
	require.EqualValues(t, burstPackets*packet, p.bytes)
	require.Equal(t, time.Hour, p.ready(rate, time.Hour))
	p.bytes -= 11_000
	ready := p.ready(rate, time.Hour)
	require.InDelta(t, 0.001, (ready - time.Hour).Seconds(), 1e-5)
	p.refill(rate, packet, ready)
	require.Greater(t, p.bytes, 0.0)
	p.refill(0, packet, ready)
	require.Equal(t, ready, p.ready(0, ready), "without a rate there is no limit")
}
