package simpeer

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/layout"
)

// assembly is how far the client is with a piece, as seen from outside.
type assembly struct {
	blocks  map[uint32]copied // that are here, by begin
	came    map[uint32]bool   // by begin, whether the true block came at any time
	lied    bool              // a false block came at any time
	suspect []netip.AddrPort  // the senders of false blocks, when it first failed with blocks of several peers
	failed  bool              // it was whole once, and false
	whole   bool              // it was whole, and true
	at      time.Duration     // when it was whole
	unsure  bool              // which blocks the client keeps cannot be known from outside
}

// copied is a block as it came.
type copied struct {
	from  netip.AddrPort
	lie   bool
	at    time.Duration
	doubt bool // the client may have dropped it, with others of its sender
}

// askedAgain records that a block is asked for. It is a fault if the block is here.
func (p *assembly) askedAgain(w *watch, q request) {
	l := w.ledger
	b, here := p.blocks[q.begin]
	now := l.host.Network().Now()
	switch {
	case p.whole && p.at == now, here && b.at == now:
		// It was read in this very instant. It may have been lost with its connection, or another peer was
		// asked for it before that was known.
		p.unsure, p.whole = true, false
	case l.deaf:
		p.unsure, p.whole = true, false
	case p.whole && p.at >= w.began, here && b.at >= w.began:
		l.account.Dropped += int64(q.length) // it came while a full link held the request up
		return
	case p.whole && p.failed:
		p.whole = false // it may keep less of a piece that failed than is believed here
	case p.whole:
		l.fault("asked %v for %v, of a piece that is whole", w.peer, q)
		return
	case here && !b.doubt && !p.failed && !p.unsure && !l.lied(b.from):
		l.fault("asked %v for %v, which is here", w.peer, q)
		return
	case !here:
		return
	}
	delete(p.blocks, q.begin)
	l.account.Dropped += int64(q.length)
	// Of a piece that failed, or of a liar, the client drops all that one peer sent. What was sent from other ports of its
	// address it may keep, and the piece may be whole without being asked for that again.
	for begin, c := range p.blocks {
		if c.from == b.from || l.lied(b.from) && c.from.Addr() == b.from.Addr() {
			c.doubt = true
			p.blocks[begin] = c
		}
	}
}

// lied reports whether a false block or false hashes came from the address of a peer, so that it may have been banned.
func (l *Ledger) lied(peer netip.AddrPort) bool {
	if l.falseHashes[peer.Addr()] {
		return true
	}
	for a := range l.account.Lies {
		if a.Addr() == peer.Addr() {
			return true
		}
	}
	return false
}

// assemble judges a piece once all of its blocks may be here.
func (p *assembly) assemble(l *Ledger, piece int) {
	if int64(len(p.blocks)) < (l.content.PieceSize(piece)+layout.BlockSize-1)/layout.BlockSize {
		return
	}
	var liars []netip.AddrPort // of which one may be unknown
	first := p.blocks[0].from
	alone := first.IsValid()
	doubt := false   // whether it is whole
	dropped := false // perhaps: what a known liar sent is, even if it is true
	for _, b := range p.blocks {
		doubt = doubt || b.doubt
		dropped = dropped || l.lied(b.from)
		alone = alone && b.from == first
		if b.lie && !slices.Contains(liars, b.from) {
			liars = append(liars, b.from)
		}
	}
	p.unsure = p.unsure || doubt
	switch {
	case len(liars) > 0 && !alone:
	case dropped && len(liars) == 0:
		// Of these the client may lack some, and be whole with false ones.
		for begin, b := range p.blocks {
			b.doubt = l.lied(b.from)
			p.blocks[begin] = b
		}
	default:
		p.blocks = nil // or the client keeps some
	}
	switch {
	case len(liars) == 0 && doubt:
	case len(liars) == 0:
		p.whole, p.at = !p.unsure && !dropped, l.host.Network().Now()
		for _, a := range p.suspect {
			l.prove(a)
		}
		p.suspect = nil
	case p.unsure:
		p.failed = true
	case alone:
		l.prove(first)
		p.failed = true
	case !p.failed:
		p.suspect, p.failed = liars, true
	}
}
