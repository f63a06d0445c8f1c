package storage_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// If the bytes in the edges cannot be copied into a file, the file is removed, because the next run would not look in the edges
// for bytes of a file that exists. An empty file that a killed run left does not hide the edges either.
func TestEdgesThatCannotBeMovedStay(t *testing.T) {
	const length = layout.BlockSize
	tor, content := testContent(length, length/2, length, length) // a piece is shared by files 0 and 1
	chosen := only(tor, func(i int) bool { return i != 1 })
	failed := errors.New("failed")
	for call, name := range map[string]string{"write": filepath.FromSlash("d/1"), "fstat": filepath.FromSlash("d/1"), "read": ".0102030000000000000000000000000000000000.edges.resume"} {
		t.Run(call, func(t *testing.T) {
			d := disktest.New()
			s := openForgetful(t, tor, d)
			require.NoError(t, s.SetWanted(chosen))
			for i := range tor.NumPieces() {
				writePiece(t, tor, s, content, i)
			}
			require.NoError(t, s.SaveResume(set(3, 0, 1), nil))
			d.Fail = func(at, of string) error {
				if at == call && of == name {
					return failed
				}
				return nil
			}
			require.ErrorIs(t, s.SetWanted(all(tor)), failed)
			d.Fail = nil
			require.NoError(t, s.Close())
			if call != "fstat" {
				require.NotContains(t, d.Names(), filepath.FromSlash("d/1"))
			}

			s = openForgetful(t, tor, d)
			require.NoError(t, s.SetWanted(all(tor)))
			require.Equal(t, 3, verified(t, tor, s).Count(), "nothing is lost")
			require.NoError(t, s.Finish())
			require.NoError(t, s.Close())
		})
	}
}

// scantDisk is a Disk with few handles.
type scantDisk struct {
	storage.Disk
	left *atomic.Int64
}

func (d scantDisk) Open(name string, flag int) (storage.DiskFile, error) {
	if d.left.Add(-1) < 0 {
		d.left.Add(1)
		return nil, syscall.EMFILE
	}
	f, err := d.Disk.Open(name, flag)
	if err != nil {
		d.left.Add(1)
		return nil, err
	}
	return scantFile{f, d.left}, nil
}

func (d scantDisk) MkdirAll(name string) error {
	if d.left.Load() < 1 {
		return syscall.EMFILE
	}
	return d.Disk.MkdirAll(name)
}

func (d scantDisk) SyncDir(name string) error {
	if d.left.Load() < 1 {
		return syscall.EMFILE
	}
	return d.Disk.SyncDir(name)
}

func (d scantDisk) SyncAll() (bool, error) { return false, nil }

type scantFile struct {
	storage.DiskFile
	left *atomic.Int64
}

func (f scantFile) Close() error {
	f.left.Add(1)
	return f.DiskFile.Close()
}

// Files that are kept open are closed if the system has no handle left to make a file or a directory.
func TestFewHandles(t *testing.T) {
	if !storage.Exhausted(syscall.EMFILE) {
		t.Skip("no such error here")
	}
	paths := make([]string, 40)
	for i := range paths {
		paths[i] = fmt.Sprintf("d%d/%d", i/4, i)
	}
	tor, content := named(1, paths...)
	d := scantDisk{disktest.New(), new(atomic.Int64)}
	d.left.Store(3)
	s, err := storage.OpenDisk(tor, d, "", nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, s.SaveResume(bits.Full(tor.NumPieces()), nil))
	require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s))
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
	require.EqualValues(t, 3, d.left.Load())
}

// A sync that fails because the system is out of handles loses nothing: the next one syncs the same files.
func TestSyncWithoutAHandle(t *testing.T) {
	if !storage.Exhausted(syscall.EMFILE) {
		t.Skip("no such error here")
	}
	tor, content := testContent(50, 200, 100)
	d := disktest.New()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	storage.DropHandle(s, 0)
	synced := 0
	d.Fail = func(call, name string) error {
		if call == "open" && name == filepath.FromSlash("d/0") {
			return syscall.EMFILE
		}
		return nil
	}
	require.ErrorIs(t, s.SaveResume(set(6, 0), nil), syscall.EMFILE)
	d.Fail = func(call, name string) error {
		if call == "sync" && name == filepath.FromSlash("d/0") {
			synced++
		}
		return nil
	}
	require.NoError(t, s.SaveResume(set(6, 0), nil))
	require.Equal(t, 1, synced)
	require.NoError(t, s.Close())
	_, err := d.Stat(sidecarName)
	require.NoError(t, err)
}

// An error of Mmap for lack of addresses is not Exhausted: it does not pass when handles are released.
func TestNoAddressesForAMap(t *testing.T) {
	tor, content := testContent(16<<10, 20_000, 100)
	d := disktest.New()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	maps := 0
	d.Fail = func(call, name string) error {
		if call == "map" {
			maps++
			return os.NewSyscallError("mmap", syscall.ENOMEM)
		}
		return nil
	}
	_, _, err := s.Bytes(0)
	require.False(t, storage.Exhausted(err))
	require.ErrorContains(t, err, filepath.FromSlash("d/0"))
	if storage.Exhausted(syscall.ENOMEM) {
		require.ErrorIs(t, err, storage.ErrTooLarge)
	}
	require.Equal(t, 1, maps)
	b, _, err := s.Bytes(1)
	require.NoError(t, err, "what is short is copied")
	require.Equal(t, content[20_000:], b)

	many := true
	storage.SetMapsAreMany(s, func() bool { return many })
	_, _, err = s.Bytes(0)
	require.ErrorContains(t, err, "too many maps in this process")
	require.ErrorIs(t, err, storage.ErrTooLarge)
	require.Equal(t, 1, maps, "the last ones are left to the program")
	many = false
	d.Fail = nil
	b, release, err := s.Bytes(0)
	require.NoError(t, err)
	require.Equal(t, content[:20_000], b)
	require.NoError(t, release())
	require.NoError(t, s.Close())
}

// What a save could not sync, because a call before that failed, the next one syncs.
func TestASaveAfterAFailedSave(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	d := disktest.New()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	d.Fail = func(call, name string) error {
		if call == "stat" && name == "." {
			return syscall.EIO
		}
		return nil
	}
	require.ErrorIs(t, s.SaveResume(set(6, 0), nil), syscall.EIO)
	synced := false
	d.Fail = func(call, name string) error {
		synced = synced || call == "sync" && name == filepath.FromSlash("d/0")
		return nil
	}
	require.NoError(t, s.SaveResume(set(6, 0), nil))
	require.True(t, synced)
	require.NoError(t, s.Close())
}

// A file that cannot be examined after a write does not count as one that does not exist.
func TestAFileThatCannotBeExaminedAfterAWrite(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	d := disktest.New()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	calls := 0
	d.Fail = func(call, name string) error {
		if calls++; call == "fstat" && calls > 2 {
			return syscall.EIO
		}
		return nil
	}
	require.ErrorIs(t, s.WriteBlocks([][]byte{content[50:100]}, 50), syscall.EIO)
	d.Fail = nil
	require.NoError(t, d.Remove(filepath.FromSlash("d/0")))
	require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
	require.NoError(t, s.SaveResume(set(6, 0), nil))
	require.NoError(t, s.Close())
	s = openForgetful(t, tor, d)
	have, _ := s.LoadResume()
	require.Empty(t, pieces(have))
	require.NoError(t, s.Close())
}
