package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIntakeIsFull(t *testing.T) {
	type phase struct { // after each it is asked for
		rate int // blocks a second, in even steps
		long time.Duration
	}
	const second, ms = time.Second, time.Millisecond
	for _, tc := range []struct {
		name   string
		phases []phase
		want   bool
	}{
		{"nothing came yet", nil, false},
		{"as much as ever", []phase{{10_000, second}}, true},
		{"so little that it cannot be all that we take", []phase{{500, 5 * second}}, false},
		{"a third is left", []phase{{9000, second}, {3000, 5 * second}}, true},
		{"a fifth is left", []phase{{10_000, second}, {2000, second}}, false},
		{"a fifth was left for a moment", []phase{{10_000, second}, {2000, 400 * ms}}, true},
		{"a fifth was left for a moment, and for another", []phase{{10_000, second}, {2000, 400 * ms}, {10_000, second}, {2000, 400 * ms}}, true},
		{"a fifth was left for long, and then about as much as before", []phase{{10_000, second}, {2000, second}, {8000, second}}, false},
		{"a fifth was left for long, and then more than before", []phase{{10_000, second}, {2000, second}, {11_000, second}}, true},
		{"we waited", []phase{{10_000, second}, {0, 5 * second}}, true},
		{"we looked twice, and nothing came", []phase{{10_000, second}, {0, second}, {0, second}}, false},
		{"what was possible long ago counts little", []phase{{20_000, second}, {2400, 40 * second}}, true},
		{"after a pause it is as before", []phase{{10_000, second}, {0, time.Hour}, {10_000, second}}, true},
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
