package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/shoal-go/torrent/internal/bits"
)

// commit takes steps 3 to 6.
func (m *move) commit(claims func() (bits.Set, map[int]bits.Set)) error {
	s := m.s
	s.resumeMu.Lock()
	defer s.resumeMu.Unlock()
	have, partial := claims()
	if err := s.syncClaimed(have); err != nil {
		return err
	}
	s.copyMu.Lock()
	defer s.copyMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if err := m.lockOld(); err != nil { // the disk may have room by now, and another Store the lock
		return err
	}
	m.renew(have)
	for _, i := range m.files {
		if err := m.place(i, have); err != nil {
			return err
		}
	}
	if err := m.placeLinks(); err != nil {
		return err
	}
	if err := m.setAside(s.sidecar(".resume"), len(s.files)); err != nil {
		return err
	}
	if len(m.aside) == 0 {
		if err := m.to.Remove(m.stage()); err != nil {
			return err
		}
	}
	if err := m.syncNames(); err != nil {
		return err
	}
	if _, err := s.claimOn(m.to, m.claim()); err != nil {
		return err
	}
	saved := s.saved.Load() != nil || !have.Full()
	if saved {
		if err := m.saveSidecar(have, partial); err != nil {
			return err
		}
	}
	m.adopt()
	return nil
}

// renew adds to m.files those files to move that were made since step 1. The caller holds m.s.mu.
func (m *move) renew(have bits.Set) {
	known := make(map[int]bool)
	for _, i := range m.files {
		known[i] = true
	}
	for i := range m.s.files {
		if !known[i] && m.s.moves(i, have) {
			m.files = append(m.files, i)
		}
	}
}

// place gives file i its name in the new directory. The caller holds m.s.mu.
func (m *move) place(i int, have bits.Set) error {
	s := m.s
	f := &s.files[i]
	if !s.moves(i, have) {
		return m.removeStaged(i) // the file was removed or replaced meanwhile
	}
	if s.stopped.Load() {
		return ErrClosed
	}
	if err := context.Cause(m.ctx); err != nil {
		return err
	}
	if err := m.makeDir(filepath.Dir(f.name)); err != nil {
		return err
	}
	if left, ok := m.inPlace[i]; ok {
		if now, err := m.to.Stat(f.name); err == nil && now.ID == left.ID && now.Stamp == left.Stamp {
			if err := m.setAside(f.name, i); err != nil {
				return err
			}
		}
	}
	if !m.staged[i] {
		err := s.disk.Link(f.name, m.to, f.name)
		switch {
		case err == nil:
			m.placed = append(m.placed, f.name)
			return m.look(i)
		case errors.Is(err, fs.ErrExist):
			return err
		}
		m.staged[i] = true
	}
	if err := m.catchUp(i, source{m.step, s.syncHeld}); err != nil {
		return err
	}
	if err := m.finishCopy(i); err != nil {
		return err
	}
	if err := m.rename(m.stagedName(i), f.name); err != nil {
		return err
	}
	m.placed = append(m.placed, f.name)
	return m.look(i)
}

func (m *move) removeStaged(i int) error { return removeIfPresent(m.to, m.stagedName(i)) }

// setAside gives a file in the new directory, in the place of which file i comes, another name until it is clear whether the Move succeeds:
// it may be the user's as well as what an earlier Move left.
func (m *move) setAside(name string, i int) error {
	err := m.rename(name, m.asideName(i))
	if err == nil || !absent(err) { // a failed rename may have made the other name
		m.aside = append(m.aside, aside{name, m.asideName(i)})
	}
	if absent(err) {
		return nil
	}
	return err
}

// restore puts back what a Move that was killed has set aside for file i, or for the sidecar if i is the number of files, and removes what it
// put in its place.
func (m *move) restore(i int) error {
	a := aside{m.s.sidecar(".resume"), m.asideName(i)}
	if _, err := m.to.Stat(a.as); absent(err) {
		return nil
	}
	ours := i == len(m.s.files)
	if !ours {
		a.name = m.s.nameOf(i)
	}
	info, err := m.to.Stat(a.name)
	if err == nil && !ours {
		ours, err = m.leftover(i, info)
	}
	if err == nil && ours {
		err = m.to.Remove(a.name)
	}
	if err != nil && !absent(err) {
		return err
	}
	return m.putBack(a)
}

// rename renames a file within the new directory. It fails if the name to exists.
func (m *move) rename(from, to string) error {
	err := m.to.Link(from, m.to, to)
	if err == nil {
		return m.to.Remove(from)
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := m.to.Stat(to); !absent(err) {
		return errors.Join(err, &fs.PathError{Op: "move to", Path: filepath.Join(m.dir, to), Err: fs.ErrExist})
	}
	return m.to.Rename(from, to)
}

// look records the name and the FileInfo of file i in the new directory. The caller holds m.s.mu.
func (m *move) look(i int) error {
	m.names[i] = m.s.files[i].name
	info, err := m.to.Stat(m.s.files[i].name)
	m.after[i] = info
	return err
}

// makeDir makes a directory and its parents in the new directory, and records those that it makes. The caller holds m.s.mu.
func (m *move) makeDir(name string) error {
	var missing []string
	for dir := name; dir != "."; dir = filepath.Dir(dir) {
		if _, err := m.to.Stat(dir); err == nil {
			break
		} else if !absent(err) {
			return err
		}
		missing = append(missing, dir)
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Reverse(missing)
	m.madeDirs = append(m.madeDirs, missing...)
	return m.to.MkdirAll(name) // once: each call goes through all levels
}

// syncNames syncs the names that were made in the new directory. The caller holds m.s.mu.
func (m *move) syncNames() error {
	dirs := map[string]bool{".": true}
	for _, name := range m.placed {
		dirs[filepath.Dir(name)] = true
	}
	for _, name := range m.madeDirs {
		dirs[filepath.Dir(name)] = true
	}
	if len(dirs) > manyFiles && m.together() {
		if done, err := m.to.SyncAll(); done || err != nil {
			return err
		}
	}
	for dir := range dirs {
		if m.s.stopped.Load() {
			return ErrClosed
		}
		if err := context.Cause(m.ctx); err != nil {
			return err
		}
		if err := m.to.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// together reports whether all that was placed lies in the file system of the new directory.
func (m *move) together() bool {
	root, err := m.to.Stat(".")
	if err != nil {
		return false
	}
	for _, info := range m.after {
		if info.ID.Dev != root.ID.Dev {
			return false
		}
	}
	return true
}

// saveSidecar writes a sidecar to the new directory that claims have and partial for the files there. The caller holds m.s.mu.
func (m *move) saveSidecar(have bits.Set, partial map[int]bits.Set) error {
	s := m.s
	r := &resume{files: make([]resumeStamp, len(s.files)), have: have, partial: s.withoutDrafts(partial), hashes: s.content.learned()}
	for i := range s.files {
		f := &s.files[i]
		info, moved := m.after[i]
		switch {
		case m.doubted[i], f.meddled.Load(), f.here && s.compare(i) != nil:
			r.files[i] = resumeStamp{} // changed by another program
		case moved:
			r.files[i] = resumeStamp{info.Size, info.Mtime}
		default:
			r.files[i] = s.resumeStampOfNone(i)
		}
	}
	name := s.sidecar(".resume")
	b := r.append(nil, &s.content)
	m.placed = append(m.placed, name)
	if err := replaceOn(m.to, name, b, m.to.Rename); err != nil {
		return fmt.Errorf("save %s: %w", filepath.Join(m.dir, name), err)
	}
	s.saved.Store(checksum(b))
	return nil
}

// adopt takes step 6. It also removes the old names of files that were linked, so that no file has two names when it is written.
// The caller holds m.s.mu for writing.
func (m *move) adopt() {
	s := m.s
	if err := s.handles.closeAll(); err != nil {
		s.log.Warn("close", "err", err)
	}
	for i := range s.files {
		f := &s.files[i]
		changed := f.meddled.Load() || f.here && s.compare(i) != nil
		info, moved := m.after[i]
		f.mu.Lock()
		switch {
		case !moved && f.left != (Stamp{}): // it may belong to another program, and stays in the old directory
			f.left, f.id, f.links, f.alias = Stamp{}, FileID{}, 0, false
			f.written, f.known, f.long = false, false, false
			f.ready.Store(false)
			f.ours.Store(false)
			f.here = i == s.edgesFile() || s.isWanted(i)
		case moved:
			if !changed {
				m.left[i] = f.left
			}
			f.left, f.id, f.links = info.Stamp, info.ID, info.Links
			if m.staged[i] {
				f.copies.Add(1)
			} else {
				f.links--
				if left, ok := m.inPlace[i]; ok && left.ID == info.ID {
					f.links--
				}
				f.links = max(1, f.links)
			}
			if f.links > 1 { // another program has linked it: it is copied before the next write
				f.ready.Store(false)
			}
			f.durable = f.durable || m.staged[i]
			if changed {
				f.ours.Store(false)
			}
		}
		f.meddled.Store(changed)
		f.mu.Unlock()
	}
	s.lockMu.Lock()
	s.unlock, m.unlock = m.unlock, s.unlock
	s.lockMu.Unlock()
	s.dirtyMu.Lock()
	clear(s.dirtyDirs)
	s.dirtyMu.Unlock()
	s.disk, s.dir, s.handles, s.folding = m.to, m.dir, newHandles(&s.claims.idle, s.open), 0
	s.move = nil
	s.place.Store(m.at)
	if err := m.removeFromOld(func(i int) bool { return !m.staged[i] }); err != nil {
		s.log.Warn("moved, but an old file stays", "err", err)
	}
}

// removeOld takes step 7.
func (m *move) removeOld() error {
	err := m.removeFromOld(func(i int) bool { return m.staged[i] })
	if len(m.aside) > 0 {
		for _, a := range m.aside {
			err = errors.Join(err, removeIfPresent(m.to, a.as))
		}
		err = errors.Join(err, m.to.Remove(m.stage()))
	}
	m.removeDirs()
	if m.unlock != nil {
		err = errors.Join(err, m.unlock(true))
	}
	return errors.Join(err, m.old.Close())
}

// removeFromOld removes the sidecar, the symbolic links, and the moved files for which the function which returns true, from the old
// directory.
func (m *move) removeFromOld(which func(i int) bool) error {
	var errs []error
	for _, suffix := range [...]string{".resume", ".resume.tmp"} {
		errs = append(errs, removeIfPresent(m.old, m.s.sidecar(suffix)))
	}
	for _, name := range m.links {
		if err := removeIfPresent(m.old, name); err != nil {
			errs = append(errs, err)
			continue
		}
		m.emptied[filepath.Dir(name)] = true
	}
	m.links = nil
	for _, i := range m.files {
		name, moved := m.names[i]
		if !moved || !which(i) {
			continue
		}
		if info, err := m.old.Stat(name); err == nil && info.Stamp != m.left[i] && (m.staged[i] || info.ID != m.after[i].ID) {
			errs = append(errs, fmt.Errorf("%s: %w while it was moved", name, ErrChanged))
			continue
		}
		if err := removeIfPresent(m.old, name); err != nil {
			errs = append(errs, err)
			continue
		}
		m.emptied[filepath.Dir(name)] = true
	}
	return errors.Join(errs...)
}

// removeDirs removes those directories below the old one that are empty now and are not those of other downloads. There may be very
// many: the end of the Move's context ends it, too, and those that are left stay.
func (m *move) removeDirs() {
	all := make(map[string]bool)
	for dir := range m.emptied {
		for ; dir != "." && !all[dir]; dir = filepath.Dir(dir) {
			all[dir] = true
		}
	}
	inner := func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) } // before the outer
	for _, dir := range slices.SortedFunc(maps.Keys(all), inner) {
		if m.ctx.Err() != nil || m.s.stopped.Load() {
			m.s.log.Warn("moved, but empty directories stay")
			return
		}
		if all[dir] && m.old.RemoveDir(dir) != nil {
			for ; all[dir]; dir = filepath.Dir(dir) {
				all[dir] = false // what holds it stays, too
			}
		}
	}
}

// undo removes what was made in the new directory, and puts back what was set aside.
func (m *move) undo() error {
	var errs []error
	remove := func(name string) { errs = append(errs, removeIfPresent(m.to, name)) }
	for _, name := range m.placed {
		remove(name)
	}
	for i := range m.staged {
		remove(m.stagedName(i))
	}
	for _, a := range m.aside {
		errs = append(errs, m.putBack(a))
	}
	remove(m.stage())
	for k := len(m.madeDirs) - 1; k >= 0; k-- {
		m.to.RemoveDir(m.madeDirs[k]) // fails if another program has put something there
	}
	return errors.Join(append(errs, m.unlock(true))...)
}

// putBack gives what was set aside its own name again.
func (m *move) putBack(a aside) error {
	err := m.rename(a.as, a.name)
	if absent(err) {
		return nil
	}
	if errors.Is(err, fs.ErrExist) { // it has both names, or another program has made a file
		if own, err := m.to.Stat(a.name); err == nil {
			if other, err := m.to.Stat(a.as); err == nil && own.ID == other.ID {
				return removeIfPresent(m.to, a.as)
			}
		}
	}
	return err
}
