package torrent

import (
	"time"

	"github.com/shoal-go/torrent/internal/picker"
)

// A supplier is what blocks come from. A peer is one. It is asked for the blocks that the picker chooses by what
// it knows of it, a remote whose Owner it is, and what it sends goes to take.
type supplier interface {
	// request asks for blocks.
	request(blocks []picker.Block)
	// withdraw takes a request back: the block need not be sent.
	withdraw(block picker.Block)
}

// refill asks a supplier for as much as its pipeline takes.
func (d *Download) refill(s *picker.Supplier, now time.Time) {
	if room := s.Room(); room > 0 {
		d.ask(s, room, now)
	}
}

// ask asks a supplier for up to room blocks more, as far as limits admit them.
func (d *Download) ask(s *picker.Supplier, room int, now time.Time) {
	n := d.admit(room, now)
	if n == 0 {
		return
	}
	blocks, cancel := d.picker.Next(s, n, now, d.pending.scratch[:0])
	d.pending.scratch = blocks
	d.traffic.gate.Refund(n - len(blocks))
	d.cancelAll(cancel)
	if len(blocks) > 0 {
		s.Owner.(supplier).request(blocks)
	}
}

// admit is how many of up to room requests limits let pass now.
func (d *Download) admit(room int, now time.Time) int {
	n := d.traffic.gate.Admit(now, room)
	if n < room && !d.traffic.throttled {
		d.traffic.throttled = true
		if !d.traffic.turning {
			d.signal() // turn comes back when the limit lets more pass
		}
	}
	return n
}

// rush has a piece that a reader waits for fetched by all who can help, before what is less wanted.
func (d *Download) rush(piece int, now time.Time) {
	asked := d.picker.Rush(piece, now, func(cancel []picker.Request, n int) int {
		d.pending.freed = d.pending.freed || len(cancel) > 0
		d.cancelAll(cancel)
		return d.admit(n, now)
	})
	for _, e := range asked {
		d.pending.scratch = append(d.pending.scratch[:0], e.Block)
		e.Supplier.Owner.(supplier).request(d.pending.scratch)
	}
}

// take takes a block that a supplier sent, and returns what is to be written because of it. A block that was never
// asked for is dropped, and held against the supplier by whoever knows what it is.
func (d *Download) take(s *picker.Supplier, id picker.Block, b []byte, now time.Time) (picker.Verdict, batch) {
	var out batch
	n := int64(len(b))
	got := d.picker.Received(s, id, now)
	if got.Again {
		s.Owner.(supplier).withdraw(id)
	}
	switch got.Verdict {
	case picker.Unrequested:
		d.client.blocks.Put(b)
		return picker.Unrequested, out
	case picker.Wasted:
		d.client.blocks.Put(b)
		d.traffic.wasted += n
	case picker.Accepted:
		out = d.hold(id, b, now)
		d.progress.last = now
		for _, o := range got.Cancel {
			if o != nil {
				d.cancel(o, id)
			}
		}
		if out.a == nil {
			d.finishPiece(id.Piece)
		}
		if d.reading.awaited[int(id.Piece)] > 0 && !s.IsAsked(int(id.Piece)) {
			d.rush(int(id.Piece), now) // it has done its share, and may help others with theirs
		}
	}
	d.traffic.downloaded += n
	d.traffic.down.Add(n, now)
	return got.Verdict, out
}

// cancel tells a supplier that a block is not wanted of it any more, and has it asked for another in its place.
func (d *Download) cancel(s *picker.Supplier, id picker.Block) {
	s.Owner.(supplier).withdraw(id)
	d.traffic.gate.Refund(1)
	s.Roomy, d.pending.roomy = true, true
}

func (d *Download) cancelAll(all []picker.Request) {
	for _, c := range all {
		d.cancel(c.Supplier, c.Block)
	}
}

// snub takes the blocks back that a supplier has let wait for too long, and tells whether there were any.
func (d *Download) snub(s *picker.Supplier, now time.Time) bool {
	late := d.picker.Snub(s, now)
	d.cancelAll(late)
	if len(late) == 0 {
		return false
	}
	d.pending.freed, d.pending.rechoke = true, true
	return true
}
