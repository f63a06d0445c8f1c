package torrent

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// A scheduler decides who is asked for which block. Peers pull: a peer with room in its pipeline
// calls next, and what it receives it reports. The scheduler owns the piece heap, the started pieces
// and every outstanding request; it is plain data under its download's mutex.
//
// A piece is in exactly one place: unwanted, in the heap (wanted, not started), started, or had.
type scheduler struct {
	geometry
	heap    *pieceHeap
	have    Bitfield // verified
	need    Bitfield // wanted and not verified
	started map[int32]*startedPiece
	open    []*startedPiece // started and wanted with a free block, by priority, then oldest first
	remotes []*remote
	seeds   int                  // remotes that have everything
	seq     uint64               // of the next started piece
	single  int                  // blocks under way from exactly one remote: what can be stolen
	spoiled map[int32]*suspicion // pieces that failed their hash, until they pass
	senders []netip.AddrPort     // who sent a block, by remote.sender
	spare   []*startedPiece      // for reuse
	steals  int64                // blocks handed out a second time
}

// geometry is how the content is cut.
type geometry struct {
	pieces      int
	pieceLength int64
	total       int64
}

func (g geometry) pieceSize(i int) int64 {
	return min(g.pieceLength, g.total-int64(i)*g.pieceLength)
}

func (g geometry) blocks(i int) int { return int((g.pieceSize(i) + blockSize - 1) / blockSize) }

func (g geometry) blockLen(b blockID) int {
	return int(min(blockSize, g.pieceSize(int(b.piece))-int64(b.index)*blockSize))
}

// blockID names a block: the index-th run of 16 KiB in piece.
type blockID struct{ piece, index int32 }

// A remote is what the scheduler knows of one connected peer. The scheduler writes the first group
// of fields; the peer that it stands for keeps the second up to date.
type remote struct {
	sender  int32 // index into scheduler.senders
	all     bool  // it has every piece; has is not used then
	has     Bitfield
	want    int                  // pieces it has that are needed, where it has not all
	fresh   int                  // pieces it has that are in the heap, where it has not all
	queue   []ask                // outstanding requests, oldest first
	backing []ask                // what queue is a part of, empty
	late    map[blockID]struct{} // asked once, then given back: no offence if they come

	choking   bool               // it chokes us
	allowed   map[int32]struct{} // allowed-fast pieces (BEP 6), which a choke does not stop
	suggested []int32            // pieces it would rather send than others (BEP 6), the latest last
	snubbed   bool               // it let requests time out and has sent nothing since
	rate      float64            // bytes a second, 0 while unknown
	heard     time.Time          // when the last block came, or when it was first asked after silence
	rtt       time.Duration
}

// ask is an outstanding request.
type ask struct {
	blockID
	at time.Time
}

// maxLate bounds remote.late: a block older than so many later ones is not expected any more.
const maxLate = 4096

// guessedRate is what a peer of unknown rate is taken to send, bytes a second.
const guessedRate = 64 << 10

func (r *remote) holds(piece int) bool { return r.all || r.has.Has(piece) }

// allows tells whether a choke does not stop requests for piece (BEP 6).
func (r *remote) allows(piece int32) bool {
	_, ok := r.allowed[piece]
	return ok
}

// maxSuggested is how many of the latest suggestions of a peer are remembered.
const maxSuggested = 8

// suggest takes note that the peer would rather send piece than another (BEP 6).
func (r *remote) suggest(piece int32) {
	if len(r.suggested) == maxSuggested {
		r.suggested = r.suggested[1:]
	}
	r.suggested = append(r.suggested, piece)
}

// eta is when the k-th outstanding block (from 0) may be expected, from now on. It grows while
// the peer is silent, so that one that stopped in the middle is noticed before it is snubbed.
func (r *remote) eta(k int, now time.Time) time.Duration {
	rate := r.rate
	if rate <= 0 {
		rate = guessedRate
	}
	d := time.Duration(float64(k+1) * blockSize / rate * float64(time.Second))
	if len(r.queue) > 0 {
		d = max(d, now.Sub(r.heard)-r.rtt)
	}
	return d + r.rtt
}

// startedPiece is a piece of which blocks were asked for.
type startedPiece struct {
	piece    int32
	priority uint8
	seq      uint64
	blocks   []block
	free     int  // blocks neither here nor under way
	left     int  // blocks not here
	cursor   int  // no block before it is free
	open     bool // is in scheduler.open
	parole   bool // failed its hash before: all blocks are to come from sole
	sole     *remote
}

type block struct {
	owner  [2]*remote // who was asked for it and has not answered
	sender int32      // who sent it; noSender while it is not here
}

// What block.sender is beside an index into scheduler.senders.
const (
	noSender    = -1 // the block is not here
	fromStorage = -2 // an earlier run left it
)

func (b *block) here() bool { return b.sender != noSender }
func (b *block) free() bool { return b.owner[0] == nil && b.owner[1] == nil && !b.here() }

func (b *block) copies() int {
	n := 0
	for _, o := range b.owner {
		if o != nil {
			n++
		}
	}
	return n
}

func newScheduler(g geometry, seed uint64) *scheduler {
	return &scheduler{
		geometry: g,
		heap:     newPieceHeap(g.pieces, seed),
		have:     newBitfield(g.pieces),
		need:     newBitfield(g.pieces),
		started:  make(map[int32]*startedPiece),
		spoiled:  make(map[int32]*suspicion),
	}
}

// join adds a remote that has what its fields say. A peer that has nothing yet joins as such.
func (s *scheduler) join(r *remote, addr netip.AddrPort) {
	r.sender = int32(slices.Index(s.senders, addr))
	if r.sender < 0 {
		r.sender = int32(len(s.senders))
		s.senders = append(s.senders, addr)
	}
	r.late = make(map[blockID]struct{})
	s.remotes = append(s.remotes, r)
	s.count(r)
}

// count takes note of what r has.
func (s *scheduler) count(r *remote) {
	if r.has.full() && r.has.Len() > 0 {
		r.all, r.has = true, Bitfield{}
	}
	if r.all {
		s.seeds++
		return
	}
	s.heap.count(&r.has, 1)
	s.recount(r)
}

func (s *scheduler) uncount(r *remote) {
	if r.all {
		s.seeds--
	} else {
		s.heap.count(&r.has, -1)
	}
}

// recount derives r's counters from scratch.
func (s *scheduler) recount(r *remote) {
	if r.all {
		return
	}
	r.want = r.has.countAnd(&s.need)
	r.fresh = 0
	if r.want > 0 {
		r.fresh = r.want
		for p := range s.started {
			if s.need.Has(int(p)) && r.has.Has(int(p)) {
				r.fresh--
			}
		}
	}
}

// replace exchanges what r has for has, as a bitfield does that comes late.
func (s *scheduler) replace(r *remote, has Bitfield) {
	s.uncount(r)
	r.all, r.has = false, has
	s.count(r)
}

// leave takes r out; its blocks are free again.
func (s *scheduler) leave(r *remote) {
	s.giveBack(r, func(ask) bool { return true })
	s.forsake(r)
	s.uncount(r)
	s.remotes = slices.DeleteFunc(s.remotes, func(o *remote) bool { return o == r })
}

// gain notes that r now has piece i, and tells whether that is news.
func (s *scheduler) gain(r *remote, i int) bool {
	if r.all || !r.has.set(i) {
		return false
	}
	s.heap.countOne(i, 1)
	if s.need.Has(i) {
		r.want++
		if s.heap.holds(i) {
			r.fresh++
		}
	}
	return true
}

// lose notes that r no longer has piece i (BEP 54).
func (s *scheduler) lose(r *remote, i int) {
	if r.all {
		has := fullBitfield(s.pieces)
		has.clear(i)
		s.replace(r, has)
		return
	}
	if !r.has.clear(i) {
		return
	}
	s.heap.countOne(i, -1)
	if s.need.Has(i) {
		r.want--
		if s.heap.holds(i) {
			r.fresh--
		}
	}
}

// interesting tells whether r has a piece that is needed: exactly then we are interested.
func (s *scheduler) interesting(r *remote) bool {
	return r.all && s.need.Count() > 0 || !r.all && r.want > 0
}

// prioritise sets the priority of piece i; 0 is not wanted. Requests under way for a piece that is
// no longer wanted are returned to be cancelled.
func (s *scheduler) prioritise(i int, priority uint8) (cancel []cancelled) {
	if !s.heap.prioritise(i, priority) || s.have.Has(i) {
		return nil
	}
	p := s.started[int32(i)]
	if wanted := priority > 0; wanted != s.need.Has(i) {
		s.setNeed(i, wanted)
		switch {
		case p != nil:
		case wanted:
			s.heap.push(i)
			s.freshen(i, 1)
		default:
			s.heap.remove(i)
			s.freshen(i, -1)
		}
	}
	if p != nil {
		p.priority = priority
		s.close(p)
		if priority == 0 {
			cancel = s.disown(p)
			s.close(p)
		}
		s.reopen(p)
		s.retire(p)
	}
	return cancel
}

// cancelled is a request that is no longer wanted of a remote.
type cancelled struct {
	remote *remote
	block  blockID
}

// disown gives back every request under way for p.
func (s *scheduler) disown(p *startedPiece) (cancel []cancelled) {
	for k := range p.blocks {
		for _, o := range p.blocks[k].owner {
			if o != nil {
				id := blockID{p.piece, int32(k)}
				cancel = append(cancel, cancelled{o, id})
				s.unask(o, id)
			}
		}
	}
	return cancel
}

// unask takes the request for id from r's queue and gives the block back.
func (s *scheduler) unask(r *remote, id blockID) {
	for k := range r.queue {
		if r.queue[k].blockID == id {
			r.dequeue(k)
			s.release(r, id)
			return
		}
	}
}

// enqueue adds a request to the queue. The room that answered ones leave at its start is used again.
func (r *remote) enqueue(a ask) {
	if n := len(r.queue); n == cap(r.queue) {
		if 2*n > cap(r.backing) {
			r.backing = make([]ask, 0, max(4*n, startDepth))
		}
		r.queue = append(r.backing, r.queue...)
	}
	r.queue = append(r.queue, a)
}

// dequeue takes the k-th request out of the queue.
func (r *remote) dequeue(k int) {
	if k == 0 {
		r.queue = r.queue[1:]
		return
	}
	r.queue = slices.Delete(r.queue, k, k+1)
}

// release ends r's ownership of a block that it was asked for and has not sent.
func (s *scheduler) release(r *remote, id blockID) {
	if len(r.late) >= maxLate {
		clear(r.late)
	}
	r.late[id] = struct{}{}
	p := s.started[id.piece]
	b := &p.blocks[id.index]
	s.disclaim(b, r)
	if b.free() {
		p.free++
		p.cursor = min(p.cursor, int(id.index))
		s.reopen(p)
	}
}

// disclaim takes r off the block's owners.
func (s *scheduler) disclaim(b *block, r *remote) {
	before := b.copies()
	for k, o := range b.owner {
		if o == r {
			b.owner[k] = nil
		}
	}
	s.single += one(b.copies() == 1) - one(before == 1)
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// giveBack frees the blocks under way from r that which holds for: after a choke, a reject, a
// time-out, a loss. They are no offence if they come all the same.
func (s *scheduler) giveBack(r *remote, which func(ask) bool) {
	kept := r.queue[:0:0]
	var back []ask
	for _, a := range r.queue {
		if which(a) {
			back = append(back, a)
		} else {
			kept = append(kept, a)
		}
	}
	r.queue = kept
	for _, a := range back {
		s.release(r, a.blockID)
		s.retire(s.started[a.piece])
	}
}

// forsake ends r's time as the sole sender of pieces on parole: what it sent of them proves nothing
// beside another's blocks, so they begin anew with somebody else.
func (s *scheduler) forsake(r *remote) {
	for _, p := range s.started {
		if p.sole == r {
			s.restart(p)
		}
	}
}

// restart begins a piece on parole anew, for another sole sender: it goes back to the heap. Whoever
// holds the blocks that were here sees by startedPiece.seq that they are of no use any more.
func (s *scheduler) restart(p *startedPiece) {
	if p.left > 0 { // else it is complete, and on its way to be hashed
		p.reset()
		s.retire(p)
	}
}

func (p *startedPiece) reset() {
	for k := range p.blocks {
		p.blocks[k] = block{sender: noSender}
	}
	p.free, p.left, p.cursor = len(p.blocks), len(p.blocks), 0
}

// retire returns a started piece of which nothing is here or under way to the heap.
func (s *scheduler) retire(p *startedPiece) {
	if p == nil || p.free < len(p.blocks) {
		return
	}
	s.drop(p)
	if i := int(p.piece); s.need.Has(i) {
		s.heap.push(i)
		s.freshen(i, 1)
	}
}

// drop forgets a started piece.
func (s *scheduler) drop(p *startedPiece) {
	s.close(p)
	delete(s.started, p.piece)
	p.sole, p.parole = nil, false
	if len(s.spare) < 64 {
		s.spare = append(s.spare, p)
	}
}

// freshen adds delta to the count of fresh pieces of each remote that has piece i.
func (s *scheduler) freshen(i, delta int) {
	for _, r := range s.remotes {
		if !r.all && r.has.Has(i) {
			r.fresh += delta
		}
	}
}

// start takes piece i from the heap, or from among the unwanted, and begins it.
func (s *scheduler) start(i int) *startedPiece {
	if s.heap.holds(i) {
		s.heap.remove(i)
		s.freshen(i, -1)
	}
	var p *startedPiece
	if k := len(s.spare) - 1; k >= 0 {
		p, s.spare = s.spare[k], s.spare[:k]
	} else {
		p = new(startedPiece)
	}
	n := s.geometry.blocks(i)
	p.blocks = slices.Grow(p.blocks[:0], n)[:n]
	p.piece, p.priority, p.seq = int32(i), s.heap.priority[i], s.seq
	p.parole = s.spoiled[p.piece] != nil
	p.reset()
	s.seq++
	s.started[p.piece] = p
	s.reopen(p)
	return p
}

// reopen puts p among the open pieces if it belongs there and is not.
func (s *scheduler) reopen(p *startedPiece) {
	if p.open || p.free == 0 || p.priority == 0 {
		return
	}
	at, _ := slices.BinarySearchFunc(s.open, p, func(a, b *startedPiece) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.seq, b.seq))
	})
	s.open = slices.Insert(s.open, at, p)
	p.open = true
}

func (s *scheduler) close(p *startedPiece) {
	if p.open {
		s.open = slices.Delete(s.open, slices.Index(s.open, p), slices.Index(s.open, p)+1)
		p.open = false
	}
}

// next appends to out up to n blocks that r is to be asked for now, and takes note of the requests.
// First come started pieces, the most wanted and then the oldest first, so that they get finished;
// then the next piece in heap order that r has; then, when no block is free, what is stolen.
// A request that a theft makes pointless is returned to be cancelled.
func (s *scheduler) next(r *remote, n int, now time.Time, out []blockID) ([]blockID, []cancelled) {
	if len(r.queue) == 0 {
		r.heard = now
	}
	if r.snubbed {
		n = min(n, 1-len(r.queue))
	}
	end := len(out) + n
	if n <= 0 {
		return out, nil
	}
	var cancel []cancelled
	for k := 0; k < len(s.open) && len(out) < end; {
		p := s.open[k]
		if top := s.better(r, p.priority); top >= 0 {
			out = s.take(s.start(top), r, end, now, out)
			k = 0
			continue
		}
		if s.may(r, p) {
			if p.sole != nil && p.sole != r {
				p, cancel = s.wrest(p, cancel)
				k = 0
			}
			out = s.take(p, r, end, now, out)
			if !p.open {
				continue // it gave its place in s.open to the next
			}
		}
		k++
	}
	for len(out) < end {
		top := s.better(r, 0)
		if top < 0 {
			break
		}
		out = s.take(s.start(top), r, end, now, out)
	}
	for len(out) < end {
		victim, at := s.victim(r, now)
		if victim == nil {
			break
		}
		id := victim.queue[at].blockID
		p := s.started[id.piece]
		if p.parole {
			p, cancel = s.wrest(p, cancel)
			out = s.take(p, r, end, now, out)
			continue
		}
		s.claim(&p.blocks[id.index], r, id, now)
		s.steals++
		out = append(out, id)
	}
	return out, cancel
}

// better is the first piece in heap order that r may start and whose priority is above floor, or -1.
func (s *scheduler) better(r *remote, floor uint8) int {
	top := s.heap.top()
	if top < 0 || s.heap.priority[top] <= floor || !r.all && r.fresh == 0 {
		return -1
	}
	switch {
	case r.choking:
		top = -1
		for i := range r.allowed {
			if s.heap.holds(int(i)) && r.holds(int(i)) && (top < 0 || s.heap.key(i) < s.heap.key(int32(top))) {
				top = int(i)
			}
		}
	case !r.all:
		top = s.heap.first(&r.has)
	}
	if top < 0 || s.heap.priority[top] <= floor {
		return -1
	}
	for _, i := range r.suggested {
		if s.heap.holds(int(i)) && r.holds(int(i)) && !r.choking && s.heap.priority[i] == s.heap.priority[top] {
			return int(i)
		}
	}
	return top
}

// may tells whether r can be asked for blocks of p.
func (s *scheduler) may(r *remote, p *startedPiece) bool {
	if !r.holds(int(p.piece)) {
		return false
	}
	if p.sole != nil && p.sole != r && !p.sole.choking && !p.sole.snubbed {
		return false // on parole with somebody who goes on with it
	}
	return !r.choking || r.allows(p.piece)
}

// take asks r for free blocks of p until out is as long as end.
func (s *scheduler) take(p *startedPiece, r *remote, end int, now time.Time, out []blockID) []blockID {
	if p.parole {
		p.sole = r
	}
	for ; p.free > 0 && len(out) < end; p.cursor++ {
		if b := &p.blocks[p.cursor]; b.free() {
			id := blockID{p.piece, int32(p.cursor)}
			s.claim(b, r, id, now)
			p.free--
			out = append(out, id)
		}
	}
	if p.free == 0 {
		s.close(p)
	}
	return out
}

// wrest takes a piece on parole from its sole sender and begins it anew, for another.
func (s *scheduler) wrest(p *startedPiece, cancel []cancelled) (*startedPiece, []cancelled) {
	i := int(p.piece)
	cancel = append(cancel, s.disown(p)...)
	s.restart(p)
	return s.start(i), cancel
}

// claim makes r an owner of the block.
func (s *scheduler) claim(b *block, r *remote, id blockID, now time.Time) {
	before := b.copies()
	k := 0
	if b.owner[0] != nil {
		k = 1
	}
	b.owner[k] = r
	s.single += one(b.copies() == 1) - one(before == 1)
	r.enqueue(ask{id, now})
}

// victim finds the request that r had best take over: of all owners, the one whose last block is
// expected latest, if r is expected in under half that time. It returns the owner and the place in
// its queue, or nil.
func (s *scheduler) victim(r *remote, now time.Time) (*remote, int) {
	if s.single == 0 {
		return nil, 0
	}
	mine := r.eta(len(r.queue), now)
	var victim *remote
	var latest time.Duration
	at := 0
	for _, o := range s.remotes {
		if o == r || len(o.queue) == 0 {
			continue
		}
		if !o.snubbed && o.eta(len(o.queue)-1, now) <= max(latest, 2*mine) {
			continue // not even its last block is worth it
		}
		for k := len(o.queue) - 1; k >= 0; k-- {
			eta := o.eta(k, now)
			if !o.snubbed && eta <= max(latest, 2*mine) {
				break
			}
			if s.mayStealFrom(r, o.queue[k].blockID) {
				victim, at, latest = o, k, eta
				if o.snubbed {
					return victim, at
				}
				break
			}
		}
	}
	return victim, at
}

// mayStealFrom tells whether r could be the second to be asked for a block that is under way.
func (s *scheduler) mayStealFrom(r *remote, id blockID) bool {
	p := s.started[id.piece]
	b := &p.blocks[id.index]
	if b.copies() != 1 || b.owner[0] == r || b.owner[1] == r || !r.holds(int(id.piece)) {
		return false
	}
	return !r.choking || r.allows(id.piece)
}

// verdict is what became of a block that was received.
type verdict uint8

const (
	accepted verdict = iota // it was wanted: keep it
	wasted                  // it was asked for once, and is not wanted any more
	unasked                 // nobody asked for it
)

// received takes note that r sent a block whole. Where it is accepted, p is its piece, and a request
// to somebody else for the same block is returned to be cancelled.
func (s *scheduler) received(r *remote, id blockID, now time.Time) (v verdict, p *startedPiece, cancel *remote) {
	asked := false
	for k := range r.queue {
		if r.queue[k].blockID == id {
			r.dequeue(k)
			asked = true
			break
		}
	}
	if _, ok := r.late[id]; !asked && ok {
		delete(r.late, id)
	} else if !asked {
		return unasked, nil, nil
	}
	r.heard = now
	r.snubbed = false
	p = s.started[id.piece]
	if p == nil && s.heap.holds(int(id.piece)) {
		p = s.start(int(id.piece)) // it comes late, and is welcome
	}
	if p == nil {
		return wasted, nil, nil
	}
	b := &p.blocks[id.index]
	if b.here() || p.parole && p.sole != nil && p.sole != r {
		return wasted, nil, nil
	}
	if p.parole {
		p.sole = r
	}
	if b.free() {
		p.free--
	}
	b.sender = r.sender
	p.left--
	s.disclaim(b, r)
	for _, o := range b.owner {
		if o != nil {
			s.unask(o, id)
			cancel = o
		}
	}
	if p.free == 0 {
		s.close(p)
	}
	return accepted, p, cancel
}

// isHere tells whether the block was received and is waiting for the rest of its piece.
func (s *scheduler) isHere(id blockID) bool {
	p := s.started[id.piece]
	return p != nil && p.blocks[id.index].here()
}

// restore marks the blocks of piece i that storage already holds, as a clean stop leaves them, as
// received from nobody known.
func (s *scheduler) restore(i int, blocks *Bitfield) *startedPiece {
	p := s.start(i)
	for k := range blocks.All() {
		p.blocks[k].sender = fromStorage
		p.free--
		p.left--
	}
	if p.free == 0 {
		s.close(p)
	}
	return p
}

// verified notes that piece i is whole, hashed and stored. What was still under way of it is
// returned to be cancelled.
func (s *scheduler) verified(i int) (cancel []cancelled) {
	if p := s.started[int32(i)]; p != nil {
		cancel = s.disown(p)
		s.drop(p)
	}
	if s.heap.holds(i) {
		s.heap.remove(i)
		s.freshen(i, -1)
	}
	s.have.set(i)
	s.setNeed(i, false)
	return cancel
}

// doubt notes that piece i, once verified, may not be what it was. It is neither had nor needed
// until verified or lost says which.
func (s *scheduler) doubt(i int) bool { return s.have.clear(i) }

// lost notes that piece i, in doubt, is not there any more.
func (s *scheduler) lost(i int) {
	if s.heap.priority[i] > 0 {
		s.setNeed(i, true)
		s.heap.push(i)
		s.freshen(i, 1)
	}
}

// failed notes that piece i, whole, did not have its hash: it begins anew.
func (s *scheduler) failed(i int) {
	p := s.started[int32(i)]
	p.reset()
	s.retire(p)
}

// setNeed notes whether piece i is wanted and not verified, also with those that have it.
func (s *scheduler) setNeed(i int, need bool) {
	delta := 1
	if need == s.need.Has(i) {
		return
	} else if need {
		s.need.set(i)
	} else {
		delta = -1
		s.need.clear(i)
	}
	for _, r := range s.remotes {
		if !r.all && r.has.Has(i) {
			r.want += delta
		}
	}
}

// yield gives back what r was asked for of pieces less wanted than priority, to make room, and
// returns the blocks, which are to be cancelled.
func (s *scheduler) yield(r *remote, priority uint8) (back []blockID) {
	s.giveBack(r, func(a ask) bool {
		less := s.started[a.piece].priority < priority
		if less {
			back = append(back, a.blockID)
		}
		return less
	})
	return back
}
