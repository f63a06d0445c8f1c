package human_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/examples/internal/human"
)

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "0.98 KiB", 1024: "1.00 KiB", 10 << 10: "10.0 KiB", 100 << 10: "100 KiB", 1 << 20: "1.00 MiB",
		60003014: "57.2 MiB", 1 << 60: "1.00 EiB",
	} {
		require.Equal(t, want, human.Size(n))
	}
	require.Equal(t, "1.50 MiB/s", human.Rate(1.5*(1<<20)))
}

func TestCount(t *testing.T) {
	require.Equal(t, []string{"0 peers", "1 peer", "2 peers"},
		[]string{human.Count(0, "peer"), human.Count(1, "peer"), human.Count(2, "peer")})
}
