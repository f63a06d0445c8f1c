package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"

	"github.com/shoal-go/torrent/internal/bits"
)

// maxLate is how many bytes may be left to copy while reads and writes wait.
const maxLate = 4 << 20

// wrote records a write to the old file i if its copy has begun. The caller holds m.s.files[i].mu.
func (m *move) wrote(i int, bufs [][]byte, off int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	spans, begun := m.written[i]
	if !begun {
		return
	}
	n := int64(0)
	for _, b := range bufs {
		n += int64(len(b))
	}
	if k := len(spans); k > 0 && spans[k-1].to == off {
		spans[k-1].to += n
	} else {
		spans = append(spans, span{off, off + n})
	}
	m.written[i] = spans
}

// accepted records that another program changed the old file i, so that a copy no longer equals it and no claim holds.
func (m *move) accepted(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.doubted[i] = true
	if _, begun := m.written[i]; begun {
		m.void[i] = true
	}
}

// copyAll takes step 2, except for the sync of files that are linked, which commit does first. Files that are made meanwhile are
// copied as well: in commit all reads and writes would wait for that.
func (m *move) copyAll(have bits.Set) error {
	m.tell(0)
	for round := range 9 { // little is left soon, unless data arrives faster than the disks copy it
		late := m.late()
		for _, i := range m.files {
			if !m.staged[i] {
				continue
			}
			err := m.catchUp(i, source{m.lockedStep, m.s.syncFile})
			if err == nil {
				err = m.finishCopy(i)
			}
			if err != nil && !absent(err) { // place leaves out what another program removed
				return err
			}
		}
		known := len(m.files)
		m.s.mu.RLock()
		m.renew(have)
		m.s.mu.RUnlock()
		if some := m.chooseStaged(m.files[known:]); !some && round > 0 && late < maxLate {
			break
		}
	}
	return nil
}

// late returns how many of the bytes written since the copies began are not copied yet. It returns math.MaxInt64 if a file must
// be copied again as a whole.
func (m *move) late() (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.void) > 0 {
		return math.MaxInt64
	}
	for _, spans := range m.written {
		for _, s := range spans {
			n += s.to - s.from
		}
	}
	return n
}

// A source reads old files, for a caller that holds m.s.mu or for one that does not.
type source struct {
	// step copies a part of the old file i, at or after off and before end, and returns the offset of the next part. If no data is
	// left before end, it returns io.EOF. With holes, it leaves out the holes of the file.
	step func(i int, to DiskFile, buf []byte, off, end int64, holes bool) (next int64, err error)
	// sync syncs the old file i.
	sync func(i int) error
}

// lockedStep is the step of a source for a caller that does not hold m.s.mu.
func (m *move) lockedStep(i int, to DiskFile, buf []byte, off, end int64, holes bool) (int64, error) {
	m.s.mu.RLock()
	defer m.s.mu.RUnlock()
	return m.step(i, to, buf, off, end, holes)
}

// step is the step of a source. It holds the mutex of the file, so that no write to the old file comes between its read and the write
// of the copy. The caller holds m.s.mu.
func (m *move) step(i int, to DiskFile, buf []byte, off, end int64, holes bool) (int64, error) {
	s := m.s
	if s.closed || s.stopped.Load() {
		return 0, ErrClosed
	}
	if err := context.Cause(m.ctx); err != nil {
		return 0, err
	}
	f := &s.files[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == (Stamp{}) {
		return end, io.EOF // the edges were removed; place leaves them out
	}
	h, err := s.handles.get(i, false, false)
	if err != nil {
		return 0, err
	}
	defer s.handles.put(h)
	next, n, err := copyPart(h.f, to, buf, off, end, holes)
	if err == nil {
		m.tell(int64(n))
	}
	return next, err
}

// tell reports the progress after another n bytes.
func (m *move) tell(n int64) {
	m.done += n
	m.progress(m.done, max(m.total, m.done))
}

// sameBytes reports whether the first size bytes of file i are the same in the old and in the new directory.
func (m *move) sameBytes(i int, size int64) (bool, error) {
	name := m.s.nameOf(i)
	ours, err := m.s.openToRead(name)
	if err != nil {
		return false, err
	}
	defer ours.Close()
	other, err := m.to.Open(name, os.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer other.Close()
	a, b := make([]byte, maxStep), make([]byte, maxStep)
	for off := int64(0); off < size; off += maxStep {
		if err := context.Cause(m.ctx); err != nil {
			return false, err
		}
		n := min(maxStep, size-off)
		if err := errors.Join(readFull(ours, a[:n], off), readFull(other, b[:n], off)); err != nil {
			return false, err
		}
		if !bytes.Equal(a[:n], b[:n]) {
			return false, nil
		}
	}
	return true, nil
}

func (s *fileStore) openToRead(name string) (DiskFile, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	return s.disk.Open(name, os.O_RDONLY)
}

// copyFile copies the old file i to the hidden directory, and keeps its holes. What is in the system's cache alone may seem to be one, as
// where FUSE keeps what was written and the server does not know of it yet, so copyFile syncs the file first. What is written later is
// recorded, and copied without a look for holes.
func (m *move) copyFile(i int, from source) error {
	m.mu.Lock()
	m.written[i] = nil // from here on
	delete(m.void, i)
	m.mu.Unlock()
	if err := flushed(from.sync(i)); err != nil {
		return err
	}
	size := m.s.sizeOf(i)
	return m.copySpans(i, from, os.O_RDWR|os.O_CREATE|os.O_EXCL, span{0, size})
}

// sizeOf returns the size in bytes with which file i was left.
func (s *fileStore) sizeOf(i int) int64 { return s.leftAs(i).Size }

// catchUp copies what was written to the old file i since it was copied, or all of it if it was not.
func (m *move) catchUp(i int, from source) error {
	m.mu.Lock()
	spans, begun := m.written[i]
	void := m.void[i]
	m.written[i] = nil
	m.mu.Unlock()
	switch {
	case !begun:
		return m.copyFile(i, from)
	case void:
		if err := m.removeStaged(i); err != nil {
			return err
		}
		return m.copyFile(i, from)
	case len(spans) == 0:
		return nil
	}
	return m.copySpans(i, from, os.O_RDWR|os.O_CREATE, spans...)
}

// copySpans copies these spans of the old file i to its copy, which it opens with flag, and syncs the copy. If it makes the copy, it
// leaves out holes.
func (m *move) copySpans(i int, from source, flag int, spans ...span) (err error) {
	delete(m.finished, i)
	to, err := m.to.Open(m.stagedName(i), flag)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	buf := make([]byte, maxStep)
	for _, s := range spans {
		for off := s.from; off < s.to; {
			next, err := from.step(i, to, buf, off, s.to, flag&os.O_EXCL != 0)
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			off = next
		}
	}
	return to.Sync()
}

// finishCopy gives the copy of file i the size and, if it may, the modification time of the old file, unless it has them. It is called
// before reads and writes wait, too: there may be very many files, and each is synced.
func (m *move) finishCopy(i int) error {
	left := m.s.leftAs(i)
	if left == (Stamp{}) || m.finished[i] == left {
		return nil
	}
	to, err := m.to.Open(m.stagedName(i), os.O_RDWR)
	if err != nil {
		return err
	}
	if err = to.Truncate(left.Size); err == nil {
		err = m.to.SetMtime(m.stagedName(i), left.Mtime)
		if errors.Is(err, fs.ErrPermission) {
			err = nil // files there belong to another user, as where that user has mounted the disk: the copy keeps its own time
		}
	}
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err == nil {
		m.finished[i] = left
	}
	return err
}
