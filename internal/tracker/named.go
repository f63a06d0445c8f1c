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
	maxNamed      = 20 // peers with a host name in one answer; others are left out
	maxNamedAddrs = 4  // addresses of one of them
	maxHostName   = 253
	namedAMinute  = 60 // lookups per minute for all trackers of a download

	namedAtOnce  = 4 // concurrent lookups for one answer
	namedTimeout = 5 * time.Second
)

// namedPeer is a peer for which a tracker gives a host name in place of an address (BEP 3).
type namedPeer struct {
	host string
	port uint16
}

// isHostName reports whether name has the form of a host name.
func isHostName(name []byte) bool {
	return len(name) > 0 && len(name) <= maxHostName && !bytes.ContainsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == '_')
	})
}

// lookUpNamed looks up the host names in an answer of tr and calls Config.Found with the peers. The number of lookups is bounded
// for each answer and for all trackers in a minute, and so is their time: other people's name servers have to answer them. Names
// from a tracker outside our network are not resolved to addresses inside it.
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

// takeLookups returns how many of n lookups may be made at now, and counts them.
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

// lookUp returns the addresses of one peer. Those inside our network are left out unless local is set.
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

// countNamed adds n to the number of peers in the last answer of tr, and reports whether to pass these on to Config.Found.
func (t *Announcer) countNamed(tr *tracker, n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr.peers += n
	return n > 0 && (!t.c.Private || t.current == tr)
}
