package peerlist

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/expiring"
	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	// idlerStays is how long a peer that lost its place, or left it, and had given nothing cannot displace another.
	idlerStays = 10 * time.Minute
	maxIdlers  = 4096
)

// Idlers are the addresses, or /64s, of peers that recently lost their places, or left them, and had given nothing. Each address has
// the grace of a newcomer only once. Otherwise many addresses that reconnect at once, one after the other, would leave no
// place for other peers. The zero value is ready. The download's mutex guards it.
type Idlers struct {
	lost expiring.Map[netip.Prefix, time.Time]
}

// Add records a peer that lost its place, or left it.
func (l *Idlers) Add(a netip.Addr, now time.Time) {
	if netaddr.IsLocal(a) { // any number of peers may stand behind it
		return
	}
	host, _ := targetOf(a)
	l.lost.Put(host, now, maxIdlers, func(at time.Time) bool { return now.Sub(at) >= idlerStays })
}

// Has reports whether an address is one of them.
func (l *Idlers) Has(a netip.Addr, now time.Time) bool {
	host, _ := targetOf(a)
	at, ok := l.lost.Get(host)
	return ok && now.Sub(at) < idlerStays
}
