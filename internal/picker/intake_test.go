package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIntakeIsFull(t *testing.T) {
	type phase struct { // full is called at the end of each
		rate int // blocks a second, evenly spaced
		long time.Duration
	}
	const second, ms = time.Second, time.Millisecond
	for _, tc := range []struct {
		name   string
		phases []phase
		want   bool
	}{
		{"nothing received yet", nil, false},
		{"at the best rate", []phase{{10_000, second}}, true},
		{"below fullRate", []phase{{500, 5 * second}}, false},
		{"a third of the best rate", []phase{{9000, second}, {3000, 5 * second}}, true},
		{"a fifth of the best rate", []phase{{10_000, second}, {2000, second}}, false},
		{"a fifth for a moment", []phase{{10_000, second}, {2000, 400 * ms}}, true},
		{"a fifth for a moment, twice", []phase{{10_000, second}, {2000, 400 * ms}, {10_000, second}, {2000, 400 * ms}}, true},
		{"a fifth for long, then less than the best rate", []phase{{10_000, second}, {2000, second}, {8000, second}}, false},
		{"a fifth for long, then more than the best rate", []phase{{10_000, second}, {2000, second}, {11_000, second}}, true},
		{"nothing received, full called once", []phase{{10_000, second}, {0, 5 * second}}, true},
		{"nothing received, full called twice", []phase{{10_000, second}, {0, second}, {0, second}}, false},
		{"a best rate of long ago counts little", []phase{{20_000, second}, {2400, 40 * second}}, true},
		{"the same rate after a pause", []phase{{10_000, second}, {0, time.Hour}, {10_000, second}}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var in intake
			now, full := epoch, false
			for _, p := range tc.phases {
				for k := range int(float64(p.rate) * p.long.Seconds()) {
					in.add(now.Add(time.Duration(k) * second / time.Duration(p.rate)))
				}
				now = now.Add(p.long)
				full = in.full(now)
			}
			require.Equal(t, tc.want, full)
		})
	}
}
