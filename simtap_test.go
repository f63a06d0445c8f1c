package torrent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// simLedger listens in on every connection of one client, at the client's own end, and keeps
// account of what it asked for and what it received. It knows the truth of the content, so it can tell who
// lied, and which lies a client had the means to prove. The network's mutex guards it.
type simLedger struct {
	content *simTruth
	host    *simnet.Host
	watches map[*simWatch]bool

	under  map[simRequest]int // copies under way of each block
	pieces []simAssembly

	account simAccount
	deaf    bool // some of it is encrypted
	trace   func(format string, args ...any)
}

// simAccount is what a client asked for and received, and what it did wrong.
type simAccount struct {
	asked, received int64            // requests sent; payload bytes that came
	seconds         int64            // requests for what somebody else was asked for already
	first           int64            // of these, true blocks that had not come before
	again           int64            // true blocks that had come before
	dropped         int64            // bytes that came and were asked for again, with reason
	unasked         int64            // bytes that had not been asked for on that connection
	waste           map[string]int64 // bytes that brought the content no further, by kind
	lies            map[netip.AddrPort]int64
	lieBytes        int64
	proven          map[netip.AddrPort]bool // liars whom a failed piece and its true content name
	faults          []string                // what the client did wrong
}

// simAssembly is how far a piece has come, as seen from outside.
type simAssembly struct {
	blocks  map[uint32]simCopy // by begin
	came    map[uint32]bool    // true ones, that came at any time
	lied    bool               // a false one came at any time
	suspect []netip.AddrPort   // whose false block was in it when it failed
	failed  bool               // it was whole once, and false
	whole   bool               // it was whole, and true
	at      time.Duration      // when it was whole
	unsure  bool               // its blocks cannot be told from outside
}

type simCopy struct {
	from netip.AddrPort
	lie  bool
	at   time.Duration
}

// watch begins to listen in on a host's connections, if that has not begun.
func watch(h *simnet.Host, c *simTruth) *simLedger {
	h.Network().Lock()
	defer h.Network().Unlock()
	if l, ok := h.Tap.(*simLedger); ok {
		return l
	}
	l := &simLedger{
		content: c, host: h, watches: map[*simWatch]bool{}, under: map[simRequest]int{},
		pieces:  make([]simAssembly, c.NumPieces()),
		account: simAccount{waste: map[string]int64{}, lies: map[netip.AddrPort]int64{}, proven: map[netip.AddrPort]bool{}},
	}
	h.Tap = l
	return l
}

func (l *simLedger) Tap(conn *simnet.Conn) simnet.Tap {
	w := &simWatch{
		ledger: l, peer: conn.Remote(), simTerms: simTerms{theirs: bits.New(l.content.NumPieces()), refused: map[uint32]bool{}}, allowed: map[uint32]bool{},
		asked: map[simRequest]bool{}, once: map[simRequest]bool{}, crossed: map[simRequest]bool{},
	}
	w.in.hear, w.in.data, w.in.bits, w.in.end = w.incoming, w.payload, w.bitfield, w.arrived
	w.out.hear = w.outgoing
	w.in.deaf = func() { l.deaf = true }
	l.watches[w] = true
	return w
}

// said returns the account so far.
func (l *simLedger) said() simAccount {
	l.host.Network().Lock()
	defer l.host.Network().Unlock()
	a := l.account
	a.waste, a.lies, a.proven, a.faults = maps.Clone(a.waste), maps.Clone(a.lies), maps.Clone(a.proven), slices.Clone(a.faults)
	return a
}

// came tells whether anything of a piece has come that the client has kept.
func (l *simLedger) came(piece int) bool {
	l.host.Network().Lock()
	defer l.host.Network().Unlock()
	return l.pieces[piece].whole || len(l.pieces[piece].blocks) > 0
}

// with gives how things stand between the client and an address, if there is one connection to it.
func (l *simLedger) with(peer netip.AddrPort) (terms simTerms, ok bool) {
	l.host.Network().Lock()
	defer l.host.Network().Unlock()
	var watch *simWatch
	for w := range l.watches {
		if w.peer == peer && watch != nil {
			return simTerms{}, false
		} else if w.peer == peer {
			watch = w
		}
	}
	if watch == nil {
		return simTerms{}, false
	}
	terms = watch.simTerms
	terms.theirs, terms.refused = terms.theirs.Clone(), maps.Clone(terms.refused)
	return terms, true
}

// forget takes note that the client starts anew: whom it suspected it does not know any more, nor who
// sent the blocks that it finds on storage.
func (l *simLedger) forget() {
	l.host.Network().Lock()
	defer l.host.Network().Unlock()
	clear(l.account.proven)
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

func (l *simLedger) fault(format string, args ...any) {
	if len(l.account.faults) < 20 {
		l.account.faults = append(l.account.faults, fmt.Sprintf("%v: ", l.host.Network().Now())+fmt.Sprintf(format, args...))
	}
}

// simTerms is how things stand between a client and a peer, as far as was said.
type simTerms struct {
	busy     bool            // the client writes, or waits for room to
	unchoked bool            // they let us ask
	wanting  bool            // we said that we are interested
	theirs   bits.Set        // what they say they have
	refused  map[uint32]bool // of these, what they rejected: they may have it no more
}

// offers tells whether they say that they have a piece, and whether that is in doubt.
func (t simTerms) offers(piece int) (has, doubt bool) {
	return t.theirs.Has(piece), t.refused[uint32(piece)]
}

// simWatch listens in on one connection.
type simWatch struct {
	simTerms
	ledger  *simLedger
	peer    netip.AddrPort
	in, out simFrames
	asked   map[simRequest]bool // and neither answered nor cancelled
	once    map[simRequest]bool // asked for at any time

	began time.Duration // when a Write did: what is written was decided on before that

	block simRequest // that is arriving
	lie   bool       // it differs from the truth so far
	at    int        // bytes of it that came

	came   []simRequest // blocks that came whole at cameAt
	cameAt time.Duration

	crossed  map[simRequest]bool // asked in the instant of a choke
	chokedAt time.Duration
	allowed  map[uint32]bool // pieces that may be asked for in spite of a choke (BEP 6)
}

func (w *simWatch) Writing(is bool) {
	if w.busy = is; is {
		w.began = w.ledger.host.Network().Now()
	}
}

func (w *simWatch) Wrote(b []byte) { w.out.feed(b) }
func (w *simWatch) Read(b []byte)  { w.in.feed(b) }

func (w *simWatch) Ended() {
	for q := range w.asked {
		w.settle(q)
	}
	w.ledger.account.waste["broken off"] += int64(w.at)
	if w.cameAt == w.ledger.host.Network().Now() {
		// The client read these, and may have ended the connection before it looked at them.
		for _, q := range w.came {
			p := &w.ledger.pieces[q.index]
			p.unsure = true
			p.whole = p.whole && p.at != w.cameAt
			delete(p.blocks, q.begin)
			w.ledger.account.dropped += int64(q.length)
		}
	}
	delete(w.ledger.watches, w)
}

// settle ends the time in which a copy of a block is under way here.
func (w *simWatch) settle(q simRequest) bool {
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

// delayed tells whether the cancel of a block may be waiting behind what is being written.
func (l *simLedger) delayed(q simRequest) bool {
	for w := range l.watches {
		if w.asked[q] && w.busy {
			return true
		}
	}
	return false
}

func (w *simWatch) outgoing(m simHead) {
	l := w.ledger
	if l.trace != nil {
		l.trace("%v %v to %v: %v", l.host.Network().Now(), l.host, w.peer, m)
	}
	q := simRequest{m.index, m.begin, m.length}
	switch m.id {
	case wire.Request:
		l.account.asked++
		w.once[q] = true
		if w.chokedAt >= w.began {
			// A choke that came meanwhile has ended it, or will once the client has looked at what
			// it read, or has not: it may be answered, and asked for again.
			w.crossed[q] = true
			return
		}
		if !w.unchoked && !w.allowed[q.index] {
			l.fault("asked %v for %v, who chokes us", w.peer, q)
			return
		}
		if w.asked[q] {
			l.fault("asked %v twice for %v", w.peer, q)
			return
		}
		w.asked[q] = true
		if l.under[q]++; l.under[q] > 1 {
			l.account.seconds++
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
		w.wanting = m.id == wire.Interested
	}
}

func (w *simWatch) incoming(m simHead) {
	l := w.ledger
	if l.trace != nil {
		l.trace("%v %v from %v: %v", l.host.Network().Now(), l.host, w.peer, m)
	}
	switch m.id {
	case wire.Unchoke:
		w.unchoked = true
	case wire.Have:
		if int64(m.index) < int64(w.theirs.Len()) {
			w.theirs.Add(int(m.index))
		}
	case wire.HaveAll:
		w.theirs = bits.Full(w.theirs.Len())
	case wire.AllowedFast:
		w.allowed[m.index] = true
	case wire.Choke:
		w.unchoked, w.chokedAt = false, l.host.Network().Now()
		for q := range w.asked {
			w.settle(q)
		}
	case wire.Reject:
		w.refused[m.index] = true
		w.settle(simRequest{m.index, m.begin, m.length})
	case wire.Piece:
		w.block = simRequest{m.index, m.begin, m.length}
		w.lie, w.at = l.content.block(m.index, m.begin, m.length) == nil, 0
	}
}

// bitfield takes note of a part of one, from the so-many-th byte on.
func (w *simWatch) bitfield(at int, b []byte) {
	for k, v := range b {
		for bit := range 8 {
			if i := 8*(at+k) + bit; v&(0x80>>bit) != 0 && i < w.theirs.Len() {
				w.theirs.Add(i)
			}
		}
	}
}

// payload compares a part of a block with the truth.
func (w *simWatch) payload(b []byte) {
	w.ledger.account.received += int64(len(b))
	if !w.lie {
		truth := w.ledger.content.block(w.block.index, w.block.begin, w.block.length)
		w.lie = !bytes.Equal(b, truth[w.at:w.at+len(b)])
	}
	w.at += len(b)
}

// arrived takes note of a block that came whole.
func (w *simWatch) arrived() {
	l, q := w.ledger, w.block
	w.at = 0
	asked := w.settle(q)
	if !asked && w.crossed[q] {
		asked = true
		l.account.dropped += int64(q.length) // somebody else may have been asked for it, too
	}
	if kind := w.wasted(q); kind != "" {
		l.account.waste[kind] += int64(q.length)
	}
	if w.lie {
		l.account.lies[w.peer]++
		l.account.lieBytes += int64(q.length)
	}
	if int64(q.index) >= int64(len(l.pieces)) {
		l.account.unasked += int64(q.length)
		return
	}
	p := &l.pieces[q.index]
	_, here := p.blocks[q.begin]
	switch {
	case !asked:
		// What was asked for once is welcome late; from outside it cannot be told.
		p.unsure = p.unsure || !p.whole && !here
		l.account.unasked += int64(q.length)
		return
	case p.whole || here:
		l.account.again += int64(q.length)
		return
	case !w.lie:
		l.account.first += int64(q.length)
	}
	if p.failed {
		p.unsure = true // from now on it comes from one peer at a time
	}
	if p.blocks == nil {
		p.blocks = map[uint32]simCopy{}
	}
	now := l.host.Network().Now()
	p.blocks[q.begin] = simCopy{w.peer, w.lie, now}
	if w.cameAt != now {
		w.came, w.cameAt = w.came[:0], now
	}
	w.came = append(w.came, q)
	p.assemble(l, int(q.index))
}

// wasted tells what kind of waste a block is that came, "" if it brings the content further.
func (w *simWatch) wasted(q simRequest) string {
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

// askedAgain takes note that a block is asked for. It had better not be here.
func (p *simAssembly) askedAgain(w *simWatch, q simRequest) {
	l := w.ledger
	b, here := p.blocks[q.begin]
	now := l.host.Network().Now()
	switch {
	case p.whole && p.at == now, here && b.at == now:
		// It was read in this very instant, and may have been lost with its connection, or another
		// was asked for it before that was known.
		p.unsure, p.whole = true, false
	case l.deaf:
		p.unsure, p.whole = true, false
	case p.whole && p.at >= w.began, here && b.at >= w.began:
		l.account.dropped += int64(q.length) // it came while a full link held the request up
		return
	case p.whole:
		l.fault("asked %v for %v, of a piece that is whole", w.peer, q)
		return
	case here && !p.failed && !p.unsure:
		l.fault("asked %v for %v, which is here", w.peer, q)
		return
	case !here:
		return
	}
	delete(p.blocks, q.begin)
	l.account.dropped += int64(q.length)
}

// assemble judges a piece once all of its blocks are here.
func (p *simAssembly) assemble(l *simLedger, piece int) {
	if int64(len(p.blocks)) < (l.content.PieceSize(piece)+blockSize-1)/blockSize {
		return
	}
	var liars []netip.AddrPort // the one who is nobody known may be among them
	first := p.blocks[0].from
	alone := first.IsValid()
	for _, b := range p.blocks {
		alone = alone && b.from == first
		if b.lie && !slices.Contains(liars, b.from) {
			liars = append(liars, b.from)
		}
	}
	p.blocks = nil
	switch {
	case len(liars) == 0:
		p.whole, p.at = !p.unsure, l.host.Network().Now()
		for _, a := range p.suspect {
			l.prove(a)
		}
		p.suspect = nil
	case p.unsure:
		p.failed = true
	case alone:
		l.prove(first)
		p.failed = true
	default:
		p.suspect, p.failed = liars, true
	}
}

// prove notes that a client has the means to prove that somebody lied.
func (l *simLedger) prove(a netip.AddrPort) {
	if a.IsValid() {
		l.account.proven[a] = true
	}
}

// simHead is the head of a message.
type simHead struct {
	id                   wire.ID
	index, begin, length uint32 // as far as the message has them; length of a piece is its payload's
}

func (m simHead) String() string {
	switch m.id {
	case wire.Request, wire.Cancel, wire.Reject, wire.Piece:
		return fmt.Sprintf("%v of %d+%d of piece %d", m.id, m.begin, m.length, m.index)
	case wire.Have, wire.Suggest, wire.AllowedFast:
		return fmt.Sprintf("%v %d", m.id, m.index)
	}
	return m.id.String()
}

// simFrames cuts one way of a connection into messages. It is a parser of its own, so that the library's
// does not judge itself.
type simFrames struct {
	hear func(simHead)          // a message, or the head of a piece
	data func(b []byte)         // payload of a piece
	bits func(at int, b []byte) // payload of a bitfield, nil if nobody cares
	deaf func()                 // this is no peer connection that can be understood
	end  func()                 // of a piece
	head [4 + 13]byte           // of the current message
	have int                    // bytes of head
	skip int                    // bytes of the current message that are to come
	size int                    // of its payload
	came int                    // bytes of the handshake that came
	mute bool                   // this is no peer connection that can be understood
	this wire.ID                // of the current message

	hidden bool   // the handshake is
	before []byte // what came of it
}

// simProtocol is what a connection that is not encrypted begins with.
const simProtocol = "\x13BitTorrent protocol"

func (f *simFrames) feed(b []byte) {
	for len(b) > 0 && !f.mute {
		switch {
		case f.hidden:
			f.before = append(f.before, b...)
			b = f.reveal()
		case f.came < wire.HandshakeSize:
			n := min(len(b), wire.HandshakeSize-f.came)
			if k := min(f.came, len(simProtocol)); k < len(simProtocol) {
				f.hidden = !strings.HasPrefix(simProtocol[k:], string(b[:min(n, len(simProtocol)-k)]))
				if f.hidden {
					f.before = append([]byte(simProtocol[:k]), b...)
					b = f.reveal()
					continue
				}
			}
			f.came, b = f.came+n, b[n:]
		case f.skip > 0:
			n := min(len(b), f.skip)
			if f.this == wire.Piece && f.data != nil {
				f.data(b[:n])
			} else if f.this == wire.Bitfield && f.bits != nil {
				f.bits(f.size-f.skip, b[:n])
			}
			f.skip, b = f.skip-n, b[n:]
			f.finish()
		default:
			size := 0
			if f.have >= 4 {
				size = int(binary.BigEndian.Uint32(f.head[:]))
			}
			want := 4 + min(size, 13)
			if f.have >= 5 && f.head[4] == byte(wire.Piece) {
				want = 4 + min(size, 9)
			}
			if f.have == 4 && size > 0 {
				want = 5
			}
			n := copy(f.head[f.have:want], b)
			f.have, b = f.have+n, b[n:]
			if f.have == want {
				f.heard(want)
			}
		}
	}
}

// reveal finds where a hidden handshake is over and plain text begins: with the other handshake of whoever
// was called, with the extended one of whoever called, and the bitfield before that. It returns what came of
// that. Two that only prefer to be encrypted hide no more.
func (f *simFrames) reveal() []byte {
	rest := f.before
	if at := bytes.Index(rest, []byte(simProtocol)); at >= 0 {
		rest = rest[at:]
	} else if at := simExtended.FindIndex(rest); at != nil {
		begin := at[0]
		for k := range min(begin-4, 1<<10) { // bytes of a bitfield; have all has none
			head := rest[begin-k-5:]
			if size := binary.BigEndian.Uint32(head); size == uint32(k+1) && (head[4] == byte(wire.Bitfield) || k == 0 && head[4] == byte(wire.HaveAll)) {
				begin -= k + 5
				break
			}
		}
		rest, f.came = rest[begin:], wire.HandshakeSize
	} else {
		if f.mute = len(rest) > 4<<10; f.mute && f.deaf != nil {
			f.deaf()
		}
		return nil
	}
	f.hidden, f.before = false, nil
	return rest
}

// simExtended is an extended handshake.
var simExtended = regexp.MustCompile(`(?s)\x00\x00..\x14\x00d1:`)

// heard acts when as much of the head has come as was asked for.
func (f *simFrames) heard(have int) {
	size := int(binary.BigEndian.Uint32(f.head[:]))
	switch {
	case have == 4 && size > 0, have == 5 && size > 1:
		return // more to come
	case size == 0:
		f.have = 0
		return
	}
	m := simHead{id: wire.ID(f.head[4])}
	f.this = m.id
	number := func(at int) uint32 {
		if have < at+4 {
			return 0
		}
		return binary.BigEndian.Uint32(f.head[at:])
	}
	m.index, m.begin, m.length = number(5), number(9), number(13)
	if m.id == wire.Piece {
		m.length = uint32(max(0, size-9))
	}
	f.skip, f.size = size+4-have, size-1
	if f.this == wire.Bitfield && f.bits != nil {
		f.bits(0, f.head[5:have])
	}
	f.hear(m)
	f.finish()
}

// finish ends a message of which nothing is to come.
func (f *simFrames) finish() {
	if f.skip > 0 {
		return
	}
	f.have = 0
	if f.this == wire.Piece && f.end != nil {
		f.end()
	}
}
