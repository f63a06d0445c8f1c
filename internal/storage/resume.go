package storage

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// resume is the content of the sidecar: the pieces that were verified, the blocks of other pieces that were written, the sizes
// and modification times of the files at that moment, and the hashes of pieces that were fetched.
//
// Its encoding, with all integers big-endian, is: the magic; the version (2 bytes); the info hash (20); the piece length (8); the
// length of the content (8); the number of files, the edges included (4); for each file its size (8, -1 if nothing of it was kept, -2
// if bytes of it were kept in the edges) and modification time (8, Unix time in nanoseconds); the verified pieces as a bitfield;
// the number of partial pieces (4); for each of these its index (4) and its blocks as a bitfield; in version 2 the length in
// bytes of the fetched hashes (4) and the hashes; and the SHA-1 of all of this. Version 1 is written if there are no such hashes.
type resume struct {
	files   []resumeStamp // by index in the layout, and one more for the edges
	have    bits.Set
	partial map[int]bits.Set
	hashes  []byte
}

// A resumeStamp is the size and modification time that a file had.
type resumeStamp struct{ size, mtime int64 }

const (
	resumeMagic      = "\x89resume\n"
	resumeVersion    = 1
	resumeWithHashes = 2  // the version that has hashes
	noFile           = -1 // the size of a file of which nothing was kept
	inEdges          = -2 // the size of a file of which bytes were kept in the edges, whatever existed at its path

	// maxKeptHashes bounds the hashes in a sidecar, in bytes: enough for 128 Ki pieces. The sidecar is written every half minute.
	maxKeptHashes = 4 << 20
)

// append appends the encoding of r for c.
func (r *resume) append(b []byte, c *Content) []byte {
	start := len(b)
	b = append(b, resumeMagic...)
	version := uint16(resumeVersion)
	if len(r.hashes) > 0 {
		version = resumeWithHashes
	}
	b = binary.BigEndian.AppendUint16(b, version)
	b = append(b, c.InfoHash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.PieceLength()))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Size()))
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.files)))
	for _, f := range r.files {
		b = binary.BigEndian.AppendUint64(b, uint64(f.size))
		b = binary.BigEndian.AppendUint64(b, uint64(f.mtime))
	}
	b = r.have.AppendTo(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.partial)))
	for _, piece := range slices.Sorted(maps.Keys(r.partial)) {
		blocks := r.partial[piece]
		b = binary.BigEndian.AppendUint32(b, uint32(piece))
		b = blocks.AppendTo(b)
	}
	if len(r.hashes) > 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(len(r.hashes)))
		b = append(b, r.hashes...)
	}
	sum := sha1.Sum(b[start:])
	return append(b, sum[:]...)
}

// maxResumeSize returns the largest size in bytes of a sidecar of c: that with all pieces partial.
func maxResumeSize(c *Content) int64 {
	pieces := int64(c.NumPieces())
	most := 128 + 16*int64(c.NumFiles()+1) + pieces/8 + pieces*(4+1) + c.Size()/layout.BlockSize/8
	if c.Hashes != nil {
		most += maxKeptHashes
	}
	return most
}

// learned returns the hashes that the sidecar is to keep.
func (c *Content) learned() []byte {
	if c.Hashes == nil {
		return nil
	}
	return c.Hashes.AppendLearned(nil, maxKeptHashes)
}

// parseResume parses what append encoded for the same content. The error says what is wrong with p.
func parseResume(p []byte, c *Content) (*resume, error) {
	if !bytes.HasPrefix(p, []byte(resumeMagic)) {
		return nil, errors.New("not a resume sidecar")
	}
	if len(p) < len(resumeMagic)+2+sha1.Size {
		return nil, errors.New("damaged: too short")
	}
	version := binary.BigEndian.Uint16(p[len(resumeMagic):])
	if version != resumeVersion && version != resumeWithHashes {
		return nil, fmt.Errorf("of version %d, while this is version %d", version, resumeWithHashes)
	}
	body, sum := p[:len(p)-sha1.Size], p[len(p)-sha1.Size:]
	if sha1.Sum(body) != [sha1.Size]byte(sum) {
		return nil, errors.New("damaged: its checksum is wrong")
	}
	in := fields{p: body[len(resumeMagic)+2:]}
	if !bytes.Equal(in.take(len(c.InfoHash)), c.InfoHash[:]) {
		return nil, errors.New("of another torrent")
	}
	if in.int64() != c.PieceLength() || in.int64() != c.Size() || in.int() != c.NumFiles()+1 {
		return nil, errors.New("of a torrent of another shape")
	}
	r := &resume{files: make([]resumeStamp, c.NumFiles()+1)}
	for i := range r.files {
		r.files[i] = resumeStamp{in.int64(), in.int64()}
	}
	var err error
	if r.have, err = bits.Parse(in.take((c.NumPieces()+7)/8), c.NumPieces()); err != nil {
		return nil, err
	}
	n := in.int()
	if n > c.NumPieces() {
		return nil, fmt.Errorf("%d partial pieces of %d", n, c.NumPieces())
	}
	r.partial = make(map[int]bits.Set)
	for range n {
		piece := in.int()
		if piece >= c.NumPieces() {
			return nil, fmt.Errorf("piece %d of %d", piece, c.NumPieces())
		}
		n := c.NumBlocks(piece)
		blocks, err := bits.Parse(in.take((n+7)/8), n)
		if err != nil {
			return nil, fmt.Errorf("piece %d: %w", piece, err)
		}
		r.partial[piece] = blocks
	}
	if version == resumeWithHashes {
		n := in.int()
		if n == 0 || n > len(in.p) {
			return nil, fmt.Errorf("%d bytes of hashes in %d", n, len(in.p))
		}
		r.hashes = in.take(n)
	}
	if len(in.p) > 0 || in.short {
		return nil, errors.New("of the wrong length")
	}
	return r, nil
}

// fields reads integers and bytes from the front of p. Past the end of p they are zero, and short is set.
type fields struct {
	p     []byte
	short bool
}

func (f *fields) take(n int) []byte {
	if n > len(f.p) {
		f.short = true
		return make([]byte, n)
	}
	b := f.p[:n]
	f.p = f.p[n:]
	return b
}

func (f *fields) int64() int64 { return int64(binary.BigEndian.Uint64(f.take(8))) }

// int reads a 32-bit count or index. A larger number than an int32 holds is returned as 1<<31 - 1, which is too large for either.
func (f *fields) int() int { return int(min(binary.BigEndian.Uint32(f.take(4)), 1<<31-1)) }

// readResume reads the sidecar, if there is one, and keeps those of its claims that still hold. A sidecar that cannot be used is
// renamed and not overwritten, because another program may have written it. readResume returns an error only if the system is out of
// handles.
func (s *fileStore) readResume() error {
	name := s.sidecar(".resume")
	if _, err := s.disk.Stat(name); absent(err) {
		return nil // for which it takes no handle
	}
	p, err := s.readSidecar(name)
	if err != nil && !absent(err) {
		p, err = s.readSidecar(name) // a disk may fail once, and only the sidecar says which bytes are in the edges
	}
	if absent(err) {
		return nil
	}
	if Exhausted(err) {
		return err
	}
	var r *resume
	if err == nil {
		r, err = parseResume(p, &s.content)
	}
	if err != nil {
		s.log.Warn("resume sidecar set aside, files will be hashed", "file", name, "reason", err)
		if err := s.disk.Rename(name, name+".bad"); err != nil {
			s.log.Debug("resume sidecar is not renamed", "file", name, "err", err)
		}
		return nil
	}
	some := r.have.Clone()
	for piece := range r.partial {
		some.Add(piece)
	}
	for i := range s.content.NumFiles() {
		if s.files[i].here && r.files[i].size == inEdges && s.hasSlot(i) {
			s.leaveAlone(i)
		}
	}
	for i := range s.content.NumFiles() {
		f, length := &s.files[i], s.content.File(i).Length
		// If the sidecar claims no piece or block of a file, it records only how the file was found: that may be any file.
		f.known = r.files[i].size >= 0 && r.files[i].size <= length && (length == 0 || s.holdsAny(i, some))
		f.written = f.known && length > 0 && !r.have.Full()
		// Bytes past the length in the torrent were added since. They are cut off if the file was not whole; if it was, the user
		// may have added them.
		f.long = f.known && length > 0 && !s.holdsAll(i, r.have)
	}
	s.confirm(r)
	for piece := range r.partial {
		for i := range s.content.FilesOf(piece) {
			if f := &s.files[i]; f.here { // blocks of it are there
				f.ours.Store(true)
			}
		}
	}
	if s.content.Hashes != nil {
		s.content.Hashes.Recall(r.hashes)
	}
	s.resumed = r
	s.saved.Store(checksum(p))
	return nil
}

// checksum returns the SHA-1 at the end of a sidecar.
func checksum(p []byte) *[sha1.Size]byte {
	sum := [sha1.Size]byte(p[len(p)-sha1.Size:])
	return &sum
}

func (s *fileStore) readSidecar(name string) ([]byte, error) {
	f, err := s.openRoomy(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if limit := maxResumeSize(&s.content); info.Size > limit {
		return nil, fmt.Errorf("%d bytes long, at most %d possible", info.Size, limit)
	}
	p := make([]byte, info.Size)
	return p, readFull(f, p, 0)
}

// confirm removes from r the pieces of which a file is not as r records it.
func (s *fileStore) confirm(r *resume) {
	held := make([]bool, len(s.files))
	for i := range s.files {
		now := s.resumeStampOf(i)
		held[i] = now == r.files[i] || now.size < 0 && r.files[i].size < 0
		s.files[i].durable = held[i] && s.isSynced(i, r.have)
		if !held[i] {
			s.log.Debug("file is not as the resume sidecar says, will be hashed", "file", s.path(i))
		}
	}
	// A partial piece need not have a slot: its blocks may all be in files.
	holds := func(piece int, whole bool) bool {
		_, slot := s.slots[piece]
		for i := range s.content.FilesOf(piece) {
			if !held[i] || !s.files[i].here && (whole && !slot || !held[s.edgesFile()]) {
				return false
			}
		}
		return true
	}
	for piece := range r.have.All() {
		if !holds(piece, true) {
			r.have.Remove(piece)
		}
	}
	maps.DeleteFunc(r.partial, func(piece int, _ bits.Set) bool { return r.have.Has(piece) || !holds(piece, false) })
}

// disclaim removes the claims of r on the pieces from first up to but not including end.
func (r *resume) disclaim(first, end int) {
	for piece := first; piece < end; piece++ {
		r.have.Remove(piece)
		delete(r.partial, piece)
	}
}

// resumeStampOf returns the stamp with which file i was left, or one that matches no file if another program changed it. The
// caller holds s.mu.
func (s *fileStore) resumeStampOf(i int) resumeStamp {
	left := s.leftAs(i)
	switch {
	case s.files[i].meddled.Load():
		return resumeStamp{} // no file matches this
	case left == Stamp{}:
		return s.resumeStampOfNone(i)
	}
	return resumeStamp{left.Size, left.Mtime}
}

// resumeStampOfNone returns the stamp for file i, which does not exist. The caller holds s.mu.
func (s *fileStore) resumeStampOfNone(i int) resumeStamp {
	if s.files[i].here || !s.hasSlot(i) {
		return resumeStamp{size: noFile}
	}
	return resumeStamp{size: inEdges}
}

func (s *fileStore) LoadResume() (bits.Set, map[int]bits.Set) {
	have := zeroPadding(&s.content)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.resumed
	if r == nil {
		return have, nil
	}
	s.resumed = nil
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	for piece := range r.partial {
		s.drafts[piece] = false // blocks of it are in its files
	}
	have.AddAll(&r.have)
	return have, r.partial
}

// SaveResume replaces the sidecar. It syncs the content first, so that the sidecar claims nothing that a loss of power could
// undo. It takes the stamps of the files before the sync: a write during the sync then makes the claim void, and not wrong.
func (s *fileStore) SaveResume(have bits.Set, partial map[int]bits.Set) error {
	s.resumeMu.Lock()
	defer s.resumeMu.Unlock()
	if !s.locked.Load() && s.saved.Load() == nil || have.Full() && !s.needsEdges() {
		return nil
	}
	if err := s.lock(); err != nil {
		s.log.Debug("sidecar stays as it is", "err", err)
		return nil
	}
	return s.writeSidecar(s.encodeResume(have, partial), have)
}

// writeSidecar writes b, which claims have, as the sidecar. If the disk is full, or cannot be written to any more, the sidecar stays as it
// is: the next run hashes what it does not claim. The caller holds s.resumeMu and the lock.
func (s *fileStore) writeSidecar(b []byte, have bits.Set) error {
	err := s.syncClaimed(have)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err == nil {
		err = s.replaceSidecar(b)
	}
	if errors.Is(err, ErrClosed) || errors.Is(err, fs.ErrClosed) {
		return ErrClosed
	}
	if err != nil {
		s.log.Warn("resume sidecar is not written", "err", err)
	}
	return nil
}

// encodeResume returns a sidecar that claims have and partial for the files as they were left.
func (s *fileStore) encodeResume(have bits.Set, partial map[int]bits.Set) []byte {
	r := &resume{files: make([]resumeStamp, len(s.files)), have: have, partial: s.withoutDrafts(partial), hashes: s.content.learned()}
	s.mu.RLock()
	for i := range s.files {
		r.files[i] = s.resumeStampOf(i)
	}
	s.mu.RUnlock()
	return r.append(nil, &s.content)
}

// syncClaimed is Sync, but also syncs files that were found and hold pieces of have, and their names: the program that wrote them may
// not have synced them. The caller holds s.resumeMu.
func (s *fileStore) syncClaimed(have bits.Set) error {
	named := make(map[string]bool) // directories whose names are to be synced
	s.mu.RLock()
	for i := range s.files {
		f := &s.files[i]
		f.mu.Lock()
		if f.here && !f.durable && f.left != (Stamp{}) && s.isSynced(i, have) {
			f.durable = true
			s.markDirty(i)
			for name := f.name; name != "." && !named[name]; name = filepath.Dir(name) {
				s.madeName(name)
				named[name] = name != f.name
			}
		}
		f.mu.Unlock()
	}
	s.mu.RUnlock()
	return s.syncDirty()
}

// isSynced reports whether a sidecar that claims have is written only once file i, as it says, is on disk.
func (s *fileStore) isSynced(i int, have bits.Set) bool {
	return i == s.edgesFile() || s.holdsAny(i, have)
}

// holdsAny reports whether one of the pieces in have has bytes in file i.
func (s *fileStore) holdsAny(i int, have bits.Set) bool {
	for piece, end := s.content.PiecesOf(i); piece < end; piece++ {
		if have.Has(piece) {
			return true
		}
	}
	return false
}

// holdsAll reports whether all pieces with bytes in file i are in have.
func (s *fileStore) holdsAll(i int, have bits.Set) bool {
	for piece, end := s.content.PiecesOf(i); piece < end; piece++ {
		if !have.Has(piece) {
			return false
		}
	}
	return true
}

// replaceSidecar writes b as the sidecar.
func (s *fileStore) replaceSidecar(b []byte) error {
	name := s.sidecar(".resume")
	if err := s.replace(name, b); err != nil {
		return fmt.Errorf("save %s: %w", filepath.Join(s.dir, name), err)
	}
	s.saved.Store(checksum(b))
	return nil
}

// replace replaces the content of name with p. After a loss of power the file holds all of the old or all of the new content.
func (s *fileStore) replace(name string, p []byte) error {
	return s.handles.makeRoom(func() error { return replaceOn(s.disk, name, p, s.renameOpen) })
}

func replaceOn(disk Disk, name string, p []byte, rename func(from, to string) error) error {
	tmp := name + ".tmp"
	f, err := disk.Open(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p, 0)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, disk.Remove(tmp))
	}
	return disk.SyncDir(".")
}

// renameOpen renames a file, unless the store is closed: then another Store may already use the directory.
func (s *fileStore) renameOpen(from, to string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	return s.disk.Rename(from, to)
}
