package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/shoal-go/torrent/internal/bits"
)

// The edges are one file for the bytes of files that are not wanted but share a piece with a wanted one. The file is a sequence
// of slots. Each slot has a header that names its piece, and space for the whole piece. Only bytes of files that are not here are
// written to a slot; the rest stays a hole. A slot is never given to another piece, so that a run that is killed loses nothing.

// edgeHeader is the length in bytes of the header of a slot.
const edgeHeader = 16

// slotAt returns the offset in the edges at which the bytes of a slot begin, after its header.
func (s *fileStore) slotAt(slot int) int64 {
	return int64(slot)*(edgeHeader+s.content.PieceLength()) + edgeHeader
}

func (s *fileStore) appendEdgeHeader(b []byte, piece int) []byte {
	b = append(b, "edge"...)
	b = binary.BigEndian.AppendUint32(b, uint32(piece))
	b = binary.BigEndian.AppendUint32(b, uint32(s.content.PieceLength()))
	sum := crc32.Update(crc32.ChecksumIEEE(b), crc32.IEEETable, s.content.InfoHash[:])
	return binary.BigEndian.AppendUint32(b, sum)
}

// findSlots reads from the edges which pieces have slots.
func (s *fileStore) findSlots() error {
	edges := s.edgesFile()
	if !s.files[edges].here {
		s.files[edges].here = true
		return nil
	}
	var header, want [edgeHeader]byte
	for slot := 0; ; slot++ {
		err := s.readFile(edges, header[:], s.slotAt(slot)-edgeHeader)
		if Unwritten(err) {
			return nil
		}
		if err != nil {
			return err
		}
		piece := int(binary.BigEndian.Uint32(header[4:]))
		_, twice := s.slots[piece]
		if twice || piece >= s.content.NumPieces() || string(s.appendEdgeHeader(want[:0], piece)) != string(header[:]) {
			// Another program wrote this, or the header was not written completely. New slots begin here.
			s.log.Warn("edges file ends in bytes that are not a slot", "file", s.path(edges), "slot", slot)
			return nil
		}
		s.slots[piece] = slot
	}
}

// slot returns the number of the slot of piece. If there is none, it makes one if create is set, and otherwise returns
// fs.ErrNotExist.
func (s *fileStore) slot(piece int, create bool) (int, error) {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	slot, ok := s.slots[piece]
	if ok {
		return slot, nil
	}
	if !create {
		return 0, fmt.Errorf("piece %d: bytes of files that are not wanted: %w", piece, fs.ErrNotExist)
	}
	slot = len(s.slots)
	header := s.appendEdgeHeader(nil, piece)
	if err := s.writeFile(s.edgesFile(), [][]byte{header}, s.slotAt(slot)-edgeHeader, true); err != nil {
		return 0, err
	}
	s.slots[piece] = slot
	return slot, nil
}

// slotOfAny is one of pieces that has bytes in a slot, or -1. The caller holds s.mu.
func (s *fileStore) slotOfAny(pieces bits.Set) int {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	for piece := range s.slots {
		if pieces.Has(piece) && s.usesEdges(piece) {
			return piece
		}
	}
	return -1
}

// readEdges reads all of p from the slots of the pieces that it spans. The caller holds s.mu.
func (s *fileStore) readEdges(p []byte, off int64) error {
	for len(p) > 0 {
		piece := s.content.PieceAt(off)
		within := off - s.content.PieceOffset(piece)
		n := min(int64(len(p)), s.content.PieceEnd(piece)-off)
		slot, err := s.slot(piece, false)
		if err != nil {
			return err
		}
		if err := s.readFile(s.edgesFile(), p[:n], s.slotAt(slot)+within); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// writeEdges writes the first n bytes of bufs to the slots of the pieces that they span. The caller holds s.mu.
func (s *fileStore) writeEdges(bufs [][]byte, off, n int64) error {
	r := run{blocks: bufs}
	for n > 0 {
		piece := s.content.PieceAt(off)
		within := off - s.content.PieceOffset(piece)
		k := min(n, s.content.PieceEnd(piece)-off)
		slot, err := s.slot(piece, true)
		if err != nil {
			return err
		}
		if err := s.writeFile(s.edgesFile(), r.take(nil, k), s.slotAt(slot)+within, true); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// adopt copies the bytes that the edges hold of file i into the file, which has none yet. If it makes the file and then fails, it
// removes the file, which would otherwise count as having all of these bytes. If another program has made the file meanwhile,
// and no piece of it was verified, its bytes stay, and its pieces are in doubt. The caller holds s.mu for writing.
func (s *fileStore) adopt(i int) error {
	f := &s.files[i]
	slotted := s.hasSlot(i)
	if slotted {
		if err := s.compare(s.edgesFile()); errors.Is(err, ErrChanged) {
			f.meddled.Store(true) // what is copied has to be hashed
		} else if err != nil {
			return err
		}
	}
	made := f.left == (Stamp{})
	err := s.copyEdges(i)
	if errors.Is(err, ErrChanged) {
		err, made = nil, false // it has to be hashed
	}
	if err == nil {
		f.here = true
	} else if made && f.left != (Stamp{}) {
		s.handles.drop(i)
		err = errors.Join(err, s.disk.Remove(f.name))
		f.id, f.links = FileID{}, 0
		f.ready.Store(false)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.left = Stamp{}
	}
	return err
}

// hasSlot reports whether the edges may hold bytes of file i. The caller holds s.mu.
func (s *fileStore) hasSlot(i int) bool {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	for piece, end := s.content.PiecesOf(i); piece < end && len(s.slots) > 0; piece++ {
		if _, ok := s.slots[piece]; ok {
			return true
		}
	}
	return false
}

// copyEdges copies the bytes that the edges hold of file i into the file. The caller holds s.mu for writing.
func (s *fileStore) copyEdges(i int) error {
	f := s.content.File(i)
	first, end := s.content.PiecesOf(i)
	var buf []byte // allocated only if there is a slot: most files have none
	// What was a draft may be any piece of the file.
	for piece := first; piece < end && len(s.slots) > 0; piece++ {
		slot, ok := s.slots[piece]
		if !ok || s.isDraft(piece) { // a draft is copied once it is verified
			continue
		}
		start := s.content.PieceOffset(piece)
		from, to := max(f.Offset, start), min(f.End(), start+s.content.PieceSize(piece))
		if buf == nil {
			buf = make([]byte, min(f.Length, 64<<10))
		}
		for from < to {
			b := buf[:min(int64(len(buf)), to-from)]
			n, err := s.readSlot(slot, b, from-start)
			if err != nil {
				return err
			}
			if n > 0 {
				err = untilOwned(
					func() error {
						err := s.own(i, false)
						if errors.As(err, new(*sharedFile)) {
							return s.refuse(i)
						}
						return err
					},
					func() error { return s.writeFile(i, [][]byte{b[:n]}, from-f.Offset, false) },
				)
			}
			if err != nil {
				return err
			}
			if n < len(b) {
				break // the rest was never written
			}
			from += int64(n)
		}
	}
	return nil
}

// readSlot reads from a slot into p. It returns fewer than len(p) bytes, without an error, if the edges end before that.
func (s *fileStore) readSlot(slot int, p []byte, within int64) (int, error) {
	h, err := s.handles.get(s.edgesFile(), false, false)
	if absent(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer s.handles.put(h)
	n, err := h.f.ReadAt(p, s.slotAt(slot)+within)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// needsEdges is edgesNeeded for a caller that does not hold s.mu.
func (s *fileStore) needsEdges() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	return s.edgesNeeded()
}

// edgesNeeded reports whether the edges hold a draft, or bytes of a file that is not here. The caller holds s.mu.
func (s *fileStore) edgesNeeded() bool {
	if s.numDrafts.Load() > 0 {
		return true // the rest of its blocks may still come: the choice of files may change again
	}
	for piece := range s.slots {
		if s.usesEdges(piece) {
			return true
		}
	}
	return false
}

// usesEdges reports whether part of piece belongs in the edges. The caller holds s.mu.
func (s *fileStore) usesEdges(piece int) bool {
	for i := range s.content.FilesOf(piece) {
		if !s.files[i].here {
			return true
		}
	}
	return false
}
