package torrent_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/internal/simnet"
)

// patience is how long anything may take that is not about time. It only bounds a failure.
const patience = 2 * time.Minute

// share is content on disk, and the torrent of it.
type share struct {
	*torrent.Torrent
	dir  string            // that holds what the torrent names
	want map[string][]byte // by path
	raw  []byte            // all of it in the order of the torrent, without padding
	host *simnet.Host      // where its scripted peers are; nil is this machine
}

// part is one file of a share: a path below the torrent's name, or "" for a torrent of one file.
type part struct {
	path string
	size int
}

// mixed has files that share pieces, files that span pieces, empty ones and a directory.
var mixed = []part{{"a.bin", 100_000}, {"b/c.txt", 17}, {"b/d.bin", 150_003}, {"b/empty", 0}, {"z.bin", 65_536}, {"zz", 0}}

// makeShare makes a private torrent, since downloads with a client of their own would look for another in the DHT.
func makeShare(t *testing.T, o torrent.CreateOptions, parts ...part) *share {
	t.Helper()
	o.Private = true
	return makePublicShare(t, o, parts...)
}

func makePublicShare(t *testing.T, o torrent.CreateOptions, parts ...part) *share {
	t.Helper()
	s := &share{dir: t.TempDir(), want: make(map[string][]byte)}
	rng := rand.NewChaCha8([32]byte{byte(len(parts)), 1})
	if o.Name == "" {
		o.Name = "share"
	}
	root := filepath.Join(s.dir, o.Name)
	for _, p := range parts {
		name := filepath.Join(root, filepath.FromSlash(p.path))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		b := make([]byte, p.size)
		rng.Read(b)
		require.NoError(t, os.WriteFile(name, b, 0o644))
		s.want[strings.TrimSuffix(o.Name+"/"+p.path, "/")] = b
	}
	if o.PieceLength == 0 {
		o.PieceLength = 32 << 10
	}
	var err error
	s.Torrent, err = torrent.Create(root, &o)
	require.NoError(t, err)
	for f := range s.Files() {
		require.Contains(t, s.want, f.Path)
		s.raw = append(s.raw, s.want[f.Path]...)
	}
	return s
}

// seed shares s from its directory, with a client of the library.
func (s *share) seed(t *testing.T, o torrent.Options) netip.AddrPort {
	t.Helper()
	if o.Client == nil {
		o.Client = local()
	}
	if o.Dir == "" {
		o.Dir = s.dir
	}
	o.Seed = true
	d, err := s.Start(t.Context(), &o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()); require.NoError(t, o.Client.Close()) })
	_, err = d.Wait()
	require.NoError(t, err)
	return addrOf(o.Client)
}

// start starts a download, which is closed when the test ends.
func (s *share) start(t *testing.T, o torrent.Options) *torrent.Download {
	t.Helper()
	if o.Client == nil {
		o.Client = local()
		t.Cleanup(func() { require.NoError(t, o.Client.Close()) })
	}
	d, err := s.Start(t.Context(), &o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// same requires that files has the parts of s that keep names, or all parts.
func (s *share) same(t *testing.T, files *torrent.Downloaded, keep ...string) {
	t.Helper()
	var got []string
	for f := range files.Files() {
		b, err := f.Bytes()
		require.NoError(t, err, f.Path())
		require.True(t, bytes.Equal(s.want[f.Path()], b), f.Path())
		require.EqualValues(t, len(b), f.Length(), f.Path())
		got = append(got, f.Path())
	}
	var want []string
	for f := range s.Files() {
		if len(keep) == 0 || slices.Contains(keep, f.Path) {
			want = append(want, f.Path)
		}
	}
	require.Equal(t, want, got)
}

func (s *share) pieceSize(i int) int {
	return int(min(s.PieceLength(), int64(len(s.raw))-int64(i)*s.PieceLength()))
}

// piecesOf lists the pieces that a file overlaps.
func (s *share) piecesOf(path string) (pieces []int) {
	off := int64(0)
	for f := range s.Files() {
		if f.Path == path && f.Length > 0 {
			for i := off / s.PieceLength(); i*s.PieceLength() < off+f.Length; i++ {
				pieces = append(pieces, int(i))
			}
		}
		off += f.Length
	}
	return pieces
}

// local is a client on loopback, on a port of its own.
func local() *torrent.Client { return &torrent.Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0"} }

func addrOf(c *torrent.Client) netip.AddrPort { return netip.MustParseAddrPort(c.Addr().String()) }

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// wait is Wait, but fails the test instead of hanging.
func wait(t *testing.T, d *torrent.Download) (*torrent.Downloaded, error) {
	t.Helper()
	select {
	case <-d.Done():
	case <-time.After(patience):
		require.FailNow(t, "not done", "%+v", d.Stats())
	}
	return d.Wait()
}

// complete waits for a download that must succeed.
func complete(t *testing.T, d *torrent.Download) *torrent.Downloaded {
	t.Helper()
	files, err := wait(t, d)
	require.NoError(t, err)
	return files
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, 2*time.Millisecond, what)
}

// settled waits until no more goroutines run than before.
func settled(t *testing.T, before int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			b := make([]byte, 1<<20)
			require.FailNow(t, "goroutines left", "%d before\n%s", before, b[:runtime.Stack(b, true)])
		}
		runtime.Gosched()
	}
}

// finally receives a value that a goroutine sends.
func finally[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		require.FailNow(t, "nothing came")
	}
	return v
}

// announces is an HTTP tracker that names the given peers and records what it was told.
type announces struct {
	url   string
	mu    sync.Mutex
	peers []netip.AddrPort
	said  []url.Values
}

func tracker(t *testing.T, peers ...netip.AddrPort) *announces {
	tr := &announces{peers: peers}
	server := httptest.NewServer(tr)
	t.Cleanup(server.Close)
	tr.url = server.URL + "/announce"
	return tr
}

// name has the tracker name these peers from now on.
func (tr *announces) name(peers ...netip.AddrPort) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.peers = peers
}

func (tr *announces) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.said = append(tr.said, r.URL.Query())
	var compact []byte
	for _, p := range tr.peers {
		ip := p.Addr().As4()
		compact = binary.BigEndian.AppendUint16(append(compact, ip[:]...), p.Port())
	}
	fmt.Fprintf(w, "d8:completei3e10:incompletei4e8:intervali1800e5:peers%d:%se", len(compact), compact)
}

func (tr *announces) events() (all []string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, q := range tr.said {
		all = append(all, q.Get("event"))
	}
	return all
}

func (tr *announces) heard(i int) url.Values {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.said[i]
}

// mapStorage is a minimal Storage that can be told to fail.
type mapStorage struct {
	mu                    sync.Mutex
	b                     []byte
	failWrite, failRead   error
	failSync, failClose   error
	closes, writes, syncs int
	failAfter             int // writes that succeed
}

func (m *mapStorage) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failRead != nil {
		return 0, m.failRead
	}
	if m.closes > 0 {
		return 0, errors.New("read after Close")
	}
	if off >= int64(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(p, m.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *mapStorage) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	if m.failWrite != nil && m.writes > m.failAfter {
		return 0, m.failWrite
	}
	if grow := off + int64(len(p)) - int64(len(m.b)); grow > 0 {
		m.b = append(m.b, make([]byte, grow)...)
	}
	return copy(m.b[off:], p), nil
}

func (m *mapStorage) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs++
	return m.failSync
}

func (m *mapStorage) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closes++
	return m.failClose
}

func (m *mapStorage) open(*torrent.Torrent) (torrent.Storage, error) { return m, nil }

// count is how many goroutines run.
func count() int {
	n := runtime.NumGoroutine()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for same := 0; same < 50; same++ { // what was started before may still be starting goroutines of its own
		<-tick.C
		if now := runtime.NumGoroutine(); now != n {
			n, same = now, 0
		}
	}
	return n
}
