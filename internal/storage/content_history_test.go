package storage_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

var (
	contentSeeds = flag.Uint64("contents", 30, "how many histories TestContentHistories draws")
	contentFirst = flag.Uint64("firstcontent", 0, "seed of the first of them")
)

// TestContentHistories draws histories of a download that chooses files, writes blocks and pieces, hashes, moves, ends and begins again,
// also by a kill or a loss of power, while another program writes to the files and replaces, makes and removes them. What counts as
// verified is read as the torrent has it, and is not lost unless the other program or a loss of power had a hand in it. Files of the other
// program of which no piece was verified stay as they are.
func TestContentHistories(t *testing.T) {
	for seed := *contentFirst; seed < *contentFirst+*contentSeeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newContentHistory(t, seed).run() })
	}
}

// A contentHistory does to a Store what a download does, and knows what has to follow.
type contentHistory struct {
	*require.Assertions
	t       *testing.T
	rng     *rand.Rand
	tor     storage.Content
	content []byte
	disk    *disktest.Disk
	dir     string
	s       storage.Store
	settled bool // s knows what was found
	log     []string

	wanted  []bool
	have    bits.Set          // verified
	doubted bits.Set          // was verified, and is to be hashed
	blocks  map[int]bits.Set  // that were written, of pieces that are not verified
	safe    bits.Set          // verified, and the other program did nothing to its files since
	chosen  map[int]bool      // files, since the sidecar was written
	apart   map[int]bool      // files whose bytes were in the edges when the sidecar was written
	foreign map[string][]byte // files of the other program of which no piece was verified

	faults diskFaults
}

func newContentHistory(t *testing.T, seed uint64) *contentHistory {
	tor, content := testContent(2*layout.BlockSize, 40_000, 300, 50_000, 0, 70_000)
	n := tor.NumPieces()
	h := &contentHistory{
		Assertions: require.New(t), t: t, rng: rand.New(rand.NewPCG(seed, 4)), tor: tor, content: content, disk: disktest.New(), dir: "a",
		have: bits.New(n), doubted: bits.New(n), safe: bits.New(n), blocks: make(map[int]bits.Set), chosen: make(map[int]bool), foreign: make(map[string][]byte),
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(strings.Join(h.log, "\n"))
		}
	})
	h.draw()
	h.begin()
	return h
}

func (h *contentHistory) run() {
	for range 60 {
		h.faults.draw()
		h.orEnd(h.step)
		h.faults.end()
		h.check()
	}
}

func (h *contentHistory) logf(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

// step does one thing, which may lead to others.
func (h *contentHistory) step() {
	switch k := h.rng.IntN(24); {
	case k < 3:
		h.choose()
	case k < 10:
		h.fetch()
	case k < 14:
		h.meddle()
	case k < 16:
		h.hash()
	case k < 18:
		h.serve(h.rng.IntN(h.tor.NumPieces()))
	case k == 18:
		h.recheck()
	case k == 19:
		h.complete()
	case k == 20:
		h.move()
	case k == 21:
		h.save()
	default:
		h.beginAgain()
	}
}

func (h *contentHistory) choose() {
	h.draw()
	h.logf("choose %v", h.wanted)
	h.must(h.s.SetWanted(h.wanted))
	h.must(h.s.Settle(h.t.Context(), h.have))
}

// draw draws which files are wanted. A file that exists and may be of the other program is used from then on, whatever the edges hold.
func (h *contentHistory) draw() {
	before := h.wanted
	h.wanted = only(h.tor, func(int) bool { return h.rng.IntN(2) == 0 })
	for file, wanted := range h.wanted {
		if wanted && (before == nil || !before[file]) {
			h.chosen[file] = true
		}
		if !wanted || !h.exists(h.path(file)) {
			continue
		}
		b := h.read(h.path(file))
		for i, end := h.tor.PiecesOf(file); i < end; i++ {
			if !h.alike(i, file, b) {
				h.safe.Remove(i)
			}
		}
	}
}

// alike reports whether b, the content of a file, has the part of piece i that belongs there.
func (h *contentHistory) alike(i, file int, b []byte) bool {
	f := h.tor.File(file)
	from, to := max(f.Offset, h.tor.PieceOffset(i)), min(f.End(), h.tor.PieceEnd(i))
	return int64(len(b)) >= to-f.Offset && bytes.Equal(b[from-f.Offset:to-f.Offset], h.content[from:to])
}

// disturb records that the other program had a hand in the pieces of a file.
func (h *contentHistory) disturb(file int) {
	for i, end := h.tor.PiecesOf(file); i < end; i++ {
		h.safe.Remove(i)
	}
}

// secure records that the other program had a hand in the pieces that are in doubt.
func (h *contentHistory) secure() {
	defer h.faults.rest()()
	h.safe.RemoveAll(&h.doubted)
	for i := range h.safe.Clone().All() {
		if h.s.Changed(i) != nil {
			h.safe.Remove(i)
		}
	}
}

// fetch writes a block, or all of a piece that is verified.
func (h *contentHistory) fetch() {
	var due []int
	for i := range h.tor.NumPieces() {
		if h.have.Has(i) || h.doubted.Has(i) {
			continue
		}
		for file := range h.tor.FilesOf(i) {
			if h.wanted[file] && h.tor.File(file).Length > 0 {
				due = append(due, i)
				break
			}
		}
	}
	if len(due) == 0 {
		return
	}
	i := due[h.rng.IntN(len(due))]
	if _, begun := h.blocks[i]; !begun && h.rng.IntN(2) == 0 {
		h.logf("write piece %d", i)
		h.proved(i, false)
		if err := h.s.WriteBlocks([][]byte{pieceOf(h.tor, h.content, i)}, h.tor.PieceOffset(i)); err != nil {
			h.isChange(err)
			h.doubt(i)
			return
		}
		h.verified(i, false)
		return
	}
	blocks := h.blocks[i]
	if blocks.Len() == 0 {
		blocks = bits.New(h.tor.NumBlocks(i))
	}
	k := h.rng.IntN(blocks.Len())
	h.logf("write block %d of piece %d", k, i)
	b, off := h.block(i, k)
	if _, err := h.s.WriteAt(b, off); err != nil {
		h.isChange(err)
		h.doubt(i)
		return
	}
	blocks.Add(k)
	h.blocks[i] = blocks
	if blocks.Full() {
		h.finish(i)
	}
}

// finish hashes a piece all of whose blocks are written.
func (h *contentHistory) finish(i int) {
	got := make([]byte, h.tor.PieceSize(i))
	err := readFull(h.s, got, h.tor.PieceOffset(i))
	if err == nil && bytes.Equal(got, pieceOf(h.tor, h.content, i)) {
		h.verified(i, false)
		return
	}
	if err != nil && !storage.Unwritten(err) {
		h.must(err)
	}
	h.isChange(h.s.Changed(i)) // else the peers that sent it are to blame
	h.doubt(i)
}

// verified records that piece i is verified, because it was fetched or found.
func (h *contentHistory) verified(i int, found bool) {
	h.logf("verified %d", i)
	h.proved(i, found)
	if err := h.s.PieceVerified(i); err != nil {
		h.isChange(err)
		h.lost(i)
		h.doubt(i)
		return
	}
	delete(h.blocks, i)
	h.doubted.Remove(i)
	h.have.Add(i)
	if h.s.Changed(i) == nil {
		h.safe.Add(i)
	}
}

// proved records that files of piece i count as the torrent's, because the piece was found in them or is to be written to them.
func (h *contentHistory) proved(i int, found bool) {
	for file := range h.tor.FilesOf(i) {
		if path := h.path(file); found && h.alike(i, file, h.foreign[path]) || !found && h.wanted[file] {
			delete(h.foreign, path)
		}
	}
}

// lost records that piece i is not verified.
func (h *contentHistory) lost(i int) {
	h.logf("lost %d", i)
	h.False(h.safe.Has(i), "piece %d is lost", i)
	h.have.Remove(i)
	h.doubted.Remove(i)
}

// doubt puts pieces in doubt, and has the store accept their files.
func (h *contentHistory) doubt(list ...int) {
	which := bits.New(h.tor.NumPieces())
	distrust := func(i int) {
		which.Add(i)
		if h.have.Remove(i) {
			h.doubted.Add(i)
		}
		delete(h.blocks, i)
	}
	for _, i := range list {
		distrust(i)
	}
	for _, i := range list {
		for {
			changed, err := h.s.Refresh(i, which)
			h.must(err)
			if changed.RemoveAll(&which); changed.Count() == 0 {
				break
			}
			for i := range changed.All() {
				distrust(i)
			}
		}
	}
	h.logf("doubt %v", pieces(which))
}

func (h *contentHistory) save() { h.must(h.trySave()) }

func (h *contentHistory) trySave() error {
	h.logf("save %v", pieces(h.have))
	before := storage.Saved(h.s)
	err := h.s.SaveResume(h.have, h.partial())
	if storage.Saved(h.s) == before {
		h.unsaved()
	} else {
		clear(h.chosen)
		h.apart = h.inEdges()
	}
	return err
}

// hash hashes the pieces in doubt.
func (h *contentHistory) hash() { h.hashThese(h.doubted.Clone()) }

func (h *contentHistory) hashThese(which bits.Set) {
	ok := bits.New(h.tor.NumPieces())
	h.must(storage.Verify(h.t.Context(), h.tor, h.s, which, func(i int, right bool) {
		if right {
			ok.Add(i)
		}
	}))
	for i := range which.All() {
		if ok.Has(i) && !h.have.Has(i) {
			h.verified(i, true)
		} else if !ok.Has(i) && (h.have.Has(i) || h.doubted.Has(i)) {
			h.lost(i)
		}
	}
}

// serve reads a piece that counts as verified.
func (h *contentHistory) serve(i int) {
	if !h.have.Has(i) {
		return
	}
	if err := h.s.Changed(i); err != nil {
		h.logf("changed %d: %v", i, err)
		h.isChange(err)
		h.doubt(i)
	}
}

func (h *contentHistory) recheck() {
	h.logf("recheck")
	var changed []int
	for file := range h.tor.NumFiles() {
		if first, end := h.tor.PiecesOf(file); first < end && errors.Is(h.s.ChangedFile(file), storage.ErrChanged) {
			changed = append(changed, first)
		}
	}
	if i, err := h.s.AnyChanged(h.t.Context(), h.have); err != nil {
		h.isChange(err)
		changed = append(changed, i)
	}
	h.doubt(changed...)
	h.hash()
	which := h.s.Present(h.t.Context())
	which.AddAll(&h.have)
	for i := range h.blocks {
		which.Remove(i)
	}
	h.hashThese(which)
}

// complete ends the download if all that is wanted is verified.
func (h *contentHistory) complete() {
	for i := range h.tor.NumPieces() {
		for file := range h.tor.FilesOf(i) {
			if h.wanted[file] && !h.have.Has(i) {
				return
			}
		}
	}
	if i, err := h.s.AnyChanged(h.t.Context(), h.have); err != nil {
		h.isChange(err)
		h.doubt(i)
		return
	}
	h.logf("complete")
	if !h.have.Full() {
		h.save()
	}
	h.must(h.s.Finish())
}

// move moves the content to another directory. Half-way, other things happen.
func (h *contentHistory) move() {
	to, called := map[string]string{"a": "b", "b": "a"}[h.dir], false
	h.logf("move to %s", to)
	claims := func() (bits.Set, map[int]bits.Set) {
		defer h.faults.rest()()
		for called && h.rng.IntN(3) > 0 {
			[]func(){h.choose, h.fetch, h.meddle, h.hash, func() { h.serve(h.rng.IntN(h.tor.NumPieces())) }}[h.rng.IntN(5)]()
		}
		called = true
		h.secure() // what is in doubt may stay
		return h.have.Clone(), h.partial()
	}
	if err := storage.MoveTo(h.t.Context(), h.s, h.disk.Sub(to), to, claims); err != nil {
		h.logf("not moved: %v", err)
		h.True(errors.Is(err, fs.ErrExist) || h.faults.caused(err) || len(h.faults.log) > 0, err) // a file is in the way
		return
	}
	for path, b := range maps.Clone(h.foreign) {
		rest, _ := filepath.Rel(h.dir, path)
		if moved := filepath.Join(to, rest); !h.exists(path) && h.exists(moved) {
			delete(h.foreign, path)
			h.foreign[moved] = b
		}
	}
	h.dir = to
}

// beginAgain ends the run and begins another.
func (h *contentHistory) beginAgain() {
	h.secure()
	switch h.rng.IntN(4) {
	case 0:
		h.logf("kill")
		h.unsaved()
		err := storage.Abandon(h.s)
		h.True(err == nil || h.faults.caused(err), err)
	case 1:
		h.logf("loss of power")
		h.disk = h.disk.Crash(h.rng)
		h.safe = bits.New(h.tor.NumPieces())
		for path := range maps.Clone(h.foreign) {
			if delete(h.foreign, path); h.exists(path) {
				h.setForeign(path)
			}
		}
	default:
		h.save()
		h.logf("close")
		err := h.s.Close()
		h.True(err == nil || h.faults.caused(err), err)
		if h.rng.IntN(2) == 0 {
			h.draw()
		}
	}
	h.beginNext()
}

// beginNext begins another run after one has ended.
func (h *contentHistory) beginNext() {
	for file := range h.tor.NumFiles() {
		if h.chosen[file] { // the next run cannot know whether it or the edges have its bytes
			h.disturb(file)
		}
	}
	for h.rng.IntN(2) == 0 {
		h.meddle()
	}
	h.begin()
}

func (h *contentHistory) begin() {
	n := h.tor.NumPieces()
	h.have, h.doubted, h.blocks = bits.New(n), bits.New(n), make(map[int]bits.Set)
	h.disk.Fail = h.faults.fail
	h.s, h.settled = nil, false
	s, err := storage.OpenDisk(h.tor, h.disk.Sub(h.dir), "disk", nil)
	h.must(err)
	h.s = s
	h.logf("begin with %v", h.wanted)
	for file := range h.apart {
		h.chosen[file] = h.chosen[file] || h.wanted[file]
	}
	h.must(h.s.SetWanted(h.wanted))
	safe := h.safe.Clone()
	have, partial := h.s.LoadResume()
	h.must(storage.Verify(h.t.Context(), h.tor, h.s, have, func(i int, ok bool) {
		h.True(ok, "piece %d is claimed", i)
		h.have.Add(i)
	}))
	todo := h.s.Present(h.t.Context())
	todo.RemoveAll(&have)
	h.hashThese(todo)
	h.must(h.s.Settle(h.t.Context(), h.have))
	h.settled = true
	for i := range safe.All() {
		h.True(h.have.Has(i), "piece %d is lost", i)
	}
	for i, blocks := range partial {
		if h.have.Has(i) {
			continue
		}
		h.blocks[i] = blocks
		if blocks.Full() {
			h.finish(i)
		}
	}
}
