package simnet

// Fault is what goes wrong with one connection, as seen from the host that plans it. Counts are of the bytes
// that this host sends; 0 is never.
type Fault struct {
	ResetAfter int64 // then both ends see a reset
	StallAfter int64 // then nothing arrives any more, and neither end is told
	FinAfter   int64 // then the stream ends, while the other way stays open
	ReadAtMost int   // bytes that one Read of this host returns
}

// end is how many bytes arrive before the first of the faults, 0 if none is planned.
func (f *Fault) end() int64 {
	at := int64(0)
	for _, n := range []int64{f.ResetAfter, f.StallAfter, f.FinAfter} {
		if n > 0 && (at == 0 || n < at) {
			at = n
		}
	}
	return at
}
