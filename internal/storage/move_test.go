package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// watchedDisk calls the function before at each operation that changes something. If apart is set, it makes no links to other
// disks, like another file system.
type watchedDisk struct {
	storage.Disk
	apart  bool
	before func()
}

func (d *watchedDisk) Open(name string, flag int) (storage.DiskFile, error) {
	if flag != os.O_RDONLY {
		d.before()
	}
	f, err := d.Disk.Open(name, flag)
	if err != nil || flag == os.O_RDONLY {
		return f, err
	}
	return &watchedFile{f, d.before}, nil
}

func (d *watchedDisk) Link(name string, to storage.Disk, as string) error {
	d.before()
	other := to.(*watchedDisk)
	if d.apart && other != d {
		return &os.LinkError{Op: "link", Old: name, New: as, Err: syscall.EXDEV}
	}
	return d.Disk.Link(name, other.Disk, as)
}

func (d *watchedDisk) MkdirAll(name string) error       { d.before(); return d.Disk.MkdirAll(name) }
func (d *watchedDisk) Rename(from, to string) error     { d.before(); return d.Disk.Rename(from, to) }
func (d *watchedDisk) Remove(name string) error         { d.before(); return d.Disk.Remove(name) }
func (d *watchedDisk) RemoveDir(name string) error      { d.before(); return d.Disk.RemoveDir(name) }
func (d *watchedDisk) SyncDir(name string) error        { d.before(); return d.Disk.SyncDir(name) }
func (d *watchedDisk) SetMtime(n string, t int64) error { d.before(); return d.Disk.SetMtime(n, t) }

type watchedFile struct {
	storage.DiskFile
	before func()
}

func (f *watchedFile) WriteAt(p []byte, off int64) (int, error) {
	f.before()
	return f.DiskFile.WriteAt(p, off)
}

func (f *watchedFile) Sync() error { f.before(); return f.DiskFile.Sync() }

func (f *watchedFile) Truncate(n int64) error { f.before(); return f.DiskFile.Truncate(n) }

// onDisks opens directories of the real file system as watchedDisks.
func onDisks(t *testing.T, apart bool, before func(), dirs ...string) (disks []*watchedDisk) {
	t.Helper()
	for _, dir := range dirs {
		require.NoError(t, os.MkdirAll(dir, 0o777))
		d, err := storage.OpenRoot(dir)
		require.NoError(t, err)
		disks = append(disks, &watchedDisk{d, apart, before})
	}
	return disks
}

// claim returns the argument claims of a Move that claims pieces.
func claim(have bits.Set) func() (bits.Set, map[int]bits.Set) {
	return func() (bits.Set, map[int]bits.Set) { return have.Clone(), nil }
}

func TestMove(t *testing.T) {
	for name, apart := range map[string]bool{"by name": false, "by copy": true} {
		t.Run(name, func(t *testing.T) {
			tor, content := testContent(3*layout.BlockSize/2, 10_000, 270_000, 0, 100, 100_000, -5000, 60_000)
			old, dir := t.TempDir(), t.TempDir()
			require.NoError(t, os.MkdirAll(old+"/d", 0o777))
			require.NoError(t, os.WriteFile(old+"/d/6", []byte("another's"), 0o666))
			require.NoError(t, os.WriteFile(old+"/d/foreign", []byte("foreign"), 0o666))
			disks := onDisks(t, apart, func() {}, old, dir)
			s, err := storage.OpenDisk(tor, disks[0], old, nil)
			require.NoError(t, err)
			require.NoError(t, s.SetWanted(only(tor, func(i int) bool { return i == 1 || i == 2 })))
			require.NoError(t, s.Settle(t.Context(), bits.New(tor.NumPieces())))
			have := bits.New(tor.NumPieces())
			for piece := range 7 {
				writePiece(t, tor, s, content, piece)
				have.Add(piece)
			}
			require.NoError(t, s.SaveResume(have, nil))
			before := listing(t, old)
			require.Contains(t, before, sidecar(tor, ".edges.resume"))
			info, err := os.Stat(old + "/d/1")
			require.NoError(t, err)

			require.NoError(t, storage.MoveTo(t.Context(), s, disks[1], dir, claim(have)))
			require.Equal(t, []string{"d/6", "d/foreign"}, listing(t, old), "they are not ours")
			require.Subset(t, before, listing(t, dir))
			after, err := os.Stat(dir + "/d/1")
			require.NoError(t, err)
			require.Equal(t, info.ModTime(), after.ModTime())
			piece, err := s.AnyChanged(t.Context(), have)
			require.Equal(t, -1, piece)
			require.NoError(t, err)
			require.Equal(t, pieces(have), pieces(verified(t, tor, s)))

			require.NoError(t, s.SetWanted(all(tor)))
			for piece := range tor.NumPieces() {
				if !have.Has(piece) {
					writePiece(t, tor, s, content, piece)
				}
			}
			_, err = os.Stat(old + "/d/1")
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.NoError(t, s.Keep(bits.Full(tor.NumPieces()), nil))
			require.NoError(t, s.Close())
			require.Equal(t, []string{sidecarName, "d/0", "d/1", "d/2", "d/3", "d/4", "d/6"}, listing(t, dir))
			s = openDirectory(t, tor, dir)
			kept, _ := s.LoadResume()
			require.True(t, kept.Full())
			require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
		})
	}
}

// Data written while files are copied is in the copies.
func TestMoveWhileWriting(t *testing.T) {
	const pieceLength = 4 * layout.BlockSize
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		tor, content := testContent(pieceLength, 10*pieceLength-77, 300, 5*pieceLength)
		old, dir := t.TempDir(), t.TempDir()
		order := rng.Perm(tor.NumPieces())
		have := bits.New(tor.NumPieces())
		var s storage.Store
		steps, every := 0, 1+rng.IntN(6)
		var writing sync.WaitGroup
		more := func() {
			if len(order) == 0 {
				return
			}
			piece := order[0]
			order = order[1:]
			have.Add(piece)
			writing.Go(func() {
				s.WriteBlocks([][]byte{pieceOf(tor, content, piece)}, tor.PieceOffset(piece))
			})
		}
		disks := onDisks(t, true, func() {}, old, dir)
		var mu sync.Mutex
		disks[1].before = func() {
			mu.Lock()
			defer mu.Unlock()
			if steps++; steps%every == 0 {
				more()
			}
		}
		s, err := storage.OpenDisk(tor, disks[0], old, nil)
		require.NoError(t, err)
		require.NoError(t, s.SetWanted(all(tor)))
		for range 4 {
			more()
		}
		writing.Wait()
		require.NoError(t, storage.MoveTo(t.Context(), s, disks[1], dir, claim(have.Clone())))
		writing.Wait()
		require.Equal(t, pieces(have), pieces(verified(t, tor, s)), "seed %d", seed)
		piece, err := s.AnyChanged(t.Context(), have)
		require.Equal(t, -1, piece, err)
		require.NoError(t, s.Close())
		require.Empty(t, listing(t, old))
	}
}

// A Move that is refused because a file is in the way removes no hard link or copy either, which the user may have made there.
func TestARefusedMoveRemovesNothing(t *testing.T) {
	tor, content := testContent(50, 200, 100, 30)
	old, dir := t.TempDir(), t.TempDir()
	fill(t, tor, old, content)
	require.NoError(t, os.MkdirAll(dir+"/d", 0o777))
	require.NoError(t, os.Link(old+"/d/0", dir+"/d/0"))
	require.NoError(t, os.WriteFile(dir+"/d/1", content[200:300], 0o666))
	info, err := os.Stat(old + "/d/1")
	require.NoError(t, err)
	require.NoError(t, os.Chtimes(dir+"/d/1", info.ModTime(), info.ModTime()))
	require.NoError(t, os.WriteFile(dir+"/d/2", []byte("the user's"), 0o666))
	s := openDirectory(t, tor, old)
	require.NoError(t, s.SetWanted(all(tor)))
	move := func() error { return s.Move(t.Context(), dir, claim(bits.Full(7)), func(int64, int64) {}) }
	require.ErrorIs(t, move(), fs.ErrExist)
	require.Equal(t, []string{"d/0", "d/1", "d/2"}, listing(t, dir))
	require.NoError(t, os.Remove(dir+"/d/2"))
	require.NoError(t, move())
	require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
	require.NoError(t, s.Close())
}

// Whichever call fails, a Move that fails for it leaves what was in the new directory, also equal copies and links, and all of
// the content in the old one. A Move of a store that holds no lock gives back the lock that it takes.
func TestAMoveThatFailsLateRemovesNothing(t *testing.T) {
	tor, content := testContent(50, 200, 100, 30)
	failed := errors.New("failed")
	for n, moved, locked := 1, false, true; !moved || locked; n++ {
		if moved {
			n, locked = 1, false
		}
		d, s := besideEqualFiles(t, tor, content)
		if !locked {
			require.NoError(t, s.Release())
		}
		before := contents(t, d, "new")
		calls := 0
		d.Fail = func(string, string) error {
			if calls++; calls == n {
				return failed
			}
			return nil
		}
		err := storage.MoveTo(t.Context(), s, d.Sub("new"), "new", claim(set(7, 0, 1, 2, 3, 4, 5)))
		d.Fail = nil
		moved = err == nil && calls < n
		if err != nil {
			require.Subset(t, contents(t, d, "new"), before, "call %d: %v", n, err)
			require.Subset(t, d.Names(), []string{"old/d/0", "old/d/1", "old/d/2"}, "call %d: %v", n, err)
		}
		require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count(), "call %d: %v", n, err)
		require.NoError(t, s.Close())
		if moved {
			require.NotContains(t, strings.Join(d.Names(), " "), "move")
			require.NotContains(t, d.Names(), "old/d/0")
		}
	}
}

// Nor does a Move that is killed, and then another one that fails.
func TestAMoveAfterAKilledOneRemovesNothing(t *testing.T) {
	tor, content := testContent(50, 200, 100, 30)
	for n, killed := 1, true; killed; n++ {
		d, s := besideEqualFiles(t, tor, content)
		before := contents(t, d, "new")
		calls := 0
		d.Fail = func(string, string) error {
			if calls++; calls >= n {
				return errors.New("killed")
			}
			return nil
		}
		err := storage.MoveTo(t.Context(), s, d.Sub("new"), "new", claim(set(7, 0, 1, 2, 3, 4, 5)))
		killed = calls >= n
		storage.Abandon(s)
		d.Fail = nil
		if err == nil {
			continue // the content is in its place
		}
		s = openForgetful(t, tor, d.Sub("old"))
		require.NoError(t, s.SetWanted(all(tor)))
		require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count(), "call %d", n)
		d.Remove("new/d/2")
		put(t, d, "new/d/2", []byte("foreign"))
		move := func() error { return storage.MoveTo(t.Context(), s, d.Sub("new"), "new", claim(bits.Full(7))) }
		require.ErrorIs(t, move(), fs.ErrExist, "call %d", n)
		require.Subset(t, contents(t, d, "new"), before, "call %d", n)
		require.NoError(t, d.Remove("new/d/2"))
		require.NoError(t, move(), "call %d", n)
		require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count(), "call %d", n)
		require.NoError(t, s.Close())
		require.NotContains(t, d.Names(), "new/"+sidecar(tor, ".move"))
	}
}

// besideEqualFiles returns the content in the directory "old" of a disk, of which "new" has a copy of one file, a link to another, and a
// sidecar.
func besideEqualFiles(t *testing.T, tor storage.Content, content []byte) (*disktest.Disk, storage.Store) {
	d := disktest.New()
	s := openForgetful(t, tor, d.Sub("old"))
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, s.SaveResume(set(7, 0, 1, 2, 3, 4, 5), nil))
	storage.DropHandle(s, 0)
	put(t, d, "new/d/0", content[:200])
	info, err := d.Stat("old/d/0")
	require.NoError(t, err)
	require.NoError(t, d.SetMtime("new/d/0", info.Mtime))
	require.NoError(t, d.Link("old/d/1", d, "new/d/1"))
	put(t, d, "new/"+sidecarName, []byte("of an earlier run"))
	return d, s
}

// put makes a file and the directories above it.
func put(t *testing.T, d *disktest.Disk, name string, b []byte) {
	require.NoError(t, d.MkdirAll(filepath.Dir(name)))
	f, err := d.Open(name, os.O_RDWR|os.O_CREATE)
	require.NoError(t, err)
	_, err = f.WriteAt(b, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// contents returns the files below a directory, with their identities.
func contents(t *testing.T, d *disktest.Disk, dir string) map[string]string {
	files := make(map[string]string)
	for _, name := range d.Names() {
		info, err := d.Stat(name)
		require.NoError(t, err)
		if !info.Regular || !strings.HasPrefix(name, dir+"/") {
			continue
		}
		f, err := d.Open(name, os.O_RDONLY)
		require.NoError(t, err)
		b := make([]byte, info.Size)
		if len(b) > 0 {
			_, err = f.ReadAt(b, 0)
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
		files[name] = fmt.Sprintf("%v %s", info.ID, b)
	}
	return files
}

// A Move that fails leaves everything as it was.
func TestMoveFails(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx     context.Context
		prepare func(t *testing.T, dir string)
		err     error
	}{
		"foreign file": {t.Context(), func(t *testing.T, dir string) {
			require.NoError(t, os.MkdirAll(dir+"/d", 0o777))
			require.NoError(t, os.WriteFile(dir+"/d/1", content[100:200], 0o666))
		}, fs.ErrExist},
		"in use": {t.Context(), func(t *testing.T, dir string) {
			require.NoError(t, openDirectory(t, tor, dir).SetWanted(all(tor)))
		}, storage.ErrInUse},
		"in use by another torrent": {t.Context(), func(t *testing.T, dir string) {
			other := tor
			other.InfoHash[0]++
			require.NoError(t, openDirectory(t, other, dir).SetWanted(all(other)))
		}, storage.ErrInUse},
		"not a directory": {t.Context(), func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(dir, nil, 0o666))
		}, syscall.ENOTDIR},
		"cancelled": {cancelled, func(*testing.T, string) {}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			old, dir := t.TempDir(), filepath.Join(t.TempDir(), "new", "dir")
			require.NoError(t, os.MkdirAll(filepath.Dir(dir), 0o777))
			fill(t, tor, old, content)
			c.prepare(t, dir)
			var before []string
			if _, err := os.Stat(dir); err == nil {
				before = listing(t, dir)
			}
			s := openDirectory(t, tor, old)
			require.NoError(t, s.SetWanted(all(tor)))
			err := s.Move(c.ctx, dir, claim(bits.Full(6)), func(int64, int64) {})
			require.ErrorIs(t, err, c.err)
			require.Equal(t, []string{"d/0", "d/1"}, listing(t, old))
			if _, err := os.Stat(dir); err == nil {
				require.Equal(t, before, listing(t, dir))
			} else {
				require.Nil(t, before)
			}
			require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
			require.NoError(t, s.Move(t.Context(), old, claim(bits.Full(6)), func(int64, int64) {}), "where it is")
			require.Equal(t, []string{"d/0", "d/1"}, listing(t, old))
			other := filepath.Join(old, "below")
			require.NoError(t, s.Move(t.Context(), other, claim(bits.Full(6)), func(int64, int64) {}))
			require.Equal(t, []string{"below/d/0", "below/d/1"}, listing(t, old))
			require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
			require.NoError(t, s.Close())
		})
	}
}

// whole requires that one of two directories has all of the content, and that neither claims pieces that it does not have.
func whole(t *testing.T, tor storage.Content, at int, open func(dir string) storage.Store, dirs ...string) {
	t.Helper()
	complete := 0
	for _, dir := range dirs {
		s := open(dir)
		claimed, _ := s.LoadResume()
		require.NoError(t, storage.Verify(t.Context(), tor, s, claimed, func(piece int, ok bool) {
			require.True(t, ok, "step %d: %s claims piece %d", at, dir, piece)
		}))
		require.NoError(t, s.SetWanted(all(tor)))
		if verified(t, tor, s).Count() == tor.NumPieces() {
			complete++
		}
		require.NoError(t, s.Close())
	}
	require.Positive(t, complete, "step %d: neither is whole", at)
}

// Whatever the step at which power is lost, all of the content is in the old directory or in the new one.
func TestLossOfPowerInAMove(t *testing.T) {
	tor, content := testContent(3*layout.BlockSize/2, 10_000, 70_000, 0, 100, 100_000, -5000, 60_000)
	for name, apart := range map[string]bool{"by name": false, "by copy": true} {
		t.Run(name, func(t *testing.T) {
			steps := 0
			for seed := range uint64(6) {
				rng := rand.New(rand.NewPCG(seed, 4))
				d := disktest.New()
				var after []*disktest.Disk
				moving := false
				before := func() {
					if moving {
						after = append(after, d.Crash(rng))
					}
				}
				from := &watchedDisk{d.Sub("old"), apart, before}
				to := &watchedDisk{d.Sub("new"), apart, before}
				s := openForgetful(t, tor, from)
				require.NoError(t, s.SetWanted(all(tor)))
				for piece := range tor.NumPieces() {
					writePiece(t, tor, s, content, piece)
				}
				have := bits.Full(tor.NumPieces())
				require.NoError(t, s.Keep(have, nil))
				moving = true
				require.NoError(t, storage.MoveTo(t.Context(), s, to, "new", claim(have)))
				moving = false
				require.NoError(t, s.Close())
				for at, d := range append(after, d.Crash(rng)) {
					whole(t, tor, at, func(dir string) storage.Store { return openForgetful(t, tor, d.Sub(dir)) }, "old", "new")
				}
				steps += len(after)
			}
			require.Greater(t, steps, 100)
		})
	}
}

// ownedDisk is a directory in which all files belong to another user, who lets everybody write to them.
type ownedDisk struct{ storage.Disk }

func (d ownedDisk) SetMtime(name string, _ int64) error {
	return &fs.PathError{Op: "chtimes", Path: name, Err: fs.ErrPermission}
}

// Where all files belong to another user, only their modification times cannot be moved.
func TestMoveToADiskOfAnotherUser(t *testing.T) {
	tor, content := testContent(50, 30, 200, 50)
	old, dir := t.TempDir(), t.TempDir()
	disks := onDisks(t, true, func() {}, old, dir)
	disks[1].Disk = ownedDisk{disks[1].Disk}
	s, err := storage.OpenDisk(tor, disks[0], old, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	for _, i := range []int{0, 2, 4} {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, storage.MoveTo(t.Context(), s, disks[1], dir, claim(set(6, 0, 2, 4))))
	require.Empty(t, listing(t, old))
	piece, err := s.AnyChanged(t.Context(), set(6, 0, 2, 4))
	require.NoError(t, err)
	require.Equal(t, -1, piece)
	download(t, tor, s, content)
	require.NoError(t, s.Close())
}
