package disktest_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// A loss of power that takes a directory takes all that is in it, even if that was synced.
func TestCrashTakesDirectoriesWhole(t *testing.T) {
	dir := "a"
	name := filepath.Join(dir, "b", "c")
	lost := 0
	for seed := range uint64(20) {
		d := disktest.New()
		require.NoError(t, d.MkdirAll(filepath.Dir(name)))
		f, err := d.Open(name, os.O_RDWR|os.O_CREATE)
		require.NoError(t, err)
		require.NoError(t, f.Sync())
		require.NoError(t, f.Close())
		require.NoError(t, d.SyncDir(filepath.Dir(name)))
		require.NoError(t, d.SyncDir(dir)) // but not the one that holds it
		after := d.Crash(rand.New(rand.NewPCG(seed, 1)))
		if _, err := after.Stat(dir); err == nil {
			_, err = after.Stat(name)
			require.NoError(t, err)
			continue
		}
		lost++
		require.Empty(t, after.Names())
	}
	require.NotZero(t, lost)
}
