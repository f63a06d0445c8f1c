package torrent_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/stretchr/testify/require"
)

// rot changes a byte in a file, so that neither its size nor its time shows it.
func rot(t *testing.T, path string, off int64) {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	require.NoError(t, err)
	b[0]++
	_, err = f.WriteAt(b[:], off)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
}

// states collects the states that a download goes through, until it ends.
func states(t *testing.T, d *torrent.Download) func() []torrent.State {
	var mu sync.Mutex
	var all []torrent.State
	began := make(chan struct{})
	go func() {
		for e := range func(yield func(torrent.Event) bool) {
			seq := d.Events(t.Context())
			close(began)
			seq(yield)
		} {
			if e.Kind == torrent.StateChanged {
				mu.Lock()
				all = append(all, e.State)
				mu.Unlock()
			}
		}
	}()
	<-began
	return func() []torrent.State {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

func TestAPIRecheckSeed(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
		peer := s.gated(t)
		peer.give()
		dir := t.TempDir()
		c := local()
		defer c.Close()
		o := torrent.Options{Dir: dir, Seed: true, KeepResume: keep, Client: c, Peers: []netip.AddrPort{peer.addr}}
		d := s.start(t, o)
		complete(t, d)
		require.NoError(t, d.Recheck(t.Context()), "all is right")
		require.Equal(t, s.Length(), d.Stats().Checked)
		require.True(t, d.Stats().Complete)
		require.Equal(t, torrent.Seeding, d.Stats().State)

		before := peer.sent.Load()
		rot(t, filepath.Join(dir, "share", "a.bin"), 40_000)
		rot(t, filepath.Join(dir, "share", "b", "d.bin"), 150_000)
		d.Pause()
		until(t, "it has left", func() bool { return len(d.Stats().Peers) == 0 })
		require.NoError(t, d.Recheck(t.Context()))
		require.Equal(t, s.NumPieces()-2, d.Stats().PiecesVerified)
		require.False(t, d.Stats().Complete)
		select {
		case <-d.Done():
			require.FailNow(t, "it is done without what is lost")
		default:
		}
		d.Resume()
		s.same(t, complete(t, d))
		require.Equal(t, 2*s.PieceLength(), peer.sent.Load()-before, "only what was wrong came again")
		s.same(t, complete(t, s.start(t, torrent.Options{Peers: []netip.AddrPort{addrOf(c)}})))
		s.onDisk(t, dir)
		require.NoError(t, d.Close())
		require.ErrorIs(t, d.Recheck(t.Context()), torrent.ErrClosed)
		if keep {
			complete(t, s.unhashed(t, torrent.Options{Dir: dir, KeepResume: true}, s.NumPieces()))
		}
	}
}

// The sidecar's claims are right again once Recheck has returned, even if nothing follows.
func TestAPIRecheckThenRestart(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	o := torrent.Options{Dir: s.dir, Seed: true, KeepResume: true}
	d := s.start(t, o)
	complete(t, d)
	rot(t, filepath.Join(s.dir, "share", "a.bin"), 40_000)
	require.NoError(t, d.Recheck(t.Context()))
	require.Equal(t, s.NumPieces()-1, d.Stats().PiecesVerified)
	copied := t.TempDir()
	require.NoError(t, os.CopyFS(copied, os.DirFS(s.dir)), "as a kill would leave it")
	for f := range s.Files() {
		info, err := os.Stat(filepath.Join(s.dir, filepath.FromSlash(f.Path)))
		require.NoError(t, err)
		require.NoError(t, os.Chtimes(filepath.Join(copied, filepath.FromSlash(f.Path)), info.ModTime(), info.ModTime()))
	}
	require.NoError(t, d.Close())
	for _, dir := range []string{s.dir, copied} {
		o := o
		o.Dir = dir
		d := s.start(t, o)
		until(t, "it has looked", func() bool { return d.Stats().State != torrent.Checking })
		require.Equal(t, s.NumPieces()-1, d.Stats().PiecesVerified)
		require.LessOrEqual(t, d.Stats().Checked, s.PieceLength())
		require.NoError(t, d.Close())
	}
}

// Recheck finds pieces that another program has written while a download runs.
func TestAPIRecheckFindsWhatCame(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	peer := s.gated(t)
	peer.give(0)
	dir := t.TempDir()
	d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}})
	seen := states(t, d)
	until(t, "a piece is there", func() bool { return d.Stats().PiecesVerified == 1 })
	for path, b := range s.want {
		if path != "share/b/d.bin" {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, path), b, 0o644))
		}
	}
	require.NoError(t, d.Recheck(t.Context()))
	have, err := s.Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Greater(t, have.Count(), 5)
	require.GreaterOrEqual(t, d.Stats().PiecesVerified, have.Count()-2, "all but what is asked for just then")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "share", "b", "d.bin"), s.want["share/b/d.bin"], 0o644))
	d.Pause() // so that nothing is asked for
	until(t, "nothing is on its way", func() bool { return d.Stats().PiecesStarted == 0 })
	require.NoError(t, d.Recheck(t.Context()))
	s.same(t, complete(t, d))
	require.Contains(t, seen(), torrent.Checking)
}

func TestAPIRecheckElsewhere(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	peer := s.gated(t)
	peer.give()
	t.Run("memory", func(t *testing.T) {
		d := s.start(t, torrent.Options{Seed: true, Peers: []netip.AddrPort{peer.addr}})
		files := complete(t, d)
		require.NoError(t, d.Recheck(t.Context()))
		require.True(t, d.Stats().Complete)
		for f := range files.Files() {
			if f.Path() == "share/a.bin" {
				b, err := f.Bytes()
				require.NoError(t, err)
				b[50_000]++ // what a program must not do
			}
		}
		require.NoError(t, d.Recheck(t.Context()))
		s.same(t, complete(t, d))
	})
	t.Run("storage", func(t *testing.T) {
		m := new(mapStorage)
		open := func(*torrent.Torrent) (torrent.Storage, error) { return m, nil }
		d := s.start(t, torrent.Options{Seed: true, Storage: open, Peers: []netip.AddrPort{peer.addr}})
		complete(t, d)
		m.mu.Lock()
		m.b[50_000]++
		m.mu.Unlock()
		before := d.Stats().Downloaded
		require.NoError(t, d.Recheck(t.Context()))
		s.same(t, complete(t, d))
		require.Equal(t, s.PieceLength(), d.Stats().Downloaded-before)
	})
	t.Run("what is in doubt is not read", func(t *testing.T) {
		m := new(mapStorage)
		open := func(*torrent.Torrent) (torrent.Storage, error) { return m, nil }
		d := s.start(t, torrent.Options{Seed: true, Storage: open, Peers: []netip.AddrPort{peer.addr}})
		files := complete(t, d)
		d.Pause()
		m.mu.Lock()
		clear(m.b)
		m.mu.Unlock()
		require.NoError(t, d.Recheck(t.Context()))
		m.mu.Lock()
		m.failRead = errors.New("read")
		m.mu.Unlock()
		for f := range files.Files() {
			if f.Length() > 0 {
				_, err := f.Bytes()
				require.ErrorContains(t, err, "not verified again yet")
			}
		}
	})
	t.Run("ends early", func(t *testing.T) {
		block := make(chan struct{})
		m := &stuckStorage{block: block}
		open := func(*torrent.Torrent) (torrent.Storage, error) { return m, nil }
		d := s.start(t, torrent.Options{Seed: true, Storage: open, Peers: []netip.AddrPort{peer.addr}})
		complete(t, d)
		m.stop.Lock()
		m.slow = true
		m.stop.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- d.Recheck(ctx) }()
		until(t, "it is at it", func() bool { return d.Stats().State == torrent.Checking })
		cancel()
		close(block)
		require.ErrorIs(t, <-ended, context.Canceled)
		require.True(t, d.Stats().Complete, "what was not looked at is believed still")
		require.NoError(t, d.Recheck(t.Context()))
	})
}

// stuckStorage is a mapStorage whose reads wait.
type stuckStorage struct {
	mapStorage
	stop  sync.Mutex
	slow  bool
	block chan struct{}
}

func (m *stuckStorage) ReadAt(p []byte, off int64) (int, error) {
	m.stop.Lock()
	slow := m.slow
	m.stop.Unlock()
	if slow {
		select {
		case <-m.block:
		case <-time.After(patience):
			return 0, io.ErrNoProgress
		}
	}
	return m.mapStorage.ReadAt(p, off)
}
