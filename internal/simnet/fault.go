package simnet

// Fault is what befalls one connection, seen from the host that plans it. A count of bytes is of what
// that host sends; 0 is never.
type Fault struct {
	ResetAfter int64 // then both ends see a reset
	StallAfter int64 // then nothing comes any more, and nobody is told
	FinAfter   int64 // then the stream ends, the other way stays open
	ReadAtMost int   // bytes that one Read of this host returns
}

// end is the count of bytes after which nothing more arrives, 0 if there is none.
func (f *Fault) end() int64 {
	at := int64(0)
	for _, n := range []int64{f.ResetAfter, f.StallAfter, f.FinAfter} {
		if n > 0 && (at == 0 || n < at) {
			at = n
		}
	}
	return at
}
