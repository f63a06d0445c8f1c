package tracker

import (
	"bytes"
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/torrent/internal/httpguard"
	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	maxNamed      = 20 // peers that one answer names by a host name; others are left out
	maxNamedAddrs = 4  // addresses of one of them
	maxHostName   = 253
	namedAMinute  = 60 // lookups of all trackers of a download

	namedAtOnce  = 4 // lookups
	namedTimeout = 5 * time.Second
)

// namedPeer is a peer that a tracker names by a host name (BEP 3), not by an address.
type namedPeer struct {
	host string
	port uint16
}

// isHostName reports whether a name could be looked up.
func isHostName(name []byte) bool {
	return len(name) > 0 && len(name) <= maxHostName && !bytes.ContainsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == '_')
	})
}

// lookUpNamed hands on the peers that tr has named by their host names, until ctx ends. How many lookups a
// tracker can cause, and all of them in a minute, and for how long, is bounded: other hosts have to answer them. And one on the open
// internet cannot have us dial addresses inside our network by giving them names.
func (t *Announcer) lookUpNamed(ctx context.Context, tr *tracker, a answer) {
	if t.c.Lookup == nil || len(a.named) == 0 {
		return
	}
	a.named = a.named[:t.takeLookups(len(a.named), time.Now())]
	ctx, cancel := context.WithTimeout(ctx, namedTimeout)
	defer cancel()
	addrs := make([][]netip.AddrPort, len(a.named))
	var next atomic.Int32
	var lookups sync.WaitGroup
	for range min(namedAtOnce, len(a.named)) {
		lookups.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(a.named) && ctx.Err() == nil; i = next.Add(1) - 1 {
				addrs[i] = t.lookUp(ctx, a.named[i], a.local)
			}
		})
	}
	lookups.Wait()

	var peers []netip.AddrPort
	for _, found := range addrs {
		peers = append(peers, found...)
	}
	if t.countNamed(tr, len(peers)) {
		t.c.Found(tr.url, peers)
	}
}

// takeLookups returns how many of n lookups may be made, and counts them.
func (t *Announcer) takeLookups(n int, now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.lookupsSince) >= time.Minute {
		t.lookupsSince, t.lookups = now, 0
	}
	n = min(n, namedAMinute-t.lookups)
	t.lookups += n
	return n
}

// lookUp gives the addresses of one peer, only those on the open internet unless the tracker is local.
func (t *Announcer) lookUp(ctx context.Context, peer namedPeer, local bool) (addrs []netip.AddrPort) {
	if !local && httpguard.IsInward(peer.host) {
		return nil
	}
	ips, err := t.c.Lookup(ctx, peer.host)
	if err != nil {
		return nil
	}
	for _, ip := range ips {
		addr := netip.AddrPortFrom(ip.Unmap().WithZone(""), peer.port)
		if len(addrs) < maxNamedAddrs && netaddr.Dialable(addr) && (local || !netaddr.IsLocal(addr.Addr())) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// countNamed counts n peers to the last answer of tr, and reports whether they are to be handed on.
func (t *Announcer) countNamed(tr *tracker, n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr.peers += n
	return n > 0 && (!t.c.Private || t.current == tr)
}
