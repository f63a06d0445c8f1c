//go:build linux

package storage_test

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/proctest"
	"github.com/shoal-go/torrent/internal/storage"
)

func TestALockEndsWithItsProcess(t *testing.T) {
	tor, _ := testContent(50, 200)
	if dir, ok := proctest.InChild(); ok {
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted(all(tor)))
		fmt.Println("locked")
		io.Copy(io.Discard, os.Stdin) // until killed
		return
	}
	dir := t.TempDir()
	cmd := proctest.Child(t, dir, nil)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && lines.Text() != "locked" {
	}
	_, err = storage.OpenFiles(tor, dir, nil)
	require.ErrorIs(t, err, storage.ErrInUse)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.Finish())
	require.Empty(t, listing(t, dir), "not even the lock of the killed process")
}

func TestAFullFileSystem(t *testing.T) {
	tor, content := testContent(64<<10, 1<<20, 1<<20)
	dir, ok := proctest.InChild()
	if !ok {
		proctest.Alone(t, t.TempDir(), 0, syscall.CLONE_NEWNS)
		return
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1500k"); err != nil {
		t.Skip("cannot mount:", err)
	}
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	have := bits.New(tor.NumPieces())
	var err error
	for i := range tor.NumPieces() {
		if err = s.WriteBlocks([][]byte{pieceOf(tor, content, i)}, tor.PieceOffset(i)); err != nil {
			break
		}
		have.Add(i)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, filepath.Join(dir, "d", "1"))
	require.Greater(t, have.Count(), 16)
	require.NoError(t, s.SaveResume(have, nil), "the next run hashes it")
	require.NoError(t, s.Close())

	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=4m"))
	s = openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.Equal(t, have, verified(t, tor, s), "nothing that was verified is lost")
	for i := range tor.NumPieces() {
		if !have.Has(i) {
			writePiece(t, tor, s, content, i)
		}
	}
	require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s))
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
	require.NoError(t, syscall.Unmount(dir, 0))
}

func TestPermissions(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	dir, ok := proctest.InChild()
	if !ok {
		dir = t.TempDir()
		fill(t, tor, dir, content)
		require.NoError(t, os.Chmod(dir, 0o555))
		t.Cleanup(func() { os.Chmod(dir, 0o755); os.Chmod(dir+"/d", 0o755); os.Chmod(dir+"/d/1", 0o644) })
		proctest.Alone(t, dir, 1000, 0) // the owner of the directory, without root's powers
		return
	}
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)), "complete, so read-only is no obstacle")
	require.Equal(t, 6, verified(t, tor, s).Count())
	require.NoError(t, s.Finish())
	err := s.WriteBlocks([][]byte{content[:50]}, 0)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, dir)
	require.NoError(t, s.Close())

	// A directory may be closed to all who do not know what is in it.
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Chmod(dir+"/d", 0o111))
	s = openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.Keep(verified(t, tor, s), nil))
	require.FileExists(t, filepath.Join(dir, sidecarName))
	require.NoError(t, s.Sync())
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(filepath.Join(dir, sidecarName)))
	require.NoError(t, os.Chmod(dir+"/d", 0o755))
	require.NoError(t, os.Chmod(dir, 0o555))

	require.NoError(t, os.Remove(dir+"/d/0"))
	s = openDirectory(t, tor, dir)
	require.ErrorIs(t, s.SetWanted(all(tor)), fs.ErrPermission, "at once, and not only with the first piece")
	require.NoError(t, s.Close())

	// The permission is lost during the download.
	require.NoError(t, os.Chmod(dir, 0o755))
	s = openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	storage.DropHandle(s, 0)
	storage.DropHandle(s, 1)
	require.NoError(t, os.Chmod(dir+"/d/1", 0))
	err = s.WriteBlocks([][]byte{content[200:250]}, 200)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, dir+"/d/1")
	_, err = s.ReadAt(make([]byte, 10), 250)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.False(t, storage.Unwritten(err))
	require.NoError(t, os.Chmod(dir+"/d", 0))
	require.ErrorIs(t, s.Changed(0), fs.ErrPermission)
	require.NoError(t, s.Close())

	_, err = storage.OpenFiles(tor, filepath.Join(dir, "d", "below"), nil)
	require.ErrorIs(t, err, fs.ErrPermission)
}
