package torrent

import (
	"sync"
	"sync/atomic"
)

const (
	// hashRun is how much of a piece is read back at a time, and shortRun how much if many others are. Both are whole blocks.
	hashRun  = 256 << 10
	shortRun = blockSize
	// longRuns is how many buffers of hashRun bytes the downloads of a client may use at a time.
	longRuns = 64
)

// readBack lends the buffers that pieces are read back into. A disk may be slow, so none is waited for.
type readBack struct {
	long atomic.Int64 // buffers of hashRun bytes that are in use
	pool sync.Pool    // of *[]byte, of hashRun bytes
}

func (r *readBack) get() *[]byte {
	if r.long.Add(1) > longRuns {
		r.long.Add(-1)
		b := make([]byte, shortRun)
		return &b
	}
	if b, ok := r.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, hashRun)
	return &b
}

func (r *readBack) put(b *[]byte) {
	if len(*b) == hashRun {
		r.pool.Put(b)
		r.long.Add(-1)
	}
}
