package torrent

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/picker"
)

// skip reads on to an offset in the file. Whole blocks on the way that are wanted are taken.
func (s *webStream) skip(ctx context.Context, to int64) error {
	d := s.w.d
	base := d.t.layout.File(s.file).Offset
	for s.body.Offset < to {
		if err := s.admit(ctx); err != nil {
			return err
		}
		off := base + s.body.Offset
		id := d.blockOver(off)
		n := min(d.endOf(id), base+to) - off
		s.awaitRoom(ctx)
		b := d.client.blockPool.Get()[:n]
		k, err := io.ReadFull(s.body, b)
		if err == nil && int(n) == d.t.layout.BlockLen(int(id.Piece), int(id.Index)) && s.wants(id) {
			s.came += int64(k)
			s.handIn(ctx, id, b)
			continue
		}
		d.client.blockPool.Put(b)
		s.skipped += int64(k)
		if err != nil {
			return err
		}
		d.mu.Lock()
		s.supply.Begins(time.Now())
		d.mu.Unlock()
	}
	return nil
}

// wants reports whether a block that comes in any case is wanted. If so, it counts as requested.
func (s *webStream) wants(id picker.Block) bool {
	d := s.w.d
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	return slices.Contains(s.todo, id) || s.offer(id, now)
}

// offer asks the stream for a block that comes in any case, and reports whether it is wanted. The caller holds
// s.w.d.mu.
func (s *webStream) offer(id picker.Block, now time.Time) bool {
	if s.left {
		return false
	}
	cancel, wanted := s.w.d.picker.Offer(&s.supply, id, now)
	if s.w.d.cancelAll(cancel); wanted {
		s.todo = append(s.todo, id)
	}
	return wanted
}
