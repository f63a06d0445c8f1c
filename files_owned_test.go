package torrent_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// A torrent whose file has the path of another's is refused for as long as the first may still be read, so that
// nothing is cut under a map.
func TestATorrentDoesNotTakeThePathOfAnother(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no claims on this system")
	}
	mine := makeShare(t, torrent.CreateOptions{}, part{"a.bin", 500_000}, part{"b.bin", 70_000})
	theirs := makeShare(t, torrent.CreateOptions{}, part{"a.bin", 100}, part{"d/c.bin", 70_001}, part{"e", 1})
	dir := t.TempDir()
	first := mine.gated(t)
	second := theirs.gated(t)
	second.give()
	o := torrent.Options{Dir: dir, Peers: []netip.AddrPort{first.addr}}
	d := mine.start(t, o)

	refused := func(when string) {
		t.Helper()
		for _, c := range []*torrent.Client{nil, local()} {
			_, err := theirs.Start(t.Context(), &torrent.Options{Dir: dir, Peers: []netip.AddrPort{second.addr}, Client: c})
			require.ErrorIs(t, err, torrent.ErrInUse, when)
			require.ErrorContains(t, err, filepath.Join(dir, "share", "a.bin"), when)
			require.ErrorContains(t, err, mine.InfoHash().String(), when)
			if c != nil {
				require.NoError(t, c.Close())
			}
		}
	}
	refused("while it downloads")
	first.give()
	files := complete(t, d)
	refused("while it is read")
	require.NoError(t, d.Close())
	refused("while it is read, though it has ended")
	mine.same(t, files)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing is left beside the content")

	// What it does not choose is no obstacle.
	other := theirs.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{second.addr}, Select: torrent.Glob("c.bin")})
	chosen := complete(t, other)
	theirs.same(t, chosen, "share/d/c.bin")
	require.NoError(t, chosen.Close())

	require.NoError(t, files.Close())
	again := theirs.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{second.addr}})
	theirs.same(t, complete(t, again))
}

// Of many that begin at once on one path, one goes on.
func TestOneOfManyGetsAPath(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no claims on this system")
	}
	dir := t.TempDir()
	errs := make(chan error)
	const n = 8
	for i := range n {
		s := makeShare(t, torrent.CreateOptions{Comment: fmt.Sprint(i)}, part{"a.bin", 1000 + i})
		c := local()
		t.Cleanup(func() { c.Close() })
		go func() {
			_, err := s.Start(t.Context(), &torrent.Options{Dir: dir, Client: c})
			errs <- err
		}()
	}
	refused := 0
	for range n {
		if err := <-errs; err != nil {
			require.ErrorIs(t, err, torrent.ErrInUse)
			refused++
		}
	}
	require.Equal(t, n-1, refused)
}

// What was there before, and is not wholly the torrent's, is neither cut nor renamed.
func TestWhatIsNotOursIsLeftAlone(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, part{"a.bin", 100_000}, part{"b.bin", 100_000})
	seed := s.gated(t)
	seed.give()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "share"), 0o755))
	long := append(slices.Clip(s.want["share/a.bin"]), make([]byte, 50_000)...)
	theirs := []byte("something else altogether")
	for name, b := range map[string][]byte{"a.bin": long, "b.bin.part": theirs} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "share", name), b, 0o644))
	}
	files := complete(t, s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{seed.addr}, Select: torrent.Glob("b.bin")}))
	s.same(t, files, "share/b.bin")
	require.NoError(t, files.Close())
	d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{seed.addr}})
	s.same(t, complete(t, d))
	for name, want := range map[string][]byte{"a.bin": long, "b.bin.part": theirs, "b.bin": s.want["share/b.bin"]} {
		b, err := os.ReadFile(filepath.Join(dir, "share", name))
		require.NoError(t, err)
		if name == "a.bin" {
			require.Len(t, b, len(want)) // the last piece is b.bin's, too, and was verified with it
		}
		require.True(t, bytes.Equal(want, b), name)
	}
}
