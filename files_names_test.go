package torrent_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
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

// What is not seen in a name is shown, in a tree and in a log.
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
