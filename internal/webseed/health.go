package webseed

import (
	"errors"
	"time"
)

const (
	fileRest     = time.Hour
	firstBusy    = 30 * time.Second // doubling to maxRest
	firstBroken  = 5 * time.Second  // doubling to maxRest
	maxRest      = 10 * time.Minute
	maxFalse     = 2 // pieces of its own, before it is banned
	maxFileRests = 100_000
)

// Health is how a seed does, and when it may be asked. The zero value is of one that was not asked yet.
type Health struct {
	until    time.Time         // it rests until then
	rest     time.Duration     // how long the last one was, if nothing came since
	files    map[int]time.Time // those that rest, and until when
	pieces   map[int]time.Time // likewise, those that were false
	lies     int               // how many pieces were false
	broken   bool              // it rests because it could not be reached, not because it said so
	unusable bool
	err      error
}

// Failed records that a request failed. file is what was asked for; it reports whether that file rests now, so that
// the seed is asked for nothing in it until Rested says that it may.
func (h *Health) Failed(file int, err error, now time.Time) (fileRests bool) {
	h.err = err
	e, ok := errors.AsType[*Error](err)
	switch {
	case ok && e.Fate == Missing:
		if h.files == nil {
			h.files = make(map[int]time.Time)
		}
		if len(h.files) < maxFileRests {
			h.files[file] = now.Add(fileRest)
			return true
		}
		h.until = now.Add(fileRest)
	case now.Before(h.until): // of several requests that fail together the first counts
	case ok && e.Fate == Busy && e.After > 0:
		h.until, h.broken = now.Add(e.After), false
	case ok && e.Fate == Busy:
		h.backOff(firstBusy, now)
		h.broken = false
	default:
		h.backOff(firstBroken, now)
		h.broken = true
	}
	return false
}

// Refused reports whether an error is that of a server that is busy and does not say for how long. Where another request of
// the seed is under way, it may be that which it is busy with.
func Refused(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Fate == Busy && e.After == 0
}

// Crowded records that a request was refused beside another. The seed does not rest for it.
func (h *Health) Crowded(err error) { h.err = err }

func (h *Health) backOff(first time.Duration, now time.Time) {
	h.rest = min(max(2*h.rest, first), maxRest)
	h.until = now.Add(h.rest)
}

// Revive ends a rest of a seed that could not be reached, since it may have been for lack of a network.
func (h *Health) Revive(now time.Time) {
	if h.broken && now.Before(h.until) {
		h.until, h.rest = now, 0
	}
}

// Worked records that a block came.
func (h *Health) Worked() { h.rest = 0 }

// Rests returns until when the seed rests, or a time that has passed.
func (h *Health) Rests() time.Time { return h.until }

// Rested removes the files and pieces that rested long enough from those that rest, and reports whether there were any.
func (h *Health) Rested(now time.Time) (any bool) {
	for _, m := range []map[int]time.Time{h.files, h.pieces} {
		for i, until := range m {
			if !now.Before(until) {
				delete(m, i)
				any = true
			}
		}
	}
	return any
}

// FileRests and PieceRests report whether the seed is not asked for a file, or for a piece.
func (h *Health) FileRests(file int) bool   { return !h.files[file].IsZero() }
func (h *Health) PieceRests(piece int) bool { return !h.pieces[piece].IsZero() }

// AnyRests reports whether any file or piece rests.
func (h *Health) AnyRests() bool { return len(h.files)+len(h.pieces) > 0 }

// NextRested is when the first of the files and pieces that rest has rested long enough; zero if none rests.
func (h *Health) NextRested() (next time.Time) {
	for _, m := range []map[int]time.Time{h.files, h.pieces} {
		for _, until := range m {
			if next.IsZero() || until.Before(next) {
				next = until
			}
		}
	}
	return next
}

// Lied records that a piece was false that came from the seed alone, and reports whether it is to be banned. If not, that
// piece rests.
func (h *Health) Lied(piece int, now time.Time) (banned bool) {
	h.lies++
	h.err = errFalse
	if h.pieces == nil {
		h.pieces = make(map[int]time.Time)
	}
	h.pieces[piece] = now.Add(fileRest)
	return h.Banned()
}

var errFalse = errors.New("sent a false piece")

// Unusable records why the seed cannot be asked at all.
func (h *Health) Unusable(why error) { h.unusable, h.err = true, why }

// Banned reports whether the seed is never asked again, because it sent too many false pieces or cannot be asked at all.
func (h *Health) Banned() bool { return h.unusable || h.lies >= maxFalse }

// Err is why the last request failed that did, or nil.
func (h *Health) Err() error { return h.err }
