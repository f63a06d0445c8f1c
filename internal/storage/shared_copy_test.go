package storage_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// copyingDisk calls the function during before each step of a copy that takes the place of a shared file, and the function opening, if
// there is one, before it opens a file for reading.
type copyingDisk struct {
	storage.Disk
	during  func(step int)
	opening func(name string)
	steps   int
}

func (d *copyingDisk) Open(name string, flag int) (storage.DiskFile, error) {
	if d.opening != nil && flag == os.O_RDONLY {
		d.opening(name)
	}
	f, err := d.Disk.Open(name, flag)
	if err != nil || !strings.HasSuffix(name, ".copy") {
		return f, err
	}
	return &copyingFile{f, d}, nil
}

func (d *copyingDisk) Link(name string, to storage.Disk, as string) error {
	if other, ok := to.(*copyingDisk); ok {
		to = other.Disk
	}
	return d.Disk.Link(name, to, as)
}

type copyingFile struct {
	storage.DiskFile
	disk *copyingDisk
}

func (f *copyingFile) WriteAt(p []byte, off int64) (int, error) {
	f.disk.steps++
	f.disk.during(f.disk.steps)
	return f.DiskFile.WriteAt(p, off)
}

// A sharing is a download that has the first three pieces of a file of five, which another program has given a second name. A second
// file has the pieces 5 to 7.
type sharing struct {
	storage.Store
	content     storage.Content
	bytes       []byte
	disk        *copyingDisk
	dir         string
	file, users string
	before      []byte // what the user's name led to at first
}

func shareAFile(t *testing.T) *sharing {
	t.Helper()
	h := &sharing{dir: t.TempDir()}
	h.content, h.bytes = testContent(100_000, 500_000, 300_000)
	h.file, h.users = filepath.Join(h.dir, "d", "0"), filepath.Join(t.TempDir(), "backup")
	disk, err := storage.OpenRoot(h.dir)
	require.NoError(t, err)
	h.disk = &copyingDisk{Disk: disk, during: func(int) {}}
	h.Store, err = storage.OpenDisk(h.content, h.disk, h.dir, nil)
	require.NoError(t, err)
	t.Cleanup(func() { h.Close() })
	require.NoError(t, h.SetWanted(all(h.content)))
	for piece := range 3 {
		writePiece(t, h.content, h, h.bytes, piece)
	}
	if err := os.Link(h.file, h.users); err != nil {
		t.Skip("no hard links here: ", err)
	}
	h.before, err = os.ReadFile(h.users)
	require.NoError(t, err)
	return h
}

// isWhole completes the download and checks that nothing was written to the user's file.
func (h *sharing) isWhole(t *testing.T) {
	t.Helper()
	if h.Changed(0) != nil {
		_, err := h.Refresh(0, bits.Full(h.content.NumPieces()))
		require.NoError(t, err)
	}
	download(t, h.content, h, h.bytes)
	require.NoError(t, h.Finish())
	now, err := os.ReadFile(h.users)
	require.NoError(t, err)
	require.Equal(t, h.before, now)
	require.NotZero(t, h.Copies(0), "a slice of before may be of the user's file")
	require.Zero(t, h.Copies(1))
}

// While a shared file is copied, it is read, and other files are written to, made and moved.
func TestNothingWaitsForACopyOfASharedFile(t *testing.T) {
	h := shareAFile(t)
	h.disk.during = func(step int) {
		require.False(t, storage.ReadsWait(h.Store))
		require.NoError(t, h.Changed(0))
		for piece := range 3 {
			got := make([]byte, 100_000)
			require.NoError(t, readFull(h, got, h.content.PieceOffset(piece)))
			require.Equal(t, pieceOf(h.content, h.bytes, piece), got)
		}
		writePiece(t, h.content, h, h.bytes, 4+step)
		require.NoError(t, h.SaveResume(set(8, 0, 1, 2), nil))
		require.NoError(t, h.SetWanted(all(h.content)))
	}
	writePiece(t, h.content, h, h.bytes, 3)
	require.Equal(t, 3, h.disk.steps)
	require.Equal(t, []int{0, 1, 2, 3, 5, 6, 7}, pieces(verified(t, h.content, h)))
	require.NoError(t, h.Changed(0))
	h.isWhole(t)
	require.Equal(t, 3, h.disk.steps)
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, h.dir))
}

// Writes to a shared file wait for the copy, and go there.
func TestWritesToASharedFileAreInItsCopy(t *testing.T) {
	h := shareAFile(t)
	other := make(chan error)
	h.disk.during = func(step int) {
		if step == 1 {
			go func() { other <- h.WriteBlocks([][]byte{pieceOf(h.content, h.bytes, 4)}, 400_000) }()
		}
	}
	writePiece(t, h.content, h, h.bytes, 3)
	require.NoError(t, <-other)
	require.Equal(t, 3, h.disk.steps)
	require.NoError(t, h.Changed(0))
	require.Equal(t, []int{0, 1, 2, 3, 4}, pieces(verified(t, h.content, h)))
	h.isWhole(t)
}

// Close ends the copy of a shared file, and leaves nothing of it.
func TestCloseEndsTheCopyOfASharedFile(t *testing.T) {
	h := shareAFile(t)
	closed := make(chan error, 1)
	h.disk.during = func(int) {
		go func() { closed <- h.Close() }()
		for !storage.IsClosing(h.Store) {
			runtime.Gosched()
		}
	}
	require.ErrorIs(t, h.WriteBlocks([][]byte{pieceOf(h.content, h.bytes, 3)}, 300_000), storage.ErrClosed)
	require.NoError(t, <-closed)
	require.Equal(t, 1, h.disk.steps)
	require.Equal(t, []string{"d/0"}, listing(t, h.dir))
	require.NoError(t, h.Wake())
	got := make([]byte, 300_000)
	require.NoError(t, readFull(h, got, 0))
	require.Equal(t, h.bytes[:300_000], got)
}

// What another program writes to a shared file while it is copied is not taken for verified, and what it puts in the place of the file is
// not overwritten by the copy.
func TestASharedFileChangesWhileItIsCopied(t *testing.T) {
	t.Run("written to", func(t *testing.T) {
		h := shareAFile(t)
		h.disk.during = func(step int) {
			if step == 2 {
				f, err := os.OpenFile(h.users, os.O_WRONLY, 0)
				require.NoError(t, err)
				_, err = f.WriteAt(make([]byte, 299_999), 0)
				require.NoError(t, err)
				require.NoError(t, f.Truncate(299_999))
				require.NoError(t, f.Close())
				h.before, err = os.ReadFile(h.users)
				require.NoError(t, err)
			}
		}
		writePiece(t, h.content, h, h.bytes, 3)
		require.ErrorIs(t, h.Changed(0), storage.ErrChanged)
		h.isWhole(t)
	})
	t.Run("replaced", func(t *testing.T) {
		h := shareAFile(t)
		h.disk.during = func(step int) {
			if step == 2 {
				h.users += "2"
				require.NoError(t, replace(h.file, h.users, os.Link))
				h.before = []byte("the user's")
			}
		}
		writePiece(t, h.content, h, h.bytes, 3)
		require.Greater(t, h.disk.steps, 3)
		require.ErrorIs(t, h.Changed(0), storage.ErrChanged)
		h.isWhole(t)
	})
}

// A Move ends while a shared file is copied.
func TestMoveWhileASharedFileIsCopied(t *testing.T) {
	h := shareAFile(t)
	to := t.TempDir()
	disk, err := storage.OpenRoot(to)
	require.NoError(t, err)
	moved := make(chan error, 1)
	var asked atomic.Int32
	claims := func() (bits.Set, map[int]bits.Set) {
		asked.Add(1)
		return set(8, 0, 1, 2), nil
	}
	h.disk.during = func(step int) {
		if step == 1 {
			go func() {
				moved <- storage.MoveTo(t.Context(), h.Store, &copyingDisk{Disk: disk, during: h.disk.during}, to, claims)
			}()
			for asked.Load() < 2 {
				runtime.Gosched()
			}
			for range 2000 { // it would not wait, if it did not have to
				h.Changed(0)
				runtime.Gosched()
			}
		}
	}
	writePiece(t, h.content, h, h.bytes, 3)
	require.NoError(t, <-moved)
	require.Empty(t, listing(t, h.dir))
	h.isWhole(t)
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, to))
}

// A Move takes a shared file with it, which is not written to in its new place either.
func TestASharedFileIsMoved(t *testing.T) {
	h := shareAFile(t)
	to := t.TempDir()
	require.NoError(t, h.Move(t.Context(), to, claim(set(8, 0, 1, 2)), func(int64, int64) {}))
	require.Empty(t, listing(t, h.dir))
	h.isWhole(t)
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, to))
}
