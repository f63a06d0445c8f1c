// Package blockpool lends the buffers that blocks are received into, and bounds how many of them the
// started pieces of all downloads of a client hold at a time.
//
// A client owns one Pool, and each of its downloads a Share of it. Both may be used from any goroutine;
// one lock, the pool's, guards them all.
package blockpool

import (
	"cmp"
	"sync"
	"time"
)

const (
	// Limit bounds the blocks of started pieces that are held in memory, client-wide.
	Limit = 32 << 20
	// reserved is the part of that, one in so many, which is for downloads below their share.
	reserved = 4
	// trimmed is the part of the spare buffers, one in so many, that Trim gives up.
	trimmed = 16
)

// A Pool lends buffers of one block and counts those that started pieces hold. Buffers that come back
// are lent again rather than left to the garbage collector, which would let twice as much memory
// pile up before it looks.
type Pool struct {
	block int   // bytes of a buffer
	limit int64 // bytes in started pieces

	mu        sync.Mutex
	room      sync.Cond // held or flushing became less
	free      [][]byte
	low       int // the least that free held since trimmedAt
	trimmedAt time.Time
	held      int64 // bytes in started pieces, never more than limit
	holders   int   // shares that hold some
}

// New returns a pool of buffers of block bytes, of which started pieces may hold limit bytes; 0 is Limit.
func New(block int, limit int64) *Pool {
	p := &Pool{block: block, limit: cmp.Or(limit, Limit)}
	p.room.L = &p.mu
	return p
}

// Get returns a buffer of one block.
func (p *Pool) Get() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	if last < 0 {
		return make([]byte, p.block)
	}
	b := p.free[last]
	p.free[last] = nil
	p.free = p.free[:last]
	p.low = min(p.low, last)
	return b
}

// Put takes a buffer back, whatever it was cut to.
func (p *Pool) Put(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, b[:p.block])
}

// Trim gives up, at most once a second, some of the buffers that were not needed since the last time. It
// takes few at a time: a buffer that is needed again soon is worth recycling.
func (p *Pool) Trim(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.trimmedAt) < time.Second {
		return
	}
	p.trimmedAt = now
	keep := len(p.free) - (p.low+trimmed-1)/trimmed
	clear(p.free[keep:])
	p.free = p.free[:keep]
	p.low = keep
}

// Held returns how many bytes started pieces hold, and the bound on them.
func (p *Pool) Held() (held, limit int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held, p.limit
}
