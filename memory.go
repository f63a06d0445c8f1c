package torrent

import (
	"sync"
	"sync/atomic"
)

// maxStartedMemory bounds the blocks of started pieces that are held in memory, client-wide.
const maxStartedMemory = 32 << 20

// blockMemory lends buffers of one block and counts those that started pieces keep.
type blockMemory struct {
	pool sync.Pool
	kept atomic.Int64 // bytes in started pieces, never more than maxStartedMemory
}

// get returns a buffer of blockSize bytes.
func (m *blockMemory) get() []byte {
	if b, ok := m.pool.Get().(*[blockSize]byte); ok {
		return b[:]
	}
	return make([]byte, blockSize)
}

// put takes a buffer back, whatever its length has become.
func (m *blockMemory) put(b []byte) {
	m.pool.Put((*[blockSize]byte)(b[:blockSize]))
}

// keep counts one more block as kept in a started piece, if there is room for it.
func (m *blockMemory) keep() bool {
	if m.kept.Add(blockSize) > maxStartedMemory {
		m.kept.Add(-blockSize)
		return false
	}
	return true
}

// drop takes a block back that was kept.
func (m *blockMemory) drop(b []byte) {
	m.kept.Add(-blockSize)
	m.put(b)
}
