package storage

import (
	"context"

	"github.com/shoal-go/torrent/internal/bits"
)

// Present leaves out the pieces that cannot match: those with bytes in a missing file or past the end of a short one, and those
// that consist only of holes, unless the piece should be all zeros. It keeps a last piece of holes if that is shorter than
// the others. It also leaves out the pieces of zeroPadding.
func (s *fileStore) Present(ctx context.Context) bits.Set {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := &s.content
	lacking := bits.New(c.NumPieces()) // pieces of which some bytes do not exist
	data := bits.New(c.NumPieces())    // pieces of which some bytes are not in a hole
	if s.closed {
		return data
	}
	mark := func(b *bits.Set, from, to int64) {
		if from < to {
			for piece := c.PieceAt(from); c.PieceOffset(piece) < to; piece++ {
				b.Add(piece)
			}
		}
	}
	for i := range c.NumFiles() {
		f, state := c.File(i), &s.files[i]
		if f.Pad || f.Length == 0 {
			continue
		}
		if ctx.Err() != nil {
			return bits.New(c.NumPieces())
		}
		if !state.here {
			s.presentEdges(i, &lacking, &data)
			continue
		}
		size := min(f.Length, s.leftAs(i).Size)
		mark(&lacking, f.Offset+size, f.End())
		err := s.eachData(i, size, func(from, to int64) { mark(&data, f.Offset+from, f.Offset+to) })
		if err != nil {
			s.log.Warn("cannot look for holes", "file", s.path(i), "err", err)
			mark(&data, f.Offset, f.Offset+size)
		}
	}
	zeros := zeroPiece(c)
	for piece := range c.NumPieces() {
		switch {
		case lacking.Has(piece):
			data.Remove(piece)
		case data.Has(piece):
		case c.PieceSize(piece) < c.PieceLength() || !c.IsPadding(piece) && zeros(piece):
			data.Add(piece)
		}
	}
	return data
}

// presentEdges marks the pieces of file i, whose bytes are in the edges: those with a slot as data, the others as lacking.
func (s *fileStore) presentEdges(i int, lacking, data *bits.Set) {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	for piece, end := s.content.PiecesOf(i); piece < end; piece++ {
		if _, ok := s.slots[piece]; ok {
			data.Add(piece)
		} else {
			lacking.Add(piece)
		}
	}
}

// eachData calls mark for the runs of the first size bytes of file i that are not holes. The caller holds s.mu.
func (s *fileStore) eachData(i int, size int64, mark func(from, to int64)) error {
	if size == 0 {
		return nil
	}
	info, err := s.disk.Stat(s.files[i].name)
	if err != nil {
		return err
	}
	if info.Dense {
		mark(0, size)
		return nil
	}
	h, err := s.handles.get(i, false, false)
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	for off := int64(0); off < size; {
		from, to, err := h.f.NextData(off, size)
		if err != nil {
			return err
		}
		mark(from, min(to, size))
		off = max(to, off+1)
	}
	return nil
}

// zeroPadding returns the pieces of full length that are nothing but padding, and match. To hash them would be work without bound:
// an author writes 512 MiB of padding in 20 bytes.
func zeroPadding(c *Content) bits.Set {
	have := bits.New(c.NumPieces())
	zeros := zeroPiece(c)
	for piece := range c.NumPieces() {
		if c.IsPadding(piece) && c.PieceSize(piece) == c.PieceLength() && zeros(piece) {
			have.Add(piece)
		}
	}
	return have
}

// zeroPiece returns a function that reports whether a piece of full length should be all zeros. The function hashes the zeros
// once, at its first call.
func zeroPiece(c *Content) func(piece int) bool {
	var h Check
	return func(piece int) bool {
		if h == nil {
			h = c.NewCheck()
			zeros := make([]byte, min(c.PieceLength(), verifyBuffer))
			for left := c.PieceLength(); left > 0; left -= min(left, verifyBuffer) {
				h.Write(zeros[:min(left, verifyBuffer)])
			}
		}
		return h.Matches(piece)
	}
}
