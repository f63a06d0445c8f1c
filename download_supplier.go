package torrent

import (
	"time"

	"github.com/shoal-go/torrent/internal/picker"
)

// A supplier sends blocks: a peer is a supplier, and so is a request to a web seed. It is the Owner of a picker.Supplier, by which
// the picker chooses its blocks. The blocks that it sends go to Download.takeBlock.
//
// Its methods are called with the download's mutex held.
type supplier interface {
	// request asks for blocks.
	request(blocks []picker.Block)
	// withdraw takes a request back. The block need not be sent.
	withdraw(block picker.Block)
}

// refill asks a supplier for as many blocks as its pipeline takes. The caller holds d.mu.
func (d *Download) refill(s *picker.Supplier, now time.Time) {
	if s.Runs {
		s.Owner.(*webStream).signal() // it asks for itself, when it may
	} else if room := s.Room(); room > 0 {
		d.ask(s, room, now)
	}
}

// refillInRound is refill, because of something else than a message of the supplier. A peer that refuses or loses what it is asked for
// has other blocks chosen for it as often: the work to find them is charged to it, with its next message. The caller holds d.mu.
func (d *Download) refillInRound(s *picker.Supplier, now time.Time) {
	work, asked := d.picker.Work(), s.Outstanding()
	d.refill(s, now)
	if p, ok := s.Owner.(*peer); ok && s.Outstanding() > asked {
		p.credit.Add(work - d.picker.Work())
	}
}

// ask asks a supplier for up to room more blocks, as far as limits admit them. The caller holds d.mu.
func (d *Download) ask(s *picker.Supplier, room int, now time.Time) {
	if d.hashing.waiting {
		return
	}
	n := d.admitRequests(room, now)
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

// admitRequests returns how many of room requests the limits admit now. The caller holds d.mu.
func (d *Download) admitRequests(room int, now time.Time) int {
	n := d.traffic.gate.Admit(now, room)
	if n < room && !d.traffic.throttled {
		d.traffic.throttled = true
		if !d.traffic.turning {
			d.signal() // turn asks again when the limits admit more
		}
	}
	return n
}

// rush fetches a piece that a reader waits for as soon as possible, from all suppliers that can help.
// The caller holds d.mu.
func (d *Download) rush(piece int, now time.Time) {
	if d.hashing.waiting {
		return
	}
	asked := d.picker.Rush(piece, now, func(cancel []picker.Request, n int) int {
		d.pending.freed = d.pending.freed || len(cancel) > 0
		d.cancelAll(cancel)
		return d.admitRequests(n, now)
	})
	for _, e := range asked {
		if e.Supplier.Runs {
			d.traffic.gate.Refund(1) // it is admitted when it is read
		}
		d.pending.scratch = append(d.pending.scratch[:0], e.Block)
		e.Supplier.Owner.(supplier).request(d.pending.scratch)
	}
}

// takeBlock takes a block that a supplier sent. The caller writes out once the mutex is released. A block that was never
// requested is dropped and not counted; what that means for the supplier is up to the caller. The caller holds d.mu.
func (d *Download) takeBlock(s *picker.Supplier, id picker.Block, b []byte, now time.Time) (v picker.Verdict, out batch) {
	n := int64(len(b))
	got := d.picker.Received(s, id, now)
	if got.Again {
		s.Owner.(supplier).withdraw(id)
	}
	switch got.Verdict {
	case picker.Unrequested:
		d.client.blockPool.Put(b)
		return picker.Unrequested, out
	case picker.Wasted:
		d.client.blockPool.Put(b)
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
			d.rush(int(id.Piece), now) // it has sent its share, and may help others
		}
	}
	d.traffic.downloaded += n
	d.traffic.down.Add(n, now)
	return got.Verdict, out
}

// cancel tells a supplier that it need not send a block. followUp asks it for another instead. The caller holds d.mu.
func (d *Download) cancel(s *picker.Supplier, id picker.Block) {
	s.Owner.(supplier).withdraw(id)
	if !s.Runs {
		d.traffic.gate.Refund(1)
	}
	s.Roomy, d.pending.roomy = true, true
}

// The caller holds d.mu.
func (d *Download) cancelAll(all []picker.Request) {
	for _, c := range all {
		d.cancel(c.Supplier, c.Block)
	}
}

// snub cancels the requests that a supplier has let wait for too long, and reports whether there were any.
// The caller holds d.mu.
func (d *Download) snub(s *picker.Supplier, now time.Time) bool {
	late := d.picker.Snub(s, now)
	d.cancelAll(late)
	if len(late) == 0 {
		return false
	}
	d.pending.freed, d.pending.rechoke = true, true
	return true
}
