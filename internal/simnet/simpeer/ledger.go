package simpeer

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/simnet"
)

// Ledger listens in on every connection of one client, at the client's own end, and keeps
// account of what it asked for and what it received. It knows the truth of the content, so it can tell who
// lied, and which lies a client had the means to prove. The network's mutex guards it.
type Ledger struct {
	content *Content
	host    *simnet.Host
	watches map[*watch]bool

	under  map[request]int // copies under way of each block
	pieces []assembly

	account Account
	deaf    bool // some of it is encrypted
	Trace   func(format string, args ...any)
}

// Account is what a client asked for and received, and what it did wrong.
type Account struct {
	Asked, Received int64            // requests sent; payload bytes that came
	Seconds         int64            // requests for what somebody else was asked for already
	First           int64            // of these, true blocks that had not come before
	Again           int64            // true blocks that had come before
	Dropped         int64            // bytes that came and were asked for again, with reason
	unasked         int64            // bytes that had not been asked for on that connection
	Waste           map[string]int64 // bytes that brought the content no further, by kind
	Lies            map[netip.AddrPort]int64
	LieBytes        int64
	Proven          map[netip.AddrPort]bool // liars whom a failed piece and its true content name
	Faults          []string                // what the client did wrong
}

// Watch begins to listen in on a host's connections, if that has not begun.
func Watch(h *simnet.Host, c *Content) *Ledger {
	h.Network().Lock()
	defer h.Network().Unlock()
	if l, ok := h.Tap.(*Ledger); ok {
		return l
	}
	l := &Ledger{
		content: c, host: h, watches: map[*watch]bool{}, under: map[request]int{},
		pieces:  make([]assembly, c.NumPieces()),
		account: Account{Waste: map[string]int64{}, Lies: map[netip.AddrPort]int64{}, Proven: map[netip.AddrPort]bool{}},
	}
	h.Tap = l
	return l
}

func (l *Ledger) Tap(conn *simnet.Conn) simnet.Tap {
	w := &watch{
		ledger: l, peer: conn.Remote(), Terms: Terms{theirs: bits.New(l.content.NumPieces()), refused: map[uint32]bool{}}, allowed: map[uint32]bool{},
		asked: map[request]bool{}, once: map[request]bool{}, crossed: map[request]bool{},
	}
	w.in.hear, w.in.data, w.in.bits, w.in.end = w.incoming, w.payload, w.bitfield, w.arrived
	w.out.hear = w.outgoing
	w.in.deaf = func() { l.deaf = true }
	l.watches[w] = true
	return w
}

// Account returns the account so far.
func (l *Ledger) Account() Account {
	l.host.Network().Lock()
	defer l.host.Network().Unlock()
	a := l.account
	a.Waste, a.Lies, a.Proven, a.Faults = maps.Clone(a.Waste), maps.Clone(a.Lies), maps.Clone(a.Proven), slices.Clone(a.Faults)
	return a
}

// Came tells whether anything of a piece has come that the client has kept.
func (l *Ledger) Came(piece int) bool {
	l.host.Network().Lock()
	defer l.host.Network().Unlock()
	return l.pieces[piece].whole || len(l.pieces[piece].blocks) > 0
}

// Terms gives how things stand between the client and an address, if there is one connection to it.
func (l *Ledger) Terms(peer netip.AddrPort) (terms Terms, ok bool) {
	l.host.Network().Lock()
	defer l.host.Network().Unlock()
	var watch *watch
	for w := range l.watches {
		if w.peer == peer && watch != nil {
			return Terms{}, false
		} else if w.peer == peer {
			watch = w
		}
	}
	if watch == nil {
		return Terms{}, false
	}
	terms = watch.Terms
	terms.theirs, terms.refused = terms.theirs.Clone(), maps.Clone(terms.refused)
	return terms, true
}

// Forget takes note that the client starts anew: whom it suspected it does not know any more, nor who
// sent the blocks that it finds on storage.
func (l *Ledger) Forget() {
	l.host.Network().Lock()
	defer l.host.Network().Unlock()
	clear(l.account.Proven)
	for i := range l.pieces {
		p := &l.pieces[i]
		p.unsure = p.unsure || p.failed
		p.failed, p.suspect = false, nil
		for begin, b := range p.blocks {
			b.from = netip.AddrPort{}
			p.blocks[begin] = b
		}
	}
}

func (l *Ledger) fault(format string, args ...any) {
	if len(l.account.Faults) < 20 {
		l.account.Faults = append(l.account.Faults, fmt.Sprintf("%v: ", l.host.Network().Now())+fmt.Sprintf(format, args...))
	}
}

// delayed tells whether the cancel of a block may be waiting behind what is being written.
func (l *Ledger) delayed(q request) bool {
	for w := range l.watches {
		if w.asked[q] && w.Busy {
			return true
		}
	}
	return false
}

// prove notes that a client has the means to prove that somebody lied.
func (l *Ledger) prove(a netip.AddrPort) {
	if a.IsValid() {
		l.account.Proven[a] = true
	}
}

// Terms is how things stand between a client and a peer, as far as was said.
type Terms struct {
	Busy     bool            // the client writes, or waits for room to
	Unchoked bool            // they let us ask
	Wanting  bool            // we said that we are interested
	theirs   bits.Set        // what they say they have
	refused  map[uint32]bool // of these, what they rejected: they may have it no more
}

// Offers tells whether they say that they have a piece, and whether that is in doubt.
func (t Terms) Offers(piece int) (has, doubt bool) {
	return t.theirs.Has(piece), t.refused[uint32(piece)]
}
