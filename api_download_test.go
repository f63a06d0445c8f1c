package torrent_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

func TestAPIDownload(t *testing.T) {
	for name, c := range map[string]struct {
		o     torrent.CreateOptions
		parts []part
	}{
		"mixed":                       {torrent.CreateOptions{}, mixed},
		"padded":                      {torrent.CreateOptions{Pad: true}, mixed},
		"single file":                 {torrent.CreateOptions{}, []part{{"", 123_457}}},
		"one byte":                    {torrent.CreateOptions{}, []part{{"", 1}}},
		"one short piece":             {torrent.CreateOptions{PieceLength: 1 << 20}, mixed},
		"whole pieces only":           {torrent.CreateOptions{PieceLength: 64 << 10}, []part{{"", 256 << 10}}},
		"pieces shorter than blocks":  {torrent.CreateOptions{PieceLength: 5000}, mixed},
		"pieces of odd length":        {torrent.CreateOptions{PieceLength: 50_001}, mixed},
		"many files a piece":          {torrent.CreateOptions{}, []part{{"1", 1}, {"2", 0}, {"3", 3}, {"4", 4}, {"5/6/7", 40_000}, {"8", 0}}},
		"starts and ends empty":       {torrent.CreateOptions{}, []part{{"0", 0}, {"1", 70_000}, {"2", 0}}},
		"version 2":                   {torrent.CreateOptions{Version: torrent.V2}, mixed},
		"version 2, single file":      {torrent.CreateOptions{Version: torrent.V2}, []part{{"", 123_457}}},
		"version 2, one byte":         {torrent.CreateOptions{Version: torrent.V2}, []part{{"", 1}}},
		"version 2, long pieces":      {torrent.CreateOptions{Version: torrent.V2, PieceLength: 1 << 20}, mixed},
		"version 2, pieces of blocks": {torrent.CreateOptions{Version: torrent.V2, PieceLength: 16 << 10}, mixed},
		"version 2, whole pieces":     {torrent.CreateOptions{Version: torrent.V2, PieceLength: 64 << 10}, []part{{"a", 256 << 10}, {"b", 64 << 10}, {"c", 16 << 10}}},
		"version 2, many files":       {torrent.CreateOptions{Version: torrent.V2}, []part{{"1", 1}, {"2", 0}, {"3", 3}, {"4", 4}, {"5/6/7", 40_000}, {"8", 0}}},
		"hybrid":                      {torrent.CreateOptions{Version: torrent.Hybrid}, mixed},
		"hybrid, single file":         {torrent.CreateOptions{Version: torrent.Hybrid}, []part{{"", 123_457}}},
		"hybrid, long pieces":         {torrent.CreateOptions{Version: torrent.Hybrid, PieceLength: 1 << 20}, mixed},
		"hybrid, many files":          {torrent.CreateOptions{Version: torrent.Hybrid}, []part{{"1", 1}, {"2", 0}, {"3", 3}, {"4", 4}, {"5/6/7", 40_000}, {"8", 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := makeShare(t, c.o, c.parts...)
			o := torrent.Options{Peers: []netip.AddrPort{s.seed(t, torrent.Options{})}}

			files, err := s.DownloadAll(within(t), &o)
			require.NoError(t, err)
			s.same(t, files)
			require.NoError(t, files.Close())

			o.Dir = filepath.Join(t.TempDir(), "not", "yet", "there")
			files, err = s.DownloadAll(within(t), &o)
			require.NoError(t, err)
			s.same(t, files)
			require.NoError(t, files.Close())
			entries, err := os.ReadDir(o.Dir)
			require.NoError(t, err)
			require.Len(t, entries, 1, "nothing beside the content")
			for path, want := range s.want {
				got, err := os.ReadFile(filepath.Join(o.Dir, filepath.FromSlash(path)))
				require.NoError(t, err)
				require.True(t, bytes.Equal(want, got), path)
			}

			o.Dir, o.Storage = "", new(mapStorage).open
			files, err = s.DownloadAll(within(t), &o)
			require.NoError(t, err)
			s.same(t, files)
			require.NoError(t, files.Close())
		})
	}
}

func TestAPINilOptions(t *testing.T) {
	t.Parallel()
	tr := tracker(t)
	s := makeShare(t, torrent.CreateOptions{Trackers: [][]string{{tr.url}}}, mixed...)
	tr.name(s.seed(t, torrent.Options{}))
	files, err := s.DownloadAll(within(t), nil)
	require.NoError(t, err)
	s.same(t, files)
	require.NoError(t, files.Close())
}

func TestAPITooLarge(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	d, err := s.Start(t.Context(), &torrent.Options{MaxMemory: s.Length() - 1, Client: local()})
	require.ErrorIs(t, err, torrent.ErrTooLarge)
	require.Nil(t, d)
	addr := s.seed(t, torrent.Options{})
	files, err := s.DownloadAll(within(t), &torrent.Options{MaxMemory: s.Length(), Peers: []netip.AddrPort{addr}})
	require.NoError(t, err)
	s.same(t, files)
	require.NoError(t, files.Close())
	files, err = s.DownloadAll(within(t), &torrent.Options{MaxMemory: 1, Dir: t.TempDir(), Peers: []netip.AddrPort{addr}})
	require.NoError(t, err, "memory has no part in it")
	require.NoError(t, files.Close())
}

// A download that cannot work is refused at once, and leaves nothing running.
func TestAPIStartRefuses(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	file := filepath.Join(s.dir, "share", "a.bin")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	because := errors.New("because")
	ended, end := context.WithCancelCause(t.Context())
	end(because)
	closed := local()
	require.NoError(t, closed.Close())
	for name, c := range map[string]struct {
		ctx  context.Context
		o    torrent.Options
		want error
	}{
		"directory below a file": {t.Context(), torrent.Options{Dir: filepath.Join(file, "sub")}, syscall.ENOTDIR},
		"directory is a file":    {t.Context(), torrent.Options{Dir: file}, nil},
		"storage":                {t.Context(), torrent.Options{Storage: func(*torrent.Torrent) (torrent.Storage, error) { return nil, because }}, because},
		"context":                {ended, torrent.Options{}, context.Canceled},
		"cause":                  {ended, torrent.Options{}, because},
		"closed client":          {t.Context(), torrent.Options{Client: closed}, torrent.ErrClosed},
		"port taken":             {t.Context(), torrent.Options{Client: &torrent.Client{NoDHT: true, NoUTP: true, Listen: taken.Addr().String()}}, syscall.EADDRINUSE},
	} {
		t.Run(name, func(t *testing.T) {
			before := count()
			d, err := s.Start(c.ctx, &c.o)
			require.Error(t, err)
			require.Nil(t, d)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			files, err := s.DownloadAll(c.ctx, &c.o)
			require.Error(t, err)
			require.Nil(t, files)
			settled(t, before)
		})
	}
}

// The end of a context ends the download, and the error says all that is known.
func TestAPICancelled(t *testing.T) {
	dead := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer dead.Close()
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	html := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<html><body>Parked domain</body></html>"))
	}))
	defer html.Close()
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("d14:failure reason17:unregistered hashe"))
	}))
	defer failing.Close()
	urls := []string{dead.URL + "/announce", html.URL + "/announce", failing.URL + "/announce"}
	s := makeShare(t, torrent.CreateOptions{Trackers: [][]string{{urls[0]}, {urls[1]}, {urls[2]}, {silent.URL + "/announce"}}}, mixed...)

	because := errors.New("because")
	for name, c := range map[string]struct {
		end  func(parent context.Context) (context.Context, func())
		want []error
	}{
		"cancel": {func(parent context.Context) (context.Context, func()) {
			return context.WithCancel(parent)
		}, []error{context.Canceled}},
		"cause": {func(parent context.Context) (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(parent)
			return ctx, func() { cancel(because) }
		}, []error{context.Canceled, because}},
	} {
		t.Run(name, func(t *testing.T) {
			before := count()
			ctx, end := c.end(t.Context())
			d, err := s.Start(ctx, &torrent.Options{Dir: t.TempDir()})
			require.NoError(t, err)
			until(t, "trackers fail", func() bool {
				n := 0
				for _, tr := range d.Stats().Trackers {
					if tr.Err != nil {
						n++
					}
				}
				return n >= len(urls)
			})
			end()
			files, err := wait(t, d)
			require.Nil(t, files)
			for _, want := range c.want {
				require.ErrorIs(t, err, want)
			}
			var word *torrent.TrackerError
			require.ErrorAs(t, err, &word)
			for _, u := range urls {
				require.ErrorContains(t, err, u)
			}
			require.ErrorContains(t, err, "unregistered hash")
			_, again := d.Wait()
			require.Equal(t, err, again)
			require.NoError(t, d.Close())
			settled(t, before)
		})
	}
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, because)
		defer cancel()
		_, err := s.DownloadAll(ctx, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, because)
	})
}

// A download completes with one good peer, whatever other peers do.
func TestAPIBadPeers(t *testing.T) {
	hangUp := func(l *line) {}
	for name, play := range map[string]func(l *line){
		"hangs up at once": hangUp,
		"closes in the handshake": func(l *line) {
			l.Write([]byte("\x13BitTorrent pro"))
		},
		"speaks another protocol": func(l *line) {
			l.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\n" + string(make([]byte, 200))))
		},
		"shares another torrent": func(l *line) {
			l.greet(torrent.Hash{1})
			l.offer()
			l.serve()
		},
		"sends a message too long": func(l *line) {
			l.greet(l.s.InfoHash())
			l.Write([]byte{0xff, 0xff, 0xff, 0xff, msgPiece})
			l.serve()
		},
		"sends a long bitfield": func(l *line) {
			l.greet(l.s.InfoHash())
			l.sayBytes(msgBitfield, bytes.Repeat([]byte{0xff}, 1000))
			l.serve()
		},
		"has pieces that there are not": func(l *line) {
			l.greet(l.s.InfoHash())
			l.say(msgHave, 1<<20)
			l.serve()
		},
		"stops in the middle of a block": func(l *line) {
			l.greet(l.s.InfoHash())
			l.offer()
			if piece, begin, length, err := l.request(); err == nil {
				b := []byte{0, 0, 0, 0, msgPiece, 0, 0, 0, byte(piece), 0, 0, byte(begin >> 8), byte(begin)}
				n := 9 + length
				b[1], b[2], b[3] = byte(n>>16), byte(n>>8), byte(n)
				l.Write(append(b, l.block(piece, begin, length)[:100]...))
			}
		},
		"sends blocks of another length": func(l *line) {
			l.greet(l.s.InfoHash())
			l.offer()
			for {
				piece, begin, length, err := l.request()
				if err != nil || l.sayBytes(msgPiece, l.block(piece, begin, length)[:length-1], piece, begin) != nil {
					return
				}
			}
		},
		"answers with other blocks": func(l *line) {
			l.greet(l.s.InfoHash())
			l.offer()
			for {
				piece, _, length, err := l.request()
				if err != nil || l.sayBytes(msgPiece, make([]byte, length), piece, 1<<30) != nil {
					return
				}
			}
		},
		"chokes after requests": func(l *line) {
			l.greet(l.s.InfoHash())
			l.offer()
			for {
				if _, _, _, err := l.request(); err != nil {
					return
				}
				l.say(msgChoke)
				l.say(msgUnchoke)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := makeShare(t, torrent.CreateOptions{}, mixed...)
			bad := s.listen(t, func(l *line) {
				// What it sends first is read, so that closing does not reset what was said.
				b := make([]byte, 68)
				if _, err := l.r.Read(b[:1]); err == nil && b[0] == 19 {
					l.r.Discard(67)
					l.conns.Add(1)
					play(l)
				}
			})
			client := local()
			t.Cleanup(func() { client.Close() })
			d := s.start(t, torrent.Options{Client: client, Peers: []netip.AddrPort{bad.addr}})
			until(t, "it is tried", func() bool { return bad.conns.Load() > 0 })
			s.call(t, addrOf(client), func(l *line) { l.offer(); l.serve() })
			s.same(t, complete(t, d))
		})
	}
}

// A peer whose pieces fail their hash is banned, and the rest comes from others.
func TestAPICorruptPeer(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	liar := s.script(t, func(l *line) {
		l.offer()
		for {
			piece, begin, length, err := l.request()
			if err != nil {
				return
			}
			b := bytes.Clone(l.block(piece, begin, length))
			b[length/2] ^= 1
			if l.sayBytes(msgPiece, b, piece, begin) != nil {
				return
			}
		}
	})
	honest := s.gated(t)
	d := s.start(t, torrent.Options{Dir: t.TempDir(), Peers: []netip.AddrPort{liar.addr, honest.addr}})
	until(t, "the liar is banned", func() bool { return d.Stats().Banned == 1 })
	honest.give()
	s.same(t, complete(t, d))
	st := d.Stats()
	require.Positive(t, st.Wasted)
	require.EqualValues(t, 1, liar.conns.Load(), "it is not dialled again")
}

func TestAPISeedLeavesAtHalf(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	half := s.script(t, func(l *line) {
		l.offer()
		for range l.s.NumPieces() / 2 {
			piece, begin, length, err := l.request()
			if err != nil || l.answer(piece, begin, length) != nil {
				return
			}
		}
	})
	rest := s.gated(t)
	d := s.start(t, torrent.Options{Dir: t.TempDir(), Peers: []netip.AddrPort{half.addr, rest.addr}})
	until(t, "the first half is here", func() bool { return half.sent.Load() > 0 && half.open.Load() == 0 })
	rest.give()
	s.same(t, complete(t, d))
}

func TestAPIStorageErrors(t *testing.T) {
	broken := errors.New("broken")
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	addr := s.seed(t, torrent.Options{})
	for name, st := range map[string]*mapStorage{
		"write":       {failWrite: broken},
		"later write": {failWrite: syscall.ENOSPC, failAfter: 3},
		"read":        {failRead: broken},
		"sync":        {failSync: broken},
	} {
		t.Run(name, func(t *testing.T) {
			before := count()
			d, err := s.Start(within(t), &torrent.Options{Storage: st.open, Peers: []netip.AddrPort{addr}})
			require.NoError(t, err)
			files, err := d.Wait()
			require.Nil(t, files)
			want := cmp.Or(st.failRead, st.failWrite, st.failSync)
			require.ErrorIs(t, err, want)
			d.Close()
			require.ErrorIs(t, d.Stats().StorageError, want)
			require.NotZero(t, d.Stats().StorageErrors)
			require.Equal(t, 1, st.closes)
			settled(t, before)
		})
	}
	t.Run("close", func(t *testing.T) {
		st := &mapStorage{failClose: broken}
		files, err := s.DownloadAll(within(t), &torrent.Options{Storage: st.open, Peers: []netip.AddrPort{addr}})
		require.NoError(t, err)
		s.same(t, files)
		require.ErrorIs(t, files.Close(), broken)
		require.Equal(t, 1, st.closes)
	})
}

func TestAPIStats(t *testing.T) {
	t.Parallel()
	tr := tracker(t)
	s := makeShare(t, torrent.CreateOptions{Trackers: [][]string{{tr.url}}}, mixed...)
	seed := s.gated(t)
	tr.name(seed.addr)
	d := s.start(t, torrent.Options{Dir: t.TempDir()})
	require.Same(t, s.Torrent, d.Torrent())
	until(t, "a peer", func() bool { return len(d.Stats().Peers) == 1 && !d.Stats().Peers[0].PeerChoking })
	st := d.Stats()
	require.Equal(t, s.Length(), st.Length)
	require.Equal(t, s.Length(), st.Wanted)
	require.Zero(t, st.Verified)
	require.Negative(t, st.ETA)
	require.Equal(t, seed.addr, st.Peers[0].Addr)
	require.Equal(t, "tracker", st.Peers[0].Source)
	require.Equal(t, s.NumPieces(), st.Peers[0].Pieces)
	require.True(t, st.Peers[0].AmInterested)
	require.Equal(t, 1, st.Known)
	require.Len(t, st.Trackers, 1)
	require.Equal(t, tr.url, st.Trackers[0].URL)
	require.NoError(t, st.Trackers[0].Err)
	require.Equal(t, 1, st.Trackers[0].Peers)
	require.Equal(t, 3, st.Trackers[0].Seeds)
	require.Equal(t, 4, st.Trackers[0].Leechers)
	require.True(t, st.Trackers[0].NextAnnounce.After(time.Now()))

	least := int64(0)
	for i := range s.NumPieces() {
		seed.give(i)
		least += int64(s.pieceSize(i))
		until(t, "the piece is verified", func() bool {
			before := st
			st = d.Stats()
			require.GreaterOrEqual(t, st.Verified, before.Verified)
			require.GreaterOrEqual(t, st.Downloaded, st.Verified)
			require.LessOrEqual(t, st.Verified, least)
			return st.Verified == least
		})
		if i < s.NumPieces()-1 && st.DownloadRate > 0 {
			require.Positive(t, st.ETA)
		}
	}
	files := complete(t, d)
	st = d.Stats()
	require.Equal(t, s.Length(), st.Verified)
	require.Equal(t, s.Length(), st.Downloaded)
	require.Zero(t, st.Wasted)
	require.Zero(t, st.ETA)
	require.NoError(t, files.Close())
	require.Equal(t, s.Length(), d.Stats().Verified, "stats are there after the end")
}

// Events between the call of Events and its first iteration are not lost.
func TestEventsFromTheCallOn(t *testing.T) {
	tor, seed := torrenttest.Seed(t, map[string]string{"tide.txt": "neap"})
	client := &torrent.Client{Listen: "127.0.0.1:0", NoDHT: true, NoUTP: true}
	t.Cleanup(func() { client.Close() })
	d, err := tor.Start(t.Context(), &torrent.Options{Client: client})
	require.NoError(t, err)
	events := d.Events(t.Context())
	d.AddPeers(seed)
	files, err := d.Wait()
	require.NoError(t, err)
	require.NoError(t, files.Close())
	verified := 0
	for e := range events {
		if e.Kind == torrent.FileVerified {
			verified++
		}
	}
	require.Equal(t, 1, verified)
}
