//go:build linux

package interop

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// TestMagnetsOfVersion2 has this library and libtorrent resolve and download links of every kind to torrents of version 2 and
// hybrids, in plaintext and encrypted. Piece layers, which no link leads to, come from the peer.
func TestMagnetsOfVersion2(t *testing.T) {
	t.Parallel()
	from, to := "we resolve and download from libtorrent", "libtorrent resolves and downloads from us"
	tb := newTable(t, "magnet link to", from, to)
	for _, c := range []struct {
		name    string
		version torrent.Version
		link    func(m *torrent.Magnet) // leaves out what is not said
	}{
		{"version 2, by btmh", torrent.V2, func(*torrent.Magnet) {}},
		{"hybrid, by btih and btmh", torrent.Hybrid, func(*torrent.Magnet) {}},
		{"hybrid, by btmh", torrent.Hybrid, func(m *torrent.Magnet) { m.InfoHash = torrent.Hash{} }},
		{"hybrid, by btih", torrent.Hybrid, func(m *torrent.Magnet) { m.InfoHashV2 = torrent.HashV2{} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			need(t, libtorrent.programs...)
			row := tb.row(c.name)
			t.Parallel()
			for _, way := range []struct {
				name, column           string
				from, to               client
				fromSetting, toSetting string
			}{
				{"from", from, libtorrent, subject(), "", ""}, {"to", to, subject(), libtorrent, "", ""},
				{"from, encrypted", from, libtorrent, subject(), "forced", ""}, {"to, encrypted", to, subject(), libtorrent, "", "forced"},
			} {
				t.Run(way.name, func(t *testing.T) {
					t.Parallel()
					defer row.record(t, way.column)
					s := newSwarm(t, maker{"library", nil, makeWithLibrary(c.version)})
					s.seed(t, way.from, way.fromSetting)
					tor, err := torrent.Read(s.torrent)
					require.NoError(t, err)
					m := tor.Magnet()
					c.link(m)
					s.download(t, way.to, way.toSetting, m.String())
				})
			}
		})
	}
}

// TestHybridAsVersion1 has rtorrent, which knows a hybrid as a torrent of version 1 alone, download one from us that libtorrent
// has as version 2. (Transmission 3.00 does not open hybrids. aria2 1.36 and libtorrent disagree on their info hashes. As a seed,
// rtorrent wants padding files in its directory.)
func TestHybridAsVersion1(t *testing.T) {
	t.Parallel()
	i := slices.IndexFunc(clients, func(c client) bool { return c.name == "rtorrent" })
	c := clients[i]
	need(t, append(c.programs, libtorrent.programs...)...)
	s := newSwarm(t, maker{"library", nil, makeWithLibrary(torrent.Hybrid)})
	s.seed(t, subject(), "")
	s.download(t, libtorrent, "", s.torrent)
	s.download(t, c, "", s.torrent)
}
