package torrent

import (
	"cmp"
	"sync"
	"time"
)

const (
	// maxStartedMemory bounds the blocks of started pieces that are held in memory, client-wide.
	maxStartedMemory = 32 << 20
	// reservedMemory is the part of that, one in so many, which is for downloads below their share.
	reservedMemory = 4
	// trimShare is the part of the spare buffers, one in so many, that trim gives up.
	trimShare = 16
)

// blockMemory lends buffers of one block and counts those that started pieces keep. Buffers that come back
// are lent again rather than left to the garbage collector, which would let twice as much memory
// pile up before it looks.
type blockMemory struct {
	mu      sync.Mutex
	room    sync.Cond // kept or flushing became less
	free    [][]byte
	low     int // the least that free held since the last trim
	trimmed time.Time
	most    int64 // bytes in started pieces, maxStartedMemory unless it was set before init
	kept    int64 // bytes in them, never more than most
	keepers int   // downloads that keep some
}

// keeper is one download's part in it. The mutex of blockMemory guards it.
type keeper struct {
	kept     int64 // bytes in its started pieces
	flushing int   // its whole pieces on their way to storage, which will give their blocks back
}

func (m *blockMemory) init() {
	m.room.L = &m.mu
	m.most = cmp.Or(m.most, maxStartedMemory)
}

// get returns a buffer of blockSize bytes.
func (m *blockMemory) get() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := len(m.free) - 1
	if last < 0 {
		return make([]byte, blockSize)
	}
	b := m.free[last]
	m.free[last] = nil
	m.free = m.free[:last]
	m.low = min(m.low, last)
	return b
}

// put takes a buffer back, whatever its length has become.
func (m *blockMemory) put(b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = append(m.free, b[:blockSize])
}

// trim gives up, at most once a second, some of the buffers that nobody needed since it did so last. It
// takes its time: what is needed again soon had better not become garbage.
func (m *blockMemory) trim(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Sub(m.trimmed) < time.Second {
		return
	}
	m.trimmed = now
	keep := len(m.free) - (m.low+trimShare-1)/trimShare
	clear(m.free[keep:])
	m.free = m.free[:keep]
	m.low = keep
}

// fits tells whether k may keep one more block: it may have an equal share of the room, and what the
// others leave of theirs. The caller holds mu.
func (m *blockMemory) fits(k *keeper) bool {
	others := m.keepers
	if k.kept > 0 {
		others--
	}
	below := k.kept+blockSize <= m.most/int64(others+1)
	left := m.most - m.kept
	return left >= blockSize && (below || left > m.most/reservedMemory)
}

// keep counts one more block as kept in a started piece of k, if there is room for it.
func (m *blockMemory) keep(k *keeper) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.fits(k) {
		return false
	}
	if k.kept == 0 {
		m.keepers++
	}
	k.kept += blockSize
	m.kept += blockSize
	return true
}

// release counts n blocks as kept no more.
func (m *blockMemory) release(k *keeper, n int) {
	if n == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if k.kept -= int64(n) * blockSize; k.kept == 0 {
		m.keepers--
	}
	m.kept -= int64(n) * blockSize
	m.room.Broadcast()
}

// drop takes a block back that was kept.
func (m *blockMemory) drop(k *keeper, b []byte) {
	m.release(k, 1)
	m.put(b)
}

// flush counts whole pieces of k that are about to be stored; a negative n, that they were.
func (m *blockMemory) flush(k *keeper, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k.flushing += n
	m.room.Broadcast()
}

// await returns once there is room for a block of k, or nothing of it on its way to storage that would
// make some: a disk that is slower than the peers slows them down, instead of being given more to do.
func (m *blockMemory) await(k *keeper) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.fits(k) && k.flushing > 0 {
		m.room.Wait()
	}
}
