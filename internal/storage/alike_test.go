package storage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// spellings returns all names that are the letter a, in either case, so many times.
func spellings(letters int) (paths []string) {
	for k := range 1 << letters {
		name := []byte(strings.Repeat("a", letters))
		for i := range name {
			if k>>i&1 != 0 {
				name[i] = 'A'
			}
		}
		paths = append(paths, string(name))
	}
	return paths
}

// countingDisk counts the calls of Stat, Listed and Readlink.
type countingDisk struct {
	storage.Disk
	stats, listings, readlinks int
}

func (d *countingDisk) Readlink(name string) (string, error) {
	d.readlinks++
	return d.Disk.Readlink(name)
}

func (d *countingDisk) Stat(name string) (storage.FileInfo, error) {
	d.stats++
	return d.Disk.Stat(name)
}

func (d *countingDisk) Listed(name string) (bool, error) {
	d.listings++
	return d.Disk.Listed(name)
}

// Each spelling of a name in another case is the name of another file of the content. Every file still gets a place of its own,
// and the store finds out once whether the file system ignores case.
func TestEverySpellingOfAName(t *testing.T) {
	for _, folds := range []bool{true, false} {
		tor, content := named(1, spellings(6)...)
		dir := t.TempDir()
		open := func() (storage.Store, *countingDisk) {
			disk, err := storage.OpenRoot(dir)
			require.NoError(t, err)
			if folds {
				disk = foldingDisk{disk, strings.ToLower}
			}
			d := &countingDisk{Disk: disk}
			s, err := storage.OpenDisk(tor, strangeDisk{d, new(atomic.Uint64)}, dir, nil)
			require.NoError(t, err)
			require.NoError(t, s.SetWanted(all(tor)))
			return s, d
		}
		s, _ := open()
		download(t, tor, s, content)
		require.NoError(t, s.Finish())
		require.NoError(t, s.Close())
		require.Len(t, listing(t, dir), tor.NumFiles())
		s, d := open()
		require.LessOrEqual(t, d.listings, 2)
		require.Less(t, d.stats, 3*tor.NumFiles())
		require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s), "the next run finds all of them")
		require.NoError(t, s.Close())
	}
}

// writtenDisk is a disk whose files are written to between any two calls of Stat.
type writtenDisk struct {
	storage.Disk
	clock *atomic.Int64
}

func (d writtenDisk) Stat(name string) (storage.FileInfo, error) {
	info, err := d.Disk.Stat(name)
	info.Mtime = d.clock.Add(1)
	return info, err
}

// A file that is written between two calls of Stat is still recognized as the same by its name in another case.
func TestANameInAnotherCaseOfAFileBeingWritten(t *testing.T) {
	linuxOnly(t)
	mine, content := named(1, "README")
	theirs, _ := named(2, "readme")
	dir, inodes := t.TempDir(), new(atomic.Uint64)
	open := func(tor storage.Content) storage.Store {
		disk, err := storage.OpenRoot(dir)
		require.NoError(t, err)
		disk = strangeDisk{foldingDisk{disk, strings.ToLower}, inodes}
		s, err := storage.OpenDisk(tor, writtenDisk{disk, new(atomic.Int64)}, dir, nil)
		require.NoError(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	}
	fill(t, mine, dir, content)
	require.NoError(t, os.Rename(filepath.Join(dir, "README"), filepath.Join(dir, "readme")))
	require.NoError(t, open(mine).SetWanted(all(mine)))
	require.ErrorIs(t, open(theirs).SetWanted(all(theirs)), storage.ErrInUse)
}

// A file of another download whose name differs only in case does not prove that the file system ignores case, however similar
// the two files are.
func TestAnotherFileInAnotherCaseProvesNothing(t *testing.T) {
	linuxOnly(t)
	for _, another := range []string{"readme", "rEADME"} {
		mine, content := named(1, "README")
		theirs, others := named(2, another)
		dir := t.TempDir()
		first, second := openDirectory(t, mine, dir), openDirectory(t, theirs, dir)
		require.NoError(t, first.SetWanted(all(mine)))
		require.NoError(t, second.SetWanted(all(theirs)))
		download(t, mine, first, content)
		download(t, theirs, second, others)
		require.NoError(t, first.Close())
		require.NoError(t, second.Close())
		for _, name := range []string{"README", another} {
			require.NoError(t, os.Chtimes(filepath.Join(dir, name), time.Time{}, time.Unix(1e9, 0)))
		}
		first, second = openDirectory(t, mine, dir), openDirectory(t, theirs, dir)
		require.NoError(t, first.SetWanted(all(mine)))
		require.NoError(t, second.SetWanted(all(theirs)))
		require.NoError(t, first.Close())
		require.NoError(t, second.Close())
	}
}

// openInvented opens a store on a file system that invents a new inode each time, and treats names as one that fold returns the
// same for.
func openInvented(t *testing.T, tor storage.Content, disk storage.Disk, dir string, fold func(string) string, inodes *atomic.Uint64) storage.Store {
	s, err := storage.OpenDisk(tor, strangeDisk{foldingDisk{disk, fold}, inodes}, dir, nil)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// No other download gets a file of a download under its name in another case, however many files that has, and whether or not any
// exist when it begins.
func TestManyFilesAreClaimedInAnyCase(t *testing.T) { forDisks(t, testManyFilesAreClaimedInAnyCase) }

func testManyFilesAreClaimedInAnyCase(t *testing.T, openRoot func(string) storage.Disk) {
	for _, n := range []int{1, 300, 1100} {
		for _, there := range []bool{true, false} {
			paths := []string{"d/ReadMe"}
			for len(paths) < n {
				paths = append(paths, fmt.Sprintf("d/%d", len(paths)))
			}
			mine, _ := named(1, paths...)
			theirs, _ := named(2, "d/readme")
			dir, inodes := t.TempDir(), new(atomic.Uint64)
			if there {
				require.NoError(t, os.Mkdir(dir+"/d", 0o777))
				require.NoError(t, os.WriteFile(dir+"/d/readme", make([]byte, 100), 0o666))
			}
			require.NoError(t, openInvented(t, mine, openRoot(dir), dir, strings.ToLower, inodes).SetWanted(all(mine)))
			err := openInvented(t, theirs, openRoot(dir), dir, strings.ToLower, inodes).SetWanted(all(theirs))
			require.ErrorIs(t, err, storage.ErrInUse, "%d files, there %v", n, there)
		}
	}
}

func TestFilesAreClaimedInAnyCaseWhereTheyAreMoved(t *testing.T) {
	forDisks(t, testFilesAreClaimedInAnyCaseWhereTheyAreMoved)
}

func testFilesAreClaimedInAnyCaseWhereTheyAreMoved(t *testing.T, openRoot func(string) storage.Disk) {
	mine, content := named(1, "d/ReadMe", "d/a")
	theirs, _ := named(2, "d/readme")
	old, dir, inodes := t.TempDir(), t.TempDir(), new(atomic.Uint64)
	s := openDirectory(t, mine, old)
	require.NoError(t, s.SetWanted(all(mine)))
	download(t, mine, s, content)
	to := strangeDisk{foldingDisk{openRoot(dir), strings.ToLower}, inodes}
	require.NoError(t, storage.MoveTo(t.Context(), s, to, dir, claim(bits.Full(mine.NumPieces()))))
	require.ErrorIs(t, openInvented(t, theirs, openRoot(dir), dir, strings.ToLower, inodes).SetWanted(all(theirs)), storage.ErrInUse)
}

// A download in an outer directory claims a file by a path in which the name of the inner directory is in another case.
func TestFilesAreClaimedInAnyCaseWithinAnotherDirectory(t *testing.T) {
	forDisks(t, testFilesAreClaimedInAnyCaseWithinAnotherDirectory)
}

func testFilesAreClaimedInAnyCaseWithinAnotherDirectory(t *testing.T, openRoot func(string) storage.Disk) {
	outer, content := named(1, "sub/X")
	inner, _ := named(2, "x")
	above, inodes := t.TempDir(), new(atomic.Uint64)
	s := openInvented(t, outer, openRoot(above), above, strings.ToUpper, inodes)
	require.NoError(t, s.SetWanted(all(outer)))
	download(t, outer, s, content)
	dir := above + "/SUB"
	require.ErrorIs(t, openInvented(t, inner, openRoot(dir), dir, strings.ToUpper, inodes).SetWanted(all(inner)), storage.ErrInUse)
}

// A torrent may have very many files, of which one after the other is chosen: each is looked at once.
func TestAnotherChoiceCostsLittle(t *testing.T) {
	const files = 200
	tor, content := named(1, numberedPaths("d/%d", files)...)
	dir := t.TempDir()
	fill(t, tor, dir, content)
	root, err := storage.OpenRoot(dir)
	require.NoError(t, err)
	disk := &countingDisk{Disk: root}
	s, err := storage.OpenDisk(tor, disk, dir, nil)
	require.NoError(t, err)
	wanted := make([]bool, files)
	for i := range 10 {
		wanted[i] = true
		require.NoError(t, s.SetWanted(wanted))
		require.NoError(t, s.Settle(t.Context(), bits.Full(tor.NumPieces())))
	}
	require.LessOrEqual(t, disk.readlinks, files)
	require.NoError(t, s.Close())
}
