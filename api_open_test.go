package torrent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/stretchr/testify/require"
)

// reading is the result of a read.
type reading struct {
	b   []byte
	err error
}

// readAsync reads n bytes in a goroutine of its own.
func readAsync(r io.Reader, n int) <-chan reading {
	c := make(chan reading, 1)
	go func() {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		c <- reading{b, err}
	}()
	return c
}

func TestAPIOpen(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	const name = "share/b/d.bin"
	want, pieces := s.want[name], s.piecesOf(name)
	for _, o := range []torrent.Options{{}, {Dir: t.TempDir()}, {Storage: new(mapStorage).open}} {
		seed := s.gated(t)
		o.Peers = []netip.AddrPort{seed.addr}
		d := s.start(t, o)
		r, err := d.Open(within(t), name)
		require.NoError(t, err)
		at := r.(io.ReaderAt)

		n, err := r.Read(nil)
		require.NoError(t, err)
		require.Zero(t, n)
		first := readAsync(r, 10)
		select {
		case <-first:
			require.Fail(t, "read what is not there")
		default:
		}
		seed.give(pieces[0])
		got := finally(t, first)
		require.NoError(t, got.err)
		require.Equal(t, want[:10], got.b)

		size, err := r.Seek(0, io.SeekEnd)
		require.NoError(t, err)
		require.EqualValues(t, len(want), size)
		_, err = r.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		_, err = r.Seek(-5, io.SeekCurrent)
		require.NoError(t, err)
		last := readAsync(r, 5)
		seed.give(pieces[len(pieces)-1])
		got = finally(t, last)
		require.NoError(t, got.err)
		require.Equal(t, want[len(want)-5:], got.b)
		_, err = r.Seek(-1, io.SeekStart)
		require.Error(t, err)
		_, err = r.Seek(0, 77)
		require.Error(t, err)
		pos, err := r.Seek(1<<40, io.SeekStart)
		require.NoError(t, err)
		require.Equal(t, int64(1)<<40, pos)
		_, err = r.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)

		// Many ReadAt at once, while Read keeps its own position.
		_, err = r.Seek(3, io.SeekStart)
		require.NoError(t, err)
		var readers sync.WaitGroup
		for off := 0; off < len(want); off += 20_000 {
			readers.Go(func() {
				b := make([]byte, 20_000)
				n, err := at.ReadAt(b, int64(off))
				if off+len(b) > len(want) {
					b = b[:len(want)-off]
					if err == io.EOF {
						err = nil
					} else {
						err = errors.New("no end of file")
					}
				}
				if err != nil || n != len(b) || !bytes.Equal(b, want[off:off+n]) {
					t.Errorf("ReadAt %d: %d, %v", off, n, err)
				}
			})
		}
		seed.give(pieces...)
		readers.Wait()
		_, err = at.ReadAt(make([]byte, 1), int64(len(want)))
		require.Equal(t, io.EOF, err)
		_, err = at.ReadAt(make([]byte, 1), -1)
		require.Error(t, err)
		rest, err := io.ReadAll(r)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want[3:], rest))

		require.NoError(t, r.Close())
		_, err = r.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, io.EOF)
		select {
		case <-d.Done():
			require.Fail(t, "closing a reader ended the download")
		default:
		}

		empty, err := d.Open(within(t), "share/b/empty")
		require.NoError(t, err)
		b, err := io.ReadAll(empty)
		require.NoError(t, err)
		require.Empty(t, b)
		require.NoError(t, empty.Close())
		for _, missing := range []string{"share/b", "share", "", "d.bin", "share/b/../b/d.bin", "/share/b/d.bin"} {
			_, err = d.Open(within(t), missing)
			require.ErrorIs(t, err, fs.ErrNotExist, missing)
		}
		require.NoError(t, d.Close())
	}
}

func TestAPIOpenContext(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	seed := s.gated(t)
	d := s.start(t, torrent.Options{Peers: []netip.AddrPort{seed.addr}})
	because := errors.New("because")
	ctx, cancel := context.WithCancelCause(t.Context())
	r, err := d.Open(ctx, "share/a.bin")
	require.NoError(t, err)
	defer r.Close()
	blocked := readAsync(r, 1)
	until(t, "the piece is asked for", func() bool { return seed.wasAsked(0) })
	cancel(because)
	got := finally(t, blocked)
	require.ErrorIs(t, got.err, context.Canceled)
	require.ErrorIs(t, got.err, because)

	// Close ends a wait as well.
	r, err = d.Open(t.Context(), "share/a.bin")
	require.NoError(t, err)
	blocked = readAsync(r, 1)
	require.NoError(t, r.Close())
	require.ErrorIs(t, finally(t, blocked).err, fs.ErrClosed)
}

// A piece that a reader waits for is requested at once, even if no block arrives to make room in the pipeline.
func TestAPIOpenFirst(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, part{"0", 8 << 20}, part{"1", 1 << 20})
	const middle = 600_000
	piece := (8<<20 + middle) / (16 << 10)
	seed := s.gated(t)
	requests := func() []int {
		seed.mu.Lock()
		defer seed.mu.Unlock()
		return slices.Clone(seed.order)
	}
	d := s.start(t, torrent.Options{Peers: []netip.AddrPort{seed.addr}})
	until(t, "the pipeline is full", func() bool {
		peers := d.Stats().Peers
		return len(peers) == 1 && peers[0].Requests > 0 && peers[0].Requests == len(requests())
	})
	before := len(requests())
	r, err := d.Open(within(t), "share/1")
	require.NoError(t, err)
	defer r.Close()
	_, err = r.Seek(middle, io.SeekStart)
	require.NoError(t, err)
	first := readAsync(r, 100)
	until(t, "it is asked for", func() bool { return seed.wasAsked(piece) })
	require.LessOrEqual(t, slices.Index(requests(), piece), before+8, "only what was already on the wire comes before")
	seed.give(piece)
	got := finally(t, first)
	require.NoError(t, got.err)
	require.Equal(t, s.want["share/1"][middle:middle+100], got.b)
}

func TestAPIOpenServeContent(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	seed := s.gated(t)
	d := s.start(t, torrent.Options{Dir: t.TempDir(), Peers: []netip.AddrPort{seed.addr}})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := d.Open(r.Context(), r.URL.Path[1:])
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		defer f.Close()
		http.ServeContent(w, r, path.Base(r.URL.Path), time.Time{}, f)
	}))
	defer server.Close()
	want, pieces := s.want["share/b/d.bin"], s.piecesOf("share/b/d.bin")
	seed.give(pieces[len(pieces)-1], pieces[0]) // the first piece tells the type of the content
	status, b := get(t, server.URL+"/share/b/d.bin", "bytes=-100")
	require.Equal(t, http.StatusPartialContent, status)
	require.Equal(t, want[len(want)-100:], b)
	all := make(chan reading, 1)
	go func() {
		res, err := http.Get(server.URL + "/share/b/d.bin")
		if err == nil {
			defer res.Body.Close()
			b, err = io.ReadAll(res.Body)
		}
		all <- reading{b, err}
	}()
	for _, p := range pieces {
		seed.give(p)
	}
	got := finally(t, all)
	require.NoError(t, got.err)
	require.True(t, bytes.Equal(want, got.b))
	status, _ = get(t, server.URL+"/share/none", "")
	require.Equal(t, http.StatusNotFound, status)
}

// A reader of a file that is no longer chosen does not wait for ever.
func TestAPIOpenDeselected(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	seed := s.gated(t)
	seed.give(s.piecesOf("share/z.bin")...)
	d := s.start(t, torrent.Options{Peers: []netip.AddrPort{seed.addr}})
	r, err := d.Open(t.Context(), "share/a.bin")
	require.NoError(t, err)
	defer r.Close()
	blocked := readAsync(r, 1)
	d.Select(torrent.Glob("z.bin"))
	_, err = wait(t, d)
	require.NoError(t, err)
	require.Error(t, finally(t, blocked).err)
}

// Everything at once from many goroutines: nothing blocks for ever, and no read returns a wrong byte.
func TestAPIAllAtOnce(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	addrs := []netip.AddrPort{s.seed(t, torrent.Options{}), s.seed(t, torrent.Options{})}
	before := count()
	for _, dir := range []string{"", t.TempDir()} {
		client := local()
		d, err := s.Start(t.Context(), &torrent.Options{Dir: dir, Seed: true, Client: client, Peers: addrs})
		require.NoError(t, err)
		stop := make(chan struct{})
		var busy sync.WaitGroup
		again := func(do func(n int) error) {
			busy.Go(func() {
				for n := 0; ; n++ {
					if err := do(n); err != nil {
						t.Error(err)
						return
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		again(func(n int) error {
			d.Select([]func(torrent.File) torrent.Priority{nil, torrent.Glob("*.bin"), torrent.Glob("?.*")}[n%3])
			<-time.After(50 * time.Millisecond) // a choice that changes all the time brings nothing
			return nil
		})
		again(func(int) error {
			st := d.Stats()
			if st.Verified > st.Wanted || st.Wanted > st.Length || st.Verified < 0 {
				return fmt.Errorf("%+v", st)
			}
			return nil
		})
		for name, want := range s.want {
			again(func(int) error {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				r, err := d.Open(ctx, name)
				if err != nil {
					return nil // not chosen just now
				}
				defer r.Close()
				b, err := io.ReadAll(r)
				if !bytes.HasPrefix(want, b) || err == nil && len(b) != len(want) {
					return fmt.Errorf("%s: wrong bytes, %v", name, err)
				}
				return nil
			})
		}
		again(func(int) error {
			for f, err := range d.Completed() {
				if err != nil {
					return err
				}
				if b, err := f.Bytes(); err == nil && !bytes.Equal(b, s.want[f.Path()]) {
					return fmt.Errorf("%s is complete and wrong", f.Path())
				}
			}
			return nil
		})
		again(func(int) error {
			select {
			case <-d.Done():
			default:
				return nil
			}
			files, err := d.Wait()
			if err != nil {
				return err
			}
			for f := range files.Files() {
				if b, err := files.ReadFile(f.Path()); err == nil && !bytes.Equal(b, s.want[f.Path()]) {
					return fmt.Errorf("%s is listed and wrong", f.Path())
				}
			}
			return nil
		})
		until(t, "a good deal is there", func() bool { return d.Stats().PiecesVerified > s.NumPieces()/2 })
		close(stop)
		busy.Wait()
		d.Select(nil)
		until(t, "all of it is there", func() bool { st := d.Stats(); return st.Complete && st.Verified == s.Length() })
		files, err := d.Wait()
		require.NoError(t, err)
		s.same(t, files)
		require.NoError(t, files.Close())
		require.NoError(t, client.Close())
	}
	settled(t, before)
}
