package torrent_test

import (
	"context"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// files is only for what is no directory.
func files(only func(fs.File) fs.File) func(fs.File) fs.File {
	return func(f fs.File) fs.File {
		if info, err := f.Stat(); err == nil && info.IsDir() {
			return f
		}
		return only(f)
	}
}

// Of any file system comes the torrent that Create makes of the same files.
func TestCreateFS(t *testing.T) {
	t.Parallel()
	o := torrent.CreateOptions{PieceLength: 32 << 10, Pad: true}
	s := makeShare(t, o, mixed...)
	o.Private = true
	for name, fsys := range map[string]fs.FS{
		"a directory":   os.DirFS(s.dir),
		"seeking alone": onlyFS{os.DirFS(s.dir), files(func(f fs.File) fs.File { return seekOnly{f, f.(io.Seeker)} })},
		"reading alone": onlyFS{os.DirFS(s.dir), files(func(f fs.File) fs.File { return plain{f} })},
		"one in memory": memoryFS(s),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var last, of int64
			o := o
			o.Progress = func(done, total int64) { last, of = done, total }
			made, err := torrent.CreateFS(t.Context(), fsys, &o)
			require.NoError(t, err)
			require.Equal(t, s.InfoHash(), made.InfoHash())
			require.Equal(t, s.Length(), last)
			require.Equal(t, s.Length(), of)
			o.Name = "share"
			below, err := fs.Sub(fsys, "share")
			require.NoError(t, err)
			named, err := torrent.CreateFS(t.Context(), below, &o)
			require.NoError(t, err)
			require.Equal(t, s.InfoHash(), named.InfoHash())
			d, err := named.Start(t.Context(), &torrent.Options{Storage: torrent.FSStorage(below), Client: local()})
			require.NoError(t, err)
			complete(t, d)
			require.NoError(t, d.Close())
		})
	}
}

func TestCreateFSOfOneFile(t *testing.T) {
	m := fstest.MapFS{"tide.txt": {Data: []byte("spring tide")}}
	made, err := torrent.CreateFS(t.Context(), m, nil)
	require.NoError(t, err)
	require.Equal(t, "e098eff25acbf5b8e32f828975c30953622dbe6f", made.InfoHash().String(), "as of Create")
	for f := range made.Files() {
		require.Equal(t, "tide.txt", f.Path)
	}
	made, err = torrent.CreateFS(t.Context(), m, &torrent.CreateOptions{Name: "sea"})
	require.NoError(t, err)
	for f := range made.Files() {
		require.Equal(t, "sea/tide.txt", f.Path)
	}
}

func TestCreateFSErrors(t *testing.T) {
	link := &fstest.MapFile{Data: []byte("a"), Mode: fs.ModeSymlink}
	for name, m := range map[string]fstest.MapFS{
		"holds 2 entries":   {"a": {Data: []byte("a")}, "b": {Data: []byte("b")}},
		"holds 0 entries":   {},
		"no content":        {"a": {}},
		"a symbolic link":   {"d/a": {Data: []byte("a")}, "d/b": link},
		"is not safe every": {"d/a\u202e": {Data: []byte("a")}},
	} {
		_, err := torrent.CreateFS(t.Context(), m, nil)
		require.ErrorContains(t, err, name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := torrent.CreateFS(ctx, fstest.MapFS{"a": {Data: []byte("a")}}, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestCreateFSShares(t *testing.T) {
	t.Parallel()
	m := fstest.MapFS{"tide/ebb": {Data: []byte("out")}, "tide/flood": {Data: []byte("in")}}
	made, err := torrent.CreateFS(t.Context(), m, &torrent.CreateOptions{Private: true})
	require.NoError(t, err)
	c := local()
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	d, err := made.Start(t.Context(), &torrent.Options{Storage: torrent.FSStorage(m), Seed: true, Client: c})
	require.NoError(t, err)
	complete(t, d)
	files, err := made.DownloadAll(within(t), &torrent.Options{Peers: []netip.AddrPort{addrOf(c)}})
	require.NoError(t, err)
	defer files.Close()
	b, err := files.ReadFile("tide/ebb")
	require.NoError(t, err)
	require.Equal(t, "out", string(b))
}
