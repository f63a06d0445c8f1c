package torrent

import (
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
)

// A remote is what the scheduler knows of one supplier of blocks, such as a connected peer. The first group of
// fields is the supplier's to write; the scheduler keeps the others up to date.
type remote struct {
	Owner   any  // the supplier; the scheduler does not look at it
	Origin  any  // who is to blame for what it sends, in this connection and others; comparable
	Host    any  // what suppliers share that take turns at a piece on parole as one; comparable
	Ready   bool // it can be asked for blocks, unless it chokes us
	Choking bool // it chokes us
	Roomy   bool // a request was cancelled: it is to be asked for another block in its place

	sender  int32 // index into scheduler.senders; noSender until it has sent a block
	all     bool  // it has every piece; has is not used then
	has     bits.Set
	pieces  int        // how many there are
	want    int        // pieces it has that are needed, where it has not all
	fresh   int        // pieces it has that are in the heap, where it has not all
	queue   []ask      // outstanding requests, oldest first
	asked   bool       // it was ever asked for anything
	backing []ask      // what queue is a part of, empty
	late    lateBlocks // asked for once, then released: no offence if they come
	refused int32      // the piece of which it last rejected a block, or -1

	allowed   map[int32]struct{} // allowed-fast pieces (BEP 6), which a choke does not stop
	suggested []int32            // pieces it would rather send than others (BEP 6), the latest last
	snubbed   bool               // it let requests time out and has sent nothing since

	heard     time.Time // when the last block came, or when it was first asked after silence
	blockTime deviation // between blocks while some are outstanding
	pace
	pipe pipeline
}

// ask is an outstanding request.
type ask struct {
	blockID
	at time.Time
}

// lateBlocks remembers the latest blocks that were asked for and released, and how often: at least maxLate of
// them, at most twice as many.
type lateBlocks struct{ fresh, old map[blockID]int }

// maxLate is so many blocks that what was released before them is not expected any more.
const maxLate = 4096

func (l *lateBlocks) add(id blockID) {
	if _, known := l.fresh[id]; !known && len(l.fresh) >= maxLate {
		l.old, l.fresh = l.fresh, nil
	}
	if l.fresh == nil {
		l.fresh = make(map[blockID]int)
	}
	l.fresh[id] += l.old[id] + 1
	delete(l.old, id)
}

// take forgets id once and tells whether it was remembered.
func (l *lateBlocks) take(id blockID) bool {
	for _, m := range []map[blockID]int{l.fresh, l.old} {
		if m[id] == 0 {
			continue
		}
		if m[id]--; m[id] == 0 {
			delete(m, id)
		}
		return true
	}
	return false
}

func (l *lateBlocks) has(id blockID) bool { return l.fresh[id]+l.old[id] > 0 }

// Has tells whether the remote has a piece.
func (r *remote) Has(piece int) bool { return r.all || r.has.Has(piece) }

// Allows tells whether a choke does not stop requests for piece (BEP 6).
func (r *remote) Allows(piece int32) bool {
	_, ok := r.allowed[piece]
	return ok
}

// may tells whether the remote can be asked for blocks of piece.
func (r *remote) may(piece int32) bool {
	return r.Has(int(piece)) && (!r.Choking || r.Allows(piece))
}

// stuck tells that nothing may come of what the remote was asked for of piece.
func (r *remote) stuck(piece int32) bool { return r.snubbed || r.Choking && !r.Allows(piece) }

// HasAll tells whether the remote has every piece.
func (r *remote) HasAll() bool { return r.all || r.has.Full() }

// Count is how many pieces the remote has.
func (r *remote) Count() int {
	if r.all {
		return r.pieces
	}
	return r.has.Count()
}

// Snubbed tells whether the remote let requests time out and has sent nothing since.
func (r *remote) Snubbed() bool { return r.snubbed }

// Outstanding is how many blocks the remote is asked for.
func (r *remote) Outstanding() int { return len(r.queue) }

// SetLimit takes note of how many requests the remote says it takes at once.
func (r *remote) SetLimit(reqq int) { r.pipe.setLimit(reqq) }

// Room is how many more blocks the remote is to be asked for now.
func (r *remote) Room() int {
	if !r.Ready || r.Choking && len(r.allowed) == 0 {
		return 0
	}
	return r.pipe.room(len(r.queue))
}

// maxAllowed bounds how many pieces are remembered that a choke does not stop.
const maxAllowed = 64

// Allow takes note that a choke does not stop requests for piece (BEP 6).
func (r *remote) Allow(piece int) {
	if len(r.allowed) < maxAllowed {
		if r.allowed == nil {
			r.allowed = make(map[int32]struct{})
		}
		r.allowed[int32(piece)] = struct{}{}
	}
}

// maxSuggested is how many of the latest suggestions of a peer are remembered.
const maxSuggested = 8

// Suggest takes note that the peer would rather send piece than another (BEP 6).
func (r *remote) Suggest(piece int) {
	if len(r.suggested) == maxSuggested {
		r.suggested = r.suggested[1:]
	}
	r.suggested = append(r.suggested, int32(piece))
}

// eta is when the k-th outstanding block (from 0) may be expected, from now on. It grows while
// the peer is silent, so that one that stopped in the middle is noticed before it is snubbed.
func (r *remote) eta(k int, now time.Time) time.Duration {
	d := r.pace.takes(float64(k+1)*blockSize, r.pipe.rtt, now)
	if len(r.queue) > 0 {
		d = max(d, now.Sub(r.heard))
	}
	return d
}

// overdue tells whether the peer has let requests wait for too long.
func (r *remote) overdue(now time.Time) bool {
	return len(r.queue) > 0 && now.Sub(r.heard) > r.blockTime.patience()
}

// answered takes a request out of the queue whose block of n bytes has come, and tells whether there was one.
func (r *remote) answered(id blockID, n int, now time.Time) bool {
	for k := range r.queue {
		if a := r.queue[k]; a.blockID == id {
			r.dequeue(k)
			silence := now.Sub(r.heard)
			r.pace.add(n, silence, now)
			r.pipe.got(n, a.at, now, r.pace.rate)
			r.blockTime.add(silence)
			return true
		}
	}
	return false
}

// IsAsked tells whether a block of piece is outstanding.
func (r *remote) IsAsked(piece int) bool {
	return slices.ContainsFunc(r.queue, func(a ask) bool { return int(a.piece) == piece })
}

// enqueue adds a request to the queue. The room that answered ones leave at its start is used again.
func (r *remote) enqueue(a ask) {
	if n := len(r.queue); n == cap(r.queue) {
		if 2*n > cap(r.backing) {
			r.backing = make([]ask, 0, max(4*n, startDepth))
		}
		r.queue = append(r.backing, r.queue...)
	}
	r.queue, r.asked = append(r.queue, a), true
}

// expect begins to wait for the remote, if nothing was outstanding: the time before that is no measure of it.
func (r *remote) expect(now time.Time) {
	if len(r.queue) == 0 {
		r.heard = now
		r.pipe.asked(now)
	}
}

// dequeue takes the k-th request out of the queue.
func (r *remote) dequeue(k int) {
	if k == 0 {
		r.queue = r.queue[1:]
		return
	}
	r.queue = slices.Delete(r.queue, k, k+1)
}
