package storage

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/safename"
)

// partSuffix is what Transmission appends to the name of a file that is not complete.
const partSuffix = ".part"

// findAlias looks for file i, which does not exist under its own name, under the names that other programs give it, and those
// that this store gives it on a file system that does not allow its own. A file that is found is read there, and not changed
// before Settle. findAlias returns an error only if the system is out of handles.
func (s *fileStore) findAlias(i int, none absentDirs) (found bool, err error) {
	f, length := &s.files[i], s.content.File(i).Length
	if length == 0 {
		return false, nil
	}
	look := func(name string, most int64) bool { // true ends the search, with the file or with an error
		info, failed := none.stat(s.disk, name)
		if Exhausted(failed) {
			err = failed
			return true
		}
		if failed != nil || !info.Regular || info.Size > most || s.isAnothers(i, name) {
			return false
		}
		f.name, f.alias = name, true
		f.found(info)
		return true
	}
	own := f.name
	if look(own+partSuffix, length) {
		return err == nil, err
	}
	for _, other := range safename.Variants(s.content.File(i).Path) {
		other = s.spare(i, other)
		if other == own {
			continue
		}
		if look(other, math.MaxInt64) || look(other+partSuffix, length) {
			return err == nil, err
		}
	}
	return false, nil
}

// isAnothers reports whether the torrent gives a name, perhaps in another case, to a file other than file i.
func (s *fileStore) isAnothers(i int, name string) bool {
	_, taken := s.ownNames()[safename.FoldCase(name)]
	return taken && name != s.ownName(i)
}

// listOwnNames returns the names that the torrent gives its files, with their case folded.
func (s *fileStore) listOwnNames() map[string]struct{} {
	names := make(map[string]struct{})
	for i := range s.content.NumFiles() {
		if !s.content.File(i).Pad {
			names[safename.FoldCase(s.ownName(i))] = struct{}{}
		}
	}
	return names
}

// spare returns the name for file i to have instead of its own: a path in the system's form, with a number if the torrent gives that to
// another file.
func (s *fileStore) spare(i int, path string) string {
	name := filepath.FromSlash(apartFromSidecars(path))
	if s.isAnothers(i, name) {
		return numbered(name, i)
	}
	return name
}

func (s *fileStore) Settle(ctx context.Context, have bits.Set) error {
	for i := range s.content.NumFiles() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.settle(i, have); err != nil {
			return err
		}
	}
	return nil
}

func (s *fileStore) settle(i int, have bits.Set) error {
	f := &s.files[i]
	s.mu.RLock()
	if !f.meddled.Load() && s.holdsAny(i, have) {
		s.isOurs(i)
	}
	due := f.alias || s.lacksEmpty(i)
	s.mu.RUnlock()
	if !due {
		return nil
	}
	return untilOwned(
		func() error { return s.copyShared(func() error { return s.settleDue(i, have) }) },
		func() error { return nil },
	)
}

// settleDue is settle for a file that may need something.
func (s *fileStore) settleDue(i int, have bits.Set) error {
	f := &s.files[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case f.alias:
		return s.judge(i, have)
	case !s.lacksEmpty(i):
		return nil
	}
	if err := s.lock(); err != nil {
		return err
	}
	return s.own(i, true)
}

// lacksEmpty reports whether file i is wanted, empty, and does not exist. The caller holds s.mu.
func (s *fileStore) lacksEmpty(i int) bool {
	f := s.content.File(i)
	return s.isWanted(i) && f.Length == 0 && !f.Pad && s.files[i].left == (Stamp{})
}

// leaveAlone has the bytes of file i, which is not wanted, kept in the edges until it is, whatever exists at its path. The caller holds
// s.mu for writing.
func (s *fileStore) leaveAlone(i int) {
	s.log.Debug("file is not wanted, and may be of another program", "file", s.path(i))
	s.forget(i)
	s.files[i].leftAlone = true
}

// findAgain finds what was left alone at the paths of those of the files that are wanted now. It is hashed before anything of it counts as
// verified. The caller holds s.mu for writing.
func (s *fileStore) findAgain(files []int) error {
	var known map[any][]int
	var mine []Claim
	for _, i := range files {
		f := &s.files[i]
		if !f.leftAlone {
			continue
		}
		if known == nil {
			known = s.byIdentity()
		}
		f.leftAlone = false
		info, err := s.disk.Stat(f.name)
		key := s.identity(i, info.ID)
		if missing(err) || err == nil && (!info.Regular || info.Size == 0 || s.sameAmong(slices.Values(known[key]), i, info.ID) >= 0) {
			continue
		} else if err != nil {
			return err
		}
		if s.resumed == nil && s.hasSlot(i) {
			f.meddled.Store(true) // set first, or a sidecar saved now claims the file as it is
		}
		f.mu.Lock()
		f.found(info)
		f.durable = false
		f.mu.Unlock()
		known[key] = append(known[key], i)
		if s.resumed != nil { // nothing counts as verified yet
			s.resumed.disclaim(s.content.PiecesOf(i))
		}
		c, err := s.claimFor(i)
		if err != nil {
			return err
		}
		mine = append(mine, c)
	}
	if len(mine) == 0 {
		return nil
	}
	_, err := s.claimOn(s.disk, mine)
	return err
}

// isWanted reports whether file i is wanted. The caller holds s.mu.
func (s *fileStore) isWanted(i int) bool { return len(s.wanted) > 0 && s.wanted[i] }

// judge decides whether what was found for file i under another name is that file: it is if a piece in it is verified, or blocks in it
// are claimed.
// The caller holds s.mu for writing.
func (s *fileStore) judge(i int, have bits.Set) error {
	f := &s.files[i]
	changed := s.compare(i)
	if changed != nil && !errors.Is(changed, ErrChanged) {
		return changed
	}
	ours := changed == nil && (f.ours.Load() || s.holdsAny(i, have))
	if ours && !s.isWanted(i) {
		return nil
	}
	if !ours {
		s.log.Debug("file is not of this torrent", "file", s.path(i))
		if changed != nil {
			f.meddled.Store(true)
		}
		s.forget(i)
		if s.isWanted(i) {
			return s.adopt(i)
		}
		return nil
	}
	f.alias = false
	s.handles.drop(i)
	own, part := strings.CutSuffix(f.name, partSuffix)
	if !part || f.name == s.ownName(i) {
		return nil
	}
	if err := s.lock(); err != nil {
		s.log.Warn("file keeps its name", "file", s.path(i), "err", err)
		return nil
	}
	if _, err := s.disk.Stat(own); !absent(err) {
		return err // another program made it meanwhile
	}
	if err := s.disk.Rename(f.name, own); err != nil {
		return err
	}
	f.name = own
	s.madeName(own)
	return nil
}
