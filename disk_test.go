package torrent

import (
	"bytes"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
)

// forgetfulDisk is a disk in memory that a loss of power can be tried on: what was not synced is then
// there or not, page by page, size and time each for itself, as the worst of file systems would have it.
type forgetfulDisk struct {
	mu      sync.Mutex
	clock   int64
	names   map[string]*inode // as programs see it; a nil inode is a directory
	durable map[string]*inode // as the disk has it for certain

	failSync  func() error        // nil or the error of the next sync, which loses what it should have kept
	failWrite func(n int64) error // likewise of a write of n bytes
}

// inode is a file, as programs see it and as the disk has it for certain.
type inode struct {
	disk    *forgetfulDisk
	number  uint64
	links   int
	seen    version
	durable version
}

type version struct {
	data  []byte
	mtime int64
}

const testPage = 64

func newForgetfulDisk() *forgetfulDisk {
	return &forgetfulDisk{names: make(map[string]*inode), durable: make(map[string]*inode),
		failSync: func() error { return nil }, failWrite: func(int64) error { return nil }}
}

// crash is what is there after a loss of power.
func (d *forgetfulDisk) crash(rng *rand.Rand) *forgetfulDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := newForgetfulDisk()
	after.clock = d.clock + 1000
	kept := make(map[*inode]*inode)
	all := maps.Clone(d.names)
	maps.Copy(all, d.durable)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		from := d.durable
		if rng.IntN(2) == 0 {
			from = d.names
		}
		old, ok := from[name]
		if !ok {
			continue
		}
		if old == nil {
			after.names[name] = nil
			continue
		}
		if kept[old] == nil {
			kept[old] = &inode{disk: after, number: old.number, seen: old.remembered(rng)}
			kept[old].durable = version{bytes.Clone(kept[old].seen.data), kept[old].seen.mtime}
		}
		kept[old].links++
		after.names[name] = kept[old]
	}
	after.durable = maps.Clone(after.names)
	return after
}

func (f *inode) remembered(rng *rand.Rand) version {
	v := version{bytes.Clone(f.durable.data), f.durable.mtime}
	if rng.IntN(2) == 0 {
		v.mtime = f.seen.mtime
	}
	if size := len(f.seen.data); rng.IntN(2) == 0 {
		v.data = append(v.data, make([]byte, max(0, size-len(v.data)))...)[:size]
	}
	for off := 0; off < len(v.data); off += testPage {
		if rng.IntN(2) == 0 && off < len(f.seen.data) {
			copy(v.data[off:min(off+testPage, len(v.data))], f.seen.data[off:])
		}
	}
	return v
}

func (d *forgetfulDisk) open(name string, flag int) (diskFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.names[name]
	switch {
	case ok && f == nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	case !ok && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case !ok:
		if _, ok := d.names[filepath.Dir(name)]; !ok && filepath.Dir(name) != "." {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		d.clock++
		f = &inode{disk: d, number: uint64(d.clock), links: 1, seen: version{mtime: d.clock}}
		f.durable.mtime = d.clock
		d.names[name] = f
	}
	if flag&os.O_TRUNC != 0 {
		d.clock++
		f.seen = version{mtime: d.clock}
	}
	return f, nil
}

func (d *forgetfulDisk) mkdirAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; name != "."; name = filepath.Dir(name) {
		d.names[name] = nil
	}
	return nil
}

func (d *forgetfulDisk) stat(name string) (fileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name == "." {
		return fileInfo{stamp: stamp{dev: 1}}, nil
	}
	f, ok := d.names[name]
	if !ok {
		return fileInfo{}, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	if f == nil {
		return fileInfo{stamp: stamp{dev: 1}}, nil
	}
	return f.info(), nil
}

func (d *forgetfulDisk) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.names[from]
	if !ok {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if old := d.names[to]; old != nil {
		old.links--
	}
	delete(d.names, from)
	d.names[to] = f
	return nil
}

func (d *forgetfulDisk) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.names[name]
	if !ok {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if f != nil {
		f.links--
	}
	delete(d.names, name)
	return nil
}

func (d *forgetfulDisk) syncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	inside := func(name string, _ *inode) bool { return filepath.Dir(name) == dir }
	maps.DeleteFunc(d.durable, inside)
	for name, f := range d.names {
		if inside(name, f) {
			d.durable[name] = f
		}
	}
	return nil
}

func (d *forgetfulDisk) syncAll() (bool, error) { return false, nil }

func (d *forgetfulDisk) lock(name string, exclusive bool) (func(bool) error, error) {
	return func(bool) error { return nil }, nil
}

func (d *forgetfulDisk) close() error { return nil }

func (f *inode) info() fileInfo {
	return fileInfo{
		stamp:   stamp{size: int64(len(f.seen.data)), mtime: f.seen.mtime, dev: 1, inode: f.number},
		regular: true, gone: f.links == 0, dense: true,
	}
}

func (f *inode) stat() (fileInfo, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return f.info(), nil
}

func (f *inode) ReadAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return bytes.NewReader(f.seen.data).ReadAt(p, off)
}

func (f *inode) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.failWrite(int64(len(p))); err != nil {
		return 0, err
	}
	f.disk.clock++
	f.seen.mtime = f.disk.clock
	f.seen.data = append(f.seen.data, make([]byte, max(0, int(off)+len(p)-len(f.seen.data)))...)
	return copy(f.seen.data[off:], p), nil
}

func (f *inode) writev(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		n, err := f.WriteAt(b, off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

func (f *inode) nextData(off, size int64) (start, end int64, err error) { return off, size, nil }

func (f *inode) mmap(n int) ([]byte, func() error, error) {
	b := make([]byte, n)
	return b, func() error { return nil }, readFull(f, b, 0)
}

func (f *inode) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.clock++
	f.seen.mtime = f.disk.clock
	f.seen.data = f.seen.data[:size]
	return nil
}

func (f *inode) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.failSync(); err != nil {
		f.seen.data = bytes.Clone(f.durable.data) // and the next sync will not tell
		return err
	}
	f.durable = version{bytes.Clone(f.seen.data), f.seen.mtime}
	return nil
}

func (f *inode) Close() error { return nil }

// openForgetful is openFiles on a disk in memory.
func openForgetful(t *testing.T, tor *Torrent, d *forgetfulDisk) *fileStorage {
	t.Helper()
	s, err := openFilesOn(tor.content(), d, "disk", nil)
	require.NoError(t, err)
	require.NoError(t, s.probe())
	s.readResume()
	return s
}

// Whatever a loss of power takes, the sidecar claims nothing that is not there, and the content is
// complete in the end.
func TestLossOfPower(t *testing.T) {
	claimed, crashes := 0, 0
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		tor, content := testContent(3*blockSize/2, 10_000, 70_000, 0, 100, 100_000, -5000, 60_000)
		wanted := only(tor, func(int) bool { return rng.IntN(3) > 0 })
		d := newForgetfulDisk()
		for life := range 4 {
			s := openForgetful(t, tor, d)
			have, partial := s.loadResume()
			check := bits.New(tor.NumPieces())
			require.NoError(t, hashPieces(t.Context(), tor.content(), s, have, func(piece int, ok bool) {
				require.True(t, ok, "seed %d: piece %d is claimed, but not there", seed, piece)
				check.Add(piece)
			}))
			claimed += check.Count()
			for piece, blocks := range partial {
				for block := range blocks.All() {
					off := tor.layout.PieceOffset(piece) + int64(block)*blockSize
					b := make([]byte, min(blockSize, tor.layout.PieceSize(piece)-int64(block)*blockSize))
					require.NoError(t, readFull(s, b, off), "seed %d", seed)
					require.Equal(t, content[off:off+int64(len(b))], b, "seed %d", seed)
					claimed++
				}
			}
			if life == 2 {
				wanted = all(tor)
			}
			require.NoError(t, s.setWanted(wanted))
			have = verified(t, tor, s)
			partial = make(map[int]bits.Set)
			for _, piece := range rng.Perm(tor.NumPieces()) {
				if have.Has(piece) {
					continue
				}
				if rng.IntN(4) == 0 {
					b := content[tor.layout.PieceOffset(piece):][:min(blockSize, tor.layout.PieceSize(piece))]
					require.NoError(t, s.writeBlocks([][]byte{b}, tor.layout.PieceOffset(piece)))
					partial[piece] = set(tor.layout.NumBlocks(piece), 0)
				} else {
					writePiece(t, tor, s, content, piece)
					have.Add(piece)
				}
				if rng.IntN(6) == 0 {
					if rng.IntN(10) == 0 {
						d.failSync = func() error { return syscall.EIO }
					}
					if err := s.saveResume(have, partial); err != nil {
						require.ErrorIs(t, err, syscall.EIO)
						d.failSync = func() error { return nil }
						require.ErrorIs(t, s.saveResume(have, partial), syscall.EIO, "what was lost stays lost")
						break
					}
				}
				if life < 3 && rng.IntN(12) == 0 {
					break
				}
			}
			d = d.crash(rng)
			crashes++
		}
		s := openForgetful(t, tor, d)
		require.NoError(t, s.setWanted(all(tor)))
		have := verified(t, tor, s)
		for piece := range tor.NumPieces() {
			if !have.Has(piece) {
				writePiece(t, tor, s, content, piece)
			}
		}
		require.NoError(t, s.finished())
		for i, f := range tor.layout.Files() {
			if !f.Pad {
				b, release, err := s.file(i)
				require.NoError(t, err)
				require.Equal(t, content[f.Offset:f.End()], b)
				require.NoError(t, release())
			}
		}
		for name := range d.names {
			require.NotContains(t, name, tor.infoHash.String())
		}
	}
	require.Greater(t, claimed, crashes, "or this test shows nothing")
	t.Logf("%d losses of power, %d claims, all true", crashes, claimed)
}

func TestAFullDiskIsAnError(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	d := newForgetfulDisk()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.setWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	d.failWrite = func(int64) error { return &fs.PathError{Op: "write", Path: "disk/d/0", Err: syscall.ENOSPC} }
	require.ErrorIs(t, s.writeBlocks([][]byte{content[50:100]}, 50), syscall.ENOSPC)
	require.ErrorIs(t, s.saveResume(set(6, 0), nil), syscall.ENOSPC)
	require.NotContains(t, slices.Collect(maps.Keys(d.names)), sidecarName+".tmp")
	d.failWrite = func(int64) error { return nil }
	require.NoError(t, s.saveResume(set(6, 0), nil))
	require.NoError(t, s.Close())

	s = openForgetful(t, tor, d)
	have, _ := s.loadResume()
	require.Equal(t, []int{0}, pieces(have))
}

// A directory that may not be written is no obstacle while nothing is to be written.
func TestReadOnlyDirectory(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	d := newForgetfulDisk()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.setWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, s.saveResume(set(6, 1), nil)) // so that there is something to tidy
	require.NoError(t, s.Close())

	open := func() *fileStorage {
		s, err := openFilesOn(tor.content(), readOnlyDisk{d}, "disk", nil)
		require.NoError(t, err)
		require.NoError(t, s.probe())
		s.readResume()
		return s
	}
	s = open()
	require.NoError(t, s.setWanted(all(tor)))
	require.Equal(t, 6, verified(t, tor, s).Count())
	require.NoError(t, s.finished())
	b, _, err := s.file(0)
	require.NoError(t, err)
	require.Equal(t, content[:200], b)
	require.NoError(t, s.saveResume(set(6, 1), nil))
	require.NoError(t, s.Close())

	require.NoError(t, d.remove(filepath.FromSlash("d/1")))
	s = open()
	err = s.setWanted(all(tor))
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "disk")
}

type readOnlyDisk struct{ *forgetfulDisk }

func (d readOnlyDisk) open(name string, flag int) (diskFile, error) {
	if flag&(os.O_RDWR|os.O_WRONLY|os.O_CREATE) != 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EROFS}
	}
	return d.forgetfulDisk.open(name, flag)
}

func (d readOnlyDisk) lock(name string, exclusive bool) (func(bool) error, error) {
	if exclusive {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (d readOnlyDisk) remove(name string) error {
	return &fs.PathError{Op: "remove", Path: name, Err: syscall.EROFS}
}
