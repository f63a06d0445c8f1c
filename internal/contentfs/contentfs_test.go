package contentfs_test

import (
	"bytes"
	"io"
	"io/fs"
	"math"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/contentfs"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
)

var (
	text  = []byte("0123456789")
	files = layout.New(16,
		layout.File{Path: "d/a", Length: 3},
		layout.File{Path: "d/.pad/2", Length: 2, Pad: true},
		layout.File{Path: "d/sub/b", Length: 4},
		layout.File{Path: "d/empty"},
		layout.File{Path: "d/c", Length: 1},
	)
	want = []byte("012\x00\x0056789")
)

func content() *contentfs.Content {
	return &contentfs.Content{Layout: files, ModTime: time.Unix(1e9, 0), ReadFileAt: func(i int, p []byte, off int64) (int, error) {
		f := files.File(i)
		return io.NewSectionReader(bytes.NewReader(text), f.Offset, f.Length).ReadAt(p, off)
	}}
}

func TestTree(t *testing.T) {
	tree := content().Tree([]int{0, 2, 3, 4})
	require.NoError(t, fstest.TestFS(tree, "d/a", "d/sub/b", "d/empty", "d/c"))
	b, err := tree.ReadFile("d/sub/b")
	require.NoError(t, err)
	require.Equal(t, "5678", string(b))
	_, err = tree.ReadFile("d/sub")
	require.ErrorContains(t, err, "is a directory")
	_, err = tree.ReadDir("d/a")
	require.ErrorContains(t, err, "not a directory")
	_, err = tree.Open("/d")
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = tree.Open("d/.pad/2")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestOpenFile(t *testing.T) {
	f := content().OpenFile(2)
	info, err := f.Stat()
	require.NoError(t, err)
	require.Equal(t, "b", info.Name())
	require.Equal(t, time.Unix(1e9, 0), info.ModTime())
	require.NoError(t, f.Close())
	_, err = f.Read(make([]byte, 1))
	require.ErrorIs(t, err, fs.ErrClosed)
	require.ErrorIs(t, f.Close(), fs.ErrClosed)
}

func TestFileTooLongForASlice(t *testing.T) {
	if math.MaxInt == math.MaxInt64 {
		t.Skip("any file fits in a slice")
	}
	c := &contentfs.Content{Layout: layout.New(1<<30, layout.File{Path: "a", Length: math.MaxInt32 + 1})}
	_, err := c.Tree([]int{0}).ReadFile("a")
	require.ErrorIs(t, err, storage.ErrTooLarge)
}

// seeker and plain hide what else a file can do.
type (
	seeker struct {
		fs.File
		io.Seeker
	}
	plain  struct{ fs.File }
	onlyFS struct {
		fs.FS
		only func(fs.File) fs.File
	}
)

func (o onlyFS) Open(name string) (fs.File, error) {
	f, err := o.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return o.only(f), nil
}

func TestSource(t *testing.T) {
	whole := fstest.MapFS{"d/a": {Data: []byte("012")}, "d/sub/b": {Data: []byte("5678")}, "d/empty": {}, "d/c": {Data: []byte("9")}}
	below := make(fstest.MapFS)
	for name, f := range whole {
		below[name[2:]] = f
	}
	for name, fsys := range map[string]fs.FS{
		"whole":   whole,
		"below":   below,
		"seeking": onlyFS{whole, func(f fs.File) fs.File { return seeker{f, f.(io.Seeker)} }},
		"reading": onlyFS{whole, func(f fs.File) fs.File { return plain{f} }},
	} {
		t.Run(name, func(t *testing.T) {
			s := contentfs.NewSource(files, fsys)
			for begin := range len(want) {
				for end := begin; end <= len(want); end++ {
					b := make([]byte, end-begin)
					n, err := s.ReadAt(b, int64(begin))
					require.NoError(t, err)
					require.Equal(t, want[begin:end], b[:n])
				}
			}
			n, err := s.ReadAt(make([]byte, 4), 8)
			require.ErrorIs(t, err, io.EOF)
			require.Equal(t, 2, n)
			require.NoError(t, s.Close())
			_, err = s.ReadAt(make([]byte, 1), 0)
			require.ErrorIs(t, err, storage.ErrClosed)
		})
	}
}

func TestSourceThatLacksFiles(t *testing.T) {
	s := contentfs.NewSource(files, fstest.MapFS{"d/sub/b": {Data: []byte("56")}, "d/c": {Mode: fs.ModeDir}})
	defer s.Close()
	for off, want := range map[int64]error{0: fs.ErrNotExist, 5: io.ErrUnexpectedEOF} {
		_, err := s.ReadAt(make([]byte, 3), off)
		require.ErrorIs(t, err, want, "at %d", off)
	}
	_, err := s.ReadAt(make([]byte, 1), 9)
	require.ErrorContains(t, err, "not a regular file")
}
