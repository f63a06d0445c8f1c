package torrent

import (
	"errors"
	"fmt"

	"github.com/shoal-go/torrent/internal/bits"
)

// setWanted gives the wanted files their place. They come into being with their first bytes, so
// that an empty one is made here.
//
// Where all of them are there in full length nothing is made, and the directory may be read-only.
func (s *fileStorage) setWanted(wanted []bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.wanted = append([]bool(nil), wanted...)
	var missing []int
	short := false
	for i := range s.content.NumFiles() {
		f, state := s.content.File(i), &s.files[i]
		if !wanted[i] || f.Pad {
			continue
		}
		if state.left == (stamp{}) {
			missing = append(missing, i)
		}
		short = short || state.left.size < f.Length || state.name != s.ownName(i)
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
			continue // wanted before, and nothing written yet
		}
		if s.content.File(i).Length == 0 {
			if err := s.writeFile(i, nil, 0); err != nil {
				return err
			}
			s.files[i].here = true
		} else if err := s.adopt(i); err != nil {
			return err
		}
	}
	return nil
}

// unpart gives files that are still under a name with partSuffix their own.
func (s *fileStorage) unpart() error {
	for i := range s.content.NumFiles() {
		f, name := &s.files[i], s.ownName(i)
		if f.name == "" || f.name == name {
			continue
		}
		if err := s.disk.rename(f.name, name); err != nil {
			return err
		}
		s.handles.drop(i)
		f.name = name
		s.madeName(name)
	}
	return nil
}

// present leaves out the pieces that cannot be right: those with bytes in a missing file or past the
// end of a short one, and those that are nothing but holes, unless zeros are what they should hold.
func (s *fileStorage) present() bits.Set {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := &s.content
	lacking := bits.New(c.NumPieces()) // some of it is not there
	data := bits.New(c.NumPieces())    // some of it is more than a hole
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
		if !state.here {
			s.presentEdges(i, &lacking, &data)
			continue
		}
		size := min(f.Length, s.leftAs(i).size)
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
		case c.PieceSize(piece) < c.PieceLength() || zeros(piece):
			data.Add(piece)
		}
	}
	return data
}

// presentEdges marks the pieces of file i, which is not here, as having data where there is a slot, and
// else as lacking.
func (s *fileStorage) presentEdges(i int, lacking, data *bits.Set) {
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

// eachData calls mark for the runs of the first size bytes of file i that are not holes.
func (s *fileStorage) eachData(i int, size int64, mark func(from, to int64)) error {
	if size == 0 {
		return nil
	}
	info, err := s.disk.stat(s.files[i].name)
	if err != nil {
		return err
	}
	if info.dense {
		mark(0, size)
		return nil
	}
	h, err := s.handles.get(i, false, false)
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	for off := int64(0); off < size; {
		from, to, err := h.f.nextData(off, size)
		if err != nil {
			return err
		}
		mark(from, min(to, size))
		off = max(to, off+1)
	}
	return nil
}

// zeroPiece returns what reports whether a piece of full length should hold nothing but zeros. They are
// hashed once, and not before it is called.
func zeroPiece(c *content) func(piece int) bool {
	var h check
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

// finished cuts wanted files that are too long, removes what was there for the next run, and gives
// the lock back, unless the edges hold what a wider selection will want. It does not sync: without
// a sidecar nothing is claimed, and so nothing can be claimed wrongly.
func (s *fileStorage) finished() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	for i := range s.content.NumFiles() {
		if length := s.content.File(i).Length; len(s.wanted) > 0 && s.wanted[i] && s.files[i].left.size > length {
			if err := s.cut(i, length); err != nil {
				return err
			}
		}
	}
	if s.edgesNeeded() {
		return nil
	}
	for _, suffix := range [...]string{".resume", ".resume.tmp", ".resume.bad", ".edges.resume", ".lock"} {
		name := s.sidecar(suffix)
		if _, err := s.disk.stat(name); absent(err) {
			continue
		}
		if err := s.lock(); err != nil {
			// Complete, but not ours to tidy: read-only, or in use by someone just now.
			s.log.Debug("sidecar stays", "file", name, "err", err)
			return nil
		}
		if suffix != ".lock" { // which goes when it is released
			if err := s.disk.remove(name); err != nil && !absent(err) {
				return err
			}
		}
	}
	edges := s.edgesFile()
	s.handles.drop(edges)
	s.files[edges].left = stamp{}
	clear(s.slots)
	return s.release()
}

// cut makes file i as short as it should be.
func (s *fileStorage) cut(i int, length int64) error {
	if err := s.lock(); err != nil {
		s.log.Warn("file is too long", "file", s.path(i), "err", err)
		return nil
	}
	f := &s.files[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	h, err := s.handles.get(i, true, false)
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	if err := h.f.Truncate(length); err != nil {
		return fmt.Errorf("%s: %w", s.path(i), err)
	}
	info, err := h.f.stat()
	f.left = info.stamp
	return err
}

// manyFiles is how many written files are more work to sync one by one than all at once.
const manyFiles = 64

// Sync syncs the files written since the last time, and the directories they are named in. Close does
// not wait for it: a slow disk would hold up whoever cancelled a context.
func (s *fileStorage) Sync() error {
	files, dirs, together, err := s.takeDirty()
	if err != nil {
		return err
	}
	err = errors.Join(s.sync(files, dirs, together), s.handles.takeError())
	if err != nil && !errors.Is(err, ErrClosed) {
		s.dirtyMu.Lock()
		s.syncFailed = err
		s.dirtyMu.Unlock()
	}
	return err
}

// takeDirty is what a Sync has to do, and whether all of it lies in one file system.
func (s *fileStorage) takeDirty() (files []int, dirs map[string]struct{}, together bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, nil, false, ErrClosed
	}
	s.dirtyMu.Lock()
	files, dirs, err = s.dirtyFiles, s.dirtyDirs, s.syncFailed
	s.dirtyFiles, s.dirtyDirs = nil, make(map[string]struct{})
	s.dirtyMu.Unlock()
	if err != nil || len(files) == 0 && len(dirs) == 0 {
		return nil, nil, false, err
	}
	root, err := s.disk.stat(".")
	if err != nil {
		return nil, nil, false, err
	}
	together = true
	for _, i := range files {
		// Before it is synced: a write from here on makes it dirty again.
		f := &s.files[i]
		f.mu.Lock()
		f.dirty = false
		together = together && f.left.dev == root.dev
		f.mu.Unlock()
	}
	return files, dirs, together, nil
}

func (s *fileStorage) sync(files []int, dirs map[string]struct{}, together bool) error {
	if len(files) > manyFiles && together {
		if done, err := s.disk.syncAll(); done || err != nil {
			return err
		}
	}
	for _, i := range files {
		if err := s.syncFile(i); err != nil && !absent(err) {
			return err
		}
	}
	for dir := range dirs {
		if err := s.disk.syncDir(dir); err != nil && !absent(err) {
			return err
		}
	}
	return nil
}

func (s *fileStorage) syncFile(i int) error {
	h, err := s.handles.get(i, true, false)
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	return h.f.Sync()
}
