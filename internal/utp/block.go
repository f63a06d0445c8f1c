package utp

import "sync"

// Sizes of blocks: one holds a packet of any size that we send, the next as long a run of them as may go
// out at once, the last several such runs.
const (
	smallBlock = 2 << 10
	largeBlock = 64 << 10
	hugeBlock  = 256 << 10
)

// allocator lends the memory for data under way, in one of the sizes of blocks.
type allocator interface {
	allocate(size int) []byte
	release(b []byte)
}

// blocks is the allocator of a Socket. Returned memory is lent again, until the garbage collector takes it.
type blocks struct{ small, large, huge sync.Pool }

func (p *blocks) allocate(size int) []byte {
	switch {
	case size <= smallBlock:
		if b, ok := p.small.Get().(*[smallBlock]byte); ok {
			return b[:]
		}
		return make([]byte, smallBlock)
	case size <= largeBlock:
		if b, ok := p.large.Get().(*[largeBlock]byte); ok {
			return b[:]
		}
		return make([]byte, largeBlock)
	}
	if b, ok := p.huge.Get().(*[hugeBlock]byte); ok {
		return b[:]
	}
	return make([]byte, hugeBlock)
}

func (p *blocks) release(b []byte) {
	switch len(b) {
	case smallBlock:
		p.small.Put((*[smallBlock]byte)(b))
	case largeBlock:
		p.large.Put((*[largeBlock]byte)(b))
	case hugeBlock:
		p.huge.Put((*[hugeBlock]byte)(b))
	}
}
