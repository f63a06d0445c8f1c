package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// Only Settle makes empty files, of which there may be very many, and its context ends it in between.
func TestEmptyFilesAreMadeInSteps(t *testing.T) {
	tor, _ := testContent(50, append([]int64{10}, slices.Repeat([]int64{0}, 100)...)...)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.Empty(t, visible(listing(t, dir)))
	because := errors.New("because")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(because)
	require.ErrorIs(t, s.Settle(ctx, bits.New(1)), because)
	require.Empty(t, visible(listing(t, dir)))
	require.NoError(t, s.Settle(t.Context(), bits.New(1)))
	require.Len(t, visible(listing(t, dir)), 100)
}

// stoppingDisk stops the store after the first write to each file.
type stoppingDisk struct {
	storage.Disk
	stop func()
}

func (d stoppingDisk) Open(name string, flag int) (storage.DiskFile, error) {
	f, err := d.Disk.Open(name, flag)
	return stoppingFile{f, d.stop}, err
}

type stoppingFile struct {
	storage.DiskFile
	stop func()
}

func (f stoppingFile) Writev(bufs [][]byte, off int64) error {
	defer f.stop()
	return f.DiskFile.Writev(bufs, off)
}

func TestStopEndsAWriteBetweenSteps(t *testing.T) {
	tor, content := testContent(8<<20, 8<<20)
	dir := t.TempDir()
	disk, err := storage.OpenRoot(dir)
	require.NoError(t, err)
	var s storage.Store
	s, err = storage.OpenDisk(tor, stoppingDisk{disk, func() { s.Stop() }}, dir, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	require.ErrorIs(t, s.WriteBlocks([][]byte{content}, 0), storage.ErrClosed)
	n, err := s.ReadAt(make([]byte, len(content)), 0)
	require.True(t, storage.Unwritten(err))
	require.Less(t, n, 1<<20)
	require.ErrorIs(t, s.SaveResume(bits.New(1), nil), storage.ErrClosed)
	require.NoError(t, s.Close())
}

// openingDisk calls a function before each file is opened.
type openingDisk struct {
	storage.Disk
	before func()
}

func (d openingDisk) Open(name string, flag int) (storage.DiskFile, error) {
	d.before()
	return d.Disk.Open(name, flag)
}

// A piece may span very many files, all of which are made before it is written. Stop ends that in between.
func TestStopEndsTheCreationOfFiles(t *testing.T) {
	tor, content := testContent(1<<20, slices.Repeat([]int64{10}, 1000)...)
	dir := t.TempDir()
	disk, err := storage.OpenRoot(dir)
	require.NoError(t, err)
	var s storage.Store
	stop := func() {}
	s, err = storage.OpenDisk(tor, openingDisk{disk, func() { stop() }}, dir, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	stop = func() { s.Stop() }
	require.ErrorIs(t, s.WriteBlocks([][]byte{content}, 0), storage.ErrClosed)
	require.Len(t, visible(listing(t, dir)), 1)
	require.NoError(t, s.Close())
}

// A missing file is not taken from a file of the same torrent that has one of the names under which other clients store it.
func TestNamesOfTheSameTorrentAreNoOtherNames(t *testing.T) {
	for name, c := range map[string]struct{ missing, other, there string }{
		"not complete":              {"d/a", "d/a.part", "d/a.part"},
		"reserved by Windows":       {"d/x:y", "d/x_y", "d/x_y"},
		"reserved and not complete": {"d/x:y", "d/x_y", "d/x_y.part"},
	} {
		t.Run(name, func(t *testing.T) {
			tor, content := named(1, c.missing, c.other)
			copy(content[100:150], content[:50]) // they have a piece in common
			hash := tor.InfoHash
			tor = contentOf(tor.Layout, content)
			tor.InfoHash = hash
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(dir+"/d", 0o777))
			require.NoError(t, os.WriteFile(filepath.Join(dir, c.there), content[100:], 0o666))
			s := openDirectory(t, tor, dir)
			require.NoError(t, s.SetWanted(all(tor)))
			have := verified(t, tor, s)
			require.NotContains(t, pieces(have), 0)
			require.NoError(t, s.Settle(t.Context(), have))
			download(t, tor, s, content)
			require.NoError(t, s.Finish())
			require.Equal(t, []string{c.missing, c.other}, listing(t, dir))
		})
	}
}

// An empty file whose modification time is zero exists.
func TestEmptyFileOf1970(t *testing.T) {
	tor, content := testContent(50, 100, 0)
	dir, to := t.TempDir(), t.TempDir()
	fill(t, tor, dir, content)
	require.NoError(t, os.Chtimes(filepath.Join(dir, "d", "1"), time.Unix(0, 0), time.Unix(0, 0)))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.Settle(t.Context(), bits.Full(2)))
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, dir), "nothing is to be written, so that nothing is locked")
	claims := func() (bits.Set, map[int]bits.Set) { return bits.Full(2), nil }
	require.NoError(t, s.Move(t.Context(), to, claims, func(int64, int64) {}))
	require.Equal(t, []string{"d/0", "d/1"}, visible(listing(t, to)))
	require.Empty(t, visible(listing(t, dir)))
}

// A file under another name that another program removes before it is given its own is found to have changed, and made again.
func TestAPartFileThatIsRemoved(t *testing.T) {
	tor, content := testContent(50, 100)
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "0.part")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, content, 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, os.Remove(path))
	require.NoError(t, s.Settle(t.Context(), set(2, 0, 1)))
	require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
	_, err := s.Refresh(0, set(2, 0, 1))
	require.NoError(t, err)
	writePiece(t, tor, s, content, 0)
	writePiece(t, tor, s, content, 1)
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
	require.Equal(t, []string{"d/0"}, listing(t, dir))
}

// A file under another name stays the torrent's in the next run, though only blocks of it are claimed then.
func TestAPartFileWithBlocksStays(t *testing.T) {
	const pieceLength = 2 * layout.BlockSize
	tor, content := testContent(pieceLength, pieceLength, 2*pieceLength)
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "1.part")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, append(bytes.Clone(content[pieceLength:2*pieceLength]), make([]byte, pieceLength)...), 0o666))
	open := func(have bits.Set) storage.Store {
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted([]bool{true, false}))
		_, partial := s.LoadResume()
		require.NoError(t, s.Settle(t.Context(), have))
		require.Equal(t, have.Count() == 0, len(partial) == 1)
		return s
	}
	s := open(set(3, 1))
	block := content[2*pieceLength:][:layout.BlockSize]
	_, err := s.WriteAt(block, 2*pieceLength)
	require.NoError(t, err)
	require.NoError(t, s.SaveResume(bits.New(3), map[int]bits.Set{2: set(2, 0)}))
	require.NoError(t, s.Close())
	s = open(bits.New(3))
	got := make([]byte, layout.BlockSize)
	require.NoError(t, readFull(s, got, 2*pieceLength))
	require.Equal(t, block, got)
	require.NoError(t, s.Close())
}

// Many files of another program that were left alone are found again together when they are chosen.
func TestManyFilesFoundAgainCostLittle(t *testing.T) {
	const n = 400
	sizes := make([]int64, n)
	for i := range sizes {
		sizes[i] = 10
	}
	tor, content := testContent(20, sizes...)
	d := &claimCounter{Disk: disktest.New()}
	require.NoError(t, d.MkdirAll("d"))
	for i := 1; i < n; i += 2 {
		f, err := d.Open(filepath.Join("d", fmt.Sprint(i)), os.O_RDWR|os.O_CREATE)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("foreign"), 0)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	s, err := storage.OpenDisk(tor, d, "disk", nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(only(tor, func(i int) bool { return i%2 == 0 })))
	have := bits.New(n / 2)
	for i := range n / 2 {
		writePiece(t, tor, s, content, i)
		if i > 0 { // of all, no sidecar would be needed
			have.Add(i)
		}
	}
	require.NoError(t, s.SaveResume(have, nil))
	require.NoError(t, s.Close())

	log := new(lineCounter)
	s, err = storage.OpenDisk(tor, d, "disk", slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	require.NoError(t, err)
	d.claims, log.lines = 0, 0
	require.NoError(t, s.SetWanted(all(tor)))
	require.Less(t, log.lines, 2*n, "files are compared with the sidecar")
	require.Less(t, d.claims, 10)
	found, _ := s.LoadResume()
	require.Zero(t, found.Count(), "the files are to be hashed")
	require.NoError(t, s.Close())
}

// claimCounter counts the calls of Claim.
type claimCounter struct {
	storage.Disk
	claims int
}

func (d *claimCounter) Claim(owner [20]byte, files []storage.Claim) (func(), error) {
	d.claims++
	return d.Disk.Claim(owner, files)
}

// lineCounter counts the writes of a log.
type lineCounter struct{ lines int }

func (c *lineCounter) Write(p []byte) (int, error) {
	c.lines++
	return len(p), nil
}
