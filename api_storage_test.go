package torrent_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// noted is a storage in memory that records what it is told, and knows what it has.
type noted struct {
	mu    sync.Mutex
	b     []byte
	calls []string
	whole []int
	fails map[string]error
}

func (s *noted) open(t *torrent.Torrent) (torrent.Storage, error) {
	if s.b == nil {
		s.b = make([]byte, t.Size())
	}
	return &notedStorage{s, t}, nil
}

type notedStorage struct {
	*noted
	t *torrent.Torrent
}

func (s *notedStorage) call(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, what)
	return s.fails[what]
}

func (s *notedStorage) ReadAt(p []byte, off int64) (int, error) {
	s.call("read")
	s.mu.Lock()
	defer s.mu.Unlock()
	return copy(p, s.b[off:]), nil
}

func (s *notedStorage) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return copy(s.b[off:], p), nil
}

func (s *notedStorage) Sync() error  { return s.call("sync") }
func (s *notedStorage) Close() error { return s.call("close") }

func (s *notedStorage) PieceVerified(i int) error {
	s.mu.Lock()
	s.whole = append(s.whole, i)
	s.mu.Unlock()
	return s.call("verified")
}

func (s *notedStorage) Verified() (torrent.Bitfield, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return torrent.NewBitfield(s.t.NumPieces(), s.whole...), s.fails["ask"]
}

// A storage is synced before the download is done, learns of each piece that is whole, and need not have it hashed again.
func TestStorageKnowsWhatIsWhole(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	peers := []netip.AddrPort{s.seed(t, torrent.Options{})}
	st := new(noted)
	d := s.start(t, torrent.Options{Storage: st.open, Peers: peers})
	complete(t, d)
	st.mu.Lock()
	require.Equal(t, "sync", st.calls[len(st.calls)-1])
	require.Len(t, st.whole, s.NumPieces())
	st.mu.Unlock()
	files, err := d.Wait()
	require.NoError(t, err)
	require.NoError(t, files.Close())
	require.Equal(t, []string{"sync", "close"}, st.calls[len(st.calls)-2:])

	st.calls = nil
	st.whole = slices.DeleteFunc(st.whole, func(i int) bool { return i == 1 })
	d = s.start(t, torrent.Options{Storage: st.open})
	complete(t, d)
	require.Equal(t, []string{"read", "verified", "sync"}, slices.Compact(st.calls), "but the one that it does not know of")
	require.Contains(t, st.whole, 1)
}

func TestStorageThatFailsToRemember(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	peers := []netip.AddrPort{s.seed(t, torrent.Options{})}
	broken := errors.New("broken")
	_, err := s.Start(within(t), &torrent.Options{Storage: func(*torrent.Torrent) (torrent.Storage, error) { return nil, nil }})
	require.ErrorContains(t, err, "open storage: Options.Storage returned nil")
	_, err = s.DownloadAll(within(t), &torrent.Options{Storage: (&noted{fails: map[string]error{"ask": broken}}).open, Peers: peers})
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "ask storage what it has verified")
	_, err = s.DownloadAll(within(t), &torrent.Options{Storage: (&noted{fails: map[string]error{"verified": broken}}).open, Peers: peers})
	require.ErrorIs(t, err, broken)
	_, err = s.DownloadAll(within(t), &torrent.Options{Storage: (&noted{fails: map[string]error{"sync": broken}}).open, Peers: peers})
	require.ErrorIs(t, err, broken)
}

// seekOnly and plain take from a file what a storage would like to use.
type seekOnly struct {
	fs.File
	io.Seeker
}

type plain struct{ fs.File }

type onlyFS struct {
	fs.FS
	only func(fs.File) fs.File
}

func (o onlyFS) Open(name string) (fs.File, error) {
	f, err := o.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return o.only(f), nil
}

// Whatever an fs.FS can do, what it holds is shared.
func TestFSStorage(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{Pad: true}, mixed...)
	for name, fsys := range map[string]fs.FS{
		"a directory":   os.DirFS(s.dir),
		"seeking alone": onlyFS{os.DirFS(s.dir), func(f fs.File) fs.File { return seekOnly{f, f.(io.Seeker)} }},
		"reading alone": onlyFS{os.DirFS(s.dir), func(f fs.File) fs.File { return plain{f} }},
		"one in memory": memoryFS(s),
	} {
		t.Run(name, func(t *testing.T) {
			c := local()
			t.Cleanup(func() { require.NoError(t, c.Close()) })
			d := s.start(t, torrent.Options{Client: c, Seed: true, Storage: torrent.FSStorage(fsys)})
			complete(t, d)
			s.same(t, complete(t, s.start(t, torrent.Options{Peers: []netip.AddrPort{addrOf(c)}})))
		})
	}
}

func memoryFS(s *share) fstest.MapFS {
	m := make(fstest.MapFS)
	for path, b := range s.want {
		m[path] = &fstest.MapFile{Data: b}
	}
	return m
}

func TestFSStorageIsNotWritten(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	m := memoryFS(s)
	delete(m, "share/a.bin")
	m["share/z.bin"].Data = m["share/z.bin"].Data[:100]
	_, err := s.DownloadAll(within(t), &torrent.Options{Storage: torrent.FSStorage(m), Peers: []netip.AddrPort{s.seed(t, torrent.Options{})}})
	require.ErrorIs(t, err, torrent.ErrUnsupported)
	require.ErrorContains(t, err, "write to an fs.FS")
}

func TestNewBitfield(t *testing.T) {
	b := torrent.NewBitfield(70, 0, 69, 69)
	require.Equal(t, 70, b.Len())
	require.Equal(t, []int{0, 69}, slices.Collect(b.All()))
	require.Panics(t, func() { torrent.NewBitfield(70, 70) })
	require.Panics(t, func() { torrent.NewBitfield(70, -1) })
}

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
