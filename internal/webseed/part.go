package webseed

import "github.com/shoal-go/torrent/internal/layout"

// A Part is a range of content that lies in one file.
type Part struct {
	File   int
	Offset int64 // within the file
	Length int64
	Pad    bool // it is zeros that no server has (BEP 47)
}

// PartAt is the first part of the content from off to before end, which must be within the content.
func PartAt(l layout.Layout, off, end int64) Part {
	i := l.FileAt(off)
	f := l.File(i)
	return Part{File: i, Offset: off - f.Offset, Length: min(end, f.End()) - off, Pad: f.Pad}
}
