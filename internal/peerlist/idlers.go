package peerlist

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	// idlerStays is how long one that lost its place because it gave nothing displaces no peer.
	idlerStays = 10 * time.Minute
	maxIdlers  = 4096
)

// Idlers are those that lost their places lately because they had given nothing, by address or by /64. Each of many addresses
// has the grace of a newcomer once: or those that come back at once, one after the other, would leave no place for the rest.
// The zero value is ready. The download's mutex guards it.
type Idlers struct{ lost map[netip.Prefix]time.Time }

// Add records one that lost its place.
func (l *Idlers) Add(a netip.Addr, now time.Time) {
	if netaddr.IsLocal(a) { // any number of peers may stand behind it
		return
	}
	if len(l.lost) >= maxIdlers {
		for host, at := range l.lost {
			if now.Sub(at) >= idlerStays {
				delete(l.lost, host)
			}
		}
	}
	if l.lost == nil {
		l.lost = make(map[netip.Prefix]time.Time)
	}
	if host, _ := targetOf(a); len(l.lost) < maxIdlers {
		l.lost[host] = now
	}
}

// Has reports whether an address is one of them.
func (l *Idlers) Has(a netip.Addr, now time.Time) bool {
	host, _ := targetOf(a)
	at, ok := l.lost[host]
	return ok && now.Sub(at) < idlerStays
}
