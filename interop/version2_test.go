//go:build linux

package interop

import (
	"fmt"
	"os"
	"path/filepath"
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
					seed := s.seed(t, way.from, way.fromSetting)
					tor, err := torrent.Read(s.torrent)
					require.NoError(t, err)
					m := tor.Magnet()
					c.link(m)
					// The seed of a hybrid announces itself in two swarms, and may not be in that of the link yet.
					swarm := string(m.InfoHash[:])
					if m.InfoHash == (torrent.Hash{}) {
						swarm = string(m.InfoHashV2[:20])
					}
					s.await(t, "seeds in the swarm of the link", seed, func(a announce) bool { return seeds(a) && a.infoHash == swarm })
					s.download(t, way.to, way.toSetting, m.String())
				})
			}
		})
	}
}

// TestHybridAsVersion1 has rtorrent, which knows a hybrid as a torrent of version 1 alone, and libtorrent, which begins by the info hash
// of version 2 alone, in a swarm with us: both download from us, and libtorrent has from us what we have from rtorrent.
// (Transmission 3.00 does not open hybrids. aria2 1.36 and libtorrent disagree on their info hashes.)
func TestHybridAsVersion1(t *testing.T) {
	rtorrent := clients[slices.IndexFunc(clients, func(c client) bool { return c.name == "rtorrent" })]
	need(t, append(rtorrent.programs, libtorrent.programs...)...)
	hybrid := maker{"library", nil, makeWithLibrary(torrent.Hybrid)}
	fetch := func(t *testing.T, c client, what string) (dir string, p peer) {
		dir = t.TempDir()
		return dir, c.start(t, role{what: what, dir: dir})
	}
	link := func(t *testing.T, s *swarm) string { // by version 2
		tor, err := torrent.Read(s.torrent)
		require.NoError(t, err)
		m := tor.Magnet()
		m.InfoHash = torrent.Hash{}
		return m.String()
	}
	t.Run("from us", func(t *testing.T) {
		t.Parallel()
		s := newSwarm(t, hybrid)
		s.seed(t, subject(), "")
		dir1, p1 := fetch(t, rtorrent, s.torrent)
		dir2, p2 := fetch(t, libtorrent, link(t, s))
		p1.awaitComplete(t)
		p2.awaitComplete(t)
		p1.stop()
		p2.stop()
		requireSame(t, s.content, dir1)
		requireSame(t, s.content, dir2)
	})
	t.Run("through us", func(t *testing.T) {
		t.Parallel()
		s := newSwarm(t, hybrid)
		tor, err := torrent.Read(s.torrent)
		require.NoError(t, err)
		dir := t.TempDir()
		makeContent(t, dir)
		makePadding(t, tor, dir)
		seed := rtorrent.start(t, role{what: s.torrent, dir: dir, seed: true})
		s.await(t, "seeds", seed, seeds)
		ours, us := fetch(t, subject(), s.torrent)
		theirs, they := fetch(t, libtorrent, link(t, s))
		us.awaitComplete(t)
		they.awaitComplete(t)
		they.stop()
		requireSame(t, s.content, ours)
		requireSame(t, s.content, theirs)
	})
}

// makePadding makes the padding files of a hybrid, which rtorrent wants of a seed.
func makePadding(t *testing.T, tor *torrent.Torrent, dir string) {
	t.Helper()
	end := int64(0)
	fill := func(to int64) {
		if n := to - end; n > 0 {
			path := filepath.Join(dir, contentName, ".pad", fmt.Sprint(n))
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, make([]byte, n), 0o644))
		}
	}
	for f := range tor.Files() {
		fill(f.Offset)
		end = f.Offset + f.Length
	}
	fill(tor.Size())
}

// TestQbittorrentVersion2 moves torrents of version 2 and hybrids between this library and one qBittorrent, both ways, by .torrent
// file and by magnet link. It dials in plaintext first, and waits a minute before it tries encryption: so only what we dial is encrypted.
func TestQbittorrentVersion2(t *testing.T) {
	from, to := "we download from it", "it downloads from us"
	tb := newTable(t, "qBittorrent", from, to)
	need(t, qbittorrent.programs...)
	q := startQbittorrentService(t)
	for _, version := range []torrent.Version{torrent.V2, torrent.Hybrid} {
		name := map[torrent.Version]string{torrent.V2: "version 2", torrent.Hybrid: "hybrid"}[version]
		file, plain, link := tb.row(name), tb.row(name+", in plaintext"), tb.row(name+", by magnet link")
		// Four torrents of the same content, as qBittorrent cannot have one twice.
		fromIt := maker{"library", nil, makeWithLibrary(version)}
		toIt := maker{"library", nil, makeAs(torrent.CreateOptions{Version: version, PieceLength: pieceLength, Private: true})}
		toItPlainly := maker{"library", nil, makeAs(torrent.CreateOptions{Version: version, PieceLength: 2 * pieceLength, Private: true})}
		toItByLink := maker{"library", nil, makeAs(torrent.CreateOptions{Version: version, PieceLength: 2 * pieceLength})}
		t.Run(name+"/from", func(t *testing.T) {
			t.Parallel()
			s := newSwarm(t, fromIt)
			dir := t.TempDir()
			makeContent(t, dir)
			q.add(t, s.torrent, dir, true)
			s.await(t, "seeds", q, seeds)
			t.Run("file", func(t *testing.T) {
				t.Parallel()
				defer file.record(t, from)
				s.download(t, library, "require", s.torrent)
			})
			t.Run("plain", func(t *testing.T) {
				t.Parallel()
				defer plain.record(t, from)
				s.download(t, library, "disable", s.torrent)
			})
			t.Run("link", func(t *testing.T) {
				t.Parallel()
				defer link.record(t, from)
				s.download(t, library, "", linkTo(t, s.torrent))
			})
		})
		for _, c := range []struct {
			name, setting string
			m             maker
			row           *row
		}{{"file", "", toIt, file}, {"plain", "disable", toItPlainly, plain}, {"link", "", toItByLink, link}} {
			t.Run(name+"/to/"+c.name, func(t *testing.T) {
				t.Parallel()
				defer c.row.record(t, to)
				s := newSwarm(t, c.m)
				s.seed(t, library, c.setting)
				what, dir := s.torrent, t.TempDir()
				if c.name == "link" {
					what = linkTo(t, what)
				}
				q.add(t, what, dir, false)
				q.awaitAll(t, dir)
				requireSame(t, s.content, dir)
			})
		}
	}
}

// linkTo is a magnet link to a torrent.
func linkTo(t *testing.T, path string) string {
	t.Helper()
	tor, err := torrent.Read(path)
	require.NoError(t, err)
	return tor.Magnet().String()
}
