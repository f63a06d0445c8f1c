//go:build linux

package interop

import (
	"testing"
)

// TestLocalDiscovery has peers meet by multicast alone (BEP 14).
func TestLocalDiscovery(t *testing.T) {
	ours := func(t *testing.T, tor, dir string, _ bool) peer {
		p := &libraryPeer{host: newAddr(t)}
		c := newClient(t, p.host, "")
		c.Listen, c.LocalDiscovery = "", true // whoever hears us calls the address that multicast comes from
		p.start(t, c, role{what: tor, dir: dir})
		return p
	}
	theirs := func(t *testing.T, tor, dir string, seed bool) peer {
		return startLibtorrent(t, role{what: tor, dir: dir, seed: seed}, "--lsd")
	}
	for _, way := range []struct {
		name     string
		from, to func(t *testing.T, tor, dir string, seed bool) peer
	}{{"between us", ours, ours}, {"from libtorrent", theirs, ours}, {"to libtorrent", ours, theirs}} {
		t.Run(way.name, func(t *testing.T) {
			need(t, append(libtorrent.programs, "mktorrent")...)
			from, to := t.TempDir(), t.TempDir()
			makeContent(t, from)
			tor := mktorrent.make(t, from, "http://127.0.0.1:1/announce")
			way.from(t, tor, from, true)
			p := way.to(t, tor, to, false)
			p.awaitComplete(t)
			p.stop()
			requireSame(t, from, to)
		})
	}
}
