package webseed

import (
	"errors"
	"slices"
	"time"
)

const (
	fileRest     = time.Hour
	firstDoubt   = time.Minute      // doubling to fileRest
	firstBusy    = 30 * time.Second // doubling to maxRest
	firstBroken  = 5 * time.Second  // doubling to maxRest
	maxRest      = 10 * time.Minute
	maxFalse     = 2  // pieces of its own, before it is banned
	maxMissing   = 16 // files in a row, before it rests: it may have none of the files, or redirect to a server that has none
	maxFileRests = 100_000
)

// Health records the failures of a seed, and decides when it may be asked. The zero value is for a seed that was not
// asked yet.
type Health struct {
	until    time.Time         // it rests until then
	rest     time.Duration     // length of the last rest, if nothing came since
	missing  int               // files in a row that it does not have
	files    map[int]time.Time // those that rest, and until when
	pieces   map[int]time.Time // likewise, those that were false
	order    []resting         // all of them, in the order in which their rests end
	doubts   map[int]int       // how often a file rested because of a doubtful error
	lies     int               // how many pieces were false
	broken   bool              // it rests because it could not be reached, not because it said so
	unusable bool
	err      error
}

// resting is a file, or a piece, that rests.
type resting struct {
	until time.Time
	index int
	piece bool
}

// Failed records that a request for a file failed. It reports whether that file rests now: then the seed is not asked
// for it until Rested returns it. The seed itself may rest, too.
func (h *Health) Failed(file int, err error, now time.Time) (fileRests bool) {
	h.err = err
	e, ok := errors.AsType[*Error](err)
	switch {
	case ok && e.Fate == Missing:
		if h.missing++; h.missing%maxMissing == 0 && !now.Before(h.until) {
			h.backOff(firstBroken, now)
			h.broken = false
		}
		if len(h.files) < maxFileRests || h.FileRests(file) {
			rest := fileRest
			if e.Doubtful {
				rest = h.doubt(file)
			}
			h.files = h.lay(h.files, resting{now.Add(rest), file, false})
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

// doubt returns how long a file rests that may be there after all.
func (h *Health) doubt(file int) time.Duration {
	n := h.doubts[file]
	if !h.FileRests(file) && n < 6 && len(h.doubts) < maxFileRests {
		if h.doubts == nil {
			h.doubts = make(map[int]int)
		}
		h.doubts[file]++
	}
	return min(firstDoubt<<n, fileRest)
}

// Refused reports whether an error is that of a server that is busy and does not say for how long. If another request to
// the seed is under way, the server may be busy with that.
func Refused(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Fate == Busy && e.After == 0
}

// Crowded records that a request was refused while another was under way. The seed does not rest because of it.
func (h *Health) Crowded(err error) { h.err = err }

func (h *Health) backOff(first time.Duration, now time.Time) {
	h.rest = min(max(2*h.rest, first), maxRest)
	h.until = now.Add(h.rest)
}

// Revive ends the rest of a seed that could not be reached, because the cause may have been a missing network. Files that may be
// there rest no longer than at first when they fail again.
func (h *Health) Revive(now time.Time) {
	if h.broken && now.Before(h.until) {
		h.until, h.rest = now, 0
	}
	clear(h.doubts)
}

// lay makes a file or piece rest, unless it rests already, and returns the resting ones.
func (h *Health) lay(all map[int]time.Time, r resting) map[int]time.Time {
	if all == nil {
		all = make(map[int]time.Time)
	}
	if all[r.index].IsZero() {
		all[r.index] = r.until
		at, _ := slices.BinarySearchFunc(h.order, r.until.Add(1), func(r resting, t time.Time) int { return r.until.Compare(t) })
		h.order = slices.Insert(h.order, at, r)
	}
	return all
}

// Worked records that a block came.
func (h *Health) Worked() { h.rest, h.missing = 0, 0 }

// Rests returns until when the seed rests, or a time that has passed.
func (h *Health) Rests() time.Time { return h.until }

// Rested removes the files and pieces that rested long enough from those that rest, and returns them.
func (h *Health) Rested(now time.Time) (files, pieces []int) {
	for len(h.order) > 0 && !now.Before(h.order[0].until) {
		if r := h.order[0]; r.piece {
			delete(h.pieces, r.index)
			pieces = append(pieces, r.index)
		} else {
			delete(h.files, r.index)
			files = append(files, r.index)
		}
		h.order = h.order[1:]
	}
	return files, pieces
}

// FileRests and PieceRests report whether the seed is not asked for a file, or for a piece.
func (h *Health) FileRests(file int) bool   { return !h.files[file].IsZero() }
func (h *Health) PieceRests(piece int) bool { return !h.pieces[piece].IsZero() }

// Resting yields the files and pieces that rest, by index, and which of the two each is.
func (h *Health) Resting(yield func(index int, piece bool) bool) {
	for _, r := range h.order {
		if !yield(r.index, r.piece) {
			return
		}
	}
}

// NextRested returns when the first rest of a file or piece ends; zero if none rests.
func (h *Health) NextRested() (next time.Time) {
	if len(h.order) > 0 {
		next = h.order[0].until
	}
	return next
}

// Lied records that a piece that came from the seed alone was false, and reports whether the seed must be banned. If not,
// that piece rests.
func (h *Health) Lied(piece int, now time.Time) (banned bool) {
	h.lies++
	h.err = errFalse
	h.pieces = h.lay(h.pieces, resting{now.Add(fileRest), piece, true})
	return h.Banned()
}

var errFalse = errors.New("sent a false piece")

// Unusable records why the seed cannot be asked at all.
func (h *Health) Unusable(why error) { h.unusable, h.err = true, why }

// Banned reports whether the seed is never asked again, because it sent too many false pieces or cannot be asked at all.
func (h *Health) Banned() bool { return h.unusable || h.lies >= maxFalse }

// Err returns the error of the last request that failed, or nil.
func (h *Health) Err() error { return h.err }
