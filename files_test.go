package torrent_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// Names stay what they are wherever that is safe, so that a torrent can be made of them, and what is there is found.
func TestNamesStay(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("not names on this system")
	}
	names := []string{
		"ReadMe.txt", "readme.txt", "README.TXT", strings.Repeat("n", 255), strings.Repeat("é", 125) + ".mkv",
		"zero\u200Bwidth", "joiner\u200Cs\u200D", "\uFEFFbom", "soft\u00ADhyphen", "a\u034F", "heart\u2764\uFE0F", "tag\U000E0041",
		"e\u0301", "é", "ﬁ", "fi", "ß", "ss", "a:b?", "trailing. ", "aux", "d/x", "D/x",
	}
	var parts []part
	for i, name := range names {
		parts = append(parts, part{name, 1000 + i})
	}
	s := makeShare(t, torrent.CreateOptions{PieceLength: 1024}, parts...)
	have, err := s.Verify(t.Context(), s.dir)
	require.NoError(t, err)
	require.Equal(t, s.NumPieces(), have.Count())

	seed := s.gated(t)
	seed.give()
	dir := t.TempDir()
	s.same(t, complete(t, s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{seed.addr}})))
	for path, want := range s.want {
		b, err := os.ReadFile(filepath.Join(dir, path))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, b), path)
	}
}

// Invisible characters of a name are shown, in a tree and in a log.
func TestNamesAreShown(t *testing.T) {
	unseen := []string{"\u00AD", "\u034F", "\uFE0F", "\U000E0041", "\u200B", "\u200D", "\uFEFF", "\u3164"}
	name := "share" + strings.Join(unseen, "x") + ".exe"
	s := makeShare(t, torrent.CreateOptions{Name: name}, part{"a" + strings.Join(unseen, ""), 1000})
	var b bytes.Buffer
	require.NoError(t, s.PrintTree(&b))
	c := local()
	c.Logger = slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d := s.start(t, torrent.Options{Client: c, Dir: s.dir})
	complete(t, d)
	require.NoError(t, d.Close())
	require.NoError(t, c.Close())
	require.Contains(t, b.String(), "complete")
	for _, r := range unseen {
		require.NotContains(t, b.String(), r, "%q", r)
	}
	require.Contains(t, b.String(), "\uFFFD")
	require.Contains(t, s.Name(), "\u034F")
}

// A torrent whose file has the path of another's is refused for as long as the first may still be read, so that
// nothing is cut under a map.
func TestATorrentDoesNotTakeThePathOfAnother(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("clients do not know of each other here")
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

// What is read only after the download was closed is claimed again, or not read.
func TestAClosedDownloadClaimsItsPathsAgain(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("clients do not know of each other here")
	}
	mine := makeShare(t, torrent.CreateOptions{}, part{"a.bin", 500_000})
	theirs := makeShare(t, torrent.CreateOptions{}, part{"a.bin", 100})
	first, second := mine.gated(t), theirs.gated(t)
	first.give()
	second.give()
	dir := t.TempDir()
	d := mine.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{first.addr}})
	<-d.Done()
	require.NoError(t, d.Close())

	taken := theirs.start(t, torrent.Options{Dir: dir})
	_, err := d.Wait()
	require.ErrorIs(t, err, torrent.ErrInUse)
	require.NoError(t, taken.Close())
	files, err := d.Wait()
	require.NoError(t, err)
	mine.same(t, files)
	_, err = theirs.Start(t.Context(), &torrent.Options{Dir: dir, Peers: []netip.AddrPort{second.addr}})
	require.ErrorIs(t, err, torrent.ErrInUse, "a map of the file may be read, and must not be cut")
}

// Of many that begin at once on one path, one goes on.
func TestOneOfManyGetsAPath(t *testing.T) {
	for _, ofOneClient := range []bool{true, false} {
		if !ofOneClient && runtime.GOOS != "linux" {
			continue
		}
		dir := t.TempDir()
		errs := make(chan error)
		const n = 8
		c := local()
		t.Cleanup(func() { c.Close() })
		for i := range n {
			s := makeShare(t, torrent.CreateOptions{Comment: fmt.Sprint(i)}, part{"a.bin", 1000 + i})
			if !ofOneClient {
				c = local()
				t.Cleanup(func() { c.Close() })
			}
			go func(c *torrent.Client) {
				_, err := s.Start(t.Context(), &torrent.Options{Dir: dir, Client: c})
				errs <- err
			}(c)
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
}

// A file that was there before and is not wholly the torrent's is neither truncated nor renamed.
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
