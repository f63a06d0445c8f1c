package interop

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// The link that Magnet writes says to libtorrent what it says here.
func TestMagnetIsReadByLibtorrent(t *testing.T) {
	m := &torrent.Magnet{
		InfoHash: torrent.Hash{0xab, 19: 1},
		Name:     "a b&c+d/é 100%",
		Trackers: []string{"http://a.example/announce?key=1+2&x=%41", "udp://b.example:80"},
		WebSeeds: []string{"http://w.example/a b"},
		Peers:    []string{"10.1.2.3:6881", "[2001:db8::1]:6882"},
	}
	out := printed(t, program(t, pythonLibtorrent), "-c", `
import sys, libtorrent as lt
p = lt.parse_magnet_uri(sys.argv[1])
for line in [str(p.info_hashes.v1), p.name, *p.trackers, *p.url_seeds, *(str(peer) for peer in p.peers)]:
    print(line)
`, m.String())
	require.Equal(t, []string{
		m.InfoHash.String(), m.Name, m.Trackers[0], m.Trackers[1], m.WebSeeds[0],
		"('10.1.2.3', 6881)", "('2001:db8::1', 6882)",
	}, strings.Split(strings.TrimSpace(out), "\n"))
}

// And the links that others write for a torrent are the same to us as our own.
func TestMagnetOfOthers(t *testing.T) {
	dir := writeFiles(t, plain)
	made, err := torrent.Create(dir, &torrent.CreateOptions{
		Name:     "ä + b&c",
		Trackers: [][]string{{"http://a.example/announce?x=1&y=2"}, {"udp://b.example:80/announce"}},
	})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "made.torrent")
	writeTorrent(t, path, made)

	for _, test := range []struct {
		program string
		link    func(t *testing.T) string
	}{
		{"libtorrent", func(t *testing.T) string {
			return printed(t, program(t, pythonLibtorrent), "-c", "import sys, libtorrent as lt; print(lt.make_magnet_uri(lt.torrent_info(sys.argv[1])))", path)
		}},
		{"transmission", func(t *testing.T) string { return printed(t, program(t, "transmission-show"), "-m", path) }},
		{"aria2", func(t *testing.T) string {
			_, link, _ := strings.Cut(printed(t, program(t, "aria2c"), "--no-conf", "-S", path), "Magnet URI: ")
			link, _, _ = strings.Cut(link, "\n")
			return link
		}},
	} {
		t.Run(test.program, func(t *testing.T) {
			m, err := torrent.ParseMagnet(test.link(t))
			require.NoError(t, err)
			require.Equal(t, made.Magnet(), m)
		})
	}
}
