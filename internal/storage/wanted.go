package storage

// SetWanted decides that the wanted files are stored as files. They are made when they are first written; only
// empty ones are made here.
//
// If all of them are there in full length nothing is made, and the directory may be read-only.
func (s *fileStore) SetWanted(wanted []bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if err := s.claim(wanted); err != nil {
		return err
	}
	s.wanted = append([]bool(nil), wanted...)
	var missing []int
	short := false
	for i := range s.content.NumFiles() {
		f, state := s.content.File(i), &s.files[i]
		if !wanted[i] || f.Pad {
			continue
		}
		if state.left == (Stamp{}) {
			missing = append(missing, i)
		}
		short = short || state.left.Size < f.Length || s.isPart(i)
	}
	if len(missing) == 0 && !short {
		return nil
	}
	if err := s.lock(); err != nil {
		return err
	}
	if err := s.unpart(); err != nil {
		return err
	}
	for _, i := range missing {
		if s.files[i].here {
			continue // wanted before, and not written yet
		}
		if s.content.File(i).Length == 0 {
			if err := s.own(i); err != nil {
				return err
			}
			s.files[i].here = true
		} else if err := s.adopt(i); err != nil {
			return err
		}
	}
	return nil
}

// unpart renames files that still have partSuffix behind their names.
func (s *fileStore) unpart() error {
	for i := range s.content.NumFiles() {
		f, name := &s.files[i], s.ownName(i)
		if !s.isPart(i) {
			continue
		}
		if err := s.disk.Rename(f.name, name); err != nil {
			return err
		}
		s.handles.drop(i)
		f.name = name
		s.madeName(name)
	}
	return nil
}

// isPart reports whether file i still has partSuffix behind its name.
func (s *fileStore) isPart(i int) bool {
	f := &s.files[i]
	return f.name != "" && f.name == s.ownName(i)+partSuffix
}
