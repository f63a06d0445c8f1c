package simpeer

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/wire"
)

// watch listens in on one connection.
type watch struct {
	Terms
	ledger  *Ledger
	peer    netip.AddrPort
	in, out frames
	asked   map[request]bool // requests that are neither answered nor cancelled
	once    map[request]bool // requests at any time

	began time.Duration // when the last Write began: what it writes was decided before

	block request // that is arriving
	lie   bool    // what came of it is false
	at    int     // bytes of it that came

	sums []byte // of hashes that are arriving; empty if none are

	came   []request // blocks that came whole at the time cameAt
	cameAt time.Duration

	crossed  map[request]bool // requests in the instant of a choke
	chokedAt time.Duration
	allowed  map[uint32]bool // pieces that may be asked for in spite of a choke (BEP 6)
}

func (w *watch) Writing(is bool) {
	if w.Busy = is; is {
		w.began = w.ledger.host.Network().Now()
	}
}

func (w *watch) Wrote(b []byte) { w.out.feed(b) }
func (w *watch) Read(b []byte)  { w.in.feed(b) }

func (w *watch) Ended() {
	for q := range w.asked {
		w.settle(q)
	}
	w.ledger.account.Waste["broken off"] += int64(w.at)
	if w.cameAt == w.ledger.host.Network().Now() {
		// The client has read these, and may have ended the connection before it looked at them.
		for _, q := range w.came {
			p := &w.ledger.pieces[q.index]
			p.unsure = true
			p.whole = p.whole && p.at != w.cameAt
			delete(p.blocks, q.begin)
			w.ledger.account.Dropped += int64(q.length)
		}
	}
	delete(w.ledger.watches, w)
}

// settle records that a block is no longer under way here, and reports whether it was.
func (w *watch) settle(q request) bool {
	if !w.asked[q] {
		return false
	}
	delete(w.asked, q)
	l := w.ledger
	if l.under[q]--; l.under[q] == 0 {
		delete(l.under, q)
	}
	return true
}

func (w *watch) outgoing(m head) {
	l := w.ledger
	if l.Trace != nil {
		l.Trace("%v %v to %v: %v", l.host.Network().Now(), l.host, w.peer, m)
	}
	q := request{m.index, m.begin, m.length}
	switch m.id {
	case wire.Request:
		l.account.Asked++
		w.once[q] = true
		if w.chokedAt >= w.began {
			// A choke came while the client wrote this. Whether the client or the peer takes the request
			// for dropped cannot be known: it may be answered, and it may be sent again.
			w.crossed[q] = true
			return
		}
		if !w.Unchoked && !w.allowed[q.index] {
			l.fault("asked %v for %v, who chokes us", w.peer, q)
			return
		}
		if w.asked[q] {
			l.fault("asked %v twice for %v", w.peer, q)
			return
		}
		w.asked[q] = true
		if l.under[q]++; l.under[q] > 1 {
			l.account.Seconds++
		}
		if l.under[q] > 2 {
			// The cancel that makes it two may be written in the same instant by another goroutine.
			l.host.Network().After(time.Millisecond, func() {
				if l.under[q] > 2 && !l.delayed(q) {
					l.fault("asked %v for %v, the copy number %d", w.peer, q, l.under[q])
				}
			})
		}
		if int64(q.index) < int64(len(l.pieces)) {
			l.pieces[q.index].askedAgain(w, q)
		}
	case wire.Cancel:
		w.settle(q)
	case wire.Interested, wire.NotInterested:
		w.Wanting = m.id == wire.Interested
	}
}

func (w *watch) incoming(m head) {
	l := w.ledger
	if l.Trace != nil {
		l.Trace("%v %v from %v: %v", l.host.Network().Now(), l.host, w.peer, m)
	}
	switch m.id {
	case wire.Unchoke:
		w.Unchoked = true
	case wire.Have:
		if int64(m.index) < int64(w.theirs.Len()) {
			w.theirs.Add(int(m.index))
		}
	case wire.HaveAll:
		w.theirs, w.said = bits.Full(w.theirs.Len()), true
	case wire.HaveNone:
		w.replace()
	case wire.Extended:
		w.refused[m.index] = true
	case wire.AllowedFast:
		w.allowed[m.index] = true
	case wire.Choke:
		w.Unchoked, w.chokedAt = false, l.host.Network().Now()
		for q := range w.asked {
			w.settle(q)
		}
	case wire.Reject:
		w.refused[m.index] = true
		w.settle(request{m.index, m.begin, m.length})
	case wire.Piece:
		w.block = request{m.index, m.begin, m.length}
		w.lie, w.at = l.content.Block(m.index, m.begin, m.length) == nil, 0
	}
}

// replace forgets the pieces that they said they have, before the first message that lists them all.
func (w *watch) replace() {
	if !w.said {
		w.theirs, w.said = bits.New(w.theirs.Len()), true
	}
}

// bitfield records a part of a bitfield, from byte at on.
func (w *watch) bitfield(at int, b []byte) {
	w.replace()
	for k, v := range b {
		for bit := range 8 {
			if i := 8*(at+k) + bit; v&(0x80>>bit) != 0 && i < w.theirs.Len() {
				w.theirs.Add(i)
			}
		}
	}
}

// payload compares a part of a block with the content.
func (w *watch) payload(b []byte) {
	w.ledger.account.Received += int64(len(b))
	if !w.lie {
		truth := w.ledger.content.Block(w.block.index, w.block.begin, w.block.length)
		w.lie = !bytes.Equal(b, truth[w.at:w.at+len(b)])
	}
	w.at += len(b)
}

// hashes records a part of hashes.
func (w *watch) hashes(b []byte) { w.sums = append(w.sums, b...) }

// arrived records a block, or hashes, that came whole.
func (w *watch) arrived() {
	l, q := w.ledger, w.block
	if len(w.sums) > 0 {
		if !l.content.trueHashes(w.sums) {
			l.falseHashes[w.peer.Addr()] = true
		}
		w.sums = nil
		return
	}
	w.at = 0
	asked := w.settle(q)
	if !asked && w.crossed[q] {
		asked = true
		l.account.Dropped += int64(q.length) // another peer may have been asked for it, too
	}
	if kind := w.wasted(q); kind != "" {
		l.account.Waste[kind] += int64(q.length)
	}
	if w.lie {
		l.account.Lies[w.peer]++
		l.account.LieBytes += int64(q.length)
	}
	if int64(q.index) >= int64(len(l.pieces)) {
		return
	}
	p := &l.pieces[q.index]
	b, here := p.blocks[q.begin]
	here = here && !b.doubt
	switch {
	case !asked:
		// A client may keep a late block that it asked for once; that cannot be seen from outside.
		p.unsure = p.unsure || !p.whole && !here
		return
	case p.whole || here:
		l.account.Again += int64(q.length)
		return
	case !w.lie:
		l.account.First += int64(q.length)
	}
	if p.failed || b.doubt {
		p.unsure = true // from now on it comes from one peer at a time, or which copy the client keeps is not known
	}
	if p.blocks == nil {
		p.blocks = map[uint32]copied{}
	}
	now := l.host.Network().Now()
	p.blocks[q.begin] = copied{from: w.peer, lie: w.lie, at: now}
	if w.cameAt != now {
		w.came, w.cameAt = w.came[:0], now
	}
	w.came = append(w.came, q)
	p.assemble(l, int(q.index))
}

// wasted is what kind of waste a block that came is, "" if it is none.
func (w *watch) wasted(q request) string {
	if !w.once[q] {
		return "never asked for"
	}
	p := &w.ledger.pieces[q.index]
	if w.lie {
		p.lied = true
		return "false"
	}
	_, here := p.blocks[q.begin]
	switch {
	case !p.came[q.begin]:
		if p.came == nil {
			p.came = map[uint32]bool{}
		}
		p.came[q.begin] = true
		return ""
	case p.whole || here:
		return "a second copy"
	case p.lied:
		return "again, after a false block in the piece"
	}
	return "again, after it was lost"
}
