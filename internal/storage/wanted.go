package storage

import "slices"

// SetWanted has the wanted files stored as files, and not in the edges. A file is made when it is first written, or by Settle if
// it is empty.
//
// If all wanted files exist in full length, SetWanted writes nothing, and the directory may be read-only.
func (s *fileStore) SetWanted(wanted []bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	undo, err := s.claim(wanted)
	if err != nil {
		return err
	}
	if s.wanted == nil {
		undoLinks, err := s.claimLinks()
		if err != nil {
			undo()
			return err
		}
		undoFiles := undo
		undo = func() { undoLinks(); undoFiles() }
	}
	before := s.wanted
	s.wanted = append([]bool(nil), wanted...)
	var missing []int
	short := false
	for i := range s.content.NumFiles() {
		f, state := s.content.File(i), &s.files[i]
		if !wanted[i] || f.Pad {
			continue
		}
		if state.left.Size == 0 {
			missing = append(missing, i)
		}
		short = short || state.left.Size < f.Length
	}
	if !short && !slices.ContainsFunc(missing, func(i int) bool { return s.files[i].left == (Stamp{}) }) {
		return nil
	}
	if err = s.lock(); err == nil && s.folding == 0 && s.foldsCase(s.sidecar(".lock")) {
		_, err = s.claim(wanted) // no file existed before the lock to show it
	}
	if err != nil {
		undo()
		s.wanted = before
		return err
	}
	if err := s.findAgain(missing); err != nil {
		return err
	}
	for _, i := range missing {
		if s.files[i].left.Size > 0 {
			continue // it was found again
		}
		// A file that is here but does not exist was wanted before, and is not written yet: nothing is to be copied. One that
		// exists with size 0 may have been made by a run that ended before it copied anything.
		if f := &s.files[i]; !f.here || f.left != (Stamp{}) && s.content.File(i).Length > 0 {
			if err := s.adopt(i); err != nil {
				return err
			}
		}
	}
	return nil
}
