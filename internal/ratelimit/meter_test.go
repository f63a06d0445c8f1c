package ratelimit_test

import (
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/ratelimit"
)

// epoch is where the clocks of these tests start.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestMeter(t *testing.T) {
	type step struct {
		at   float64 // seconds since the start
		add  int64
		want float64 // the rate after it
		why  string
	}
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"nothing ever came", []step{
			{0, 0, 0, "nothing at the start"},
			{100, 0, 0, "nor later"},
		}},
		{"a steady peer", []step{
			{0.0, 500, 500, "a first block counts for a whole second"},
			{0.5, 500, 1000, "as do others in that second"},
			{1.0, 500, 1500, "the third half second of bytes opens the second second"},
			{1.5, 500, 2000 / 1.5, "from then on the time since the start counts"},
			{3.0, 1500, 3500 / 3.0, ""},
			{5.0, 2000, 5500 / 5.0, "everything is still within the window"},
			{5.5, 500, 6000 / 5.5, ""},
			{6.0, 500, 5500 / 5.0, "the first second, of 1000, has left it"},
		}},
		{"silence", []step{
			{0, 6000, 6000, ""},
			{2, 0, 3000, "the rate sinks as time goes by"},
			{5.5, 0, 6000 / 5.5, ""},
			{6, 0, 0, "after the window it is zero"},
			{1000, 0, 0, "and stays so"},
			{1000.5, 8000, 8000, "a new start is judged by itself, not by the silence before it"},
			{1002.5, 0, 4000, ""},
		}},
		{"a short pause is no silence", []step{
			{0, 1000, 1000, ""},
			{4, 1000, 500, "four seconds without a byte count as such"},
			{6, 1000, 2000 / 5.0, "and bytes before them leave the window first"},
		}},
		{"a clock that goes backward", []step{
			{10, 1000, 1000, ""},
			{9, 1000, 2000, "counts as the same moment"},
			{12, 0, 1000, "and does no harm afterwards"},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var m ratelimit.Meter
			sum := int64(0)
			for _, s := range tc.steps {
				now := epoch.Add(time.Duration(s.at * float64(time.Second)))
				if s.add > 0 {
					m.Add(s.add, now)
					sum += s.add
				}
				require.InDelta(t, s.want, m.Rate(now), 1e-6, "at %v s: %s", s.at, s.why)
				require.Equal(t, sum, m.Total())
			}
		})
	}
}

// slowMeter is a plain model of the Meter: it keeps all that was ever added.
type slowMeter struct {
	came []struct {
		at time.Time
		n  int64
	}
	start time.Time
}

// window is the bytes of the current second and the five before it, in seconds counted from start,
// and how long that is.
func (m *slowMeter) window(now time.Time) (n int64, length time.Duration) {
	from := m.start.Add(now.Sub(m.start).Truncate(time.Second) - 5*time.Second)
	if from.Before(m.start) {
		from = m.start
	}
	for _, c := range m.came {
		if !c.at.Before(from) {
			n += c.n
		}
	}
	return n, max(now.Sub(from), time.Second)
}

func (m *slowMeter) add(n int64, now time.Time) {
	if recent, _ := m.window(now); recent == 0 {
		m.start = now
	}
	m.came = append(m.came, struct {
		at time.Time
		n  int64
	}{now, n})
}

func (m *slowMeter) rate(now time.Time) float64 {
	n, length := m.window(now)
	return float64(n) / length.Seconds()
}

func TestMeterAgreesWithModel(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var m ratelimit.Meter
		var slow slowMeter
		now := epoch
		for range 300 {
			pause := []time.Duration{0, time.Millisecond, 300 * time.Millisecond, time.Second, 2 * time.Second, 9 * time.Second}[rng.IntN(6)]
			now = now.Add(time.Duration(rng.Float64() * float64(pause)))
			if rng.IntN(3) > 0 {
				n := rng.Int64N(128<<10) + 1
				m.Add(n, now)
				slow.add(n, now)
			}
			require.InDelta(t, slow.rate(now), m.Rate(now), 1e-3, "seed %d", seed)
		}
	}
}

func TestMeterIsSmall(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(ratelimit.Meter{}), uintptr(96))
	var m ratelimit.Meter
	now := epoch
	require.Zero(t, testing.AllocsPerRun(100, func() {
		now = now.Add(time.Second)
		m.Add(1, now)
		m.Rate(now)
	}))
}
