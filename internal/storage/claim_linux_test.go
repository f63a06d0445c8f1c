package storage_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/storage"
)

// If another program holds a lock on the directory, the store waits for it once and not for each file, because it can be neither
// read nor written during the wait.
func TestALockedDirectoryIsWaitedForOnce(t *testing.T) {
	dir := t.TempDir()
	lock, err := os.Open(dir)
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	tor, content := testContent(50, 50, 50, 50, 50, 50, 50, 50, 50)
	synctest.Test(t, func(t *testing.T) {
		s, err := storage.OpenFiles(tor, dir, nil)
		require.NoError(t, err)
		defer s.Close()
		start := time.Now()
		require.NoError(t, s.SetWanted(all(tor)))
		for piece := range tor.NumPieces() {
			writePiece(t, tor, s, content, piece)
		}
		require.Equal(t, time.Second, time.Since(start))
		other := tor
		other.InfoHash[0]++
		theirs, err := storage.OpenFiles(other, filepath.Join(dir, "."), nil)
		require.NoError(t, err)
		defer theirs.Close()
		require.ErrorIs(t, theirs.SetWanted(all(other)), storage.ErrInUse)
	})
}

// The wait for a program that has locked one directory delays no claims in another.
func TestALockedDirectoryDelaysNoOther(t *testing.T) {
	locked, free := t.TempDir(), t.TempDir()
	lock, err := os.Open(locked)
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	synctest.Test(t, func(t *testing.T) {
		claims, start := new(storage.Claims), time.Now()
		claimIn := func(dir string) time.Duration {
			disk, err := claims.OpenRoot(dir)
			require.NoError(t, err)
			defer disk.Close()
			_, err = disk.Claim([20]byte{1}, []storage.Claim{{Path: "a"}})
			require.NoError(t, err)
			return time.Since(start)
		}
		waited := make(chan time.Duration)
		go func() { waited <- claimIn(locked) }()
		synctest.Wait()
		require.Zero(t, claimIn(free))
		require.Equal(t, time.Second, <-waited)
	})
}
