package torrent_test

import (
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
	_, err := s.DownloadAll(within(t), &torrent.Options{Storage: (&noted{fails: map[string]error{"ask": broken}}).open, Peers: peers})
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
