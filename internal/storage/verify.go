package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/shoal-go/torrent/internal/bits"
)

// verifyBuffer is how many bytes one core reads at a time. That is enough for system calls to cost little beside the hash, and
// few enough for the bytes to be still in the core's cache when they are hashed.
const verifyBuffer = 256 << 10

// VerifyDir hashes the content in dir and returns the pieces that match. It writes nothing, and trusts no claim of an earlier
// run. It is an error if dir does not exist, but not if a file is missing or short.
func VerifyDir(ctx context.Context, c Content, dir string) (bits.Set, error) {
	disk, err := new(Claims).openRoot(dir)
	if err != nil {
		return bits.Set{}, err
	}
	return verifyDisk(ctx, c, disk, dir)
}

func verifyDisk(ctx context.Context, c Content, disk Disk, dir string) (bits.Set, error) {
	s, err := openOn(ctx, new(Claims), c, disk, dir, nil)
	if err != nil {
		return bits.Set{}, errors.Join(err, disk.Close())
	}
	defer s.Close()
	have := zeroPadding(&c)
	err = Verify(ctx, c, s, s.Present(ctx), func(piece int, ok bool) {
		if ok {
			have.Add(piece)
		}
	})
	return have, err
}

// Verify hashes the pieces in which, on as many cores as workers are free, and calls result for each, from one goroutine at a time
// and in no particular order. A piece whose bytes do not exist is not ok. Nor is one that cannot be read for another reason, with which
// unread is called first; if unread is nil, that error ends Verify. So does ErrClosed, and the end of ctx, between reads of at most 256 KiB
// in about a thousand files. All calls of result have returned when Verify returns. at is where r reads.
func (w *Workers) Verify(ctx context.Context, at Place, c Content, r io.ReaderAt, which bits.Set, result func(piece int, ok bool), unread func(piece int, err error)) error {
	v := &verification{content: c, r: r, which: which, result: result, unread: unread, run: int(max(1, verifyBuffer/c.PieceLength()))}
	outer := ctx
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)
	taker := w.quota.NewTaker(at)
	var first Taken
	var granted bool
	if which.Count() > 0 {
		first, granted = taker.Take(ctx.Done())
	}
	if granted {
		var cores sync.WaitGroup
		work := func(taken Taken) {
			v.workers++
			cores.Go(func() {
				defer taken.Give()
				if err := v.work(ctx); err != nil {
					cancel(err)
				}
			})
		}
		v.widen = func() {
			for v.workers < min(runtime.GOMAXPROCS(0), which.Count()) {
				taken, ok := taker.Try(maxFurther)
				if !ok {
					return
				}
				work(taken)
			}
		}
		work(first)
		cores.Wait()
	}
	if err := ended(outer); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// ended returns the error of a context if it has ended, and its cause if that is another error.
func ended(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if !errors.Is(cause, err) {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return cause
}

// Verify is Workers.Verify for one that shares its bound with no other, and ends at an error.
func Verify(ctx context.Context, c Content, r io.ReaderAt, which bits.Set, result func(piece int, ok bool)) error {
	return NewWorkers().Verify(ctx, "", c, r, which, result, nil)
}

// verification is the state of one Verify, shared by all cores.
type verification struct {
	content Content
	r       io.ReaderAt
	which   bits.Set
	run     int // pieces that a core takes at once: several if they are small, so that one read fetches all of them
	result  func(piece int, ok bool)
	unread  func(piece int, err error)

	mu      sync.Mutex // also serialises result
	next    int        // the first piece that no core has taken
	workers int        // so far
	widen   func()     // starts more of them, if there may be more; called with mu held
}

// take returns the next consecutive pieces to hash, from first up to but not including end. If none is left, first is end.
func (v *verification) take() (first, end int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next = v.which.Next(v.next)
	first = v.next
	for v.next < first+v.run && v.which.Has(v.next) {
		v.next++
	}
	if v.next < v.which.Len() {
		v.widen()
	}
	return first, v.next
}

// inFewFiles returns how many of the n bytes at off are to be read at once: each file is opened for that, and a core looks at its context
// only between reads.
func (v *verification) inFewFiles(off, n int64) int64 {
	if next := v.content.FileAt(off) + 1024; next < v.content.NumFiles() {
		if few := v.content.File(next).Offset - off; few > 0 { // else most of them are empty
			return min(n, few)
		}
	}
	return n
}

func (v *verification) tell(piece int, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.result(piece, ok)
}

func (v *verification) work(ctx context.Context) error {
	buf := make([]byte, verifyBuffer)
	h := v.content.NewCheck()
	for ctx.Err() == nil {
		first, end := v.take()
		if first == end {
			return nil
		}
		if end-first > 1 && v.together(first, end, buf, h) {
			continue
		}
		for piece := first; piece < end; piece++ {
			ok, err := v.alone(ctx, piece, buf, h)
			if err != nil && (v.unread == nil || ctx.Err() != nil || errors.Is(err, ErrClosed)) {
				return err
			}
			if err != nil {
				v.unread(piece, err)
			}
			v.tell(piece, ok)
		}
	}
	return context.Cause(ctx)
}

// together hashes consecutive pieces, which fit in buf, after a single read. It returns false if it could not read all of them;
// then it has not called result.
func (v *verification) together(first, end int, buf []byte, h Check) bool {
	off := v.content.PieceOffset(first)
	b := buf[:v.content.PieceEnd(end-1)-off]
	if v.inFewFiles(off, int64(len(b))) < int64(len(b)) || readFull(v.r, b, off) != nil {
		return false
	}
	for piece := first; piece < end; piece++ {
		from := v.content.PieceOffset(piece) - off
		h.Reset()
		h.Write(b[from : from+v.content.PieceSize(piece)])
		v.tell(piece, h.Matches(piece))
	}
	return true
}

// alone hashes one piece and reports whether it matches. A piece whose bytes do not exist does not.
func (v *verification) alone(ctx context.Context, piece int, buf []byte, h Check) (bool, error) {
	h.Reset()
	off := v.content.PieceOffset(piece)
	for left := v.content.PieceSize(piece); left > 0; {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		b := buf[:v.inFewFiles(off, min(int64(len(buf)), left))]
		if err := readFull(v.r, b, off); Unwritten(err) {
			return false, nil
		} else if err != nil {
			return false, err
		}
		h.Write(b)
		off, left = off+int64(len(b)), left-int64(len(b))
	}
	return h.Matches(piece), nil
}
