package storage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// locksOn counts the locks on a directory.
func locksOn(t *testing.T, dir string) (n int) {
	var st syscall.Stat_t
	require.NoError(t, syscall.Stat(dir, &st))
	table, err := os.ReadFile("/proc/locks")
	require.NoError(t, err)
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, fmt.Sprintf(":%d ", st.Ino)) {
			n++
		}
	}
	return n
}

// The system walks through all locks of a directory for each, so a torrent of many files takes few.
func TestManyFilesTakeFewLocks(t *testing.T) {
	var paths []string
	for i := range 1000 {
		paths = append(paths, fmt.Sprintf("torrent/d%d/file %d", i%5, i))
	}
	tor, content := named(1, paths...)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	locks := locksOn(t, dir)
	require.NotZero(t, locks)
	require.LessOrEqual(t, locks, 8)
	for i := range 20 {
		writePiece(t, tor, s, content, 10*i)
	}
	require.Equal(t, locks, locksOn(t, dir), "what is made needs no more")
	require.NoError(t, s.Close())
	require.Zero(t, locksOn(t, dir))
}

// The claims of a client hide none of another client's from it.
func TestAnotherClientIsSeenBesideOwnDownloads(t *testing.T) {
	for theirs := byte(1); theirs <= 9; theirs += 4 {
		dir, open := t.TempDir(), ofOneClient()
		other, _ := named(theirs, "d/other")
		require.NoError(t, openDirectory(t, other, dir).SetWanted(all(other)))
		for hash := byte(3); hash < 8; hash++ {
			own, _ := named(hash, fmt.Sprint("d/", hash))
			if hash != theirs {
				require.NoError(t, open(t, own, dir).SetWanted(all(own)))
			}
		}
		many, _ := named(20, numberedPaths("d/many %d", 100)...)
		err := open(t, many, dir).SetWanted(all(many))
		require.ErrorIs(t, err, storage.ErrInUse)
		require.ErrorContains(t, err, fmt.Sprintf("%x", other.InfoHash))
	}
}
