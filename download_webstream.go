package torrent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/webseed"
)

const (
	// leastGap is how many unwanted bytes are read at least to reach wanted ones, in place of a new request.
	leastGap = 64 << 10
	// enough is how many new bytes an answer that broke off must have brought to count as progress. Then the rest is
	// requested at once.
	enough = 1 << 10
)

// errWithdrawn is the cause with which a request ends when its answer is no longer wanted.
var errWithdrawn = errors.New("not wanted any more")

// A webStream asks a web seed for one run of blocks at a time. It is a supplier. One goroutine asks and reads.
//
// The download's mutex guards the fields down to stop.
type webStream struct {
	w       *webSeed
	waker                   // of the goroutine
	supply  picker.Supplier // what the picker knows of it
	todo    []picker.Block  // blocks that it was asked for and has not read
	left    bool            // it is no longer a supplier
	reading bool            // a request is under way
	stalled bool            // it waits for the disk
	current picker.Block    // being read, or to be read next
	until   int64           // offset in the content at which the present body ends
	stop    context.CancelCauseFunc

	// Of the goroutine alone.
	body    *webseed.Body
	file    int       // whose bytes body has
	began   time.Time // the request
	came    int64     // bytes of body that are kept
	partial []byte    // the bytes that came of the block that broke off
	broken  picker.Block
	gap     int64         // how many unwanted bytes are read to reach wanted ones
	skipped int64         // bytes read in vain and not counted yet
	behind  chan struct{} // closed once the last block that was not kept in memory is written; nil if there was none
}

// request asks for blocks. It is part of supplier.
func (s *webStream) request(blocks []picker.Block) {
	s.todo = append(s.todo, blocks...)
	s.signal()
}

// withdraw takes a request back, and ends the answer if nothing more in it is wanted. It is part of supplier.
func (s *webStream) withdraw(id picker.Block) {
	if k := slices.Index(s.todo, id); k >= 0 {
		s.todo = slices.Delete(s.todo, k, k+1)
	}
	s.stopUnwanted()
}

// ahead reports whether a block is still to come in the present body.
func (s *webStream) ahead(id picker.Block) bool {
	off := s.w.d.offsetOf(id)
	return off >= s.w.d.offsetOf(s.current) && off < s.until
}

// release makes the blocks that which selects available to other suppliers, and ends the answer if nothing more in it
// is wanted. The caller holds s.w.d.mu.
func (s *webStream) release(which func(picker.Block) bool) {
	d := s.w.d
	d.picker.Release(&s.supply, which)
	s.todo = slices.DeleteFunc(s.todo, which)
	d.pending.freed = true
	s.stopUnwanted()
}

// stopUnwanted ends the answer if nothing more in it is wanted. An answer from a server that sends only
// whole files goes on while any of it is. The caller holds s.w.d.mu.
func (s *webStream) stopUnwanted() {
	switch {
	case !s.reading || slices.ContainsFunc(s.todo, s.ahead):
	case s.w.only != s || s.left || !s.w.d.picker.Interesting(&s.supply):
		s.stop(errWithdrawn)
	}
}

// leave ends the stream. The caller holds s.w.d.mu.
func (s *webStream) leave() {
	if s.left {
		return
	}
	s.left, s.supply.Ready = true, false
	s.release(allBlocks)
	s.w.d.picker.Leave(&s.supply)
	s.w.streams = slices.DeleteFunc(s.w.streams, func(o *webStream) bool { return o == s })
	s.signal()
}

// run asks the web seed for wanted blocks until ctx ends or the stream leaves.
func (s *webStream) run(ctx context.Context) {
	d := s.w.d
	defer func() {
		now := time.Now()
		d.mu.Lock()
		defer d.unlock(now)
		s.leave()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		at, ready, left := s.due()
		if left {
			return
		}
		worked := false
		if ready {
			s.awaitDisk(ctx) // without a turn at the host
			release, err := s.w.seed.Acquire(ctx)
			if err != nil {
				return
			}
			worked = s.fetch(ctx)
			release()
		}
		if worked {
			continue
		}
		var due <-chan time.Time
		if !at.IsZero() {
			timer.Reset(max(time.Until(at), 0))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-due:
		}
	}
}

// due reports whether the web seed may be asked now, whether the stream has left, and the time, if there is one, at which
// to look again.
func (s *webStream) due() (at time.Time, ready, left bool) {
	d, h := s.w.d, &s.w.health
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	if d.sated() {
		s.leave()
	}
	s.w.rested(now)
	if at = h.Rests(); at.After(now) {
		return at, false, s.left
	}
	s.supply.Ready = !s.left
	return h.NextRested(), len(s.todo) > 0 || !d.hashing.waiting && d.picker.Interesting(&s.supply), s.left
}

// next chooses the blocks to ask for. It returns the first one and the offset behind the last. The first is the current one.
func (s *webStream) next() (first picker.Block, end int64, ok bool) {
	d := s.w.d
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	if s.left {
		return first, 0, false
	}
	if len(s.todo) == 0 && !d.hashing.waiting {
		blocks, cancel := d.picker.NextRun(&s.supply, s.supply.RunLength(), now, d.pending.scratch[:0])
		d.pending.scratch = blocks
		d.cancelAll(cancel)
		s.todo = append(s.todo, blocks...)
	}
	if len(s.todo) == 0 {
		return first, 0, false
	}
	asked := make(map[picker.Block]bool, len(s.todo))
	for _, id := range s.todo {
		asked[id] = true
	}
	first = s.todo[0]
	for first.Index > 0 && asked[picker.Block{Piece: first.Piece, Index: first.Index - 1}] {
		first.Index--
	}
	gap, most := int64(s.supply.Gap()), d.offsetOf(first)+picker.MaxRun*blockSize
	end = d.endOf(first)
	for next, more := d.after(first); more && d.offsetOf(next) <= end+gap && d.endOf(next) <= most; next, more = d.after(next) {
		if asked[next] {
			end = d.endOf(next)
		}
	}
	s.gap = max(gap, leastGap)
	s.current = first
	return first, end, true
}

// fetch asks for one run of blocks and takes them. It reports whether there was a run to ask for.
func (s *webStream) fetch(parent context.Context) bool {
	d := s.w.d
	id, end, ok := s.next()
	if !ok {
		return false
	}
	ctx, stop := context.WithCancelCause(parent)
	defer stop(nil)
	s.began = time.Now()
	defer s.takeTurns(ctx).Stop()
	d.mu.Lock()
	s.reading, s.stop, s.until = true, stop, end
	wanted := slices.Contains(s.todo, id)
	d.mu.Unlock()
	defer func() {
		s.closeBody()
		now := time.Now()
		d.mu.Lock()
		s.reading = false
		s.supply.Forget()
		s.countSkipped(now)
		d.mu.Unlock()
	}()
	for more := wanted; more; {
		b, err := s.read(ctx, id, end)
		if err != nil {
			s.broke(ctx, err)
			return true
		}
		id, more = s.handIn(ctx, id, b)
	}
	return true
}

// broke records why a request ended early.
func (s *webStream) broke(ctx context.Context, err error) {
	if ctx.Err() != nil || err == errWithdrawn {
		return // it is not wanted any more
	}
	d := s.w.d
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	if s.came < enough && !s.left {
		s.w.failed(s, s.file, err, now)
		if s.w.health.FileRests(s.file) {
			s.partial = nil // a later answer may be of another version of the file
		}
	}
}

func (s *webStream) closeBody() {
	if s.body != nil {
		s.body.Close()
		s.body = nil
	}
}

// read reads a block, in a run of blocks up to end.
func (s *webStream) read(ctx context.Context, id picker.Block, end int64) ([]byte, error) {
	d := s.w.d
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	s.awaitRoom(ctx)
	b := d.client.blockPool.Get()[:0]
	if s.broken == id {
		b = append(b, s.partial...)
	}
	s.partial = nil
	size := d.t.layout.BlockLen(int(id.Piece), int(id.Index))
	for off := d.offsetOf(id); len(b) < size; {
		part := webseed.PartAt(d.t.layout, off+int64(len(b)), max(end, off+int64(size)))
		n := int(min(part.Length, int64(size-len(b))))
		to := b[len(b) : len(b)+n]
		if part.Pad {
			clear(to)
			b = b[:len(b)+n]
			continue
		}
		err := s.seek(ctx, part)
		for read := 0; err == nil && read < n; {
			var k int
			k, err = s.body.Read(to[read:])
			read += k
			s.came += int64(k)
			b = b[:len(b)+k]
			if err == io.EOF && read == n {
				err = nil
			}
		}
		if err != nil {
			s.partial, s.broken = bytes.Clone(b), id // the next request continues after it
			d.client.blockPool.Put(b)
			d.mu.Lock()
			d.traffic.gate.Refund(1)
			d.mu.Unlock()
			return nil, err
		}
	}
	return b, nil
}

// seek makes body one whose next byte is the first of a part.
func (s *webStream) seek(ctx context.Context, part webseed.Part) (err error) {
	b := s.body
	if b != nil && s.file == part.File && b.Offset <= part.Offset && part.Offset < b.End && (b.Rangeless || part.Offset-b.Offset <= s.gap) {
		return s.skip(ctx, part.Offset)
	}
	s.closeBody()
	s.file, s.came = part.File, 0
	if s.body, err = s.w.seed.Open(ctx, part.File, part.Offset, part.Offset+part.Length); err != nil {
		return err
	}
	if !s.opened() {
		return errWithdrawn
	}
	return s.skip(ctx, part.Offset)
}

// opened looks at a body that was opened: its server may send whole files only, or accept more requests at once. It
// reports whether to read the body.
func (s *webStream) opened() bool {
	w := s.w
	now := time.Now()
	w.d.mu.Lock()
	defer w.d.unlock(now)
	s.supply.Begins(now)
	if s.body.Rangeless {
		s.until = max(s.until, w.d.t.layout.File(s.file).End())
		return w.keepTo(s)
	}
	for w.only == nil && !w.crowded && len(w.streams) < w.seed.MaxRequests() && w.addStream() {
	}
	return true
}

// admit waits until the limits let another block pass, or other downloads are to have their turn at the host, unless the body
// would begin again.
func (s *webStream) admit(ctx context.Context) error {
	d := s.w.d
	for held := false; ; held = true {
		now := time.Now()
		d.mu.Lock()
		n := d.traffic.gate.Admit(now, 1)
		pause := d.traffic.gate.Pause()
		if held {
			s.supply.Held(now)
		}
		d.mu.Unlock()
		if n == 1 {
			return nil
		}
		if yield := s.began.Add(turnHeld); !now.Before(yield) && (s.body == nil || !s.body.Rangeless) && s.w.seed.Wanted() {
			d.mu.Lock()
			s.release(allBlocks)
			d.unlock(now)
			return errWithdrawn
		}
		timer := time.NewTimer(min(pause, turnHeld))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// handIn takes a block that was read, and returns the one to be read next if there is another in the same answer.
func (s *webStream) handIn(ctx context.Context, id picker.Block, b []byte) (next picker.Block, more bool) {
	d, w := s.w.d, s.w
	n := int64(len(b))
	lie := d.isFalse(id, b)
	now := time.Now()
	d.mu.Lock()
	if lie {
		return s.sentFalseBlock(id, b, now)
	}
	if !slices.Contains(s.todo, id) {
		s.offer(id, now) // taken over meanwhile
	}
	if k := slices.Index(s.todo, id); k >= 0 {
		s.todo = slices.Delete(s.todo, k, k+1)
	}
	v, out := d.takeBlock(&s.supply, id, b, now)
	if v == picker.Accepted {
		w.health.Worked()
	}
	w.down.Add(n, now)
	s.countSkipped(now)
	if next, more = s.following(id, now); more {
		s.current = next
	}
	d.unlock(now)
	if out.a != nil {
		s.write(ctx, out)
	}
	return next, more
}

// sentFalseBlock drops a block that is known to be false, and what else the web seed was asked for of its piece. The caller holds
// s.w.d.mu, which it releases.
func (s *webStream) sentFalseBlock(id picker.Block, b []byte, now time.Time) (next picker.Block, more bool) {
	d, w := s.w.d, s.w
	d.client.blockPool.Put(b)
	s.skipped += int64(len(b))
	s.countSkipped(now)
	if !w.health.PieceRests(int(id.Piece)) { // another of the same piece counts once
		w.sentFalsePiece(int(id.Piece), now)
	}
	if !s.left {
		if next, more = s.following(id, now); more {
			s.current = next
		}
	}
	d.unlock(now)
	return next, more
}

// countSkipped adds the bytes that were skipped to the wasted ones. The caller holds s.w.d.mu.
func (s *webStream) countSkipped(now time.Time) {
	d, n := s.w.d, s.skipped
	s.skipped = 0
	d.traffic.downloaded += n
	d.traffic.wasted += n
	d.traffic.down.Add(n, now)
	s.w.down.Add(n, now)
}

// following is the block to be read after another. The caller holds s.w.d.mu.
func (s *webStream) following(id picker.Block, now time.Time) (next picker.Block, more bool) {
	d := s.w.d
	if next, more = d.after(id); more && slices.Contains(s.todo, next) {
		return next, true
	}
	end := d.endOf(id)
	if s.w.only != s {
		limit := min(s.until, end+s.gap+1)
		most := limit
		for _, id := range s.todo {
			if off := d.offsetOf(id); off >= end && off < most {
				next, most = id, off
			}
		}
		return next, most < limit
	}
	// The server sends the rest of the file in any case, and would send all of it again.
	for ; more && d.offsetOf(next) < s.until; next, more = d.after(next) {
		if !d.picker.Needed().Has(int(next.Piece)) {
			next.Index = int32(d.t.layout.NumBlocks(int(next.Piece)) - 1)
		} else if slices.Contains(s.todo, next) || s.offer(next, now) {
			return next, true
		}
	}
	return next, false
}
