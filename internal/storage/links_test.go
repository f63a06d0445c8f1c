package storage_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
)

// linkedContent makes a torrent of files of ten bytes each and of links. A link is written "path > target".
func linkedContent(entries ...string) (storage.Content, []byte) {
	var files []layout.File
	for _, e := range entries {
		if path, target, is := strings.Cut(e, " > "); is {
			files = append(files, layout.File{Path: path, Pad: true, Link: target})
		} else {
			files = append(files, layout.File{Path: e, Length: 10})
		}
	}
	l := layout.New(16, files...)
	content := make([]byte, l.Size())
	for i := range content {
		content[i] = byte('a' + i%26)
	}
	return contentOf(l, content), content
}

// fetch writes all of the wanted content.
func fetch(t *testing.T, tor storage.Content, s storage.Store, content []byte, wanted func(int) bool) bits.Set {
	t.Helper()
	require.NoError(t, s.SetWanted(only(tor, wanted)))
	require.NoError(t, s.Settle(t.Context(), bits.New(tor.NumPieces())))
	have := bits.New(tor.NumPieces())
	for piece := range tor.NumPieces() {
		for i := range tor.FilesOf(piece) {
			if wanted(i) && !have.Has(piece) {
				writePiece(t, tor, s, content, piece)
				have.Add(piece)
			}
		}
	}
	return have
}

// linksIn returns the symbolic links below dir, as "path > target".
func linksIn(t *testing.T, dir string) (links []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type() == fs.ModeSymlink {
			target, err := os.Readlink(path)
			require.NoError(t, err)
			rel, err := filepath.Rel(dir, path)
			require.NoError(t, err)
			links = append(links, filepath.ToSlash(rel)+" > "+filepath.ToSlash(target))
		}
		return err
	}))
	return links
}

func needSymlinks(t testing.TB) {
	if err := os.Symlink("x", filepath.Join(t.TempDir(), "y")); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
}

// Symbolic links that lead to a file or directory of the torrent are made once everything wanted is complete.
func TestLinksAreMade(t *testing.T) {
	needSymlinks(t)
	everything := func(int) bool { return true }
	for _, c := range []struct {
		name    string
		entries []string
		wanted  func(int) bool
		want    []string
	}{
		{"to a file", []string{"d/a", "d/l > d/a"}, everything, []string{"d/l > a"}},
		{"to a file in another directory", []string{"d/a/f", "d/b/c/l > d/a/f"}, everything, []string{"d/b/c/l > ../../a/f"}},
		{"to a directory", []string{"d/a/f", "d/l > d/a"}, everything, []string{"d/l > a"}},
		{"through a link to a directory", []string{"d/F/F > d/F/Versions/Current/F", "d/F/Versions/A/F", "d/F/Versions/Current > d/F/Versions/A"}, everything,
			[]string{"d/F/F > Versions/Current/F", "d/F/Versions/Current > A"}},
		{"through others to a file", []string{"d/a", "d/l > d/m", "d/m > d/n", "d/n > d/a"}, everything, []string{"d/l > m", "d/m > n", "d/n > a"}},
		{"to nothing of the torrent", []string{"d/a", "d/l > d/b", "d/m > elsewhere/a", "d/n > d/a/b", "d/o > .."}, everything, nil},
		{"that say nothing", []string{"d/a", "d/l > "}, everything, nil},
		{"in a circle", []string{"d/a", "d/l > d/m", "d/m > d/l", "d/n > d/n"}, everything, nil},
		{"to where they lie", []string{"d/a/f", "d/a/l > d/a", "d/a/b/m > d"}, everything, nil},
		{"through too many others", []string{"d/a", "d/9 > d/8", "d/8 > d/7", "d/7 > d/6", "d/6 > d/5", "d/5 > d/4", "d/4 > d/3", "d/3 > d/2", "d/2 > d/1", "d/1 > d/0", "d/0 > d/a"}, everything,
			[]string{"d/0 > a", "d/1 > 0", "d/2 > 1", "d/3 > 2", "d/4 > 3", "d/5 > 4", "d/6 > 5", "d/7 > 6", "d/8 > 7"}},
		{"with a file below", []string{"d/a/f", "d/l > d/a", "d/l/g"}, everything, nil},
		{"in the place of a file", []string{"d/a", "d/l > d/a", "d/l"}, everything, nil},
		{"through one that is not made", []string{"d/a", "e > d/m", "d/m > d"}, everything, nil},
		{"below a file or a link", []string{"d/a/f", "d/b", "d/b/l > d/a", "d/m > d/a", "d/m/n > d/a/f"}, everything, []string{"d/m > a"}},
		{"in the place of a sidecar", []string{"d/a", "e/m > d/a", ".0202030405060708090a0b0c0d0e0f1011121314.resume.tmp > d/a", "d/.0202030405060708090a0b0c0d0e0f1011121314.copy > d/a"}, everything, []string{"e/m > ../d/a"}},
		{"twice", []string{"d/a", "d/b", "d/l > d/a", "d/l > d/b"}, everything, []string{"d/l > a"}},
		{"to what is not wanted", []string{"d/a/f", "d/b/g", "d/l > d/a/f", "d/m > d/a", "d/n > d/b/g", "d/o > d/b"}, func(i int) bool { return i == 1 }, []string{"d/n > b/g", "d/o > b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tor, content := linkedContent(c.entries...)
			for name, finish := range map[string]func(storage.Store, bits.Set) error{
				"finish": func(s storage.Store, _ bits.Set) error { return s.Finish() },
				"keep":   func(s storage.Store, have bits.Set) error { return s.Keep(have, nil) },
			} {
				t.Run(name, func(t *testing.T) {
					dir := t.TempDir()
					s := openDirectory(t, tor, dir)
					have := fetch(t, tor, s, content, c.wanted)
					require.Empty(t, linksIn(t, dir), "not yet")
					require.NoError(t, finish(s, have))
					require.Equal(t, c.want, linksIn(t, dir))
					require.NoError(t, finish(s, have), "again")
					require.NoError(t, s.Close())
					require.Equal(t, c.want, linksIn(t, dir))

					s = openDirectory(t, tor, dir)
					require.NoError(t, s.SetWanted(only(tor, c.wanted)))
					require.Equal(t, pieces(have), pieces(verified(t, tor, s)))
					require.NoError(t, s.Settle(t.Context(), have))
					require.NoError(t, finish(s, have), "by the next run")
					require.Equal(t, c.want, linksIn(t, dir))
				})
			}
		})
	}
}

// The targets of links are resolved without a copy of each leading part of each path.
func TestLinksThroughDeepPaths(t *testing.T) {
	dir := "d" + strings.Repeat("/e", 120)
	entries := []string{dir + "/f"}
	for i := range 1000 {
		target := dir + "/f"
		if i%8 > 0 {
			target = fmt.Sprintf("%s/%d", dir, i-1)
		}
		entries = append(entries, fmt.Sprintf("%s/%d > %s", dir, i, target))
	}
	tor, _ := linkedContent(entries...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	links := storage.LinksOf(tor)
	runtime.ReadMemStats(&after)
	require.Len(t, links, 1000)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20), "bytes allocated, which were 136 MiB")
}

// Links are made only when everything wanted is complete: Keep at the end of an incomplete run makes none.
func TestLinksWaitForTheContent(t *testing.T) {
	needSymlinks(t)
	tor, content := linkedContent("d/a", "d/b", "d/c", "d/l > d/a")
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.Settle(t.Context(), bits.New(tor.NumPieces())))
	writePiece(t, tor, s, content, 0)
	have := bits.New(tor.NumPieces())
	have.Add(0)
	require.NoError(t, s.Keep(have, nil))
	require.Empty(t, linksIn(t, dir))
}

// A file of any kind that exists at the path of a link stays.
func TestLinksReplaceNothing(t *testing.T) {
	needSymlinks(t)
	tor, content := linkedContent("d/a", "d/l > d/a")
	outside := t.TempDir()
	for name, put := range map[string]func(path string) error{
		"file":         func(path string) error { return os.WriteFile(path, []byte("another's"), 0o666) },
		"directory":    func(path string) error { return os.Mkdir(path, 0o777) },
		"link":         func(path string) error { return os.Symlink(outside, path) },
		"broken link":  func(path string) error { return os.Symlink("nowhere", path) },
		"longer route": func(path string) error { return os.Symlink("../d/a", path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o777))
			require.NoError(t, put(filepath.Join(dir, "d", "l")))
			before := linksIn(t, dir)
			s := openDirectory(t, tor, dir)
			fetch(t, tor, s, content, func(int) bool { return true })
			require.NoError(t, s.Finish())
			require.Equal(t, before, linksIn(t, dir))
			require.Empty(t, listing(t, outside))
		})
	}
}

// No link is made at a path that another torrent has claimed, even if nothing exists there yet: the files of that torrent would
// be written to the target of the link.
func TestLinksTakeNoClaimedPath(t *testing.T) { forClients(t, testLinksTakeNoClaimedPath) }

func testLinksTakeNoClaimedPath(t *testing.T, openDirectory opener) {
	needSymlinks(t)
	mine, content := named(3, "d/sub/f")
	for _, c := range []struct {
		name  string
		link  string
		wants []string
	}{
		{"to a file", "d/sub/f > d/a/f", nil},
		{"to a directory", "d/sub > d/a", nil},
		{"beside", "d/l > d/a", []string{"d/l > a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			first := openDirectory(t, mine, dir)
			require.NoError(t, first.SetWanted(all(mine)))
			require.NoError(t, first.Settle(t.Context(), bits.New(mine.NumPieces())))
			theirs, other := linkedContent("d/a/f", c.link)
			second := openDirectory(t, theirs, dir)
			fetch(t, theirs, second, other, func(int) bool { return true })
			require.NoError(t, second.Finish())
			require.Equal(t, c.wants, linksIn(t, dir))
			download(t, mine, first, content)
			require.NoError(t, second.Changed(0))
		})
	}
}

// Content in a read-only directory is served without its links.
func TestLinksInAReadOnlyDirectory(t *testing.T) {
	needSymlinks(t)
	tor, content := linkedContent("d/a", "d/l > d/a")
	dir := t.TempDir()
	fill(t, tor, dir, content)
	for _, path := range []string{dir + "/d", dir} {
		require.NoError(t, os.Chmod(path, 0o555))
		t.Cleanup(func() { os.Chmod(path, 0o777) })
	}
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	have := verified(t, tor, s)
	require.True(t, have.Full())
	require.NoError(t, s.Settle(t.Context(), have))
	require.NoError(t, s.Finish())
}

// Nothing is written through a symbolic link, even if its target is in the directory: the link is replaced with a copy of the
// file.
func TestNothingIsWrittenThroughALink(t *testing.T) {
	needSymlinks(t)
	tor, content := linkedContent("d/a", "d/b")
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o777))
	other := filepath.Join(dir, "other")
	require.NoError(t, os.WriteFile(other, []byte("another's"), 0o666))
	require.NoError(t, os.Symlink("../other", filepath.Join(dir, "d", "a")))
	s := openDirectory(t, tor, dir)
	fetch(t, tor, s, content, func(int) bool { return true })
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
	b, err := os.ReadFile(other)
	require.NoError(t, err)
	require.Equal(t, "another's", string(b))
	require.Empty(t, linksIn(t, dir))
	b, err = os.ReadFile(filepath.Join(dir, "d", "a"))
	require.NoError(t, err)
	require.Equal(t, content[:10], b)
}

// blindDisk fails the next *fails calls of Readlink as if the system were out of handles.
type blindDisk struct {
	storage.Disk
	fails *int
}

func (d blindDisk) Readlink(name string) (string, error) {
	if *d.fails > 0 {
		*d.fails--
		return "", syscall.EMFILE
	}
	return d.Disk.Readlink(name)
}

// Nothing is written through a symbolic link even if the system is out of handles to recognize it.
func TestNothingIsWrittenThroughALinkWithoutHandles(t *testing.T) {
	needSymlinks(t)
	if !storage.Exhausted(syscall.EMFILE) {
		t.Skip("no such error here")
	}
	for fails := 1; fails <= 3; fails++ {
		tor, content := linkedContent("d/a")
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o777))
		other := filepath.Join(dir, "other")
		require.NoError(t, os.WriteFile(other, []byte("another's"), 0o666))
		require.NoError(t, os.Symlink("../other", filepath.Join(dir, "d", "a")))
		disk, err := storage.OpenRoot(dir)
		require.NoError(t, err)
		left := 0
		s, err := storage.OpenDisk(tor, blindDisk{disk, &left}, dir, nil)
		require.NoError(t, err)
		require.NoError(t, s.SetWanted(all(tor)))
		left = fails
		for {
			_, err := s.WriteAt(content, 0)
			if err == nil {
				break
			}
			require.ErrorIs(t, err, syscall.EMFILE)
		}
		require.NoError(t, s.Close())
		b, err := os.ReadFile(other)
		require.NoError(t, err)
		require.Equal(t, "another's", string(b))
	}
}

// A Move moves the links with the files. It fails if something exists at the path of a link in the new directory.
func TestMoveWithLinks(t *testing.T) {
	needSymlinks(t)
	tor, content := linkedContent("d/a/f", "d/b/l > d/a/f", "d/m > d/a")
	for name, apart := range map[string]bool{"by name": false, "by copy": true} {
		t.Run(name, func(t *testing.T) {
			old, dir := t.TempDir(), t.TempDir()
			disks := onDisks(t, apart, func() {}, old, dir)
			s, err := storage.OpenDisk(tor, disks[0], old, nil)
			require.NoError(t, err)
			defer s.Close()
			have := fetch(t, tor, s, content, func(int) bool { return true })
			require.NoError(t, s.Finish())
			want := []string{"d/b/l > ../a/f", "d/m > a"}
			require.Equal(t, want, linksIn(t, old))

			taken := filepath.Join(dir, "d", "m")
			require.NoError(t, os.MkdirAll(taken, 0o777))
			require.ErrorIs(t, storage.MoveTo(t.Context(), s, disks[1], dir, claim(have)), fs.ErrExist)
			require.Equal(t, want, linksIn(t, old))
			require.Empty(t, listing(t, dir))

			require.NoError(t, os.RemoveAll(filepath.Join(dir, "d")))
			disks = append(disks, onDisks(t, apart, func() {}, dir)...)
			require.NoError(t, storage.MoveTo(t.Context(), s, disks[2], dir, claim(have)))
			require.Empty(t, linksIn(t, old))
			require.Equal(t, want, linksIn(t, dir))
			entries, err := os.ReadDir(old)
			require.NoError(t, err)
			require.Empty(t, entries)
			b, err := os.ReadFile(filepath.Join(dir, "d", "m", "f"))
			require.NoError(t, err)
			require.Equal(t, content, b)
		})
	}
}

// Whatever the paths and targets are, every link leads to a file or directory of the torrent.
func FuzzLinks(f *testing.F) {
	f.Add("d/a/f\nd/l > d/a\nd/m > d/l/f")
	f.Add("d/F/V/A/F\nd/F/V/C > d/F/V/A\nd/F/F > d/F/V/C/F")
	f.Add("d/a\nd/l > d/m\nd/m > d/l")
	f.Add("d/0\n0 > d/m\nd/m > d")
	f.Add("d/a\nd/l > ../../etc\nd/m > /etc/passwd\nd/n > d/../..")
	f.Fuzz(func(t *testing.T, list string) {
		entries := strings.Split(list, "\n")
		for _, e := range entries {
			if path, _, _ := strings.Cut(e, " > "); !fs.ValidPath(path) || path == "." {
				t.Skip() // metainfo has no such paths
			}
		}
		tor, _ := linkedContent(entries...)
		there := make(map[string]bool) // files and directories
		for _, f := range tor.Files() {
			for p := f.Path; !f.Pad && p != "."; p = path.Dir(p) {
				there[p] = true
			}
		}
		links := storage.LinksOf(tor)
		around := make(map[string]bool) // directories that are made for links
		for name := range links {
			for p := path.Dir(name); p != "."; p = path.Dir(p) {
				around[p] = true
			}
		}
		for name := range links {
			require.False(t, there[name], "a file or directory is there")
			at, rest := path.Dir(name), links[name] // resolved as a system does
			for steps := 0; rest != ""; steps++ {
				require.Less(t, steps, 10_000, "a circle")
				var element string
				element, rest, _ = strings.Cut(rest, "/")
				next := path.Join(at, element)
				require.True(t, fs.ValidPath(next), "it leads out")
				if target, is := links[next]; is {
					rest = path.Join(target, rest)
				} else {
					require.True(t, next == "." || there[next] || around[next], "%q leads to %q, which is not there", name, next)
					at = next
				}
			}
			require.True(t, there[at], "%q leads to %q", name, at)
			require.False(t, strings.HasPrefix(name, at+"/"), "to where it lies")
		}
	})
}

// A link below a symbolic link that leads to a directory less deep would lead out of the torrent, and perhaps out of the directory.
func TestLinksBelowALinkAreNotMade(t *testing.T) {
	needSymlinks(t)
	everything := func(int) bool { return true }
	dir := t.TempDir()
	deep := "d/1/2/3/4/5/6/7/8/9"
	first, content := linkedContent("d/t/f", deep+"/s > d/t")
	s := openDirectory(t, first, dir)
	fetch(t, first, s, content, everything)
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
	made := []string{deep + "/s > ../../../../../../../../../t"}
	require.Equal(t, made, linksIn(t, dir))

	second, content := linkedContent("d/etc/passwd", deep+"/s/l > d/etc/passwd", deep+"/s/below/m > d/etc/passwd", deep+"/n > d/etc/passwd")
	second.InfoHash[0]++
	want := append([]string{deep + "/n > ../../../../../../../../../etc/passwd"}, made...)
	s = openDirectory(t, second, dir)
	fetch(t, second, s, content, everything)
	require.NoError(t, s.Finish())
	require.Equal(t, want, linksIn(t, dir))
	require.NoError(t, s.Close())

	s = openDirectory(t, second, t.TempDir())
	have := fetch(t, second, s, content, everything)
	require.NoError(t, s.Finish())
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "d", "etc")))
	require.NoError(t, os.Remove(filepath.Join(dir, deep, "n")))
	require.NoError(t, s.Move(t.Context(), dir, claim(have), func(int64, int64) {}))
	require.Equal(t, want, linksIn(t, dir), "moved")
}
