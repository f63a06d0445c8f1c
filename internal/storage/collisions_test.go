package storage_test

import (
	"io/fs"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/safename"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// decompose returns a name in Unicode normalization form D, in which some file systems store names.
var decompose = strings.NewReplacer("é", "e\u0301", "É", "E\u0301", "ä", "a\u0308", "ß", "ss", "ﬁ", "fi", "Å", "A\u030A", "\u212B", "A\u030A")

// foldAll folds a name as a file system does that ignores case and Unicode normalization.
func foldAll(name string) string { return safename.FoldCase(decompose.Replace(name)) }

// Whatever the paths of a torrent are, each file gets a place of its own within the directory, and the same one each time, even
// if the file system treats some of the paths as one.
func FuzzNameCollisions(f *testing.F) {
	for _, paths := range []string{
		"a\nA\na/b", "é\ne\u0301\nE\u0301", "ß\nss\nSS", "x.txt\nX.TXT\nx.1.txt\nX.1.txt", "ﬁ/a\nfi/A\nFI", "..\n.\n_\n\n/", "a/b/c\na/B\nA",
		"con\nCON.txt\naux", "a:b\na?b\na_b", "é/x\ne\u0301", "a.part\na", "d\nd/d\nd/d/d", strings.Repeat("a", 250) + ".txt\n" + strings.Repeat("A", 250) + ".TXT",
	} {
		f.Add(paths)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		paths := place(lines[:min(len(lines), 10)])
		require.Equal(t, paths, place(lines[:len(paths)]), "the same each time")
		dirs, decomposed := map[string]bool{}, map[string]bool{}
		for _, p := range paths {
			require.True(t, fs.ValidPath(p) && filepath.IsLocal(filepath.FromSlash(p)), "%q", p)
			for name := range strings.SplitSeq(p, "/") {
				require.LessOrEqual(t, len(name), 255)
			}
			for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
				dirs[safename.FoldCase(dir)], decomposed[foldAll(dir)] = true, true
			}
		}
		for _, p := range paths {
			require.False(t, dirs[safename.FoldCase(p)], "%q is a directory of another", p)
		}
		sorted := slices.Sorted(slices.Values(paths))
		require.Len(t, slices.Compact(sorted), len(paths), "%q", paths)

		tor, content := named(1, paths...)
		folds := []func(string) string{func(s string) string { return s }, safename.FoldCase}
		if !slices.ContainsFunc(paths, func(p string) bool { return decomposed[foldAll(p)] }) {
			folds = append(folds, foldAll) // or a directory is in the way of a file, which is an error
		}
		for _, fold := range folds {
			d := disktest.New()
			open := func() storage.Store {
				s, err := storage.OpenDisk(tor, foldingDisk{d, fold}, "disk", nil)
				require.NoError(t, err)
				require.NoError(t, s.SetWanted(all(tor)))
				return s
			}
			s := open()
			download(t, tor, s, content)
			require.NoError(t, s.Finish())
			require.NoError(t, s.Close())
			before := d.Names()
			s = open()
			require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s), "the next run finds all of them")
			for i := range paths {
				b, release, err := s.Bytes(i)
				require.NoError(t, err)
				require.Equal(t, content[tor.File(i).Offset:tor.File(i).End()], b)
				require.NoError(t, release())
			}
			require.NoError(t, s.Finish())
			require.NoError(t, s.Close())
			require.Equal(t, before, d.Names())
			for _, name := range before {
				require.True(t, filepath.IsLocal(name), "%q", name)
			}
		}
	})
}

// place returns the paths in lines, made safe as the paths of a torrent are.
func place(lines []string) []string {
	paths := make([]string, len(lines))
	for i, line := range lines {
		var safe []string
		for name := range strings.SplitSeq(line, "/") {
			safe = append(safe, string(safename.Append(nil, []byte(name), "linux")))
		}
		paths[i] = strings.Join(safe[:min(len(safe), 6)], "/")
	}
	safename.TellApart(paths)
	return paths
}

// openStrange opens a store on a file system that invents inodes, and may ignore case in names.
func openStrange(t *testing.T, tor storage.Content, disk storage.Disk, dir string, folds bool) storage.Store {
	if folds {
		disk = foldingDisk{disk, strings.ToLower}
	}
	s, err := storage.OpenDisk(tor, strangeDisk{disk, new(atomic.Uint64)}, dir, nil)
	require.NoError(t, err)
	return s
}

// A file system that invents inodes may also ignore case in names, as exFAT over FUSE does.
func TestNamesThatDifferInCaseWhereInodesAreInvented(t *testing.T) {
	for _, folds := range []bool{true, false} {
		if !folds && runtime.GOOS != "linux" {
			continue
		}
		tor, content := named(1, "d/ReadMe.txt", "d/readme.txt", "d/a", "d/A", "D/b", "d/b", "d/README.TXT", "d/other")
		dir := t.TempDir()
		open := func() storage.Store {
			disk, err := storage.OpenRoot(dir)
			require.NoError(t, err)
			s := openStrange(t, tor, disk, dir, folds)
			require.NoError(t, s.SetWanted(all(tor)))
			return s
		}
		s := open()
		download(t, tor, s, content)
		require.NoError(t, s.SaveResume(bits.Full(tor.NumPieces()), nil))
		require.NoError(t, s.Finish())
		require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s))
		require.NoError(t, s.Close())
		require.Len(t, listing(t, dir), tor.NumFiles())
		s = open()
		require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s), "the next run finds all of them: %q", listing(t, dir))
		require.NoError(t, s.Close())
	}
}

// Two torrents do not share a file on such a file system.
func TestAPathInAnotherCaseWhereInodesAreInvented(t *testing.T) {
	forDisks(t, testAPathInAnotherCaseWhereInodesAreInvented)
}

func testAPathInAnotherCaseWhereInodesAreInvented(t *testing.T, openRoot func(string) storage.Disk) {
	for _, folds := range []bool{true, false} {
		if !folds && runtime.GOOS != "linux" {
			continue
		}
		mine, content := named(1, "d/ReadMe.txt", "d/a")
		theirs, _ := named(2, "d/readme.TXT", "d/b")
		dir := t.TempDir()
		open := func(tor storage.Content) storage.Store {
			s := openStrange(t, tor, openRoot(dir), dir, folds)
			t.Cleanup(func() { s.Close() })
			return s
		}
		s := open(mine)
		require.NoError(t, s.SetWanted(all(mine)))
		download(t, mine, s, content)
		require.NoError(t, s.Finish())
		if err := open(theirs).SetWanted(all(theirs)); folds {
			require.ErrorIs(t, err, storage.ErrInUse)
			require.ErrorContains(t, err, filepath.Join(dir, "d/readme.TXT"))
			require.NoError(t, open(mine).SetWanted(all(mine)))
		} else {
			require.NoError(t, err)
		}
	}
}
