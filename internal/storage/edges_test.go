package storage_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

func TestSelectionCreatesNoOtherFiles(t *testing.T) {
	// Pieces:        0        1        2       3        4
	// Files:    0------ 1--2- 3---------- 4 5-----------------
	tor, content := testContent(50, 40, 20, 10, 60, 0, 120)
	require.Equal(t, 5, tor.NumPieces())
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	want := func(chosen ...int) []bool {
		return only(tor, func(i int) bool { return slices.Contains(chosen, i) })
	}
	require.NoError(t, s.SetWanted(want(3)))
	for _, i := range []int{1, 2} {
		writePiece(t, tor, s, content, i)
		require.NoError(t, s.Changed(i))
	}
	require.NoError(t, s.SaveResume(set(5, 1, 2), nil))
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
	edges := ".0102030000000000000000000000000000000000.edges.resume"
	require.Equal(t, []string{edges, sidecarName, "d/3"}, listing(t, dir))

	s = openDirectory(t, tor, dir)
	have, _ := s.LoadResume()
	require.Equal(t, []int{1, 2}, pieces(have))
	require.NoError(t, s.SetWanted(want(3)))
	require.Equal(t, []int{1, 2}, pieces(verified(t, tor, s)), "also when nothing is believed")
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())

	// When more files are wanted, the edges are copied into them.
	s = openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(want(1, 2, 3, 4)))
	require.NoError(t, s.Settle(t.Context(), set(5, 1, 2)))
	require.Equal(t, []int{1, 2}, pieces(verified(t, tor, s)))
	got := make([]byte, 100)
	require.NoError(t, readFull(s, got, 50))
	require.Equal(t, content[50:150], got)
	writePiece(t, tor, s, content, 0)
	require.Equal(t, []string{edges, ".0102030000000000000000000000000000000000.lock", sidecarName, "d/1", "d/2", "d/3", "d/4"}, listing(t, dir))
	b, release, err := s.Bytes(1)
	require.NoError(t, err)
	require.Equal(t, content[40:60], b)
	require.NoError(t, release())

	// When everything is wanted, only the content is left.
	require.NoError(t, s.SetWanted(all(tor)))
	require.Equal(t, []int{0, 1, 2}, pieces(verified(t, tor, s)))
	writePiece(t, tor, s, content, 3)
	writePiece(t, tor, s, content, 4)
	require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s))
	require.NoError(t, s.Finish())
	require.Equal(t, []string{"d/0", "d/1", "d/2", "d/3", "d/4", "d/5"}, listing(t, dir))
}

func TestSelectionWidensWhileBlocksOfAPieceAreMissing(t *testing.T) {
	const pieceLength = 8 * layout.BlockSize
	tor, content := testContent(pieceLength, 3*layout.BlockSize, 10*layout.BlockSize, 3*layout.BlockSize)
	for name, open := range builtIn {
		t.Run(name, func(t *testing.T) {
			s := open(t, tor)
			defer s.Close()
			require.NoError(t, s.SetWanted([]bool{false, true, false}))
			write := func(block int) {
				require.NoError(t, s.WriteBlocks([][]byte{content[block*layout.BlockSize : (block+1)*layout.BlockSize]}, int64(block)*layout.BlockSize))
			}
			write(14) // a block of the last file, with no block before or after it
			write(1)
			require.NoError(t, s.SetWanted(all(tor)))
			for _, block := range []int{0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15} {
				write(block)
			}
			require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s))
		})
	}
}

func TestEdgesChangedByAnotherProgramAreInDoubt(t *testing.T) {
	tor, content := testContent(50, 40, 80, 80)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted([]bool{false, true, false}))
	for i := range 3 {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, os.Truncate(filepath.Join(dir, sidecar(tor, ".edges.resume")), 70))
	require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
	require.NoError(t, s.Changed(1), "which is in a wanted file alone")
	doubt, err := s.Refresh(0, set(4, 0))
	require.NoError(t, err)
	require.Equal(t, []int{0, 2}, pieces(doubt))
	require.ErrorIs(t, s.Changed(0), storage.ErrChanged, "one of them is not in doubt yet")
	_, err = s.Refresh(0, doubt)
	require.NoError(t, err)
	require.NoError(t, s.Changed(0))
	require.Equal(t, []int{0, 1}, pieces(verified(t, tor, s)))
	writePiece(t, tor, s, content, 2)
	require.Equal(t, []int{0, 1, 2}, pieces(verified(t, tor, s)))
	require.Equal(t, set(4, 0, 1, 2).Count(), verified(t, tor, s).Count())
}

// The edges are checked for changes while they are written to.
func TestEdgesAreComparedWhileTheyAreWritten(t *testing.T) {
	tor, content := testContent(50, slices.Repeat([]int64{10, 40}, 100)...)
	s := openDirectory(t, tor, t.TempDir())
	require.NoError(t, s.SetWanted(only(tor, func(i int) bool { return i%2 == 1 })))
	writePiece(t, tor, s, content, 0)
	var writing sync.WaitGroup
	writing.Go(func() {
		for piece := 1; piece < tor.NumPieces(); piece++ {
			_ = s.WriteBlocks([][]byte{pieceOf(tor, content, piece)}, tor.PieceOffset(piece))
		}
	})
	for range 100 {
		piece, err := s.AnyChanged(t.Context(), set(tor.NumPieces(), 0))
		require.NoError(t, err)
		require.Equal(t, -1, piece)
	}
	writing.Wait()
	require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
}

func TestAnUnwantedFileOnDiskIsUsed(t *testing.T) {
	tor, content := testContent(50, 60, 40)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/d", 0o777))
	require.NoError(t, os.WriteFile(dir+"/d/0", content[:60], 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted([]bool{false, true}))
	require.NoError(t, s.Settle(t.Context(), set(2, 0)))
	writePiece(t, tor, s, content, 1)
	require.Equal(t, []int{0, 1}, pieces(verified(t, tor, s)))
	require.NoError(t, s.Finish())
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, dir))
}

// The edges may hold a piece from the middle of a file: it was a draft. If it is found there because the file is gone, it is copied
// to the file when that is chosen, like those that the file shares with others.
func TestAPieceInTheMiddleIsCopiedFromTheEdges(t *testing.T) {
	tor, content := testContent(50, 50, 150)
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "1")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, make([]byte, 150), 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	_, err := s.WriteAt(content[100:150], 100)
	require.NoError(t, err)
	require.NoError(t, s.PieceVerified(2))
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(path))

	s = openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted([]bool{true, false}))
	require.Equal(t, []int{2}, pieces(verified(t, tor, s)))
	require.NoError(t, s.Settle(t.Context(), set(4, 2)))
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 3)
	got := make([]byte, 50)
	require.NoError(t, readFull(s, got, 100))
	require.Equal(t, content[100:150], got)
	require.NoError(t, s.Close())
}

// The same holds for blocks of an earlier run.
func TestAChoiceSparesAFileThatCameAfterARestart(t *testing.T) {
	tor, content := testContent(2*layout.BlockSize, layout.BlockSize, 3*layout.BlockSize)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted([]bool{false, true}))
	_, err := s.WriteAt(content[:layout.BlockSize], 0)
	require.NoError(t, err)
	require.NoError(t, s.SaveResume(bits.New(2), map[int]bits.Set{0: set(2, 0)}))
	require.NoError(t, s.Close())

	s = openDirectory(t, tor, dir)
	_, partial := s.LoadResume()
	require.Len(t, partial, 1)
	require.NoError(t, s.SetWanted([]bool{false, true}))
	require.NoError(t, s.Settle(t.Context(), bits.New(2)))
	path := filepath.Join(dir, "d", "0")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, []byte("of another program"), 0o666))
	require.NoError(t, s.SetWanted(all(tor)))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "of another program", string(b))
	require.NoError(t, s.Close())
}

// A file of the torrent that the file system takes for another one is not taken for another program's.
func TestAChoiceOfNamesThatAreOne(t *testing.T) {
	l := layout.New(50, layout.File{Path: "d/A", Length: 70}, layout.File{Path: "d/a", Length: 80})
	_, content := testContent(50, 150)
	tor := contentOf(l, content)
	d := foldingDisk{disktest.New(), strings.ToLower}
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted([]bool{true, false}))
	_, err := s.WriteAt(content[50:100], 50)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
}

// What is copied from edges that another program has changed or removed is in doubt.
func TestEdgesThatChangedAreCopiedInDoubt(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"cut":     func(path string) error { return os.Truncate(path, 20) },
		"removed": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			tor, content := testContent(50, 40, 60)
			dir := t.TempDir()
			s := openDirectory(t, tor, dir)
			require.NoError(t, s.SetWanted([]bool{true, false}))
			writePiece(t, tor, s, content, 0)
			require.NoError(t, change(filepath.Join(dir, sidecar(tor, ".edges.resume"))))
			storage.DropHandle(s, tor.NumFiles())
			require.NoError(t, s.SetWanted(all(tor)))
			require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
			piece, err := s.AnyChanged(t.Context(), set(2, 0))
			require.Zero(t, piece)
			require.ErrorIs(t, err, storage.ErrChanged)
			require.NoError(t, s.Close())
		})
	}
}

// A file that another program makes at the path of one that is not wanted is not overwritten from the edges when that is chosen,
// unless a piece of it is verified.
func TestAChoiceSparesAFileThatCameMeanwhile(t *testing.T) {
	tor, content := testContent(50, 40, 60)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted([]bool{true, false}))
	_, err := s.WriteAt(content[:50], 0)
	require.NoError(t, err)
	path := filepath.Join(dir, "d", "1")
	foreign := []byte("of another program")
	require.NoError(t, os.WriteFile(path, foreign, 0o666))
	require.NoError(t, s.SetWanted(all(tor)))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, foreign, b)
	require.ErrorIs(t, s.Changed(0), storage.ErrChanged, "it is to be hashed")
	_, err = s.Refresh(0, set(2, 0, 1))
	require.NoError(t, err)
	require.NoError(t, s.Changed(0))
	writePiece(t, tor, s, content, 0)
	writePiece(t, tor, s, content, 1)
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, dir))
}

// While edges that changed are copied, a sidecar that is saved does not claim the file as it is.
func TestEdgesThatChangedAreNotClaimedWhileTheyAreCopied(t *testing.T) {
	tor, content := testContent(50, 40, 120, 40)
	d := disktest.New()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted([]bool{true, false, true}))
	writePiece(t, tor, s, content, 0)
	writePiece(t, tor, s, content, 3)
	edges := sidecar(tor, ".edges.resume")
	f, err := d.Open(edges, os.O_RDWR)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("of another program"), 50)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	claimed := 0
	d.Fail = func(call, name string) error {
		if call == "read" && name == edges && storage.WouldBeClaimed(s, 1) {
			claimed++
		}
		return nil
	}
	require.NoError(t, s.SetWanted(all(tor)))
	d.Fail = nil
	require.Zero(t, claimed)
	require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
	require.NoError(t, s.Close())
}

// A file that another download claimed belongs to that, whatever an earlier run wrote to it.
func TestAChoiceSparesAFileOfAnEarlierDownload(t *testing.T) {
	tor, content := testContent(2*layout.BlockSize, 3*layout.BlockSize, layout.BlockSize)
	dir := t.TempDir()
	var claims storage.Claims
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	_, err := s.WriteAt(content[3*layout.BlockSize:], 3*layout.BlockSize)
	require.NoError(t, err)
	require.NoError(t, s.SaveResume(bits.New(2), map[int]bits.Set{1: set(2, 1)}))
	require.NoError(t, s.Close())

	other := contentOf(layout.New(50, layout.File{Path: "d/1", Length: 50}), make([]byte, 50))
	other.InfoHash[0]++
	theirs, err := claims.OpenFiles(other, dir, nil)
	require.NoError(t, err)
	require.NoError(t, theirs.SetWanted(all(other)))
	s, err = claims.OpenFiles(tor, dir, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted([]bool{true, false}))
	_, err = s.WriteAt(content[3*layout.BlockSize:], 3*layout.BlockSize)
	require.NoError(t, err)
	require.NoError(t, theirs.WriteBlocks([][]byte{make([]byte, 50)}, 0))
	require.NoError(t, theirs.Close())
	path := filepath.Join(dir, "d", "1")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.NoError(t, s.Close())
}

// A sidecar does not say that a file has bytes in the edges because of what was kept there later, in the place of what a loss of power
// has left behind the slots.
func TestSlotsMadeAfterTheSidecar(t *testing.T) {
	tor, content := testContent(50, 80, 40, 80)
	dir := t.TempDir()
	begin := func(wanted ...bool) storage.Store {
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted(wanted))
		return s
	}
	s := begin(false, false, true)
	writePiece(t, tor, s, content, 2)
	require.NoError(t, s.Close())
	edges := filepath.Join(dir, sidecar(tor, ".edges.resume"))
	info, err := os.Stat(edges)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(edges, 3*info.Size()))
	s = begin(false, false, true)
	require.NoError(t, s.SaveResume(set(4, 2), nil))
	require.NoError(t, s.Close())

	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "0"), content[:80], 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "1"), []byte("foreign"), 0o666))
	s = begin(false, true, true)
	require.Contains(t, pieces(verified(t, tor, s)), 0)
	_, err = s.WriteAt(content[50:100], 50)
	require.NoError(t, err)
	require.NoError(t, storage.Abandon(s))

	s = begin(false, false, true)
	require.Contains(t, pieces(verified(t, tor, s)), 0)
	require.NoError(t, s.Close())
}
