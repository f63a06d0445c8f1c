package torrent

import (
	"crypto/sha1"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/fstest"
	"text/template"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/stretchr/testify/require"
)

// downloaded returns the content of tor in s, as if it had been downloaded.
func downloaded(t *testing.T, tor *Torrent, s storage.Store, content []byte) *Downloaded {
	t.Helper()
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.WriteBlocks([][]byte{content}, 0))
	d := newDownloaded(t.Context(), tor, s, func() {}, func(int, int, int) (int, bool) { return 0, true })
	var files []int
	for i := range tor.layout.NumFiles() {
		files = append(files, i)
	}
	d.choose(files)
	return d
}

func TestDownloadedIsAFileSystem(t *testing.T) {
	tor, content := testContent(50, 10, 0, 130, -20, 1, 77)
	tor.layout.File(2).Path = "d/sub/a b.txt"
	tor.layout.File(5).Path = "d/sub/deep/er"
	tor.creationDate = time.Unix(1e9, 0)
	for name, open := range builtIn {
		t.Run(name, func(t *testing.T) {
			d := downloaded(t, tor, open(t, tor), content)
			defer d.Close()
			require.NoError(t, fstest.TestFS(d, "d/0", "d/1", "d/sub/a b.txt", "d/4", "d/sub/deep/er"))
			_, err := d.Open("d/3")
			require.ErrorIs(t, err, fs.ErrNotExist, "which is padding")
			var paths []string
			for f := range d.Files() {
				paths = append(paths, f.Path())
				b, err := f.Bytes()
				require.NoError(t, err)
				require.NotNil(t, b)
				require.EqualValues(t, f.Length(), len(b))
				copied, err := d.ReadFile(f.Path())
				require.NoError(t, err)
				require.Equal(t, b, copied)
				again, err := f.Bytes()
				require.NoError(t, err)
				if len(b) > 0 {
					require.Same(t, &b[0], &again[0], "one map is enough")
				}
			}
			require.Equal(t, []string{"d/0", "d/1", "d/sub/a b.txt", "d/4", "d/sub/deep/er"}, paths)
		})
	}
}

// slowStore does something in the middle of each read.
type slowStore struct {
	storage.Store
	meanwhile func(p []byte)
}

func (s slowStore) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Store.ReadAt(p, off)
	s.meanwhile(p)
	return n, err
}

// What a read returns was verified all the time that it took: a long one may have begun before a wrong piece was repaired.
func TestAPieceIsMendedDuringARead(t *testing.T) {
	tor, content := testContent(50, 200)
	changes, verified, reads := 0, false, 0
	s := slowStore{storage.NewMemory(tor.content(), defaultMaxMemory), func(p []byte) {
		if reads++; reads == 1 {
			clear(p)
			changes, verified = changes+1, true
		}
	}}
	d := downloaded(t, tor, s, content)
	defer d.Close()
	d.look = func(int, int, int) (int, bool) { return changes, verified }
	_, err := d.ReadFile("d/0")
	require.ErrorIs(t, err, storage.ErrChanged, "the piece was wrong at first")

	reads = 0
	b, err := d.ReadFile("d/0")
	require.NoError(t, err)
	require.Equal(t, content, b)
	require.Equal(t, 2, reads, "the piece was in doubt meanwhile, and repaired")
}

func TestDownloadedOfOneFile(t *testing.T) {
	tor, content := testContent(50, 100)
	tor.layout.File(0).Path = "alone"
	d := downloaded(t, tor, storage.NewMemory(tor.content(), defaultMaxMemory), content)
	defer d.Close()
	require.NoError(t, fstest.TestFS(d, "alone"))
}

func TestDownloadedServesRanges(t *testing.T) {
	tor, content := testContent(50, 10, 500)
	tor.layout.File(1).Path = "d/film.bin"
	d := downloaded(t, tor, openDirectory(t, tor, t.TempDir()), content)
	defer d.Close()
	server := httptest.NewServer(http.FileServerFS(d))
	defer server.Close()
	for _, c := range []struct {
		rng    string
		status int
		want   []byte
	}{
		{"", http.StatusOK, content[10:]},
		{"bytes=100-199", http.StatusPartialContent, content[110:210]},
		{"bytes=-1", http.StatusPartialContent, content[509:]},
		{"bytes=500-", http.StatusRequestedRangeNotSatisfiable, nil},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/d/film.bin", nil)
		require.NoError(t, err)
		if c.rng != "" {
			req.Header.Set("Range", c.rng)
		}
		res, err := server.Client().Do(req)
		require.NoError(t, err)
		got, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, c.status, res.StatusCode)
		if c.want != nil {
			require.Equal(t, c.want, got)
		}
	}
}

func TestDownloadedHoldsTemplates(t *testing.T) {
	tor, _ := testContent(50, 16, 17)
	tor.layout.File(0).Path, tor.layout.File(1).Path = "t/a.tmpl", "t/b.tmpl"
	d := downloaded(t, tor, openDirectory(t, tor, t.TempDir()), []byte("hello, {{.Name}}bye, {{.Name}}..."))
	defer d.Close()
	set, err := template.ParseFS(d, "t/*.tmpl")
	require.NoError(t, err)
	require.NotNil(t, set.Lookup("b.tmpl"))
}

func TestDownloadedHoldsTheChosen(t *testing.T) {
	tor, content := testContent(50, 60, 60, 60)
	d := downloaded(t, tor, storage.NewMemory(tor.content(), defaultMaxMemory), content)
	defer d.Close()
	d.choose([]int{2, 0})
	paths := func() (p []string) {
		for f := range d.Files() {
			p = append(p, f.Path())
		}
		return p
	}
	require.Equal(t, []string{"d/0", "d/2"}, paths())
	require.NoError(t, fstest.TestFS(d, "d/0", "d/2"))
	_, err := d.Stat("d/1")
	require.ErrorIs(t, err, fs.ErrNotExist)
	d.choose([]int{1})
	require.Equal(t, []string{"d/1"}, paths())
	require.NoError(t, fstest.TestFS(d, "d/1"))
	d.choose(nil)
	require.Empty(t, paths())
	entries, err := d.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, entries)
	b, err := d.file(2).Bytes()
	require.NoError(t, err, "a file is whole before all is chosen and done")
	require.Equal(t, content[120:], b)
}

func TestDownloadedAfterClose(t *testing.T) {
	for name, open := range builtIn {
		t.Run(name, func(t *testing.T) {
			tor, content := testContent(50, 100, 0)
			c := open(t, tor)
			d := downloaded(t, tor, c, content)
			stopped := 0
			d.stop = func() {
				stopped++
				_, err := c.ReadAt(make([]byte, 1), 0)
				require.NoError(t, err, "sharing ends before its storage does")
			}
			files := slices.Collect(d.Files())
			opened, err := d.Open("d/0")
			require.NoError(t, err)
			_, err = files[0].Bytes()
			require.NoError(t, err)
			require.NoError(t, d.Close())
			require.NoError(t, d.Close())
			require.Equal(t, 1, stopped)

			for _, f := range files {
				_, err = f.Bytes()
				require.ErrorIs(t, err, ErrClosed)
			}
			_, err = opened.Read(make([]byte, 10))
			require.ErrorIs(t, err, ErrClosed)
			require.NoError(t, opened.Close())
			_, err = d.Open("d/0")
			require.ErrorIs(t, err, ErrClosed)
			_, err = d.ReadFile("d/0")
			require.ErrorIs(t, err, ErrClosed)
			_, err = d.ReadDir(".")
			require.ErrorIs(t, err, ErrClosed)
			_, err = d.Stat("d/0")
			require.ErrorIs(t, err, ErrClosed)
		})
	}
}

func TestDownloadedNoticesChangesByOtherPrograms(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a mapped file cannot be cut here")
	}
	tor, content := testContent(50, 100, 5000)
	dir := t.TempDir()
	d := downloaded(t, tor, openDirectory(t, tor, dir), content)
	defer d.Close()
	opened, err := d.Open("d/1")
	require.NoError(t, err)
	buf := make([]byte, 10)
	_, err = opened.Read(buf)
	require.NoError(t, err)
	files := slices.Collect(d.Files())
	_, err = files[1].Bytes()
	require.NoError(t, err)

	require.NoError(t, os.Truncate(dir+"/d/1", 100))
	_, err = opened.(io.ReaderAt).ReadAt(buf, 4000)
	require.ErrorIs(t, err, storage.ErrChanged)
	_, err = opened.Read(buf)
	require.ErrorContains(t, err, dir+"/d/1")
	_, err = d.ReadFile("d/1")
	require.ErrorIs(t, err, storage.ErrChanged)
	_, err = files[1].Bytes()
	require.ErrorIs(t, err, storage.ErrChanged)
	_, err = d.ReadFile("d/0")
	require.NoError(t, err)
}

// If a storage loses bytes and cannot report it, a file must not end early without an error.
func TestDownloadedIsNotCutShort(t *testing.T) {
	tor, content := testContent(50, 100)
	f, err := os.Create(t.TempDir() + "/flat")
	require.NoError(t, err)
	d := downloaded(t, tor, storage.Wrap(tor.content(), f, bits.New(0), nil), content)
	defer d.Close()
	require.NoError(t, f.Truncate(60))
	_, err = d.ReadFile("d/0")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	opened, err := d.Open("d/0")
	require.NoError(t, err)
	_, err = io.ReadAll(opened)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, err = slices.Collect(d.Files())[0].Bytes()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

// A symbolic link is listed and made on disk, unless it leads to a directory that contains it. It is not downloaded, chosen or
// counted.
func TestLinksAreListedAndMade(t *testing.T) {
	const content = "content"
	sum := sha1.Sum([]byte(content))
	tor, err := parseDict(t, dict{"info": dict{"name": "dir", "piece length": 1 << 14, "pieces": string(sum[:]), "files": []any{
		dict{"attr": "l", "path": []string{"first"}, "symlink path": []string{"sub", "file"}},
		dict{"length": len(content), "path": []string{"sub", "file"}},
		dict{"attr": "l", "path": []string{"sub", "last"}, "symlink path": []string{"sub"}},
	}}})
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "dir", "sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "dir", "sub", "file"), []byte(content), 0o644))

	client := &Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0"}
	t.Cleanup(func() { client.Close() })
	var asked []string
	d, err := tor.Start(t.Context(), &Options{Client: client, Dir: dir, Select: func(f File) Priority {
		asked = append(asked, f.Path)
		return Normal
	}})
	require.NoError(t, err)
	files, err := d.Wait()
	require.NoError(t, err)
	defer files.Close()
	require.Equal(t, []string{"dir/sub/file"}, asked)

	var listed, verified []string
	for f := range tor.Files() {
		listed = append(listed, f.Path+" "+f.LinkTarget)
	}
	require.Equal(t, []string{"dir/first dir/sub/file", "dir/sub/file ", "dir/sub/last dir/sub"}, listed)
	for f, n := range d.Files() {
		require.Equal(t, f.Length, n)
		verified = append(verified, f.Path)
	}
	require.Len(t, verified, 3)
	var downloaded []string
	for f := range files.Files() {
		downloaded = append(downloaded, f.Path())
	}
	require.Equal(t, []string{"dir/sub/file"}, downloaded)
	_, err = d.Open(t.Context(), "dir/first")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = files.Open("dir/first")
	require.ErrorIs(t, err, fs.ErrNotExist)

	var onDisk []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if !e.IsDir() {
			onDisk = append(onDisk, filepath.ToSlash(path[len(dir)+1:]))
		}
		return err
	}))
	require.Equal(t, []string{"dir/first", "dir/sub/file"}, onDisk)
	b, err := os.ReadFile(filepath.Join(dir, "dir", "first"))
	require.NoError(t, err)
	require.Equal(t, content, string(b))
}
