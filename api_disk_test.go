package torrent_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/storagetest"
	"github.com/stretchr/testify/require"
)

// counting is a seed that answers requests in order until it has sent so many blocks.
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

// A download that is stopped again and again fetches nothing twice but what was on the wire.
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
				// Under the virtual clock, since a context does not wait long for a disk.
				simnet.Run(t, func(t *testing.T, n *simnet.Network) {
					s := s.at(n.NewHost("80.0.0.1", 0, 0, time.Millisecond))
					client := func(k int64) *torrent.Client {
						return clientAt(t, n.NewHost(fmt.Sprintf("90.0.0.%d", k+1), 0, 0, time.Millisecond), new(torrent.Client))
					}
					var sent int64
					stops := int64(4)
					for n := range stops {
						blocks := 130 / stops
						seed := s.counting(t, blocks)
						ctx, cancel := context.WithCancel(t.Context())
						d, err := s.Start(ctx, &torrent.Options{Dir: dir, Client: client(n), Peers: []netip.AddrPort{seed.addr}})
						require.NoError(t, err)
						until(t, "some of it is here", func() bool { return d.Stats().Downloaded >= (blocks-2)*(16<<10) || d.Stats().Complete })
						require.Zero(t, d.Stats().Wasted, n)
						require.NoError(t, end(d, cancel))
						cancel()
						sent += seed.sent.Load()
					}
					seed := s.counting(t, 1000)
					d := s.start(t, torrent.Options{Dir: dir, Client: client(stops), Peers: []netip.AddrPort{seed.addr}})
					s.same(t, complete(t, d))
					sent += seed.sent.Load()
					require.LessOrEqual(t, sent, s.Length()+stops*4*(16<<10), "sent again")
					left, err := filepath.Glob(filepath.Join(dir, ".*"))
					require.NoError(t, err)
					require.Empty(t, left)
				})
			})
		}
	}
}

// Whatever other programs did to the directory between runs, no wrong byte comes out, and what is right is not
// fetched.
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
				if name == "file longer" && path == "share/a.bin" { // it was whole before
					want = append(slices.Clone(want), make([]byte, 99)...)
				}
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

// overwrite writes to a file at off, as another program may do.
func overwrite(t *testing.T, path string, off int64) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("something else"), off)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	// The clock of a file system may stand still for some milliseconds.
	later := time.Now().Add(time.Second)
	require.NoError(t, os.Chtimes(path, later, later))
}

// meddlings are what another program may do to a file while we use it.
var meddlings = []struct {
	name string
	do   func(t *testing.T, path string)
}{
	{"truncated", func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 40_000)) }},
	{"emptied", func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 0)) }},
	{"overwritten", func(t *testing.T, path string) { overwrite(t, path, 50_000) }},
	{"longer", func(t *testing.T, path string) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		require.NoError(t, err)
		_, err = f.WriteString("more")
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}},
	{"replaced", func(t *testing.T, path string) {
		require.NoError(t, os.WriteFile(path+".new", make([]byte, 100_000), 0o644))
		require.NoError(t, os.Rename(path+".new", path))
	}},
	{"removed", func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }},
	{"removed with its directory", func(t *testing.T, path string) { require.NoError(t, os.RemoveAll(filepath.Dir(path))) }},
}

// meddled makes content of three files, of which the first is meddled with.
func meddled(t *testing.T) *share {
	return makeShare(t, torrent.CreateOptions{}, part{"a/a.bin", 200_000}, part{"b.bin", 150_000}, part{"c.bin", 150_000})
}

// onDisk requires that a directory holds the content.
func (s *share) onDisk(t *testing.T, dir string) {
	t.Helper()
	have, err := s.Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, s.NumPieces(), have.Count())
}

// Changes that other programs make to files while a download runs are noticed before it is complete, reported in
// Stats, and repaired.
func TestMeddlingWhileDownloading(t *testing.T) {
	for _, tt := range meddlings {
		t.Run(tt.name, func(t *testing.T) {
			s := meddled(t)
			peer := s.gated(t)
			dir := t.TempDir()
			d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}})
			first := s.piecesOf("share/a/a.bin")
			peer.give(first...)
			until(t, "the first file is there", func() bool { return d.Stats().PiecesVerified == len(first) })
			tt.do(t, filepath.Join(dir, "share", "a", "a.bin"))
			peer.give()
			s.same(t, complete(t, d))
			require.NotZero(t, d.Stats().StorageErrors)
			require.ErrorContains(t, d.Stats().StorageError, "a.bin")
			require.Zero(t, d.Stats().Banned, "no peer is to blame")
			s.onDisk(t, dir)
		})
	}
}

// Another program that writes to many files is noticed once, and not file by file.
func TestMeddlingWithManyFiles(t *testing.T) {
	var parts []part
	for i := range 40 {
		parts = append(parts, part{fmt.Sprintf("f%d", i), 16 << 10})
	}
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, parts...)
	peer := s.gated(t)
	dir := t.TempDir()
	d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}})
	peer.give(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
	until(t, "half is there", func() bool { return d.Stats().PiecesVerified == 20 })
	long := time.Now().Add(-time.Hour)
	for path := range s.want {
		os.Chtimes(filepath.Join(dir, filepath.FromSlash(path)), long, long)
	}
	peer.give()
	s.same(t, complete(t, d))
	require.Equal(t, 1, d.Stats().StorageErrors)
}

// If they do it while we seed, nothing of it is served, it is reported in Stats, and it is fetched again.
func TestMeddlingWhileSeeding(t *testing.T) {
	for _, tt := range meddlings {
		t.Run(tt.name, func(t *testing.T) {
			s := meddled(t)
			peer := s.gated(t)
			peer.give()
			dir := t.TempDir()
			c := local()
			t.Cleanup(func() { c.Close() })
			d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}, Client: c, Seed: true})
			complete(t, d)
			before := peer.sent.Load()
			tt.do(t, filepath.Join(dir, "share", "a", "a.bin"))

			var log bytes.Buffer
			theirs := local()
			theirs.Logger = slog.New(slog.NewTextHandler(&log, nil))
			other := s.start(t, torrent.Options{Peers: []netip.AddrPort{addrOf(c)}, MaxPeers: 1, Client: theirs})
			s.same(t, complete(t, other))
			require.NoError(t, theirs.Close())
			require.Contains(t, log.String(), "complete")
			require.Contains(t, log.String(), "torrent=share infohash="+s.InfoHash().String())
			require.NotContains(t, log.String(), "failed its hash", "not a wrong byte was served")
			require.NotZero(t, d.Stats().StorageErrors)
			require.ErrorContains(t, d.Stats().StorageError, "a.bin")
			until(t, "it is right again", func() bool { return d.Stats().Complete })
			s.onDisk(t, dir)
			require.LessOrEqual(t, peer.sent.Load()-before, int64(len(s.piecesOf("share/a/a.bin")))*s.PieceLength(), "only what was spoiled came again")
		})
	}
}

// Bytes returns what is verified of a file that is repaired, also if it was called while the file was wrong, and if another program has the
// file of an earlier map.
func TestBytesOfAMendedFile(t *testing.T) {
	write := func(t *testing.T, path string) { overwrite(t, path, 5_000) }
	for name, meddle := range map[string]func(t *testing.T, path string){
		"overwritten": write,
		"linked, and overwritten by the other name": func(t *testing.T, path string) {
			require.NoError(t, os.Link(path, path+".mine"))
			write(t, path+".mine")
		},
		"overwritten, and then replaced": func(t *testing.T, path string) {
			write(t, path)
			require.NoError(t, os.WriteFile(path+".new", make([]byte, 10_000), 0o644))
			require.NoError(t, os.Rename(path+".new", path))
		},
	} {
		for path, length := range map[string]int{"short": 10_000, "long": 100_000} {
			t.Run(name+", "+path, func(t *testing.T) {
				if runtime.GOOS == "windows" && name != "overwritten" {
					t.Skip("a file that has a map cannot be replaced here")
				}
				s := makeShare(t, torrent.CreateOptions{}, part{path, length})
				peer := s.gated(t)
				peer.give()
				dir := t.TempDir()
				d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}, Seed: true})
				files := complete(t, d)
				early := name != "overwritten"
				for f := range files.Files() {
					if early {
						_, err := f.Bytes()
						require.NoError(t, err)
					}
					d.Pause()
					meddle(t, filepath.Join(dir, filepath.FromSlash(f.Path())))
					require.NoError(t, d.Recheck(t.Context()))
					_, err := f.Bytes()
					require.Error(t, err)
					d.Resume()
					until(t, "it is right again", func() bool { return d.Stats().Complete })
					b, err := f.Bytes()
					require.NoError(t, err)
					require.True(t, bytes.Equal(s.want[f.Path()], b))
				}
				s.onDisk(t, dir)
			})
		}
	}
}

// A download whose directory vanishes ends with that error, and the next one starts from nothing.
func TestDirectoryVanishes(t *testing.T) {
	s := meddled(t)
	peer := s.gated(t)
	dir := filepath.Join(t.TempDir(), "dir")
	d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}})
	first := s.piecesOf("share/a/a.bin")
	peer.give(first...)
	until(t, "the first file is there", func() bool { return d.Stats().PiecesVerified == len(first) })
	require.NoError(t, os.RemoveAll(dir))
	peer.give()
	_, err := wait(t, d)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, dir)
	require.NoError(t, d.Close())
	s.same(t, complete(t, s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}})))
}

// If it vanishes while we seed, Wait has long returned, and Stats says what ended the download.
func TestDirectoryVanishesWhileSeeding(t *testing.T) {
	s := meddled(t)
	peer := s.gated(t)
	peer.give()
	dir := filepath.Join(t.TempDir(), "dir")
	c := local()
	t.Cleanup(func() { c.Close() })
	d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}, Client: c, Seed: true})
	complete(t, d)
	require.NoError(t, os.RemoveAll(dir))
	s.start(t, torrent.Options{Peers: []netip.AddrPort{addrOf(c)}, MaxPeers: 1})
	until(t, "it has ended", func() bool {
		for range c.Downloads() {
			return false
		}
		return true
	})
	require.NoError(t, d.Close())
	require.ErrorIs(t, d.Stats().StorageError, fs.ErrNotExist)
	require.ErrorContains(t, d.Stats().StorageError, "write piece")
}

func TestStorageSuite(t *testing.T) {
	t.Run("memory", func(t *testing.T) { storagetest.Run(t, torrent.OpenMemory) })
	t.Run("files", func(t *testing.T) { storagetest.Run(t, torrent.OpenFilesIn(t.TempDir)) })
}
