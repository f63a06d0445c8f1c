package torrent

import "iter"

// Verified is the pieces that are verified and on storage, chosen or not.
func (d *Download) Verified() Bitfield {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Bitfield{d.picker.Verified().Clone()}
}

// Files yields the files in torrent order, chosen or not but padding files left out, and how many bytes of each are
// verified.
func (d *Download) Files() iter.Seq2[File, int64] {
	return func(yield func(File, int64) bool) {
		have := d.Verified()
		for f := range d.t.Files() {
			verified := int64(0)
			for k, end := d.t.layout.PiecesOf(f.Index); k < end; k++ {
				if have.Has(k) {
					verified += d.t.layout.Overlap(f.Index, k)
				}
			}
			if !yield(f, verified) {
				return
			}
		}
	}
}
