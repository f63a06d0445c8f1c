//go:build linux

package interop

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent"
)

// TestPeerExchange has two leechers meet that know nobody but a seed, a libtorrent (BEP 11).
func TestPeerExchange(t *testing.T) {
	need(t, append(libtorrent.programs, "mktorrent")...)
	from := t.TempDir()
	makeContent(t, from)
	tor := mktorrent.make(t, from, "http://127.0.0.1:1/announce")
	third := startLibtorrent(t, role{what: tor, dir: from, seed: true})
	third.awaitComplete(t)
	leech := func() *libraryPeer {
		p := &libraryPeer{host: newAddr()}
		c := newClient(t, p.host, "")
		c.DownloadLimit = rate.NewLimiter(20<<10, 32<<10) // so that the download outlasts what it is about
		p.start(t, c, role{what: tor, dir: t.TempDir()}, netip.AddrPortFrom(third.host, peerPort))
		return p
	}
	first, second := leech(), leech()
	for _, pair := range [][2]*libraryPeer{{first, second}, {second, first}} {
		require.Eventually(t, func() bool {
			return slices.ContainsFunc(pair[0].Stats().Peers, func(s torrent.PeerStats) bool { return s.Addr.Addr() == pair[1].host })
		}, patience, 50*time.Millisecond)
	}
}
