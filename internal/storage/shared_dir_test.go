//go:build unix

package storage_test

import (
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/storage"
)

// Downloads of one directory have it open once, or the system would walk through the locks of all whenever one of them ends. One that
// has ended changes nothing there any more, though the others go on.
func TestDownloadsShareAnOpenDirectory(t *testing.T) {
	claims := new(storage.Claims)
	above := t.TempDir()
	dir := above + "/d"
	require.NoError(t, os.Mkdir(dir, 0o777))
	open := func(dir string) storage.Disk {
		disk, err := claims.OpenRoot(dir)
		require.NoError(t, err)
		return disk
	}
	first, second := open(dir), open(dir)
	require.Equal(t, 1, claims.OpenDirectories())
	require.NoError(t, first.Close())
	require.ErrorIs(t, first.Close(), fs.ErrClosed)
	for _, err := range []error{
		first.MkdirAll("a"), first.Rename("a", "b"), first.Remove("a"), first.Symlink("a", "b"), first.SetMtime("a", 0),
	} {
		require.ErrorIs(t, err, fs.ErrClosed)
	}
	_, err := first.Lock("lock", true)
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = first.Claim([20]byte{1}, []storage.Claim{{Path: "a"}})
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = first.Open("a", os.O_RDWR|os.O_CREATE)
	require.ErrorIs(t, err, fs.ErrClosed)
	require.Empty(t, listing(t, dir))
	require.NoError(t, second.MkdirAll("a"))

	// What has the path now is another directory.
	require.NoError(t, os.Rename(dir, above+"/old"))
	require.NoError(t, os.Mkdir(dir, 0o777))
	fourth := open(dir)
	require.NoError(t, fourth.MkdirAll("b"))
	require.DirExists(t, dir+"/b")
	require.NoError(t, second.MkdirAll("c"))
	require.DirExists(t, above+"/old/c")
	require.NoError(t, second.Close())
	require.NoError(t, fourth.Close())
	require.Zero(t, claims.OpenDirectories())
}

// A call that comes at the same time as Close, as that of a Sync that Close does not wait for, is of the directory or fails: what is opened
// next may have the number of its descriptor.
func TestADirectoryIsClosedMeanwhile(t *testing.T) {
	claims := new(storage.Claims)
	dir, other := t.TempDir(), t.TempDir()
	for range 100 {
		disk, err := claims.OpenRoot(dir)
		require.NoError(t, err)
		want, err := disk.Stat(".")
		require.NoError(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				info, err := disk.Stat(".")
				if err != nil {
					assert.ErrorIs(t, err, fs.ErrClosed)
					assert.ErrorIs(t, disk.SyncDir("."), fs.ErrClosed)
					return
				}
				assert.Equal(t, want.ID, info.ID)
			}
		}()
		require.NoError(t, disk.Close())
		another, err := claims.OpenRoot(other)
		require.NoError(t, err)
		<-done
		require.NoError(t, another.Close())
	}
	require.Zero(t, claims.OpenDirectories())
}
