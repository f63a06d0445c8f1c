//go:build linux

package interop

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// rumour is how long it may take until peer exchange has passed on a peer. Two rounds of a minute are enough
// for it; the rest is for a busy machine.
const rumour = 4 * time.Minute

// TestPeerExchange lets two leechers that know only a third find each other (BEP 11).
func TestPeerExchange(t *testing.T) {
	t.Parallel()
	for _, third := range []client{libtorrent, library} {
		t.Run(third.name, func(t *testing.T) {
			need(t, third.programs...)
			t.Parallel()
			content := t.TempDir()
			makeContent(t, content)
			what := makeWithLibrary(torrent.V1)(t, content, "") // no tracker

			middle := third.start(t, role{what: what, dir: t.TempDir()})
			known := netip.AddrPortFrom(middle.addr(), peerPort)
			a := startLibrary(t, role{what: what, dir: t.TempDir()}, known)
			b := startLibrary(t, role{what: what, dir: t.TempDir()}, known)
			require.Eventually(t, func() bool { return a.foundByExchange(b) || b.foundByExchange(a) }, rumour, time.Second/4)
		})
	}
}

// foundByExchange reports whether p is connected to q because a peer named it.
func (p *libraryPeer) foundByExchange(q *libraryPeer) bool {
	for _, s := range p.Stats().Peers {
		if s.Addr.Addr() == q.host && s.Source == "pex" {
			return true
		}
	}
	return false
}
