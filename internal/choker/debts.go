package choker

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// maxDebtors is how many addresses of peers that left owing us are remembered.
const maxDebtors = 1000

// Debts remember what free riders took, so that no debt is forgiven by connecting again, be it from another address of the
// same /64. Local addresses, which many peers may share, are exempt. The zero value is ready.
type Debts map[netip.Addr]Debt

// Debt is what a peer was sent and gave over all connections so far, in bytes.
type Debt struct{ Sent, Received int64 }

// Of returns the debt of the peers at an address, if there is one.
func (all Debts) Of(ip netip.Addr) (debt Debt, owes bool) {
	debt, owes = all[debtor(ip)]
	return debt, owes
}

// Left records what a peer that has left owes us.
func (all *Debts) Left(ip netip.Addr, p Peer, now time.Time) {
	if netaddr.IsLocal(ip) {
		return
	}
	if p.Down = 0; !p.owes(now) { // a peer that has left sends nothing more
		delete(*all, debtor(ip))
		return
	}
	if *all == nil || len(*all) >= maxDebtors {
		*all = make(Debts)
	}
	(*all)[debtor(ip)] = Debt{p.Sent, p.Received}
}

// debtor is the address that stands for the host of an unmapped one.
func debtor(ip netip.Addr) netip.Addr { return netaddr.Host(ip).Addr() }
