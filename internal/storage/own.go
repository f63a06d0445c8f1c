package storage

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/shoal-go/torrent/internal/safename"
)

// found records that the file exists, as info describes it.
func (f *fileState) found(info FileInfo) {
	f.left, f.id, f.links, f.here = info.Stamp, info.ID, info.Links, true
}

// findTwins finds files of the content that are the same file on the file system: hard links of each other, reached through a
// symbolic link, or with names that the file system treats as the same. A file that an earlier run had to store under another
// name is read from there.
func (s *fileStore) findTwins() error {
	first := make(map[any]int)
	s.findAlike()
	for i := range s.content.NumFiles() {
		f := &s.files[i]
		if !f.here {
			continue
		}
		key := s.identity(i, f.id)
		twin, ok := first[key]
		if !ok {
			twin = s.sameInCase(i)
			ok = twin >= 0 && twin < i
		}
		if !ok {
			first[key] = i
			continue
		}
		if f.links <= 1 {
			name := numbered(f.name, i)
			info, err := s.disk.Stat(name)
			if err == nil && info.Regular {
				f.name = name
				f.found(info)
				first[s.identity(i, f.id)] = i
				continue
			}
			if err != nil && !absent(err) {
				return err
			}
		}
		f.twin, s.files[twin].twin = true, true
	}
	return nil
}

// numbered returns another name for file i. It depends only on name and i, so that the next run finds the file again.
func numbered(name string, i int) string {
	return filepath.FromSlash(safename.Numbered(filepath.ToSlash(name), i))
}

// touched yields the files that get bytes of a write of n bytes at off; what goes to padding or to the edges is no file's. The caller
// holds s.mu.
func (s *fileStore) touched(off, n int64) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := s.content.FileAt(off); i < s.content.NumFiles() && s.content.File(i).Offset < off+n; i++ {
			if f := s.content.File(i); !f.Pad && f.Length > 0 && s.files[i].here && !yield(i) {
				return
			}
		}
	}
}

// makeReady makes every file that a write of n bytes at off touches ready to be written, with makeNew or own.
func (s *fileStore) makeReady(off, n int64, verified bool) error {
	if s.areReady(off, n) {
		return nil
	}
	if s.makeNew(off, n); s.areReady(off, n) {
		return nil
	}
	return s.copyShared(func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := checkWrite(&s.content, s.closed, off, n); err != nil {
			return err
		}
		if err := s.lock(); err != nil {
			return err
		}
		for i := range s.touched(off, n) {
			if s.stopped.Load() {
				return ErrClosed
			}
			if err := s.own(i, verified); err != nil {
				return err
			}
		}
		return nil
	})
}

// makeNew makes the files that a write of n bytes at off touches and that do not exist. Most writes to a large torrent need
// nothing else, and because makeNew holds s.mu only for reading, several files are made at the same time. It leaves to own every
// file for which that fails or that needs more, and those of small torrents, which show whether the file system ignores case.
func (s *fileStore) makeNew(off, n int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed || s.move != nil || !s.locked.Load() || len(s.files) <= maxClaims {
		return
	}
	for i := range s.touched(off, n) {
		f := &s.files[i]
		if s.stopped.Load() {
			return
		}
		if f.twin || f.alias {
			continue
		}
		f.mu.Lock()
		if !f.ready.Load() && f.left == (Stamp{}) {
			info, err := s.makeFile(i)
			if err == nil {
				mine := Claim{Path: filepath.ToSlash(f.name), ID: info.ID, New: true, AnyCase: s.folding > 0}
				_, err = s.claimOn(s.disk, []Claim{mine})
			}
			if err == nil && info.Links <= 1 {
				f.left, f.id, f.links = info.Stamp, info.ID, info.Links
				s.markDirty(i)
				f.ours.Store(true)
				f.ready.Store(true)
			}
		}
		f.mu.Unlock()
	}
}

// makeFile makes file i. It fails if the file exists. The caller holds s.mu.
func (s *fileStore) makeFile(i int) (info FileInfo, err error) {
	file, err := s.open(i, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return FileInfo{}, err
	}
	h, err := s.handles.add(i, file, true)
	if err != nil {
		return FileInfo{}, err
	}
	defer s.handles.put(h)
	return h.f.Stat()
}

// areReady reports whether the lock is held and every file that a write of n bytes at off touches is ready.
func (s *fileStore) areReady(off, n int64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.locked.Load() {
		return false
	}
	for i := range s.touched(off, n) {
		if !s.isReady(i) {
			return false
		}
	}
	return true
}

// isReady reports whether file i need not be examined before a write. The caller holds s.mu.
func (s *fileStore) isReady(i int) bool {
	f := &s.files[i]
	return f.ready.Load() && (f.ours.Load() || s.isWanted(i))
}

// own makes sure that writes to file i change no other file: neither one of the content or of another program that is the same
// file on the file system, nor one that another download has claimed. It makes the file if it does not exist. The caller has
// called lock, and holds s.mu for writing. If own returns a *sharedFile, the file has to be replaced with a copy first: see
// copyShared.
//
// Unless what is to be written is verified, own changes nothing and returns ErrChanged if the file may belong to another program. What
// is verified goes to the edges then, if the file is not wanted; but as long as pieces of it may count as verified, which its change
// has not put in doubt yet, own returns ErrChanged, too.
func (s *fileStore) own(i int, verified bool) error {
	f := &s.files[i]
	if s.isReady(i) {
		return nil
	}
	unwanted := i < s.edgesFile() && !s.isWanted(i)
	if verified && unwanted && !f.ours.Load() && !f.meddled.Load() {
		// The file need not be opened for this. The process may not be allowed to.
		if now, err := s.disk.Stat(f.name); err == nil && now.Size > 0 && now.Stamp == f.left {
			s.leaveAlone(i)
			return nil
		}
	}
	info, made, err := s.openOwn(i)
	if errors.Is(err, fs.ErrPermission) && f.left != (Stamp{}) {
		return nil // writeFile finds out whether there is anything to write
	}
	if err != nil {
		return err
	}
	if info.Links <= 1 && (f.twin || !made && (info.ID != f.id || f.left == Stamp{})) {
		if twin := s.sameFile(i, info.ID); twin >= 0 {
			// Of the two, the later in the torrent gets the other name, so that the next run finds both.
			if err := s.rename(max(i, twin)); err != nil {
				return err
			}
			if twin < i {
				return s.own(i, verified)
			}
		}
	}
	if !made {
		f.ours.Store(info.Size == 0 || f.ours.Load() && info.Stamp == f.left)
	}
	if !f.ours.Load() && (!verified || unwanted) {
		return s.refuse(i)
	}
	link := false
	if !made {
		if link, err = s.isLink(f.name); err != nil {
			return err
		}
	}
	if link || info.Links > 1 {
		return &sharedFile{i, info}
	}
	return s.owned(i, info, made)
}

// owned claims file i, as info describes it, and records that it is ready. made is set if the file was just made. The caller holds
// s.mu for writing.
func (s *fileStore) owned(i int, info FileInfo, made bool) error {
	f := &s.files[i]
	if made || info.ID != f.id {
		mine := Claim{Path: filepath.ToSlash(f.name), ID: info.ID, New: made, AnyCase: s.foldsCase(f.name)}
		if _, err := s.claimOn(s.disk, []Claim{mine}); err != nil {
			return err
		}
	}
	f.id, f.links = info.ID, info.Links
	f.ready.Store(true)
	return nil
}

// errShared means that a file may not be this store's alone any more, so that own has to be called again before a write.
var errShared = errors.New("replaced, or given another name, by another program")

// shared has own called again for file i, and returns the error for that.
func (s *fileStore) shared(i int) error {
	s.files[i].ready.Store(false)
	return fmt.Errorf("%s: %w", s.path(i), errShared)
}

// refuse returns the error for blocks of file i, which may belong to another program. Its pieces stay in doubt until Refresh.
func (s *fileStore) refuse(i int) error {
	s.files[i].meddled.Store(true)
	return fmt.Errorf("%s: %w before a piece of it was verified", s.path(i), ErrChanged)
}

// holds reports whether file i holds bufs at off. The caller holds s.mu.
func (s *fileStore) holds(i int, bufs [][]byte, off int64) bool {
	for _, b := range bufs {
		now := make([]byte, len(b))
		if s.readFile(i, now, off) != nil || !bytes.Equal(now, b) {
			return false
		}
		off += int64(len(b))
	}
	return true
}

// untilOwned calls own and then write, and both again if one returns errShared. It gives up when that has happened often.
func untilOwned(own, write func() error) (err error) {
	for range 8 {
		if err = own(); err == nil {
			err = write()
		}
		if !errors.Is(err, errShared) {
			return err
		}
	}
	return err
}

// isLink reports whether name is a symbolic link. The store does not write through one, because it may lead to a file that is not
// part of the content. isLink returns an error only if the system is out of handles.
func (s *fileStore) isLink(name string) (bool, error) {
	err := s.handles.makeRoom(func() error {
		_, err := s.disk.Readlink(name)
		return err
	})
	if Exhausted(err) {
		return false, err
	}
	return err == nil, nil
}

// apartFromSidecars returns path, with "_" in front of each element that could be the name of a torrent's sidecar. Otherwise the
// author of a torrent could have the library write to a sidecar in the place of a file.
func apartFromSidecars(path string) string {
	odd := func(r rune) bool { return r >= utf8.RuneSelf }
	if !strings.HasPrefix(path, ".") && !strings.Contains(path, "/.") && !strings.ContainsFunc(path, odd) {
		return path
	}
	names := strings.Split(path, "/")
	for i, name := range names {
		// Some file systems that ignore case in names also ignore invisible characters.
		hidden, ok := strings.CutPrefix(safename.Visible(name), ".")
		if hash, _, more := strings.Cut(hidden, "."); ok && more && len(hash) == 2*sha1.Size {
			if _, err := hex.DecodeString(hash); err == nil {
				names[i] = "_" + name
			}
		}
	}
	return strings.Join(names, "/")
}

// portable is the length in bytes of a file name that almost every file system allows. The others allow half of that.
const portable = 240

// openOwn opens file i for writing, and makes it if it does not exist. If the file system does not allow the name, it makes the
// file under another one. The caller holds s.mu for writing.
func (s *fileStore) openOwn(i int) (info FileInfo, made bool, err error) {
	f := &s.files[i]
	s.handles.drop(i)
	info, err = s.makeFile(i)
	for n := portable; notTaken(err) && n >= portable/2; n /= 2 {
		name := s.spare(i, safename.Portable(s.content.File(i).Path, n))
		if name == f.name {
			continue
		}
		s.log.Info("stored under another name, because the file system does not allow its own", "file", s.path(i), "name", name)
		f.name = name
		info, err = s.makeFile(i)
	}
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.left != (Stamp{}) {
			f.meddled.Store(true) // another program removed it
		}
		f.left = info.Stamp
		f.ours.Store(true)
		s.markDirty(i)
		return info, true, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return FileInfo{}, false, err
	}
	h, err := s.handles.get(i, true, false)
	if err != nil {
		return FileInfo{}, false, err
	}
	defer s.handles.put(h)
	info, err = h.f.Stat()
	return info, false, err
}

// sameFile returns another file of the content that is the same file on the file system as file i, whose identity is id; or -1.
// The caller holds s.mu for writing.
func (s *fileStore) sameFile(i int, id FileID) int {
	return s.sameAmong(func(yield func(int) bool) {
		for j := 0; j < s.content.NumFiles() && yield(j); j++ {
		}
	}, i, id)
}

// sameAmong is sameFile for one of candidates, or a file whose name equals that of file i but for case.
func (s *fileStore) sameAmong(candidates iter.Seq[int], i int, id FileID) int {
	key := s.identity(i, id)
	for j := range candidates {
		f := &s.files[j]
		if j == i || f.name == "" || f.left == (Stamp{}) || f.id != id || s.identity(j, f.id) != key {
			continue
		}
		// Another program may have removed that one, and file i got its identity.
		if now, err := s.disk.Stat(f.name); err == nil && now.ID == id || err != nil && !missing(err) {
			return j
		}
	}
	return s.sameInCase(i)
}

// byIdentity returns the files of the content that exist, by their identities. The caller holds s.mu for writing.
func (s *fileStore) byIdentity() map[any][]int {
	files := make(map[any][]int)
	for i := range s.content.NumFiles() {
		if f := &s.files[i]; f.name != "" && f.left != (Stamp{}) {
			key := s.identity(i, f.id)
			files[key] = append(files[key], i)
		}
	}
	return files
}

// identity returns a key that no other file on the file system shares with file i. That is id or, where the system has no
// identities, the name with its case folded.
func (s *fileStore) identity(i int, id FileID) any {
	if id == (FileID{}) {
		return safename.FoldCase(s.files[i].name)
	}
	return id
}

// rename gives file i another name, at which nothing exists. It moves nothing on disk. The caller holds s.mu for writing.
func (s *fileStore) rename(i int) error {
	f := &s.files[i]
	for name, n := numbered(f.name, i), 1; ; name, n = numbered(name, i), n+1 {
		if _, err := s.disk.Stat(name); absent(err) {
			s.log.Info("stored under another name, because its own leads to another file", "file", s.path(i), "name", name)
			s.handles.drop(i)
			f.name, f.id, f.links, f.twin = name, FileID{}, 0, false
			f.ready.Store(false)
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.left != (Stamp{}) {
				f.left = Stamp{}
				f.meddled.Store(true)
			}
			return nil
		} else if err != nil || n == 8 {
			return cmp.Or(err, fmt.Errorf("%s: %w", s.path(i), fs.ErrExist))
		}
	}
}
