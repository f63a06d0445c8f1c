package torrent_test

import (
	"bytes"
	"context"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// counting is a seed that gives everything, in an order of the requests, until it has given so many blocks.
func (s *share) counting(t *testing.T, blocks int64) *remote {
	return s.script(t, func(l *line) {
		l.offer()
		for {
			piece, begin, length, err := l.request()
			if err != nil {
				return
			}
			if l.sent.Load() >= blocks*(16<<10) {
				continue
			}
			if l.answer(piece, begin, length) != nil {
				return
			}
		}
	})
}

// A download that is stopped again and again fetches nothing twice, but for what was on the wire.
func TestAPIResume(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(d *torrent.Download, cancel func()) error{
		"close":  func(d *torrent.Download, _ func()) error { return d.Close() },
		"cancel": func(d *torrent.Download, cancel func()) error { cancel(); d.Wait(); return d.Close() },
	} {
		for _, pieceLength := range []int64{16 << 10, 128 << 10, 1 << 20} {
			t.Run(name, func(t *testing.T) {
				s := makeShare(t, torrent.CreateOptions{PieceLength: pieceLength}, part{"a", 1 << 20}, part{"b", 17}, part{"c", 1<<20 + 100})
				dir := t.TempDir()
				var sent, taken int64
				stops := int64(4)
				for n := range stops {
					blocks := 130 / stops
					seed := s.counting(t, blocks)
					ctx, cancel := context.WithCancel(t.Context())
					d, err := s.Start(ctx, &torrent.Options{Dir: dir, Client: local(), Peers: []netip.AddrPort{seed.addr}})
					require.NoError(t, err)
					until(t, "some of it is here", func() bool { return d.Stats().Downloaded >= (blocks-2)*(16<<10) || d.Stats().Complete })
					require.Zero(t, d.Stats().Wasted, n)
					require.NoError(t, end(d, cancel))
					cancel()
					sent += seed.sent.Load()
					taken += d.Stats().Downloaded
				}
				seed := s.counting(t, 1000)
				d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{seed.addr}})
				s.same(t, complete(t, d))
				sent += seed.sent.Load()
				require.LessOrEqual(t, sent, s.Length()+stops*4*(16<<10), "sent again")
				left, err := filepath.Glob(filepath.Join(dir, ".*"))
				require.NoError(t, err)
				require.Empty(t, left)
			})
		}
	}
}

// Whatever others did to the directory meanwhile, no wrong byte comes out, and what is right is not fetched.
func TestAPIResumeAfterMeddling(t *testing.T) {
	t.Parallel()
	for name, meddle := range map[string]func(t *testing.T, s *share, dir string){
		"nothing": func(*testing.T, *share, string) {},
		"sidecar lost": func(t *testing.T, s *share, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "."+s.InfoHash().String()+".resume")))
		},
		"sidecar spoiled": func(t *testing.T, s *share, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "."+s.InfoHash().String()+".resume"), []byte("d3:foo3:bare"), 0o644))
		},
		"sidecar is a directory": func(t *testing.T, s *share, dir string) {
			name := filepath.Join(dir, "."+s.InfoHash().String()+".resume")
			require.NoError(t, os.Remove(name))
			require.NoError(t, os.Mkdir(name, 0o755))
		},
		"file shorter": func(t *testing.T, s *share, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, "share", "a.bin"), 50_000))
		},
		"file longer": func(t *testing.T, s *share, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, "share", "a.bin"), os.O_WRONLY|os.O_APPEND, 0)
			require.NoError(t, err)
			f.Write(make([]byte, 99))
			require.NoError(t, f.Close())
		},
		"file overwritten": func(t *testing.T, s *share, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, "share", "a.bin"), os.O_WRONLY, 0)
			require.NoError(t, err)
			f.WriteAt(make([]byte, 100), 70_000)
			require.NoError(t, f.Close())
		},
		"file removed": func(t *testing.T, s *share, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "share", "a.bin")))
		},
		"all removed": func(t *testing.T, s *share, dir string) {
			require.NoError(t, os.RemoveAll(dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
			dir := t.TempDir()
			half := s.gated(t)
			for i := range s.NumPieces() / 2 {
				half.give(i)
			}
			d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{half.addr}})
			until(t, "half of it is there", func() bool { return d.Stats().PiecesVerified == s.NumPieces()/2 })
			require.NoError(t, d.Close())
			meddle(t, s, dir)
			have, err := s.Verify(t.Context(), dir)
			if name == "all removed" {
				require.ErrorIs(t, err, fs.ErrNotExist)
			} else {
				require.NoError(t, err)
			}
			rest := s.gated(t)
			rest.give()
			d = s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{rest.addr}})
			s.same(t, complete(t, d))
			for i := range s.NumPieces() {
				require.Equal(t, !have.Has(i), slices.Contains(rest.askedPieces(), i), "piece %d", i)
			}
			for path, want := range s.want {
				got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(path)))
				require.NoError(t, err)
				require.True(t, bytes.Equal(want, got), path)
			}
		})
	}
}

func TestAPIVerify(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	all, err := s.Verify(t.Context(), s.dir)
	require.NoError(t, err)
	require.Equal(t, s.NumPieces(), all.Len())
	require.Equal(t, s.NumPieces(), all.Count())
	require.Len(t, slices.Collect(all.All()), s.NumPieces())
	require.False(t, all.Has(-1))
	require.False(t, all.Has(s.NumPieces()))

	empty := t.TempDir()
	none, err := s.Verify(t.Context(), empty)
	require.NoError(t, err)
	require.Equal(t, s.NumPieces(), none.Len())
	require.Zero(t, none.Count())
	entries, err := os.ReadDir(empty)
	require.NoError(t, err)
	require.Empty(t, entries, "nothing is written")

	f, err := os.OpenFile(filepath.Join(s.dir, "share", "a.bin"), os.O_WRONLY, 0)
	require.NoError(t, err)
	f.WriteAt([]byte{s.want["share/a.bin"][20_000] ^ 1}, 20_000)
	require.NoError(t, f.Close())
	require.NoError(t, os.Remove(filepath.Join(s.dir, "share", "z.bin")))
	some, err := s.Verify(t.Context(), s.dir)
	require.NoError(t, err)
	lost := append([]int{1}, s.piecesOf("share/z.bin")...)
	for i := range s.NumPieces() {
		require.Equal(t, !slices.Contains(lost, i), some.Has(i), i)
	}

	_, err = s.Verify(t.Context(), filepath.Join(s.dir, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Verify(ctx, s.dir)
	require.ErrorIs(t, err, context.Canceled)
}
