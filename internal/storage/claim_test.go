package storage_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// opener opens a directory for a download.
type opener func(t *testing.T, tor storage.Content, dir string) storage.Store

// ofOneClient returns an opener for the downloads of one client.
func ofOneClient() opener {
	claims := new(storage.Claims)
	return func(t *testing.T, tor storage.Content, dir string) storage.Store {
		t.Helper()
		s, err := claims.OpenFiles(tor, dir, nil)
		require.NoError(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	}
}

// forClients runs a test with downloads of one client and, where the system tells what other processes have claimed, of a client
// each.
func forClients(t *testing.T, test func(t *testing.T, open opener)) {
	t.Run("one client", func(t *testing.T) { test(t, ofOneClient()) })
	if runtime.GOOS == "linux" {
		t.Run("several clients", func(t *testing.T) { test(t, openDirectory) })
	}
}

// forDisks is forClients for a test that needs the Disk.
func forDisks(t *testing.T, test func(t *testing.T, openRoot func(dir string) storage.Disk)) {
	in := func(open func(string) (storage.Disk, error)) func(t *testing.T) {
		return func(t *testing.T) {
			test(t, func(dir string) storage.Disk {
				disk, err := open(dir)
				require.NoError(t, err)
				return disk
			})
		}
	}
	t.Run("one client", in(new(storage.Claims).OpenRoot))
	if runtime.GOOS == "linux" {
		t.Run("several clients", in(storage.OpenRoot))
	}
}

func numberedPaths(format string, n int) (paths []string) {
	for i := range n {
		paths = append(paths, fmt.Sprintf(format, i))
	}
	return paths
}

func TestAPathBelongsToOneTorrent(t *testing.T) {
	many := func(format string) []string { return numberedPaths(format, 3000) }
	for _, c := range []struct {
		name         string
		mine, theirs []string
		taken        string // "" if both may go on
	}{
		{"the same path", []string{"d/a", "d/b"}, []string{"d/c", "d/b"}, "d/b"},
		{"the same directory", []string{"d/a", "d/b"}, []string{"d/c", "d/e/a"}, ""},
		{"a file where the other has a directory", []string{"d/a"}, []string{"d"}, "d"},
		{"a directory where the other has a file", []string{"d"}, []string{"d/a"}, "d/a"},
		{"the same prefix", []string{"d/ab"}, []string{"d/a"}, ""},
		{"very many files", many("d/e/%d"), []string{"d/e/2999"}, "d/e/2999"},
		{"very many files there", []string{"d/e/17"}, many("d/e/%d"), "d"},
		{"very many beside", many("d/e/%d"), []string{"d/f"}, ""},
		{"very many on either side", many("d/%d/e"), many("c/%d/e"), ""},
		{"as many in one directory as are locked", numberedPaths("d/a%d", 15), numberedPaths("d/b%d", 15), ""},
		{"many in directories beside each other", numberedPaths("d/e/%d", 100), numberedPaths("d/f/%d", 100), ""},
	} {
		test := func(t *testing.T, openDirectory opener) {
			dir := t.TempDir()
			mine, content := named(1, c.mine...)
			theirs, _ := named(2, c.theirs...)
			first := openDirectory(t, mine, dir)
			require.NoError(t, first.SetWanted(all(mine)))
			second := openDirectory(t, theirs, dir)
			err := second.SetWanted(all(theirs))
			if c.taken == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, storage.ErrInUse)
			require.ErrorContains(t, err, filepath.Join(dir, c.taken))
			require.ErrorContains(t, err, fmt.Sprintf("%x", mine.InfoHash))
			require.NoError(t, second.Close())

			// The same holds when the first download is complete, as long as it is open.
			for i := range mine.NumPieces() {
				writePiece(t, mine, first, content, i)
			}
			require.NoError(t, first.Finish())
			left, err := filepath.Glob(filepath.Join(dir, ".*"))
			require.NoError(t, err)
			require.Empty(t, left, "nothing shows the claim")
			if c.name == "a file where the other has a directory" {
				return
			}
			require.ErrorIs(t, openDirectory(t, theirs, dir).SetWanted(all(theirs)), storage.ErrInUse)
			same := openDirectory(t, mine, dir)
			require.NoError(t, same.SetWanted(all(mine)), "complete content may be shared")
			require.NoError(t, same.Close())
			require.NoError(t, first.Close())
			require.NoError(t, openDirectory(t, theirs, dir).SetWanted(only(theirs, func(int) bool { return false })))
		}
		t.Run(c.name, func(t *testing.T) { forClients(t, test) })
	}
}

// The files of one client are told apart one by one, however many there are. Of another client's, if they are many, the directories
// are claimed.
func TestManyFilesInOneDirectory(t *testing.T) {
	mine, _ := named(1, numberedPaths("d/a%d", 100)...)
	theirs, _ := named(2, numberedPaths("d/b%d", 100)...)
	few, _ := named(3, "d/c")
	dir := t.TempDir()
	open := ofOneClient()
	for _, tor := range []storage.Content{mine, theirs, few} {
		require.NoError(t, open(t, tor, dir).SetWanted(all(tor)))
	}
	for _, tor := range []storage.Content{mine, theirs, few} {
		tor.InfoHash[0] += 10
		require.ErrorIs(t, open(t, tor, dir).SetWanted(all(tor)), storage.ErrInUse)
	}
	linuxOnly(t)
	other, _ := named(4, "d/e")
	err := openDirectory(t, other, dir).SetWanted(all(other))
	require.ErrorIs(t, err, storage.ErrInUse)
	require.ErrorContains(t, err, filepath.Join(dir, "d"))
	other, _ = named(5, "e/f")
	require.NoError(t, openDirectory(t, other, dir).SetWanted(all(other)))
}

// Within a second an author can find a torrent whose info hash begins with any given 20 bits, which are all that a lock of a claim
// encodes. The whole info hash decides to which torrent a path belongs.
func TestOwnersThatBeginAlike(t *testing.T) { forClients(t, testOwnersThatBeginAlike) }

func testOwnersThatBeginAlike(t *testing.T, openDirectory opener) {
	dir := t.TempDir()
	mine, _ := named(1, "d/a")
	theirs, _ := named(2, "d/a")
	beside, _ := named(3, "d/b")
	theirs.InfoHash, beside.InfoHash = mine.InfoHash, mine.InfoHash
	theirs.InfoHash[19]++
	beside.InfoHash[19]--
	first, second := openDirectory(t, mine, dir), openDirectory(t, beside, dir)
	require.NoError(t, first.SetWanted(all(mine)))
	require.NoError(t, second.SetWanted(all(beside)), "another path is no conflict")
	err := openDirectory(t, theirs, dir).SetWanted(all(theirs))
	require.ErrorIs(t, err, storage.ErrInUse)
	require.ErrorContains(t, err, fmt.Sprintf("%x", mine.InfoHash))
	require.NoError(t, first.SetWanted(all(mine)), "its own claims are no obstacle")
}

// A file has a path relative to each of its parent directories, and any of these may be the directory of a download.
func TestAPathUnderTwoDirectories(t *testing.T) { forClients(t, testAPathUnderTwoDirectories) }

func testAPathUnderTwoDirectories(t *testing.T, openDirectory opener) {
	many := []string{"d/e/a"}
	for i := range 3000 {
		many = append(many, fmt.Sprintf("d/e/%d", i))
	}
	for _, c := range []struct {
		name         string
		outer, inner []string // the directory of inner is d in that of outer
		dir          string   // the path by which inner opens its directory
		taken        bool
	}{
		{"the same file", []string{"b", "d/e/a"}, []string{"c", "e/a"}, "d", true},
		{"the directory by a symbolic link", []string{"d/e/a"}, []string{"e/a"}, "link", true},
		{"a file where the other has a directory", []string{"d/e"}, []string{"e/a"}, "d", true},
		{"a directory where the other has a file", []string{"d/e/a"}, []string{"e"}, "d", true},
		{"very many files", many, []string{"e/a"}, "d", true},
		{"very many within", []string{"d/e/a"}, many, "d", false},
		{"one beside the other", []string{"d/e/a"}, []string{"e/b", "a"}, "d", false},
		{"very many around the directory", append(numberedPaths("%d/a", 100), "d/e/a"), []string{"e/a"}, "d", true},
		{"a directory above alone", []string{"a"}, []string{"a"}, "d", false},
	} {
		for _, outerFirst := range []bool{true, false} {
			t.Run(fmt.Sprint(c.name, ", outer first ", outerFirst), func(t *testing.T) {
				above := t.TempDir()
				require.NoError(t, os.Mkdir(above+"/d", 0o777))
				if err := os.Symlink("d", above+"/link"); err != nil && c.dir == "link" {
					t.Skip("no symbolic links here:", err)
				}
				outer, _ := named(1, c.outer...)
				inner, _ := named(2, c.inner...)
				first, second, owner := openDirectory(t, outer, above), openDirectory(t, inner, filepath.Join(above, c.dir)), outer
				if !outerFirst {
					first, second = second, first
					outer, inner, owner = inner, outer, inner
				}
				require.NoError(t, first.SetWanted(all(outer)))
				err := second.SetWanted(all(inner))
				if !c.taken {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, storage.ErrInUse)
				require.ErrorContains(t, err, fmt.Sprintf("%x", owner.InfoHash))
				require.NoError(t, first.Close())
				require.NoError(t, second.SetWanted(all(inner)))
			})
		}
	}
}

// A download is refused before its directory is made where another one is about to make a file.
func TestADirectoryInThePlaceOfAFile(t *testing.T) {
	for _, shared := range []bool{true, false} {
		if !shared {
			linuxOnly(t)
		}
		above := t.TempDir()
		mine, content := named(1, "d/a")
		theirs, _ := named(2, "b")
		claims := new(storage.Claims)
		first, err := claims.OpenFiles(mine, above, nil)
		require.NoError(t, err)
		require.NoError(t, first.SetWanted(all(mine)))
		if !shared {
			claims = new(storage.Claims)
		}
		for _, dir := range []string{"d/a", "d/a/c"} {
			_, err := claims.OpenFiles(theirs, filepath.Join(above, dir), nil)
			require.ErrorIs(t, err, storage.ErrInUse)
			require.ErrorContains(t, err, filepath.Join(above, dir))
			require.NoDirExists(t, above+"/d")
		}
		moved, err := claims.OpenFiles(theirs, t.TempDir(), nil)
		require.NoError(t, err)
		require.NoError(t, moved.SetWanted(all(theirs)))
		for _, dir := range []string{"d/a", "d/a/c"} {
			past := time.Unix(1e9, 0)
			require.NoError(t, os.Chtimes(above, past, past))
			err := moved.Move(t.Context(), filepath.Join(above, dir), claim(bits.New(theirs.NumPieces())), func(int64, int64) {})
			require.ErrorIs(t, err, storage.ErrInUse)
			require.ErrorContains(t, err, filepath.Join(above, dir))
			info, err := os.Stat(above)
			require.NoError(t, err)
			require.True(t, past.Equal(info.ModTime()), "not even for a moment is a directory made there")
		}
		require.NoError(t, moved.Close())
		errs := make(chan error)
		for k := range byte(8) { // a directory that all use
			tor, _ := named(10+k, fmt.Sprint(k))
			go func() {
				s, err := claims.OpenFiles(tor, filepath.Join(above, "d"), nil)
				if err == nil {
					err = errors.Join(s.SetWanted(all(tor)), s.Close())
				}
				errs <- err
			}()
		}
		for range 8 {
			require.NoError(t, <-errs)
		}
		download(t, mine, first, content)
		require.NoError(t, first.Close())
	}
}

// If a file exists under another name that a file of a download could have, but another download has claimed it, the first
// download neither uses it nor fails. While a file is read under another name, its own name is claimed.
func TestPathsOfFilesUnderOtherNames(t *testing.T) { forClients(t, testPathsOfFilesUnderOtherNames) }

func testPathsOfFilesUnderOtherNames(t *testing.T, openDirectory opener) {
	mine, content := named(1, "d/a", "d/b?")
	theirs, other := named(2, "d/a.part", "d/b_")
	rivals, _ := named(3, "d/a")
	dir := t.TempDir()
	first := openDirectory(t, theirs, dir)
	require.NoError(t, first.SetWanted(all(theirs)))
	for i := range theirs.NumPieces() {
		writePiece(t, theirs, first, other, i)
	}
	require.NoError(t, first.Finish())
	second := openDirectory(t, mine, dir)
	require.NoError(t, second.SetWanted(all(mine)))
	require.NoError(t, second.Settle(t.Context(), verified(t, mine, second)))
	download(t, mine, second, content)
	require.NoError(t, second.Finish())
	require.Equal(t, bits.Full(theirs.NumPieces()), verified(t, theirs, first))
	require.NoError(t, first.Close())
	require.NoError(t, second.Close())

	require.NoError(t, os.Remove(dir+"/d/a"))
	second = openDirectory(t, mine, dir)
	require.NoError(t, second.SetWanted(all(mine)))
	require.ErrorIs(t, openDirectory(t, rivals, dir).SetWanted(all(rivals)), storage.ErrInUse)
	require.NoError(t, second.Settle(t.Context(), verified(t, mine, second)))
	download(t, mine, second, content)
}

// Files that are not wanted are not claimed.
func TestOnlyWhatIsWantedIsClaimed(t *testing.T) { forClients(t, testOnlyWhatIsWantedIsClaimed) }

func testOnlyWhatIsWantedIsClaimed(t *testing.T, openDirectory opener) {
	dir := t.TempDir()
	mine, _ := named(1, "d/a", "d/b")
	theirs, _ := named(2, "d/b", "d/c")
	first, second := openDirectory(t, mine, dir), openDirectory(t, theirs, dir)
	require.NoError(t, first.SetWanted(only(mine, func(i int) bool { return i == 0 })))
	require.NoError(t, second.SetWanted(all(theirs)))
	require.ErrorIs(t, first.SetWanted(all(mine)), storage.ErrInUse)
}

// A choice that is refused after its files were claimed leaves no claims.
func TestARefusedChoiceLeavesNoClaims(t *testing.T) { forClients(t, testARefusedChoiceLeavesNoClaims) }

func testARefusedChoiceLeavesNoClaims(t *testing.T, open opener) {
	mine, _ := named(1, append(numberedPaths("d/e/%d", 40), "d/a", "d/b")...)
	theirs, _ := named(2, "d/e/3", "d/b")
	dir := t.TempDir()
	first, second := open(t, mine, dir), open(t, mine, dir)
	require.NoError(t, second.SetWanted(only(mine, func(i int) bool { return i == 40 }))) // takes the lock of the content
	require.ErrorIs(t, first.SetWanted(only(mine, func(i int) bool { return i != 40 })), storage.ErrInUse)
	third := open(t, theirs, dir)
	require.NoError(t, third.SetWanted(all(theirs)))
	require.ErrorIs(t, first.SetWanted(all(mine)), storage.ErrInUse)
	require.NoError(t, third.Close())
	rival, _ := named(3, "d/a")
	require.ErrorIs(t, open(t, rival, dir).SetWanted(all(rival)), storage.ErrInUse, "what it claimed before stays")
}

// Of many that claim at once, in one directory and in one above it, exactly one gets a path.
func TestOneOfManyClaimsAtOnce(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "d")
	require.NoError(t, os.Mkdir(dir, 0o777))
	claims := new(storage.Claims)
	errs := make(chan error)
	const n = 16
	for i := range byte(n) {
		disk, err := claims.OpenRoot([]string{above, dir}[i%2])
		require.NoError(t, err)
		t.Cleanup(func() { disk.Close() })
		go func() {
			_, err := disk.Claim([20]byte{i + 1}, []storage.Claim{{Path: []string{"d/a", "a"}[i%2]}})
			errs <- err
		}()
	}
	refused := 0
	for range n {
		if err := <-errs; err != nil {
			require.ErrorIs(t, err, storage.ErrInUse)
			refused++
		}
	}
	require.Equal(t, n-1, refused)
}

// Nothing is left of claims once all downloads have ended, slept or moved.
func TestClaimsEndWithTheirDownloads(t *testing.T) {
	claims := new(storage.Claims)
	tor, content := named(1, numberedPaths("d/%d/e", 40)...)
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "other")
	for range 2 {
		s, err := claims.OpenFiles(tor, dir, nil)
		require.NoError(t, err)
		require.NoError(t, s.SetWanted(all(tor)))
		require.Equal(t, 1, claims.Directories())
		download(t, tor, s, content)
		require.NoError(t, s.Finish())
		require.NoError(t, s.Rest())
		require.Zero(t, claims.Directories())
		require.NoError(t, s.Wake())
		require.Equal(t, 1, claims.Directories())
		require.NoError(t, s.Move(t.Context(), other, claim(bits.Full(tor.NumPieces())), func(int64, int64) {}))
		require.Equal(t, 1, claims.Directories())
		rival, _ := named(2, "d/3/e")
		r, err := claims.OpenFiles(rival, other, nil)
		require.NoError(t, err)
		require.ErrorIs(t, r.SetWanted(all(rival)), storage.ErrInUse)
		require.NoError(t, r.Close())
		require.NoError(t, s.Close())
		require.Zero(t, claims.Directories())
		dir, other = other, dir
	}
}

// sameDisk is a file system that gives all files one identity at a time, as one after the other may have it when files are removed.
type sameDisk struct {
	storage.Disk
	inode *uint64
}

func (d sameDisk) Open(name string, flag int) (storage.DiskFile, error) {
	f, err := d.Disk.Open(name, flag)
	return sameFile{f, d.inode}, err
}

func (d sameDisk) Stat(name string) (storage.FileInfo, error) {
	info, err := d.Disk.Stat(name)
	info.ID = storage.FileID{Dev: 1, Inode: *d.inode}
	return info, err
}

type sameFile struct {
	storage.DiskFile
	inode *uint64
}

func (f sameFile) Stat() (storage.FileInfo, error) {
	info, err := f.DiskFile.Stat()
	info.ID = storage.FileID{Dev: 1, Inode: *f.inode}
	return info, err
}

// A file that is made may get the identity of one that another download claimed and that is gone.
func TestAnIdentityThatIsUsedAgain(t *testing.T) {
	for _, shared := range []bool{true, false} {
		claims := new(storage.Claims)
		dir := t.TempDir()
		for hash, path := range []string{"a", "b"} {
			tor, content := named(byte(hash+1), path)
			if !shared {
				claims = new(storage.Claims)
			}
			disk, err := claims.OpenRoot(dir)
			require.NoError(t, err)
			s, err := storage.OpenDisk(tor, sameDisk{disk, new(uint64(1))}, dir, nil)
			require.NoError(t, err)
			t.Cleanup(func() { s.Close() })
			require.NoError(t, s.SetWanted(all(tor)))
			writePiece(t, tor, s, content, 0)
			if hash == 0 {
				require.NoError(t, os.Remove(filepath.Join(dir, path)))
			}
		}
	}
}
