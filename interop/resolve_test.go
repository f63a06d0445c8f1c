//go:build linux

package interop

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// magnet is a link to the torrent of a swarm that says nothing but its info hash and what is given.
func (s *swarm) magnet(t *testing.T, trackers []string, peers ...netip.Addr) string {
	t.Helper()
	tor, err := torrent.Read(s.torrent)
	require.NoError(t, err)
	m := &torrent.Magnet{InfoHash: tor.InfoHash(), Trackers: trackers}
	for _, host := range peers {
		m.Peers = append(m.Peers, netip.AddrPortFrom(host, peerPort).String())
	}
	return m.String()
}

// TestMagnets has this library, and each client, resolve and download a magnet link that names a tracker
// from the other alone.
func TestMagnets(t *testing.T) {
	t.Parallel()
	from, to := "we resolve and download from it", "it resolves and downloads from us"
	tb := newTable(t, "magnet link: client", from, to)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			need(t, append(c.programs, "mktorrent")...)
			row := tb.row(c.name + " " + c.version(t))
			t.Parallel()
			for _, way := range []struct {
				name, column string
				from, to     client
			}{{"from", from, c, subject()}, {"to", to, subject(), c}} {
				t.Run(way.name, func(t *testing.T) {
					t.Parallel()
					defer row.record(t, way.column)
					s := newSwarm(t, mktorrent)
					s.seed(t, way.from, "")
					s.download(t, way.to, "", s.magnet(t, []string{s.url}))
				})
			}
		})
	}
}

// TestMagnetOfAPeer has this library and libtorrent find each other through a link that names no tracker.
func TestMagnetOfAPeer(t *testing.T) {
	for _, way := range []struct {
		name     string
		from, to client
	}{{"from", libtorrent, subject()}, {"to", subject(), libtorrent}} {
		t.Run(way.name, func(t *testing.T) {
			need(t, append(libtorrent.programs, "mktorrent")...)
			t.Parallel()
			s := newSwarm(t, mktorrent)
			p := s.seed(t, way.from, "")
			s.download(t, way.to, "", s.magnet(t, nil, p.addr()))
		})
	}
}
