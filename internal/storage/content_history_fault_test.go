package storage_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/shoal-go/torrent/internal/storage"
)

// TestContentHistoriesWithFaults is TestContentHistories on a disk of which single calls fail. If one does, the download ends, and begins
// again later. No verified piece is lost by that.
func TestContentHistoriesWithFaults(t *testing.T) {
	for seed := *contentFirst; seed < *contentFirst+*contentSeeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newContentHistory(t, seed)
			h.faults.rng = rand.New(rand.NewPCG(seed, 5))
			h.run()
		})
	}
}

var diskErrors = []error{syscall.ENOSPC, syscall.EIO}

// diskFaults decides which calls of a disk fail. The zero value has none fail.
type diskFaults struct {
	rng *rand.Rand // nil for none

	mu      sync.Mutex // Verify makes calls on several cores
	due     int        // how many calls there are until one fails, or zero
	resting int        // calls are the test's own
	log     []string   // what failed
	err     error      // with what, the last time
}

// draw has one of the next calls fail, or none.
func (f *diskFaults) draw() {
	if f.rng != nil && f.rng.IntN(3) == 0 {
		f.due = 1 + f.rng.IntN(1<<f.rng.IntN(7))
		f.err = diskErrors[f.rng.IntN(2)]
	}
}

// end has no call fail until draw.
func (f *diskFaults) end() { f.due = 0 }

// rest has no call fail until the function that it returns is called.
func (f *diskFaults) rest() func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resting++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.resting--
	}
}

// fail is for disktest.Disk.Fail.
func (f *diskFaults) fail(call, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.due == 0 || f.resting > 0 {
		return nil
	}
	if f.due--; f.due > 0 {
		return nil
	}
	f.log = append(f.log, fmt.Sprintf("%s of %s fails: %v", call, name, f.err))
	return f.err
}

// caused reports whether err is that of a call that failed.
func (f *diskFaults) caused(err error) bool {
	return slices.ContainsFunc(diskErrors, func(e error) bool { return errors.Is(err, e) })
}

// errEnded is what must panics with.
var errEnded = errors.New("the download ends")

// must ends the run if err is that of a disk. There must be no other error.
func (h *contentHistory) must(err error) {
	if h.faults.caused(err) {
		panic(errEnded)
	}
	h.NoError(err)
}

// isChange ends the run if err is that of a disk. Else it must be ErrChanged.
func (h *contentHistory) isChange(err error) {
	if !errors.Is(err, storage.ErrChanged) {
		h.must(err)
	}
	h.ErrorIs(err, storage.ErrChanged)
}

// orEnd calls do and, if must ends the run, begins another, as often as it takes.
func (h *contentHistory) orEnd(do func()) {
	defer func() {
		for _, what := range h.faults.log {
			h.logf("%s", what)
		}
		h.faults.log = nil
		if v := recover(); v != nil {
			if v != errEnded {
				panic(v)
			}
			h.end()
			h.orEnd(h.beginNext)
		}
	}()
	do()
}

// end ends the run after a fault.
func (h *contentHistory) end() {
	if h.s == nil {
		return
	}
	h.faults.end()
	h.secure()
	if h.settled {
		h.trySave()
	} else {
		h.unsaved()
	}
	h.logf("close: %v", h.s.Close())
}

// inEdges returns the files of which the edges hold bytes.
func (h *contentHistory) inEdges() map[int]bool {
	files := make(map[int]bool)
	for file := range h.tor.NumFiles() {
		if storage.InEdges(h.s, file) {
			files[file] = true
		}
	}
	return files
}

// unsaved records that no sidecar says how a run ended.
func (h *contentHistory) unsaved() {
	for file := range h.inEdges() {
		if !h.apart[file] && h.exists(h.path(file)) { // the next run cannot know which of the two has its bytes
			h.disturb(file)
		}
	}
}
