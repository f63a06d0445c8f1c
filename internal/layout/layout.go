// Package layout has the geometry of content: how files lie one behind another, how all of them
// together are cut into pieces, and pieces into blocks. It is the one place that knows; nothing else
// multiplies by a piece length.
//
// A Layout is a plain value. It does not change, so any goroutine may use it.
package layout

import (
	"iter"
	"sort"
)

// BlockSize is what one request asks for, in bytes. Only the last block of a piece may be shorter.
const BlockSize = 16 << 10

// File is one file of the content.
type File struct {
	Path   string // slash-separated and safe to join to a directory
	Length int64
	Offset int64  // of its first byte in the content, padding included
	Pad    bool   // nothing of it is stored: a padding file (BEP 47), which is zeros, or a link
	Link   string // of a symbolic link (BEP 47): the path that it points to
}

// End is the offset behind the file's last byte.
func (f *File) End() int64 { return f.Offset + f.Length }

// Layout is how content is cut. The zero value is of no content.
type Layout struct {
	files       []File
	pieceLength int64
	size        int64
	pieces      int
	aligned     bool // no piece has bytes of two files
}

// New returns the layout of files that lie one behind another, cut into pieces. It keeps the list and
// fills in the offsets. Lengths must be within what int64 and the number of pieces within what int holds.
func New(pieceLength int64, files ...File) Layout {
	l := Layout{files: files, pieceLength: pieceLength}
	for i := range files {
		files[i].Offset = l.size
		l.size += files[i].Length
	}
	if l.size > 0 {
		l.pieces = int((l.size-1)/pieceLength) + 1
	}
	return l
}

// NewAligned is New for files of version 2 (BEP 52), each of which begins with a piece of its own, behind padding where that is
// needed. A piece has the bytes of one file alone: what fills up the last one of a file is part of the layout, but of no piece.
func NewAligned(pieceLength int64, files ...File) Layout {
	l := New(pieceLength, files...)
	l.aligned = true
	return l
}

// Aligned reports whether every file begins with a piece of its own, which ends with it.
func (l Layout) Aligned() bool { return l.aligned }

// Files are all files in the order of the content, padding included. They must not be written to.
func (l Layout) Files() []File { return l.files }

// NumFiles is how many files there are, padding included.
func (l Layout) NumFiles() int { return len(l.files) }

// File is the file with index i. It must not be written to.
func (l Layout) File(i int) *File { return &l.files[i] }

// Size is the number of bytes from the first piece to the end of the last, padding included.
func (l Layout) Size() int64 { return l.size }

// PieceLength is the size in bytes of every piece but the last, of all or of each file.
func (l Layout) PieceLength() int64 { return l.pieceLength }

// NumPieces is how many pieces there are.
func (l Layout) NumPieces() int { return l.pieces }

// PieceSize is the size of piece i in bytes.
func (l Layout) PieceSize(i int) int64 {
	end := l.size
	if l.aligned {
		end = l.files[l.FileAt(l.PieceOffset(i))].End()
	}
	return min(l.pieceLength, end-l.PieceOffset(i))
}

// PieceFill is how many bytes of padding lie between piece i and the next, or the end.
func (l Layout) PieceFill(i int) int64 {
	return min(l.pieceLength, l.size-l.PieceOffset(i)) - l.PieceSize(i)
}

// PieceOffset is the offset of piece i in the content.
func (l Layout) PieceOffset(i int) int64 { return int64(i) * l.pieceLength }

// PieceEnd is the offset behind the last byte of piece i.
func (l Layout) PieceEnd(i int) int64 { return l.PieceOffset(i) + l.PieceSize(i) }

// PieceAt is the index of the piece that holds the byte at off.
func (l Layout) PieceAt(off int64) int { return int(off / l.pieceLength) }

// NumBlocks is how many blocks piece i has.
func (l Layout) NumBlocks(i int) int { return int((l.PieceSize(i) + BlockSize - 1) / BlockSize) }

// BlockLen is the length in bytes of one block of a piece.
func (l Layout) BlockLen(piece, block int) int {
	return int(min(BlockSize, l.PieceSize(piece)-int64(block)*BlockSize))
}

// FileAt is the index of the file that holds the byte at off, or the number of files if none does.
func (l Layout) FileAt(off int64) int {
	return sort.Search(len(l.files), func(i int) bool { return l.files[i].End() > off })
}

// Span is how many files there are from the one that holds the byte at off to the one that holds the last of n bytes, empty ones
// and padding between them included.
func (l Layout) Span(off, n int64) int {
	return min(l.FileAt(off+n-1)+1, len(l.files)) - l.FileAt(off)
}

// FilesOf yields the indices of the files that have bytes in a piece, padding left out.
func (l Layout) FilesOf(piece int) iter.Seq[int] {
	return func(yield func(int) bool) {
		start, end := l.PieceOffset(piece), l.PieceEnd(piece)
		for i := l.FileAt(start); i < len(l.files) && l.files[i].Offset < end; i++ {
			if f := &l.files[i]; f.Length > 0 && !f.Pad && !yield(i) {
				return
			}
		}
	}
}

// IsPadding reports whether a piece holds no byte of a file.
func (l Layout) IsPadding(piece int) bool {
	for range l.FilesOf(piece) {
		return false
	}
	return true
}

// PiecesOf is the range of pieces, first to before end, that have bytes of a file. It is empty for an
// empty file.
func (l Layout) PiecesOf(file int) (first, end int) {
	f := &l.files[file]
	if f.Length == 0 {
		return 0, 0
	}
	return l.PieceAt(f.Offset), l.PieceAt(f.End()-1) + 1
}

// Overlap is how many bytes of a file are in a piece, which must be one of PiecesOf.
func (l Layout) Overlap(file, piece int) int64 {
	f := &l.files[file]
	return min(f.End(), l.PieceEnd(piece)) - max(f.Offset, l.PieceOffset(piece))
}
