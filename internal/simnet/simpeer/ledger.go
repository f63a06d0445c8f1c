package simpeer

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/simnet"
)

// Ledger listens in on every connection of one client, at the client's end, and records what the client
// asked for and what it received. It knows the content, so it knows which peers lied, and which lies the client
// had the means to prove. The network's mutex guards it.
type Ledger struct {
	content *Content
	host    *simnet.Host
	watches map[*watch]bool

	under  map[request]int // copies under way of each block
	pieces []assembly

	account     Account
	falseHashes map[netip.Addr]bool // by sender
	deaf        bool                // some connection is encrypted beyond its handshake
	Trace       func(format string, args ...any)
}

// Account is what a client asked for and received, and what it did wrong.
type Account struct {
	Asked    int64                    // requests that it sent
	Received int64                    // bytes of blocks that came
	First    int64                    // of these, in true blocks that had not come before
	Again    int64                    // in blocks that had come before
	Seconds  int64                    // requests for a block that another peer was asked for already
	Dropped  int64                    // bytes that came and may have been asked for again, with reason
	Waste    map[string]int64         // bytes that brought the content no further, by kind
	Lies     map[netip.AddrPort]int64 // false blocks, by sender
	LieBytes int64                    // in false blocks
	Proven   map[netip.AddrPort]bool  // liars that are known from a failed piece and its true content
	Faults   []string                 // what the client did wrong
}

// Watch listens in on the connections that a host makes and accepts from now on. Called again, it returns
// the ledger that it returned before.
func Watch(h *simnet.Host, c *Content) *Ledger {
	h.Network().Lock()
	defer h.Network().Unlock()
	if l, ok := h.Tap.(*Ledger); ok {
		return l
	}
	l := &Ledger{
		falseHashes: map[netip.Addr]bool{},
		content:     c, host: h, watches: map[*watch]bool{}, under: map[request]int{},
		pieces:  make([]assembly, c.NumPieces()),
		account: Account{Waste: map[string]int64{}, Lies: map[netip.AddrPort]int64{}, Proven: map[netip.AddrPort]bool{}},
	}
	h.Tap = l
	return l
}

// Tap is called by the network.
func (l *Ledger) Tap(conn *simnet.Conn) simnet.Tap { return l.watch(conn.Remote()) }

// watch listens in on a connection to a peer.
func (l *Ledger) watch(peer netip.AddrPort) *watch {
	w := &watch{
		ledger: l, peer: peer, Terms: Terms{theirs: bits.New(l.content.NumPieces()), refused: map[uint32]bool{}}, allowed: map[uint32]bool{},
		asked: map[request]bool{}, once: map[request]bool{}, crossed: map[request]bool{},
	}
	w.in.hear, w.in.data, w.in.bits, w.in.end = w.incoming, w.payload, w.bitfield, w.arrived
	w.in.sums = w.hashes
	w.out.hear = w.outgoing
	w.in.deaf = func() { l.deaf = true }
	l.watches[w] = true
	return w
}

// Account returns a copy of the account so far.
func (l *Ledger) Account() Account {
	l.host.Network().Lock()
	defer l.host.Network().Unlock()
	a := l.account
	a.Waste, a.Lies, a.Proven, a.Faults = maps.Clone(a.Waste), maps.Clone(a.Lies), maps.Clone(a.Proven), slices.Clone(a.Faults)
	return a
}

// Came reports whether something of a piece has come that the client has kept.
func (l *Ledger) Came(piece int) bool {
	l.host.Network().Lock()
	defer l.host.Network().Unlock()
	return l.pieces[piece].whole || len(l.pieces[piece].blocks) > 0
}

// Terms returns how things stand between the client and a peer. It is false unless exactly one connection to
// that address is open.
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

// Forget records that the client starts again. It no longer knows which peers it suspected, nor which sent
// the blocks that it finds on storage.
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

// delayed reports whether the cancel of a block may be waiting behind what is being written.
func (l *Ledger) delayed(q request) bool {
	for w := range l.watches {
		if w.asked[q] && w.Busy {
			return true
		}
	}
	return false
}

// prove records that the client has the means to prove that a peer lied.
func (l *Ledger) prove(a netip.AddrPort) {
	if a.IsValid() {
		l.account.Proven[a] = true
	}
}

// Terms is how things stand between a client and a peer, by what each has said. We are the client.
type Terms struct {
	Busy     bool            // the client is writing, so what it decided may not have been said yet
	Unchoked bool            // they let us ask
	Wanting  bool            // we said that we are interested
	theirs   bits.Set        // what they say they have
	said     bool            // they sent a bitfield, have all or have none
	refused  map[uint32]bool // pieces of which they rejected a block, or that they said they lost
}

// Offers reports whether they say that they have a piece, and whether that is in doubt.
func (t Terms) Offers(piece int) (has, doubt bool) {
	return t.theirs.Has(piece), t.refused[uint32(piece)]
}
