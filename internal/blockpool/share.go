package blockpool

import "context"

// A Share is one download's part of a pool. The pool's lock guards it.
type Share struct {
	pool     *Pool
	held     int64 // bytes in its started pieces
	flushing int   // its whole pieces on their way to storage, which will return their blocks
}

// NewShare returns the share of another download.
func (p *Pool) NewShare() *Share { return &Share{pool: p} }

// fits reports whether s may hold one more block: it may hold an equal share of the limit, and what the
// others leave of theirs but for a reserve. The caller holds s.pool.mu.
func (s *Share) fits() bool {
	p := s.pool
	others := p.holders
	if s.held > 0 {
		others--
	}
	block := int64(p.block)
	below := s.held+block <= p.limit/int64(others+1)
	left := p.limit - p.held
	return left >= block && (below || left > p.limit/reserved)
}

// Hold counts one more block as held in a started piece, and reports whether there was room for it.
func (s *Share) Hold() bool {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if !s.fits() {
		return false
	}
	if s.held == 0 {
		p.holders++
	}
	s.held += int64(p.block)
	p.held += int64(p.block)
	return true
}

// Release counts n blocks as held no more. Their buffers remain lent.
func (s *Share) Release(n int) {
	if n == 0 {
		return
	}
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	s.held -= int64(n) * int64(p.block)
	if s.held == 0 {
		p.holders--
	}
	p.held -= int64(n) * int64(p.block)
	p.room.Broadcast()
}

// Drop releases one block, and returns its buffer to the pool.
func (s *Share) Drop(b []byte) {
	s.Release(1)
	s.pool.Put(b)
}

// BeginFlush counts a whole piece that is about to be stored, EndFlush one that was.
func (s *Share) BeginFlush() { s.flush(1) }
func (s *Share) EndFlush()   { s.flush(-1) }

func (s *Share) flush(n int) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.flushing += n
	s.pool.room.Broadcast()
}

// Waits reports whether Await would wait now.
func (s *Share) Waits() bool {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	return s.waits()
}

// The caller holds s.pool.mu.
func (s *Share) waits() bool { return s.flushing > 0 && !s.fits() }

// Await returns once there is room for a block, or no piece of this share on its way to storage that
// would make some. A disk that is slower than the peers thereby slows them down, instead of being given
// more to do. It also returns when ctx ends.
func (s *Share) Await(ctx context.Context) {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if !s.waits() {
		return
	}
	defer context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.room.Broadcast()
	})()
	for s.waits() && ctx.Err() == nil {
		p.room.Wait()
	}
}
