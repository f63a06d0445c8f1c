package torrent_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/shoal-go/torrent"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

// elsewhere is a directory on another file system, if this machine has one.
func elsewhere(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("no other file system is known here")
	}
	dir, err := os.MkdirTemp("/dev/shm", "torrent")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	probe := filepath.Join(t.TempDir(), "probe")
	require.NoError(t, os.WriteFile(probe, nil, 0o644))
	if os.Link(probe, filepath.Join(dir, "probe")) == nil {
		t.Skip("not another file system")
	}
	return filepath.Join(dir, "below", "new")
}

// A seed is moved while it shares, and what was handed out stays valid.
func TestAPIMoveSeed(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]func(*testing.T) string{
		"by name": func(t *testing.T) string { return filepath.Join(t.TempDir(), "below", "new") },
		"by copy": elsewhere,
	} {
		t.Run(name, func(t *testing.T) {
			dir := other(t)
			s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, append(mixed, part{"large", 3 << 20})...)
			c := local()
			defer c.Close()
			o := torrent.Options{Dir: s.dir, Seed: true, KeepResume: true, Client: c, UploadLimit: rate.NewLimiter(20<<20, 64<<10)}
			d := s.start(t, o)
			files := complete(t, d)
			var slices [][]byte
			var open []fs.File
			for f := range files.Files() {
				b, err := f.Bytes()
				require.NoError(t, err)
				slices = append(slices, b)
				r, err := f.Open()
				require.NoError(t, err)
				open = append(open, r)
			}
			leech := s.start(t, torrent.Options{Peers: []netip.AddrPort{addrOf(c)}})
			until(t, "it is shared", func() bool { return leech.Stats().Downloaded > 1<<20 })
			require.NoError(t, d.Move(t.Context(), dir))
			s.same(t, complete(t, leech))
			k := 0
			for f := range files.Files() {
				require.Equal(t, s.want[f.Path()], slices[k], "a slice of before")
				b, err := io.ReadAll(open[k])
				require.NoError(t, err)
				require.Equal(t, s.want[f.Path()], b, "a file that was open")
				k++
			}
			s.same(t, files)
			require.Zero(t, d.Stats().StorageErrors)
			left, err := os.ReadDir(s.dir)
			require.NoError(t, err)
			require.Empty(t, left)
			require.Equal(t, []string{".resume"}, beside(t, dir))

			back := filepath.Join(s.dir, "again")
			require.NoError(t, d.Move(t.Context(), back))
			require.NoError(t, d.Recheck(t.Context()))
			require.True(t, d.Stats().Complete)
			require.NoError(t, d.Close())
			s.same(t, files)
			require.ErrorIs(t, d.Move(t.Context(), dir), torrent.ErrClosed)
			o.Dir = back
			o.Client = nil
			complete(t, s.unhashed(t, o, s.NumPieces()))
			if name == "by copy" {
				_, err := os.Stat(filepath.Join(dir, "share"))
				require.ErrorIs(t, err, fs.ErrNotExist)
			}
		})
	}
}

// A download that is not complete goes on where it was moved to, and so does the next run.
func TestAPIMoveWhileDownloading(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	peer := s.gated(t)
	for i := range s.NumPieces() / 2 {
		peer.give(i)
	}
	o := torrent.Options{Dir: t.TempDir(), Peers: []netip.AddrPort{peer.addr}}
	d := s.start(t, o)
	r, err := d.Open(t.Context(), "share/a.bin")
	require.NoError(t, err)
	defer r.Close()
	_, err = io.CopyN(io.Discard, r, 100)
	require.NoError(t, err)
	d.Pause()
	first := filepath.Join(o.Dir, "first")
	require.NoError(t, d.Move(t.Context(), first))
	require.Equal(t, torrent.Paused, d.Stats().State)
	d.Resume()
	until(t, "half is there", func() bool { return d.Stats().PiecesVerified == s.NumPieces()/2 })
	dir := t.TempDir()
	require.NoError(t, d.Move(t.Context(), dir))
	require.NoError(t, d.Close())
	left, err := os.ReadDir(first)
	require.NoError(t, err)
	require.Empty(t, left)

	o.Dir = dir
	d = s.unhashed(t, o, s.NumPieces()/2)
	peer.give()
	done := make(chan error)
	other := filepath.Join(t.TempDir(), "other")
	go func() { done <- d.Move(t.Context(), other) }()
	s.same(t, complete(t, d))
	require.NoError(t, finally(t, done), "whether it is complete before or after that")
	s.onDisk(t, other)
	last := filepath.Join(t.TempDir(), "last")
	require.NoError(t, d.Move(t.Context(), last), "and after its end")
	s.onDisk(t, last)
}

func TestAPIMoveErrors(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	d := s.start(t, torrent.Options{Dir: s.dir, Seed: true})
	complete(t, d)
	dir := t.TempDir()
	foreign := filepath.Join(dir, "share", "z.bin")
	require.NoError(t, os.MkdirAll(filepath.Dir(foreign), 0o755))
	require.NoError(t, os.WriteFile(foreign, []byte("mine"), 0o644))
	err := d.Move(t.Context(), dir)
	require.ErrorIs(t, err, fs.ErrExist)
	require.ErrorContains(t, err, foreign)
	b, err := os.ReadFile(foreign)
	require.NoError(t, err)
	require.Equal(t, "mine", string(b))
	s.onDisk(t, s.dir)

	inUse := t.TempDir()
	s.start(t, torrent.Options{Dir: inUse})
	require.ErrorIs(t, d.Move(t.Context(), inUse), torrent.ErrInUse)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, d.Move(ctx, filepath.Join(inUse, "below")), context.Canceled)
	_, err = os.Stat(filepath.Join(inUse, "below"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	s.onDisk(t, s.dir)
	require.True(t, d.Stats().Complete)

	old, moved := s.dir, filepath.Join(t.TempDir(), "moved")
	require.NoError(t, d.Move(t.Context(), moved))
	other := makeShare(t, torrent.CreateOptions{}, part{"a.bin", 1000}, part{"zz", 1})
	_, err = other.Start(t.Context(), &torrent.Options{Dir: moved, Client: local()})
	require.ErrorIs(t, err, torrent.ErrInUse, "the claims on the paths move along")
	other.start(t, torrent.Options{Dir: old})

	require.ErrorIs(t, s.start(t, torrent.Options{}).Move(t.Context(), dir), errors.ErrUnsupported)
}

// A download has ended, and a later one serves the files that it left. To move the first one takes them from the other only when that
// has ended, too.
func TestAPIMoveOfWhatAnotherServes(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	c := local()
	defer c.Close()
	first := s.start(t, torrent.Options{Dir: s.dir, Client: c})
	files := complete(t, first)
	until(t, "it has ended", func() bool { _, runs := c.Download(s.InfoHash()); return !runs })
	second := s.start(t, torrent.Options{Dir: s.dir, Client: c, Seed: true})
	complete(t, second)
	to := filepath.Join(t.TempDir(), "new")
	require.ErrorIs(t, first.Move(t.Context(), to), torrent.ErrInUse)
	_, err := os.Stat(to)
	require.ErrorIs(t, err, fs.ErrNotExist)
	s.onDisk(t, s.dir)

	other := filepath.Join(t.TempDir(), "other")
	require.NoError(t, second.Move(t.Context(), other))
	third := filepath.Join(t.TempDir(), "third")
	require.NoError(t, second.Move(t.Context(), s.dir))
	require.NoError(t, second.Close())
	require.NoError(t, first.Move(t.Context(), third))
	s.same(t, files)
	s.onDisk(t, third)
}

// After a move to another disk, Bytes returns the file as it is there, and not a map of the old one, to which another program may have
// given another name.
func TestBytesOfAMovedFile(t *testing.T) {
	dir := elsewhere(t)
	s := makeShare(t, torrent.CreateOptions{}, part{"short", 10_000}, part{"long", 100_000})
	d := s.start(t, torrent.Options{Dir: s.dir, Seed: true})
	files := complete(t, d)
	s.same(t, files)
	theirs := t.TempDir()
	for f := range files.Files() {
		name := filepath.FromSlash(f.Path())
		require.NoError(t, os.Link(filepath.Join(s.dir, name), filepath.Join(theirs, filepath.Base(name))))
	}
	require.NoError(t, d.Move(t.Context(), dir))
	for f := range files.Files() {
		overwrite(t, filepath.Join(theirs, filepath.Base(f.Path())), 5_000)
	}
	s.same(t, files)
}
