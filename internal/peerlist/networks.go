package peerlist

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// wantedFor is how long connections count as wanted after a download was refused one that only the reserve was left for.
const wantedFor = time.Minute

// networks counts the connections of all downloads by network. Otherwise one that has its peers connect for each of many downloads,
// few for any of them, could hold all connections of a client, and leave no more than its share to a download that has use for
// them. The zero value is ready.
type networks struct {
	crowds crowds
	wanted time.Time // when a download was last refused more than its share for a peer that is of no crowd
}

// count adds n connections to a peer.
func (w *networks) count(a netip.Addr, n int) {
	if !a.IsValid() || netaddr.IsLocal(a) {
		return
	}
	if w.crowds == nil {
		w.crowds = make(crowds)
	}
	w.crowds.add(a, n)
}

// crowding reports whether the network of an address would have more than its share of all connections with n more. A download
// that has no other beside it judges its crowds alone.
func (w *networks) crowding(c Claim, a netip.Addr, n int) bool {
	if c.Most <= 0 || c.Sharing < 2 || !a.IsValid() || netaddr.IsLocal(a) {
		return false
	}
	size, _ := w.crowds.of(a, n)
	return size > max(MaxPerAddress, c.Most/crowdShare) || w.most(c, a, n)
}

// most reports whether the network of a public address would have most of all connections with n more.
func (w *networks) most(c Claim, a netip.Addr, n int) bool {
	_, inNetwork := w.crowds.of(a, n)
	return inNetwork > max(MaxPerAddress, c.Most/networkShare)
}

// want records that a download was refused a connection beyond its share, to a.
func (w *networks) want(c Claim, a netip.Addr, now time.Time) {
	if c.Has >= c.share() && !w.crowding(c, a, 1) {
		w.wanted = now
	}
}

// areWanted reports whether a download has recently wanted more than its share.
func (w *networks) areWanted(now time.Time) bool { return now.Sub(w.wanted) < wantedFor }

// AreWanted reports whether a download has recently wanted more connections than its share, so that Surplus may find one.
func (b *Budget) AreWanted(now time.Time) bool { return b.networks.areWanted(now) }

// Surplus returns the id of a peer that makes room for those of other downloads, if connections are wanted, or 0: the worst of
// the networks that have more than their share of all connections. Peers that earn their places may have more, but not most.
func (b *Budget) Surplus(c Claim, peers []Worth, now time.Time) (id int) {
	if !b.networks.areWanted(now) {
		return 0
	}
	return first(worst(now, peers, 1, func(p Worth) bool {
		return !p.Keep && b.networks.crowding(c, p.Addr, 0) && (!p.earns(now) || b.networks.most(c, p.Addr, 0))
	})).ID
}
