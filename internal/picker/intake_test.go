package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIntakeIsFull(t *testing.T) {
	type phase struct {
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
		{"a third is left", []phase{{9000, second}, {3000, second}}, true},
		{"a fifth is left", []phase{{10_000, second}, {2000, second}}, false},
		{"a fifth was left for a moment", []phase{{10_000, second}, {2000, 100 * ms}}, true},
		{"nothing came for a moment", []phase{{10_000, second}, {0, 100 * ms}}, true},
		{"nothing came since", []phase{{10_000, second}, {0, 300 * ms}}, false},
		{"what was possible long ago counts little", []phase{{20_000, second}, {2000, 30 * second}}, true},
		{"but it counts", []phase{{20_000, second}, {2000, 5 * second}}, false},
		{"after a pause it is as before", []phase{{10_000, second}, {0, time.Hour}, {10_000, second}}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var in intake
			now := epoch
			for _, p := range tc.phases {
				for k := range int(float64(p.rate) * p.long.Seconds()) {
					in.add(now.Add(time.Duration(k) * second / time.Duration(p.rate)))
				}
				now = now.Add(p.long)
			}
			require.Equal(t, tc.want, in.full(now))
		})
	}
}
