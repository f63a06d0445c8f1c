package storage_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// openForgetful opens the content on a disk in memory.
func openForgetful(t *testing.T, tor storage.Content, d storage.Disk) storage.Store {
	t.Helper()
	s, err := storage.OpenDisk(tor, d, "disk", nil)
	require.NoError(t, err)
	return s
}

// After any loss of power the sidecar claims no piece whose bytes were lost, and the content is complete in the end.
func TestLossOfPower(t *testing.T) {
	claimed, crashes := 0, 0
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		tor, content := testContent(3*layout.BlockSize/2, 10_000, 70_000, 0, 100, 100_000, -5000, 60_000)
		wanted := only(tor, func(int) bool { return rng.IntN(3) > 0 })
		d := disktest.New()
		for life := range 4 {
			s := openForgetful(t, tor, d)
			if life == 2 {
				wanted = all(tor)
			}
			require.NoError(t, s.SetWanted(wanted))
			have, partial := s.LoadResume()
			check := bits.New(tor.NumPieces())
			require.NoError(t, storage.Verify(t.Context(), tor, s, have, func(piece int, ok bool) {
				require.True(t, ok, "seed %d: piece %d is claimed, but not there", seed, piece)
				check.Add(piece)
			}))
			claimed += check.Count()
			for piece, blocks := range partial {
				for block := range blocks.All() {
					off := tor.PieceOffset(piece) + int64(block)*layout.BlockSize
					b := make([]byte, min(layout.BlockSize, tor.PieceSize(piece)-int64(block)*layout.BlockSize))
					require.NoError(t, readFull(s, b, off), "seed %d", seed)
					require.Equal(t, content[off:off+int64(len(b))], b, "seed %d", seed)
					claimed++
				}
			}
			have = verified(t, tor, s)
			partial = make(map[int]bits.Set)
			for _, piece := range rng.Perm(tor.NumPieces()) {
				if have.Has(piece) {
					continue
				}
				if rng.IntN(4) == 0 {
					b := content[tor.PieceOffset(piece):][:min(layout.BlockSize, tor.PieceSize(piece))]
					require.NoError(t, s.WriteBlocks([][]byte{b}, tor.PieceOffset(piece)))
					partial[piece] = set(tor.NumBlocks(piece), 0)
				} else {
					writePiece(t, tor, s, content, piece)
					have.Add(piece)
				}
				if rng.IntN(6) == 0 {
					if rng.IntN(10) == 0 {
						d.FailSyncs(syscall.EIO)
					}
					if err := s.SaveResume(have, partial); err != nil {
						require.ErrorIs(t, err, syscall.EIO)
						d.FailSyncs(nil)
						require.ErrorIs(t, s.SaveResume(have, partial), syscall.EIO, "what was lost stays lost")
						break
					}
				}
				if life < 3 && rng.IntN(12) == 0 {
					break
				}
			}
			d = d.Crash(rng)
			crashes++
		}
		s := openForgetful(t, tor, d)
		require.NoError(t, s.SetWanted(all(tor)))
		have := verified(t, tor, s)
		for piece := range tor.NumPieces() {
			if !have.Has(piece) {
				writePiece(t, tor, s, content, piece)
			}
		}
		require.NoError(t, s.Finish())
		for i, f := range tor.Files() {
			if !f.Pad {
				b, release, err := s.Bytes(i)
				require.NoError(t, err)
				require.Equal(t, content[f.Offset:f.End()], b)
				require.NoError(t, release())
			}
		}
		for _, name := range d.Names() {
			require.NotContains(t, name, fmt.Sprintf("%x", tor.InfoHash))
		}
	}
	require.Greater(t, claimed, crashes, "or this test shows nothing")
	t.Logf("%d losses of power, %d claims, all true", crashes, claimed)
}

func TestAFullDiskIsAnError(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	d := disktest.New()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	d.FailWrites(&fs.PathError{Op: "write", Path: "disk/d/0", Err: syscall.ENOSPC})
	require.ErrorIs(t, s.WriteBlocks([][]byte{content[50:100]}, 50), syscall.ENOSPC)
	require.NoError(t, s.SaveResume(set(6, 0), nil), "the next run hashes it")
	require.NotContains(t, d.Names(), sidecarName+".tmp")
	d.FailWrites(nil)
	require.NoError(t, s.SaveResume(set(6, 0), nil))
	require.NoError(t, s.Close())

	s = openForgetful(t, tor, d)
	have, _ := s.LoadResume()
	require.Equal(t, []int{0}, pieces(have))
}

// Content in a read-only directory can be served if nothing has to be written.
func TestReadOnlyDirectory(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	d := disktest.New()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, s.SaveResume(set(6, 1), nil)) // so that there is something to remove
	require.NoError(t, s.Close())

	open := func() storage.Store { return openForgetful(t, tor, readOnlyDisk{d}) }
	s = open()
	require.NoError(t, s.SetWanted(all(tor)))
	require.Equal(t, 6, verified(t, tor, s).Count())
	require.NoError(t, s.Finish())
	b, _, err := s.Bytes(0)
	require.NoError(t, err)
	require.Equal(t, content[:200], b)
	require.NoError(t, s.SaveResume(set(6, 1), nil))
	require.NoError(t, s.Close())

	require.NoError(t, d.Remove(filepath.FromSlash("d/1")))
	s = open()
	err = s.SetWanted(all(tor))
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "disk")
}

type readOnlyDisk struct{ *disktest.Disk }

func (d readOnlyDisk) Open(name string, flag int) (storage.DiskFile, error) {
	if flag&(os.O_RDWR|os.O_WRONLY|os.O_CREATE) != 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EROFS}
	}
	return d.Disk.Open(name, flag)
}

func (d readOnlyDisk) Lock(name string, exclusive bool) (func(bool) error, error) {
	if exclusive {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (d readOnlyDisk) Remove(name string) error {
	return &fs.PathError{Op: "remove", Path: name, Err: syscall.EROFS}
}

// A sidecar for content that other programs wrote, and may not have synced, claims nothing that a loss of power can undo.
func TestLossOfPowerAfterKeep(t *testing.T) {
	claimed := 0
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 2))
		tor, content := testContent(3*layout.BlockSize/2, 10_000, 70_000, 0, 100, 100_000)
		d := disktest.New()
		s := openForgetful(t, tor, d)
		require.NoError(t, s.SetWanted(all(tor)))
		for piece := range tor.NumPieces() {
			writePiece(t, tor, s, content, piece)
		}
		require.NoError(t, s.Finish())
		require.NoError(t, s.Close())

		s = openForgetful(t, tor, d)
		require.NoError(t, s.SetWanted(all(tor)))
		require.NoError(t, s.Keep(verified(t, tor, s), nil))
		require.NoError(t, s.Close())

		d = d.Crash(rng)
		s = openForgetful(t, tor, d)
		have, _ := s.LoadResume()
		claimed += have.Count()
		require.NoError(t, storage.Verify(t.Context(), tor, s, have, func(piece int, ok bool) {
			require.True(t, ok, "seed %d: piece %d is claimed, but not there", seed, piece)
		}))
		require.NoError(t, s.Close())
	}
	require.Positive(t, claimed)
}

func TestKeepInAReadOnlyDirectory(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	d := disktest.New()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
	s = openForgetful(t, tor, readOnlyDisk{d})
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.Keep(verified(t, tor, s), nil))
	require.NotContains(t, d.Names(), sidecarName)
	require.NoError(t, s.Close())
}

// What a run that was killed wrote is synced before the sidecar of the next one claims it: names of files and edges as well.
func TestLossOfPowerAfterAKill(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		tor, content := testContent(100, 150, 150)
		d := disktest.New()
		s := openForgetful(t, tor, d)
		require.NoError(t, s.SetWanted([]bool{true, false}))
		writePiece(t, tor, s, content, 0)
		writePiece(t, tor, s, content, 1)

		if seed%2 == 0 { // a sidecar that claims nothing of what it has seen says nothing about that
			s = openForgetful(t, tor, d)
			require.NoError(t, s.SetWanted([]bool{true, false}))
			writePiece(t, tor, s, content, 2)
			require.NoError(t, s.SaveResume(bits.New(3), nil))
			require.NoError(t, s.Close())
		}
		s = openForgetful(t, tor, d) // of another process
		require.NoError(t, s.SetWanted([]bool{true, false}))
		require.Subset(t, pieces(verified(t, tor, s)), []int{0, 1})
		writePiece(t, tor, s, content, 2)
		require.NoError(t, s.SaveResume(set(3, 0, 1), nil))
		require.NoError(t, s.Close())

		s = openForgetful(t, tor, d.Crash(rng))
		require.NoError(t, s.SetWanted([]bool{true, false}))
		have := verified(t, tor, s)
		require.True(t, have.Has(0) && have.Has(1), "seed %d: %v", seed, pieces(have))
	}
}
