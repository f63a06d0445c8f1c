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
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
)

// named makes a torrent, and its content, of files of 100 bytes with the given paths.
func named(hash byte, paths ...string) (storage.Content, []byte) {
	var lengths []int64
	for range paths {
		lengths = append(lengths, 100)
	}
	tor, content := testContent(50, lengths...)
	for i := range content {
		content[i] ^= hash
	}
	files := make([]layout.File, len(paths))
	for i, p := range paths {
		files[i] = layout.File{Path: p, Length: 100}
	}
	tor = contentOf(layout.New(50, files...), content)
	tor.InfoHash = [20]byte{hash, 0xab, 0xcd, 0xef, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}
	return tor, content
}

func linuxOnly(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("clients do not know of each other here")
	}
}

// download writes the pieces that are not verified, in several rounds, until all of them are.
func download(t *testing.T, tor storage.Content, s storage.Store, content []byte) {
	t.Helper()
	for round := 0; ; round++ {
		require.Less(t, round, 4, "it does not end")
		have := verified(t, tor, s)
		if have.Full() {
			if piece, _ := s.AnyChanged(t.Context(), have); piece < 0 {
				return
			}
		}
		for i := range tor.NumPieces() {
			if !have.Has(i) {
				writePiece(t, tor, s, content, i)
			}
		}
		for piece, err := s.AnyChanged(t.Context(), have); piece >= 0; piece, err = s.AnyChanged(t.Context(), have) {
			require.ErrorIs(t, err, storage.ErrChanged)
			_, err = s.Refresh(piece, bits.Full(tor.NumPieces()))
			require.NoError(t, err)
		}
	}
}

func TestHardLinksAreReplacedWithCopies(t *testing.T) {
	tor, content := named(1, "d/a", "d/b", "d/c")
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/d", 0o777))
	old := []byte(strings.Repeat("theirs ", 14))
	require.NoError(t, os.WriteFile(dir+"/other", old, 0o666))
	require.NoError(t, os.Link(dir+"/other", dir+"/d/a"))
	require.NoError(t, os.Link(dir+"/other", dir+"/d/b"))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	download(t, tor, s, content)
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
	for i, f := range tor.Files() {
		b, err := os.ReadFile(filepath.Join(dir, f.Path))
		require.NoError(t, err)
		require.Equal(t, content[100*i:100*i+100], b)
	}
	b, err := os.ReadFile(dir + "/other")
	require.NoError(t, err)
	require.Equal(t, old, b, "the other name of the file kept its content")
	require.Equal(t, []string{"d/a", "d/b", "d/c", "other"}, listing(t, dir))
}

// Two torrents may share content by hard links, and a write to one does not change the content of the other.
func TestHardLinksBetweenTorrents(t *testing.T) {
	mine, content := named(1, "d/a")
	theirs, other := named(2, "e/a")
	dir := t.TempDir()
	fill(t, mine, dir, content)
	require.NoError(t, os.Mkdir(dir+"/e", 0o777))
	require.NoError(t, os.Link(dir+"/d/a", dir+"/e/a"))
	first, second := openDirectory(t, mine, dir), openDirectory(t, theirs, dir)
	require.NoError(t, first.SetWanted(all(mine)))
	require.NoError(t, second.SetWanted(all(theirs)))
	download(t, theirs, second, other)
	require.NoError(t, first.Changed(0))
	require.Equal(t, bits.Full(mine.NumPieces()), verified(t, mine, first))
}

// foldingDisk is a file system that treats names as one that fold returns the same for.
type foldingDisk struct {
	storage.Disk
	fold func(string) string
}

func (d foldingDisk) Open(name string, flag int) (storage.DiskFile, error) {
	return d.Disk.Open(d.fold(name), flag)
}
func (d foldingDisk) Stat(name string) (storage.FileInfo, error) { return d.Disk.Stat(d.fold(name)) }
func (d foldingDisk) MkdirAll(name string) error                 { return d.Disk.MkdirAll(d.fold(name)) }
func (d foldingDisk) Rename(from, to string) error               { return d.Disk.Rename(d.fold(from), d.fold(to)) }
func (d foldingDisk) Remove(name string) error                   { return d.Disk.Remove(d.fold(name)) }

func (d foldingDisk) Listed(name string) (bool, error) {
	return d.Disk.Listed(filepath.Join(d.fold(filepath.Dir(name)), filepath.Base(name)))
}

func openFolding(t *testing.T, tor storage.Content, dir string) storage.Store {
	disk, err := storage.OpenRoot(dir)
	require.NoError(t, err)
	fold := strings.NewReplacer("é", "e", "e\u0301", "e", "ß", "ss", "ﬁ", "fi", "Dir", "dir")
	s, err := storage.OpenDisk(tor, foldingDisk{disk, func(s string) string { return filepath.FromSlash(fold.Replace(filepath.ToSlash(s))) }}, dir, nil)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestNamesThatAFileSystemTreatsAsOne(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no identity here")
	}
	tor, content := named(1, "d/é.txt", "d/e\u0301.txt", "d/ß", "d/ss", "Dir/ﬁ", "dir/fi", "d/e.1.txt")
	dir := t.TempDir()
	s := openFolding(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	download(t, tor, s, content)
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())

	s = openFolding(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s), "the next run finds all of them: %q", listing(t, dir))
	require.NoError(t, s.Close())

	// Another torrent does not get the file by another spelling either.
	linuxOnly(t)
	mine, content := named(3, "f/ß")
	theirs, _ := named(4, "f/ss")
	s = openFolding(t, mine, dir)
	require.NoError(t, s.SetWanted(all(mine)))
	other := openFolding(t, theirs, dir)
	require.NoError(t, other.SetWanted(all(theirs)), "none of them is there yet")
	writePiece(t, mine, s, content, 0)
	require.ErrorIs(t, other.WriteBlocks([][]byte{make([]byte, 50)}, 0), storage.ErrInUse)
	theirs.InfoHash[0]++
	require.ErrorIs(t, openFolding(t, theirs, dir).SetWanted(all(theirs)), storage.ErrInUse)
}

// strangeDisk is a file system that invents a new inode number each time.
type strangeDisk struct {
	storage.Disk
	last *atomic.Uint64
}

func (d strangeDisk) Open(name string, flag int) (storage.DiskFile, error) {
	f, err := d.Disk.Open(name, flag)
	return strangeFile{f, d.last}, err
}

func (d strangeDisk) Stat(name string) (storage.FileInfo, error) {
	info, err := d.Disk.Stat(name)
	info.ID.Inode = d.last.Add(1)
	return info, err
}

type strangeFile struct {
	storage.DiskFile
	last *atomic.Uint64
}

func (f strangeFile) Stat() (storage.FileInfo, error) {
	info, err := f.DiskFile.Stat()
	info.ID.Inode = f.last.Add(1)
	return info, err
}

func TestInventedInodesAreNoChange(t *testing.T) {
	tor, content := named(1, "d/a", "d/b", "d/c")
	dir := t.TempDir()
	open := func() storage.Store {
		disk, err := storage.OpenRoot(dir)
		require.NoError(t, err)
		s, err := storage.OpenDisk(tor, strangeDisk{disk, new(atomic.Uint64)}, dir, nil)
		require.NoError(t, err)
		require.NoError(t, s.SetWanted(all(tor)))
		return s
	}
	s := open()
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
		storage.DropHandle(s, i/2)
		require.NoError(t, s.Changed(i))
	}
	require.NoError(t, s.SaveResume(set(6, 0, 1, 2, 3), nil))
	require.NoError(t, s.Close())
	s = open()
	have, _ := s.LoadResume()
	require.Equal(t, []int{0, 1, 2, 3}, pieces(have))
	for i := range tor.NumPieces() {
		require.NoError(t, s.Changed(i))
	}
	require.NoError(t, s.Close())
}

// The files of a torrent that have the names of another torrent's sidecars get other names. Otherwise the other torrent would
// write to them.
func TestNamesOfSidecarsAreNotTaken(t *testing.T) {
	theirs, content := named(2, "d/a", "d/b")
	for _, suffix := range []string{".resume", ".resume.tmp", ".resume.bad", ".edges.resume", ".lock", ".copy", ".move"} {
		for _, path := range []string{sidecar(theirs, suffix), strings.ToUpper(sidecar(theirs, suffix)), sidecar(theirs, suffix) + "/x", "x/" + sidecar(theirs, suffix)} {
			t.Run(path, func(t *testing.T) {
				mine, wicked := named(1, path)
				dir := t.TempDir()
				s := openDirectory(t, mine, dir)
				require.NoError(t, s.SetWanted(all(mine)))
				download(t, mine, s, wicked)
				require.NoError(t, s.Finish())
				b, release, err := s.Bytes(0)
				require.NoError(t, err)
				defer release()
				defer s.Close()

				other := openDirectory(t, theirs, dir)
				have, partial := other.LoadResume()
				require.Zero(t, have.Count()+len(partial))
				require.NoError(t, other.SetWanted([]bool{true, false}))
				writePiece(t, theirs, other, content, 0)
				require.NoError(t, other.SaveResume(set(4, 0), nil))
				require.NoError(t, other.Close())
				require.NoError(t, s.ChangedFile(0))
				require.Equal(t, wicked, b)

				s = openDirectory(t, mine, dir)
				require.Equal(t, 2, verified(t, mine, s).Count(), "the next run finds it")
				require.NoError(t, s.Close())
			})
		}
	}
}

// The same holds for names with invisible characters, which some file systems that ignore case also ignore.
func TestNamesOfSidecarsWithInvisibleCharacters(t *testing.T) {
	theirs, _ := named(2, "d/a")
	for _, suffix := range []string{".resume", ".edges.resume", ".lock", ".copy"} {
		name := sidecar(theirs, suffix)
		for _, path := range []string{"\u200d" + name, name[:20] + "\u200d" + name[20:], "d/." + "\u200d" + name[1:], name + "\u200d"} {
			mine, content := named(1, path)
			dir := t.TempDir()
			disk, err := storage.OpenRoot(dir)
			require.NoError(t, err)
			s, err := storage.OpenDisk(mine, foldingDisk{disk, func(s string) string { return strings.ReplaceAll(s, "\u200d", "") }}, dir, nil)
			require.NoError(t, err)
			require.NoError(t, s.SetWanted(all(mine)))
			download(t, mine, s, content)
			require.NoError(t, s.Finish())
			require.NoError(t, s.Close())
			for _, p := range listing(t, dir) {
				require.NotEqual(t, name, filepath.Base(p), "%q", path)
			}
		}
	}
}

// A sidecar is not found as a file of a torrent under another name that other clients or file systems could give that file. An
// author can guess how a sidecar begins, so that it would match a piece of the file.
func TestSidecarsAreNotFoundUnderOtherNames(t *testing.T) {
	theirs, content := named(2, "d/a", "d/b")
	for _, suffix := range []string{".resume", ".edges.resume"} {
		name := sidecar(theirs, suffix)
		for kind, path := range map[string]string{
			"a mark without width": strings.TrimSuffix(name, suffix) + "\u200b" + suffix,
			"a space at the end":   name + " ",
			"a dot at the end":     name + ".",
		} {
			t.Run(suffix+", "+kind, func(t *testing.T) {
				dir := t.TempDir()
				other := openDirectory(t, theirs, dir)
				require.NoError(t, other.SetWanted([]bool{true, false}))
				writePiece(t, theirs, other, content, 0)
				writePiece(t, theirs, other, content, 2)
				require.NoError(t, other.SaveResume(set(4, 0), nil))
				before, err := os.ReadFile(filepath.Join(dir, name))
				require.NoError(t, err)

				mine, wicked := named(1, path)
				copy(wicked, before[:50])
				hash := mine.InfoHash
				mine = contentOf(mine.Layout, wicked)
				mine.InfoHash = hash
				s := openDirectory(t, mine, dir)
				require.NoError(t, s.SetWanted(all(mine)))
				require.NoError(t, s.Settle(t.Context(), verified(t, mine, s)))
				download(t, mine, s, wicked)
				require.NoError(t, s.Finish())
				after, err := os.ReadFile(filepath.Join(dir, name))
				require.NoError(t, err)
				require.Equal(t, before, after)
				require.NoError(t, s.Close())

				s = openDirectory(t, mine, dir)
				require.Equal(t, 2, verified(t, mine, s).Count(), "the next run finds it")
				require.NoError(t, s.Close())
				require.NoError(t, other.Close())
			})
		}
	}
}

// emptiedDisk removes the directories of a file, which are empty, before it makes the file.
type emptiedDisk struct {
	storage.Disk
	times int
}

func (d *emptiedDisk) Open(name string, flag int) (storage.DiskFile, error) {
	if dir := filepath.Dir(name); flag&os.O_CREATE != 0 && dir != "." && d.times > 0 {
		if d.RemoveDir(dir) == nil {
			d.times--
			d.RemoveDir(filepath.Dir(dir))
		}
	}
	return d.Disk.Open(name, flag)
}

// A directory that was made for a file may be removed again before the file is made: a Move and other programs remove empty ones.
func TestADirectoryIsRemovedBeforeItsFileIsMade(t *testing.T) {
	tor, content := named(1, "d/e/a")
	dir := t.TempDir()
	disk, err := storage.OpenRoot(dir)
	require.NoError(t, err)
	s, err := storage.OpenDisk(tor, &emptiedDisk{disk, 2}, dir, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	require.NoError(t, s.Close())
	require.Equal(t, []string{"d/e/a"}, listing(t, dir))
}
