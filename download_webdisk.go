package torrent

import "context"

// awaitRoom waits until there is room for another block. The end of the request ends it, which others may wait for.
func (s *webStream) awaitRoom(ctx context.Context) {
	share := s.w.d.assembling.share
	if !share.Waits() {
		return
	}
	s.stall(true)
	defer s.stall(false)
	share.Await(ctx)
}

// write writes a block that was not kept in memory. If the request ends before, another goroutine goes on with that.
func (s *webStream) write(ctx context.Context, out batch) {
	d := s.w.d
	written := make(chan struct{})
	s.behind = written
	d.life.tasks.Go(func() {
		defer close(written)
		d.write(out)
	})
	s.stall(true)
	defer s.stall(false)
	select {
	case <-written:
	case <-ctx.Done():
	}
}

// stall records whether the stream waits for the disk.
func (s *webStream) stall(is bool) {
	s.w.d.mu.Lock()
	defer s.w.d.mu.Unlock()
	s.stalled = is
}

// awaitDisk waits until what came before is written and there is room for another block, or until ctx ends.
func (s *webStream) awaitDisk(ctx context.Context) {
	if s.behind != nil {
		select {
		case <-s.behind:
			s.behind = nil
		case <-ctx.Done():
		}
	}
	s.w.d.assembling.share.Await(ctx)
}
