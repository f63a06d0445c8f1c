//go:build unix

package torrent_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/shoal-go/torrent"
)

// Content that the user's own links lead to is shared, and what lacks is not written there.
func TestContentBehindLinksIsShared(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	for name, link := range map[string]string{"the directory": "share", "a file": "share/b/d.bin"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if link != "share" {
				require.NoError(t, os.CopyFS(dir, os.DirFS(s.dir)))
				require.NoError(t, os.Remove(filepath.Join(dir, link)))
			}
			require.NoError(t, os.Symlink(filepath.Join(s.dir, link), filepath.Join(dir, link)))
			addr := s.seed(t, torrent.Options{Dir: dir})
			files, err := s.DownloadAll(within(t), &torrent.Options{Peers: []netip.AddrPort{addr}})
			require.NoError(t, err)
			s.same(t, files)
			require.NoError(t, files.Close())
		})
	}

	dir, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "share")))
	seed := s.gated(t)
	seed.give()
	_, err := s.DownloadAll(within(t), &torrent.Options{Dir: dir, Peers: []netip.AddrPort{seed.addr}})
	require.Error(t, err)
	left, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, left)
}

// A pipe in the place of any file makes neither Start nor Close wait.
func TestPipesAreNotWaitedFor(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	seed := s.gated(t)
	seed.give()
	hash := "." + s.InfoHash().String()
	for _, name := range []string{hash + ".resume", hash + ".resume.tmp", hash + ".lock", hash + ".edges.resume", "share/a.bin", "share/b/empty", "share/b"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, unix.Mkfifo(path, 0o644))
			done := make(chan struct{})
			c := local()
			go func() {
				defer close(done)
				d, err := s.Start(within(t), &torrent.Options{Dir: dir, Client: c, Peers: []netip.AddrPort{seed.addr}, Select: torrent.Glob("a.bin", "empty")})
				if err == nil {
					d.Wait()
					d.Close()
				}
				c.Close()
			}()
			select {
			case <-done:
			case <-time.After(patience):
				require.FailNow(t, "it hangs")
			}
		})
	}
}

// A pipe that takes the place of a file while a torrent is made of it is not waited for.
func TestCreateWaitsForNoPipe(t *testing.T) {
	dir := t.TempDir()
	name := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	for i := range 64 {
		require.NoError(t, os.WriteFile(name(i), make([]byte, 64<<10), 0o666))
	}
	done := make(chan error)
	var once sync.Once
	go func() {
		_, err := torrent.Create(dir, &torrent.CreateOptions{PieceLength: 16 << 10, Progress: func(int64, int64) {
			once.Do(func() {
				for i := range 64 {
					os.Remove(name(i))
					unix.Mkfifo(name(i), 0o666)
				}
			})
		}})
		done <- err
	}()
	select {
	case err := <-done:
		require.ErrorContains(t, err, "changed while it was read")
	case <-time.After(patience):
		require.FailNow(t, "it hangs")
	}
}
