//go:build unix

package storage_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// within fails the test if do does not return.
func within(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		require.FailNow(t, what+" hangs")
	}
}

// No call blocks on a file that is not regular, such as a pipe, wherever it lies.
func TestOtherKindsOfFiles(t *testing.T) {
	kinds := map[string]func(t *testing.T, path string){
		"pipe": func(t *testing.T, path string) { require.NoError(t, unix.Mkfifo(path, 0o666)) },
		"socket": func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Skip("the path is too long for a socket:", err)
			}
			t.Cleanup(func() { l.Close() })
		},
		"device": func(t *testing.T, path string) { require.NoError(t, os.Symlink("/dev/zero", path)) },
		"link to pipe": func(t *testing.T, path string) {
			require.NoError(t, unix.Mkfifo(path+".pipe", 0o666))
			require.NoError(t, os.Symlink(path+".pipe", path))
		},
		"directory": func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o777)) },
	}
	tor, content := testContent(50, 120, 30)
	for kind, make := range kinds {
		for _, name := range []string{"d/0", "d/0.part", sidecar(tor, ".resume"), sidecar(tor, ".resume.tmp"), sidecar(tor, ".lock"), sidecar(tor, ".edges.resume"), "d"} {
			t.Run(kind+" "+name, func(t *testing.T) {
				dir, err := os.MkdirTemp("", "k")
				require.NoError(t, err)
				t.Cleanup(func() { os.RemoveAll(dir) })
				path := filepath.Join(dir, name)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
				make(t, path)
				within(t, "VerifyDir", func() { storage.VerifyDir(t.Context(), tor, dir) })
				within(t, "the store", func() {
					s, err := storage.OpenFiles(tor, dir, nil)
					if err != nil {
						require.ErrorContains(t, err, dir)
						return
					}
					defer s.Close()
					if err := s.SetWanted(all(tor)); err != nil {
						return
					}
					s.LoadResume()
					s.Settle(t.Context(), bits.New(3))
					for i := range 3 {
						s.WriteBlocks([][]byte{pieceOf(tor, content, i)}, int64(i)*50)
					}
					s.SaveResume(set(3, 0), nil)
					s.Finish()
				})
			})
		}
		for _, name := range []string{"d/0", "d", sidecar(tor, ".resume"), sidecar(tor, ".resume.tmp"), sidecar(tor, ".lock"), sidecar(tor, ".move")} {
			t.Run(kind+" "+name+" where to move", func(t *testing.T) {
				dir, err := os.MkdirTemp("", "k")
				require.NoError(t, err)
				t.Cleanup(func() { os.RemoveAll(dir) })
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777))
				make(t, filepath.Join(dir, name))
				old := t.TempDir()
				fill(t, tor, old, content)
				within(t, "Move", func() {
					s, err := storage.OpenFiles(tor, old, nil)
					require.NoError(t, err)
					require.NoError(t, s.SetWanted(all(tor)))
					if err := s.Move(t.Context(), dir, claim(set(3, 0, 2)), func(int64, int64) {}); err == nil {
						old = dir
					}
					require.NoError(t, s.Close())
				})
				require.Subset(t, listing(t, old), []string{"d/0", "d/1"}, "all of it is here or there")
			})
		}
		t.Run(kind+" as the directory", func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			make(t, path)
			within(t, "VerifyDir", func() { storage.VerifyDir(t.Context(), tor, path) })
			within(t, "OpenFiles", func() {
				if s, err := storage.OpenFiles(tor, path, nil); err == nil {
					s.Close()
				}
			})
		})
	}
}
