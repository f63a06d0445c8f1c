//go:build linux

package torrent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
)

// child runs the test that calls it a second time, in a process of its own for which dir is given.
func child(t *testing.T, dir string, attr *syscall.SysProcAttr) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "TORRENT_TEST_DIR="+dir)
	cmd.SysProcAttr = attr
	return cmd
}

// inChild is the directory that child gave, if this is the process that it made.
func inChild() (dir string, ok bool) { return os.LookupEnv("TORRENT_TEST_DIR") }

// alone runs the test in namespaces of its own, where they are to be had, and passes on what it says.
func alone(t *testing.T, dir string, uid int, flags uintptr) {
	t.Helper()
	cmd := child(t, dir, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | flags,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getgid(), Size: 1}},
	})
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skip("no namespaces here:", err)
	}
	t.Logf("%s", out)
	require.NoError(t, err)
}

func TestALockEndsWithItsProcess(t *testing.T) {
	tor, _ := testContent(50, 200)
	if dir, ok := inChild(); ok {
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.setWanted(all(tor)))
		fmt.Println("locked")
		io.Copy(io.Discard, os.Stdin) // until killed
		return
	}
	dir := t.TempDir()
	cmd := child(t, dir, nil)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && lines.Text() != "locked" {
	}
	_, err = openFiles(tor.content(), dir, nil)
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(all(tor)))
	require.NoError(t, s.finished())
	require.Empty(t, listing(t, dir), "not even what the killed one left")
}

func TestAFullFileSystem(t *testing.T) {
	tor, content := testContent(64<<10, 1<<20, 1<<20)
	dir, ok := inChild()
	if !ok {
		alone(t, t.TempDir(), 0, syscall.CLONE_NEWNS)
		return
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1500k"); err != nil {
		t.Skip("cannot mount:", err)
	}
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(all(tor)))
	have := bits.New(tor.NumPieces())
	var err error
	for i := range tor.NumPieces() {
		if err = s.writeBlocks([][]byte{pieceOf(tor, content, i)}, tor.layout.PieceOffset(i)); err != nil {
			break
		}
		have.Add(i)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, filepath.Join(dir, "d", "1"))
	require.Greater(t, have.Count(), 16)
	require.ErrorIs(t, s.saveResume(have, nil), syscall.ENOSPC)
	require.NoError(t, s.Close())

	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=4m"))
	s = openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(all(tor)))
	require.Equal(t, have, verified(t, tor, s), "nothing that was verified is lost")
	for i := range tor.NumPieces() {
		if !have.Has(i) {
			writePiece(t, tor, s, content, i)
		}
	}
	require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s))
	require.NoError(t, s.finished())
	require.NoError(t, s.Close())
	require.NoError(t, syscall.Unmount(dir, 0))
}

func TestPermissions(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	dir, ok := inChild()
	if !ok {
		dir = t.TempDir()
		fill(t, tor, dir, content)
		require.NoError(t, os.Chmod(dir, 0o555))
		t.Cleanup(func() { os.Chmod(dir, 0o755); os.Chmod(dir+"/d", 0o755); os.Chmod(dir+"/d/1", 0o644) })
		alone(t, dir, 1000, 0) // the owner of the directory, but without root's powers
		return
	}
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(all(tor)), "complete, so read-only is no obstacle")
	require.Equal(t, 6, verified(t, tor, s).Count())
	require.NoError(t, s.finished())
	err := s.writeBlocks([][]byte{content[:50]}, 0)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, dir)
	require.NoError(t, s.Close())

	require.NoError(t, os.Remove(dir+"/d/0"))
	s = openDirectory(t, tor, dir)
	require.ErrorIs(t, s.setWanted(all(tor)), fs.ErrPermission, "at once, and not with the first piece")
	require.NoError(t, s.Close())

	// Permission that is lost on the way.
	require.NoError(t, os.Chmod(dir, 0o755))
	s = openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	s.handles.drop(0)
	s.handles.drop(1)
	require.NoError(t, os.Chmod(dir+"/d/1", 0))
	err = s.writeBlocks([][]byte{content[200:250]}, 200)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, dir+"/d/1")
	_, err = s.ReadAt(make([]byte, 10), 250)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.False(t, unwritten(err))
	require.NoError(t, os.Chmod(dir+"/d", 0))
	require.ErrorIs(t, s.changed(0), fs.ErrPermission)
	require.NoError(t, s.Close())

	_, err = openFiles(tor.content(), filepath.Join(dir, "d", "below"), nil)
	require.ErrorIs(t, err, fs.ErrPermission)
}
