package storage_test

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// meddle is what the other program does to a file.
func (h *contentHistory) meddle() {
	defer h.faults.rest()()
	file := h.rng.IntN(h.tor.NumFiles())
	path, f := h.path(file), h.tor.File(file)
	h.disturb(file)
	exists, what := h.exists(path), h.rng.IntN(4)
	switch {
	case exists && what == 0:
		h.logf("another removes %s", path)
		h.NoError(h.disk.Remove(path))
	case exists && what == 1:
		h.logf("another touches %s", path)
		at, err := h.disk.Open(path, os.O_RDWR)
		h.NoError(err)
		b := make([]byte, 1)
		if _, err := at.ReadAt(b, 0); err == nil {
			_, err = at.WriteAt(b, 0)
			h.NoError(err)
		}
		h.NoError(at.Sync())
		h.NoError(at.Close())
	default:
		b := bytes.Clone(h.content[f.Offset:f.End()])
		switch h.rng.IntN(4) {
		case 0:
			b = bytes.Repeat([]byte{'x'}, h.rng.IntN(100_000))
		case 1:
			b = append(b, 'x')
		case 2:
			for k := range min(3, len(b)) {
				b[h.rng.IntN(len(b))] += byte(k + 1)
			}
		}
		h.NoError(h.disk.MkdirAll(filepath.Dir(path)))
		name := path
		if what == 2 {
			name += ".new"
		}
		h.logf("another writes %d bytes to %s", len(b), name)
		to, err := h.disk.Open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
		h.NoError(err)
		_, err = to.WriteAt(b, 0)
		h.NoError(err)
		h.NoError(to.Sync())
		h.NoError(to.Close())
		if name != path {
			h.NoError(h.disk.Rename(name, path))
		}
	}
	if delete(h.foreign, path); h.exists(path) {
		h.setForeign(path)
		for other := range h.foreign {
			if h.sameFile(path, other) { // a loss of power may undo half of a Move
				h.setForeign(other)
			}
		}
	}
	h.NoError(h.disk.SyncDir(filepath.Dir(path)))
	h.NoError(h.disk.SyncDir(h.dir))
}

// check looks at what counts as verified, and at the files of the other program.
func (h *contentHistory) check() {
	for i := range h.have.All() {
		if h.s.Changed(i) != nil {
			continue
		}
		got := make([]byte, h.tor.PieceSize(i))
		h.NoError(readFull(h.s, got, h.tor.PieceOffset(i)), "piece %d", i)
		h.True(bytes.Equal(got, pieceOf(h.tor, h.content, i)), "piece %d is not as the torrent says", i)
	}
	for path, b := range h.foreign {
		got := h.read(path)
		h.True(bytes.Equal(got, b), "%s, with %d bytes, is not as the other program left it, with %d", path, len(got), len(b))
	}
}

func (h *contentHistory) read(path string) []byte {
	defer h.faults.rest()()
	f, err := h.disk.Open(path, os.O_RDONLY)
	h.NoError(err)
	info, err := f.Stat()
	h.NoError(err)
	b := make([]byte, info.Size)
	f.ReadAt(b, 0)
	h.NoError(f.Close())
	return b
}

// setForeign records that a file may be of the other program, unless it is empty, which is as good as none.
func (h *contentHistory) setForeign(path string) {
	delete(h.foreign, path)
	if b := h.read(path); len(b) > 0 {
		h.foreign[path] = b
	}
}

func (h *contentHistory) sameFile(a, b string) bool {
	one, err := h.disk.Stat(a)
	h.NoError(err)
	other, err := h.disk.Stat(b)
	return err == nil && one.ID == other.ID
}

func (h *contentHistory) path(file int) string {
	return filepath.Join(h.dir, filepath.FromSlash(h.tor.File(file).Path))
}

func (h *contentHistory) exists(path string) bool {
	defer h.faults.rest()()
	_, err := h.disk.Stat(path)
	return err == nil
}

func (h *contentHistory) block(i, k int) (b []byte, off int64) {
	off = h.tor.PieceOffset(i) + int64(k)*layout.BlockSize
	return h.content[off:][:h.tor.BlockLen(i, k)], off
}

// partial returns what a sidecar claims of pieces that are not verified.
func (h *contentHistory) partial() map[int]bits.Set {
	partial := make(map[int]bits.Set)
	for i, blocks := range h.blocks {
		partial[i] = blocks.Clone()
	}
	return partial
}
