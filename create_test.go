package torrent

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// writeContent makes the files given by path and length below a new directory called content, with
// random bytes.
func writeContent(t testing.TB, lengths map[string]int) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "content")
	require.NoError(t, os.Mkdir(dir, 0o755))
	for name, length := range lengths {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		b := make([]byte, length)
		rng := rand.NewChaCha8(seedOf(name))
		rng.Read(b)
		require.NoError(t, os.WriteFile(path, b, 0o644))
	}
	return dir
}

func seedOf(s string) (seed [32]byte) {
	copy(seed[:], s)
	return seed
}

// requirePieces hashes the content of t below dir, piece by piece, and compares.
func requirePieces(t *testing.T, tor *Torrent, dir string) {
	t.Helper()
	var content []byte
	for _, f := range tor.layout.Files() {
		require.EqualValues(t, len(content), f.Offset)
		if f.Pad {
			content = append(content, make([]byte, f.Length)...)
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.Path)))
		require.NoError(t, err)
		require.EqualValues(t, len(b), f.Length)
		content = append(content, b...)
	}
	i := 0
	for piece := range slices.Chunk(content, int(tor.PieceLength())) {
		require.Equal(t, Hash(sha1.Sum(piece)), tor.pieceHash(i), "piece %d", i)
		i++
	}
	require.Equal(t, i, tor.NumPieces())
}

func pathsOf(tor *Torrent) (paths []string) {
	for f := range tor.Files() {
		paths = append(paths, f.Path)
	}
	return paths
}

var mixedContent = map[string]int{
	"a/b/c.bin":  100_000,
	"a/b.bin":    16 << 10,
	"a/b-c":      1,
	"a.txt":      50_000,
	"a-b":        3,
	".hidden/.x": 7,
	"empty":      0,
	"z/empty":    0,
	"日本語/é":      2_000_000,
	"zz":         1,
}

func TestCreate(t *testing.T) {
	dir := writeContent(t, mixedContent)
	for _, pieceLength := range []int64{0, 1 << 10, 16 << 10, 100_003, 1 << 20, 512 << 20} {
		t.Run(fmt.Sprint(pieceLength), func(t *testing.T) {
			tor, err := Create(dir, &CreateOptions{PieceLength: pieceLength})
			require.NoError(t, err)
			if pieceLength == 0 {
				pieceLength = 16 << 10
			}
			require.Equal(t, "content", tor.Name())
			require.Equal(t, pieceLength, tor.PieceLength())
			require.EqualValues(t, 2_166_396, tor.Length())
			// A path is compared as a whole: "-" and "." come before the slash.
			require.Equal(t, []string{
				"content/.hidden/.x", "content/a-b", "content/a.txt", "content/a/b-c", "content/a/b.bin", "content/a/b/c.bin",
				"content/empty", "content/z/empty", "content/zz", "content/日本語/é",
			}, pathsOf(tor))
			requirePieces(t, tor, filepath.Dir(dir))

			// The torrent reads back as the same.
			var file bytes.Buffer
			_, err = tor.WriteTo(&file)
			require.NoError(t, err)
			again, err := Parse(&file)
			require.NoError(t, err)
			require.Equal(t, tor, again)
		})
	}
}

func TestCreateOfOneFile(t *testing.T) {
	dir := writeContent(t, map[string]int{"a.bin": 40_000})
	path := filepath.Join(dir, "a.bin")
	tor, err := Create(path, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"a.bin"}, pathsOf(tor))
	require.False(t, tor.multi)
	require.Equal(t, 3, tor.NumPieces())
	require.Empty(t, tor.Trackers())
	require.True(t, tor.CreationDate().IsZero())
	requirePieces(t, tor, dir)

	// The info dictionary has these keys, in this order, and no others.
	require.Equal(t, "d6:lengthi40000e4:name5:a.bin12:piece lengthi16384e6:pieces60:"+string(tor.pieces)+"e", string(tor.info))

	link := filepath.Join(t.TempDir(), "latest")
	if err := os.Symlink(path, link); err == nil {
		linked, err := Create(link, nil)
		require.NoError(t, err)
		require.Equal(t, []string{"latest"}, pathsOf(linked))
		require.Equal(t, tor.pieces, linked.pieces)
	}
}

func TestCreateOptions(t *testing.T) {
	dir := writeContent(t, map[string]int{"a": 10, "b/c": 20, "b/d.tmp": 5, ".git/e": 5})
	date := time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
	tor, err := Create(dir, &CreateOptions{
		Name:         "other",
		Private:      true,
		Trackers:     [][]string{{"http://a/announce", "udp://b:80"}, {}, {"https://c/"}},
		WebSeeds:     []string{"http://w/"},
		Comment:      "for you",
		CreatedBy:    "me",
		CreationDate: date,
		Include: func(path string, entry fs.DirEntry) bool {
			require.Equal(t, filepath.Base(path), entry.Name())
			return path != ".git" && !strings.HasSuffix(path, ".tmp")
		},
	})
	require.NoError(t, err)
	require.Equal(t, []string{"other/a", "other/b/c"}, pathsOf(tor))
	require.True(t, tor.Private())
	require.Equal(t, [][]string{{"http://a/announce", "udp://b:80"}, {"https://c/"}}, tor.Trackers())
	require.Equal(t, []string{"http://w/"}, tor.WebSeeds())
	require.Equal(t, "for you", tor.Comment())
	require.Equal(t, "me", tor.CreatedBy())
	require.Equal(t, date.Truncate(time.Second), tor.CreationDate().UTC())
}

func TestCreatePads(t *testing.T) {
	dir := writeContent(t, map[string]int{"a": 20_000, "b": 40_000, "c": 0, "d": 32 << 10, "e": 100, "f": 0})
	var done int64
	tor, err := Create(dir, &CreateOptions{PieceLength: 16 << 10, Pad: true, Progress: func(n, _ int64) { done = n }})
	require.NoError(t, err)
	var layout []string
	for _, f := range tor.layout.Files() {
		layout = append(layout, fmt.Sprintf("%s %d %d", f.Path, f.Offset, f.Length))
		require.True(t, f.Pad || f.Length == 0 || f.Offset%tor.PieceLength() == 0, "%s at %d", f.Path, f.Offset)
		require.Equal(t, strings.HasPrefix(f.Path, "content/.pad/"), f.Pad)
	}
	require.Len(t, layout, 6+2, "nothing behind d, which ends with a piece, and nothing at the end: %v", layout)
	require.EqualValues(t, 92_868, tor.Length())
	require.Equal(t, tor.Length(), done, "padding is no progress")
	requirePieces(t, tor, filepath.Dir(dir))
}

func TestCreateIsDeterministic(t *testing.T) {
	a, err := Create(writeContent(t, mixedContent), nil)
	require.NoError(t, err)
	b, err := Create(writeContent(t, mixedContent)+"/", nil)
	require.NoError(t, err)
	require.Equal(t, a, b)

	t.Chdir(writeContent(t, mixedContent))
	c, err := Create(".", nil)
	require.NoError(t, err)
	require.Equal(t, a, c)
}

func TestCreateProgress(t *testing.T) {
	dir := writeContent(t, mixedContent)
	var last int64
	calls := 0
	tor, err := Create(dir, &CreateOptions{Progress: func(done, total int64) {
		assert.EqualValues(t, 2_166_396, total)
		assert.Greater(t, done, last)
		last = done
		calls++
	}})
	require.NoError(t, err)
	require.Equal(t, tor.Length(), last)
	require.Greater(t, calls, 10)
}

func TestCreateCancelled(t *testing.T) {
	dir := writeContent(t, mixedContent)
	why := errors.New("changed my mind")
	for _, test := range []struct {
		what string
		when int // after how many steps
	}{{"before", 0}, {"while hashing", 1}} {
		t.Run(test.what, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			if test.when == 0 {
				cancel(why)
			}
			steps := 0
			_, err := CreateContext(ctx, dir, &CreateOptions{Progress: func(done, total int64) {
				if steps++; steps == test.when {
					cancel(why)
				}
			}})
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, why)
			// A core that is in the middle of a buffer finishes it.
			require.LessOrEqual(t, steps, test.when+runtime.GOMAXPROCS(0))
		})
	}
}

func TestCreateNoticesChanges(t *testing.T) {
	for _, test := range []struct {
		what   string
		change func(t *testing.T, dir string)
		want   string
	}{
		{"a file grows", func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "b"), make([]byte, 300_001), 0o644))
		}, "b changed while it was read"},
		{"a file shrinks", func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, "b"), 10))
		}, "b changed while it was read"},
		{"a file that was read already is written to", func(t *testing.T, dir string) {
			require.NoError(t, os.Chtimes(filepath.Join(dir, "a"), time.Time{}, time.Unix(1, 0)))
		}, "a changed while it was read"},
		{"a file is removed", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "b")))
		}, "no such file"},
		{"a directory takes its place", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "b")))
			require.NoError(t, os.Mkdir(filepath.Join(dir, "b"), 0o755))
		}, "b changed while it was read"},
	} {
		t.Run(test.what, func(t *testing.T) {
			if runtime.GOOS == "windows" {
				t.Skip("Windows keeps open files from being changed")
			}
			dir := writeContent(t, map[string]int{"a": 5_000_000, "b": 300_000})
			changed := false
			_, err := Create(dir, &CreateOptions{Progress: func(done, total int64) {
				if !changed {
					changed = true
					test.change(t, dir)
				}
			}})
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestCreateErrors(t *testing.T) {
	ok := map[string]int{"a": 1}
	for _, test := range []struct {
		what    string
		content map[string]int
		options CreateOptions
		want    string
	}{
		{"an empty directory", nil, CreateOptions{}, "no content"},
		{"only empty files", map[string]int{"a": 0, "b": 0}, CreateOptions{}, "no content"},
		{"all left out", ok, CreateOptions{Include: func(string, fs.DirEntry) bool { return false }}, "no content"},
		{"a negative piece length", ok, CreateOptions{PieceLength: -1}, "piece length -1"},
		{"pieces too long", ok, CreateOptions{PieceLength: 1 << 30}, "piece length 1073741824"},
		{"pieces too short", map[string]int{"a": 2 << 20}, CreateOptions{PieceLength: 1}, "too short"},
		{"a tracker with an unknown scheme", ok, CreateOptions{Trackers: [][]string{{"wss://a/"}}}, `tracker "wss://a/"`},
		{"a tracker that is no URL", ok, CreateOptions{Trackers: [][]string{{""}}}, `tracker ""`},
		{"a web seed that is no URL", ok, CreateOptions{WebSeeds: []string{"w"}}, `web seed "w"`},
		{"a name of two elements", ok, CreateOptions{Name: "a/b"}, `"a/b" is not safe`},
		{"a name that leads out", ok, CreateOptions{Name: ".."}, `".." is not safe`},
		{"a name that is no UTF-8", ok, CreateOptions{Name: "a\xff"}, `"a\xff" is not safe`},
	} {
		t.Run(test.what, func(t *testing.T) {
			_, err := Create(writeContent(t, test.content), &test.options)
			require.ErrorContains(t, err, test.want)
		})
	}

	_, err := Create(filepath.Join(t.TempDir(), "missing"), nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestCreateRefusesSpecialFiles(t *testing.T) {
	dir := writeContent(t, map[string]int{"a": 1})
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Skip(err)
	}
	_, err := Create(dir, nil)
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorContains(t, err, "link is a symbolic link")

	tor, err := Create(dir, &CreateOptions{Include: func(path string, entry fs.DirEntry) bool {
		return entry.Type()&fs.ModeSymlink == 0
	}})
	require.NoError(t, err)
	require.Equal(t, []string{"content/a"}, pathsOf(tor))
}

// Names that Read changes are refused before anything is read.
func TestCreateRefusesNamesThatWouldChange(t *testing.T) {
	for _, name := range []string{"a\nb", "a\\b", "a\u202eb", "a\xff"} {
		dir := filepath.Join(t.TempDir(), "content")
		require.NoError(t, os.Mkdir(dir, 0o755))
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			continue // this system has no such files
		}
		_, err := Create(dir, &CreateOptions{Progress: func(done, total int64) { t.Error("read already") }})
		require.ErrorIs(t, err, ErrUnsupported, "%q", name)
	}
}

// A file that has the name of padding would pass for zeros, and the torrent could never be completed.
func TestCreateRefusesNamesOfPadding(t *testing.T) {
	for _, name := range []string{"_____padding_file_0_x", ".pad/1"} {
		dir := filepath.Join(t.TempDir(), "content")
		require.NoError(t, os.MkdirAll(filepath.Join(dir, ".pad"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("x"), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644))
		for _, version := range []Version{V1, Hybrid, V2} {
			tor, err := Create(dir, &CreateOptions{Version: version})
			if version != V2 {
				require.Error(t, err, "%q %v", name, version)
				continue
			}
			require.NoError(t, err)
			have, err := tor.Verify(t.Context(), filepath.Dir(dir))
			require.NoError(t, err)
			require.Equal(t, 2, have.Count(), name)
		}
	}
}

func TestChoosePieceLength(t *testing.T) {
	for length, want := range map[int64]int64{
		1:              16 << 10,
		2000 * 16384:   16 << 10,
		2000*16384 + 1: 32 << 10,
		700 << 20:      512 << 10,
		4 << 30:        4 << 20,
		1 << 40:        16 << 20,
		1<<63 - 1:      16 << 20,
	} {
		require.Equal(t, want, choosePieceLength(length), "%d bytes", length)
	}
}

func BenchmarkCreate(b *testing.B) {
	for _, shape := range []struct {
		what          string
		files, length int
	}{{"1x256MiB", 1, 256 << 20}, {"10000x4KiB", 10_000, 4 << 10}} {
		b.Run(shape.what, func(b *testing.B) {
			lengths := make(map[string]int)
			for i := range shape.files {
				lengths[fmt.Sprintf("%d/%d", i/100, i)] = shape.length
			}
			dir := writeContent(b, lengths)
			b.SetBytes(int64(shape.files * shape.length))
			for b.Loop() {
				if _, err := Create(dir, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// hungFS is a file system that does not answer before release is closed.
type hungFS struct {
	fs.FS
	release chan struct{}
}

func (h hungFS) Open(name string) (fs.File, error) {
	<-h.release
	return h.FS.Open(name)
}

func TestAHungDiskDoesNotOutlastTheContextOfCreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := hungFS{fstest.MapFS{"a": {Data: []byte("a")}}, make(chan struct{})}
		defer close(content.release)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := CreateFS(ctx, content, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second+unanswered, time.Since(began))
	})
}
