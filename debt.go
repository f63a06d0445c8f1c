package torrent

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// maxDebtors is of how many addresses it is remembered that a peer left owing us.
const maxDebtors = 1000

// debts remember what free riders took, so that none is forgiven by calling again. Addresses of one's own
// network, which many peers may share, are not held to it. The download's mutex guards it.
type debts map[netip.Addr]debt

// debt is what a peer was sent and gave over all connections so far, in bytes.
type debt struct{ sent, received int64 }

// left notes what there was between us and a peer that has gone.
func (all *debts) left(ip netip.Addr, p chokeState, now time.Time) {
	if netaddr.IsLocal(ip) {
		return
	}
	if p.down = 0; !p.owes(now) { // what it sends now, it will send no more
		delete(*all, ip)
		return
	}
	if *all == nil || len(*all) >= maxDebtors {
		*all = make(debts)
	}
	(*all)[ip] = debt{p.sent, p.received}
}
