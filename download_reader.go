package torrent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/layout"
)

const (
	// readAheadTime is how far ahead of an open reader pieces are fetched first, as time at the download's rate.
	readAheadTime = 5 * time.Second
	minReadAhead  = 2 << 20
	maxReadAhead  = 64 << 20
	// A pass over what is ahead of all readers is made at once when one of fewReaders moves. If there are more, passes are followEach
	// apart for each of the others: each reader causes passes, and each pass is longer the more readers there are.
	fewReaders = 16
	followEach = time.Millisecond
)

// reading records which pieces readers wait for, and which are fetched first for them.
type reading struct {
	readers  map[*reader]struct{}
	urgent   map[int]uint8 // priorities of the pieces ahead of readers
	followed time.Time     // when these were last computed
	moved    bool          // they are to be computed again when followAt says
	awaited  map[int]int   // how many reads wait for each piece that is waited for
	changed  chan struct{} // closed and replaced when a piece or a file is finished
	watchers int           // how many goroutines may wait for changed
}

// A reader reads a file of a running download. What it needs next is fetched first.
type reader struct {
	d    *Download
	ctx  context.Context
	file int // its index in the layout
	f    *layout.File

	mu  sync.Mutex // held by Read and Seek
	off int64      // of the next Read, within the file

	// Guarded by the download's mutex.
	at     int64 // where it reads, or waits, within the file
	closed bool
}

// Open opens a file that is chosen or OnDemand for reading while the download runs. Reads wait for the bytes they need, and the
// pieces just ahead of the reader are fetched before others. The result is also an io.ReaderAt, and works with http.ServeContent.
// When ctx ends, reads no longer wait, nor does Open, a few seconds later if the disk hangs. Once the Downloaded is closed, reads fail with ErrClosed.
func (d *Download) Open(ctx context.Context, path string) (io.ReadSeekCloser, error) {
	i := slices.IndexFunc(d.t.layout.Files(), func(f layout.File) bool { return f.Path == path && !f.Pad })
	if i < 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if err := inTime(ctx, func() error { return d.openOnDemand(i) }); err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	r := &reader{d: d, ctx: ctx, file: i, f: d.t.layout.File(i)}
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	if d.selection.choice.priority[i] == Skip {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errNotChosen}
	}
	d.reading.readers[r] = struct{}{}
	d.reading.watchers++
	d.readerMoved(now)
	return r, nil
}

var errNotChosen = errors.New("file is not chosen")

// Close closes the reader. Pieces ahead of it are no longer fetched first.
func (r *reader) Close() error {
	d := r.d
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	if r.closed {
		return fs.ErrClosed
	}
	r.closed = true
	delete(d.reading.readers, r)
	d.readerMoved(now)
	d.broadcast() // also wakes the reader's own Read, which may be the only one that waits
	d.reading.watchers--
	return nil
}

func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.off >= r.f.Length {
		if r.isClosed() {
			return 0, fs.ErrClosed
		}
		return 0, io.EOF
	}
	n, err := r.read(p, r.off)
	r.off += int64(n)
	return n, err
}

// The caller holds r.mu.
func (r *reader) isClosed() bool {
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	return r.closed
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += r.f.Length
	default:
		return 0, errors.New("seek: invalid whence")
	}
	if offset < 0 {
		return 0, errors.New("seek: before the start of the file")
	}
	r.off = offset
	return offset, nil
}

// ReadAt implements io.ReaderAt. It may be called from many goroutines.
func (r *reader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read at a negative offset")
	}
	for n < len(p) && off+int64(n) < r.f.Length {
		k, err := r.read(p[n:], off+int64(n))
		n += k
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read waits for the piece at off, which is before the end of the file, and reads no further than that piece.
func (r *reader) read(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	d := r.d
	begin := r.f.Offset + off
	piece := d.t.layout.PieceAt(begin)
	left := min(r.f.Length-off, d.t.layout.PieceEnd(piece)-begin)
	p = p[:min(int64(len(p)), left)]
	for {
		if err := r.await(piece, off); err != nil {
			return 0, fmt.Errorf("read %s: %w", r.f.Path, err)
		}
		err := d.store.ChangedAt(begin, left)
		if err == nil {
			var n int
			if n, err = d.store.ReadAt(p, begin); n == len(p) {
				if d.hasAll(piece, piece+1) {
					return n, nil
				}
				continue // the piece was put in doubt meanwhile, which Changed does not report
			}
		}
		if !d.recheck(piece, err) {
			return 0, fmt.Errorf("read %s: %w", r.f.Path, err)
		}
		// If the piece is wrong it is fetched again, and await waits for it.
	}
}

// isGone reports whether the download has ended and none of its goroutines is left.
func (d *Download) isGone() bool {
	select {
	case <-d.life.gone:
		return true
	default:
		return false
	}
}

// await waits until a piece is verified. off is where the reader needs it. The caller holds r.mu.
func (r *reader) await(piece int, off int64) error {
	d := r.d
	waits := false
	defer func() {
		if waits {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.reading.awaited[piece]--; d.reading.awaited[piece] == 0 {
				delete(d.reading.awaited, piece)
			}
		}
	}()
	for {
		now := time.Now()
		d.mu.Lock()
		have, changed := d.picker.Verified().Has(piece), d.reading.changed
		closed, result := r.closed, d.life.result
		chosen := d.selection.choice.priority[r.file] != Skip
		if !closed {
			moved := r.at/d.t.layout.PieceLength() != off/d.t.layout.PieceLength()
			if r.at = off; moved {
				d.readerMoved(now)
			}
			if !have && chosen && !waits {
				waits = true
				d.reading.awaited[piece]++
				d.rush(piece, now)
			}
		}
		d.unlock(now)
		switch {
		case closed:
			return fs.ErrClosed
		case have:
			return nil
		case !chosen:
			return errNotChosen // any more, so that nothing would come
		case d.isDone() && result != nil:
			return result
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			return contextError(r.ctx)
		case <-d.life.gone:
			d.mu.Lock()
			have, result := d.picker.Verified().Has(piece), d.life.result
			d.mu.Unlock()
			if have {
				return nil
			}
			return cmp.Or(result, ErrClosed)
		}
	}
}

// readerMoved has followReaders called, now or in a later turn. The caller holds d.mu.
func (d *Download) readerMoved(now time.Time) {
	if !now.Before(d.followAt()) {
		d.followReaders(now)
	} else if !d.reading.moved {
		d.reading.moved = true
		d.signal()
	}
}

// followAt is when readers may be followed again. The caller holds d.mu.
func (d *Download) followAt() time.Time {
	return d.reading.followed.Add(followEach * time.Duration(max(0, len(d.reading.readers)-fewReaders)))
}

// followReaders raises the priority of the pieces just ahead of each reader, the nearest most. The caller holds d.mu.
func (d *Download) followReaders(now time.Time) {
	ahead := int64(d.traffic.down.Rate(now) * readAheadTime.Seconds())
	window := max(min(max(ahead, minReadAhead), maxReadAhead), d.t.layout.PieceLength()) // so that a piece is fetched while another is read
	urgent := make(map[int]uint8)
	for r := range d.reading.readers {
		begin := r.f.Offset + r.at
		end := min(begin+window, r.f.End())
		if begin >= end || d.selection.choice.priority[r.file] == Skip {
			continue
		}
		first, last := d.t.layout.PieceAt(begin), d.t.layout.PieceAt(end-1)
		last = min(last, first+max(int(window/blockSize), pieceNow-pieceUrgent)) // pieces may have a byte each
		for k := first; k <= last; k++ {
			urgent[k] = max(urgent[k], uint8(max(pieceNow-(k-first), pieceUrgent)))
		}
	}
	idle := d.picker.Needed().Count() == 0
	for k := range d.reading.urgent {
		if urgent[k] == 0 {
			d.prioritise(k, d.selection.base[k])
		}
	}
	for k, priority := range urgent {
		d.prioritise(k, max(priority, d.selection.base[k]))
	}
	d.reading.urgent, d.reading.followed, d.reading.moved = urgent, now, false
	if idle || d.selection.choice.demand > 0 {
		for _, p := range d.swarm.peers {
			d.updateInterest(p)
		}
	}
	if idle {
		d.stir(now)
	}
	d.pending.freed = true
}
