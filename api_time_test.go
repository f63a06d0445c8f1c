package torrent_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

// Tests of the public API that are about time. They run under a virtual clock, so a slow machine changes nothing.

// at is the share with its scripted peers on a simulated host.
func (s share) at(h *simnet.Host) *share {
	s.host = h
	return &s
}

// clientAt has a client live on a simulated host and accept peers there, until the test ends.
func clientAt(t *testing.T, h *simnet.Host, c *torrent.Client) *torrent.Client {
	t.Helper()
	c.NoListen, c.Dial = true, h.Dial
	l, err := h.Listen("tcp", ":6881")
	require.NoError(t, err)
	require.NoError(t, c.Serve(l))
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAPIStalled(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		s := s.at(n.NewHost("80.0.0.2", 0, 0, 0))
		mute := s.gated(t)
		client := clientAt(t, n.NewHost("80.0.0.1", 0, 0, 0), new(torrent.Client))
		began := time.Now()
		_, err := s.DownloadAll(t.Context(), &torrent.Options{StallTimeout: 300 * time.Millisecond, Peers: []netip.AddrPort{mute.addr}, Client: client})
		require.ErrorIs(t, err, torrent.ErrStalled)
		require.GreaterOrEqual(t, time.Since(began), 300*time.Millisecond)
		require.Less(t, time.Since(began), time.Second)
		// A download that is complete does not stall.
		d := s.start(t, torrent.Options{Dir: s.dir, Seed: true, StallTimeout: time.Millisecond, Client: client})
		complete(t, d)
		leech := s.call(t, netip.MustParseAddrPort("80.0.0.1:6881"), func(l *line) {
			l.say(msgInterested)
			for {
				id, _, err := l.hear()
				if err != nil || id == msgUnchoke {
					close(l.opened)
					return
				}
			}
		})
		<-leech.opened
		simnet.Sleep(time.Minute)
		require.Equal(t, []*torrent.Download{d}, slices.Collect(client.Downloads()))
	})
}

// A failure leaves alone what was returned before it.
func TestAPIBytesOutliveFailure(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	for _, dir := range []string{"", t.TempDir()} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			s := s.at(n.NewHost("80.0.0.2", 0, 0, 0))
			seed := s.gated(t)
			seed.give(s.piecesOf("share/b/c.txt")...)
			client := clientAt(t, n.NewHost("80.0.0.1", 0, 0, 0), new(torrent.Client))
			d, err := s.Start(t.Context(), &torrent.Options{Dir: dir, Client: client, Peers: []netip.AddrPort{seed.addr}, StallTimeout: 200 * time.Millisecond})
			require.NoError(t, err)
			var early []byte
			for f, err := range d.Completed() {
				require.NoError(t, err)
				if f.Path() == "share/b/c.txt" {
					early, err = f.Bytes()
					require.NoError(t, err)
					break
				}
			}
			_, err = wait(t, d)
			require.ErrorIs(t, err, torrent.ErrStalled)
			require.Equal(t, s.want["share/b/c.txt"], bytes.Clone(early))
			require.NoError(t, d.Close())
			require.NoError(t, client.Close())
			require.Equal(t, s.want["share/b/c.txt"], bytes.Clone(early), "still")
		})
	}
}

func TestAPIDownloadLimits(t *testing.T) {
	t.Parallel()
	const burst, perSecond, size = 32 << 10, 512 << 10, 512 << 10
	limit := rate.NewLimiter(perSecond, burst)
	s := makeShare(t, torrent.CreateOptions{}, part{"", size})
	for name, c := range map[string]struct {
		seed, leech *torrent.Client
		from, to    torrent.Options
	}{
		"down":               {to: torrent.Options{DownloadLimit: limit}},
		"down of the client": {leech: &torrent.Client{DownloadLimit: limit}},
		"up":                 {from: torrent.Options{UploadLimit: limit}},
		"up of the client":   {seed: &torrent.Client{UploadLimit: limit}},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				limit.SetBurstAt(time.Now(), burst)
				c.from.Client = clientAt(t, n.NewHost("80.0.0.2", 0, 0, 0), cmp.Or(c.seed, new(torrent.Client)))
				c.to.Client = clientAt(t, n.NewHost("80.0.0.1", 0, 0, 0), cmp.Or(c.leech, new(torrent.Client)))
				c.to.Peers = []netip.AddrPort{s.seed(t, c.from)}
				began := time.Now()
				d := s.start(t, c.to)
				s.same(t, complete(t, d))
				least := time.Duration(float64(size-burst) / perSecond * float64(time.Second))
				require.Greater(t, time.Since(began), least*9/10)
				require.Less(t, time.Since(began), least*11/10+time.Second)
			})
		})
	}
}

// The end of a context ends the download within a second, even when trackers do not answer.
func TestAPICancelledInASecond(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{Trackers: [][]string{
		{"http://refuses/announce"}, {"http://parked/announce"}, {"http://fails/announce"}, {"http://silent/announce"},
	}}, mixed...)
	because := errors.New("because")
	start := func(t *testing.T, n *simnet.Network, ctx context.Context) *torrent.Download {
		tracker := simtracker.New(1)
		tracker.Answer = func(r *http.Request) (*http.Response, error) {
			switch r.URL.Host {
			case "refuses":
				return nil, errors.New("connection refused")
			case "parked":
				return simtracker.Response(r, http.StatusOK, []byte("<html><body>Parked domain</body></html>")), nil
			case "fails":
				return simtracker.Response(r, http.StatusOK, []byte("d14:failure reason17:unregistered hashe")), nil
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		h := n.NewHost("80.0.0.1", 0, 0, 0)
		client := clientAt(t, h, &torrent.Client{HTTPClient: tracker.Client(h)})
		d, err := s.Start(ctx, &torrent.Options{Client: client})
		require.NoError(t, err)
		t.Cleanup(func() { d.Close() })
		return d
	}
	t.Run("cancelled", func(t *testing.T) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			ctx, cancel := context.WithCancelCause(t.Context())
			d := start(t, n, ctx)
			simnet.Sleep(10 * time.Second)
			began := time.Now()
			cancel(because)
			_, err := d.Wait()
			require.LessOrEqual(t, time.Since(began), time.Second)
			require.ErrorIs(t, err, because)
			require.ErrorContains(t, err, "unregistered hash")
			require.NoError(t, d.Close())
			require.LessOrEqual(t, time.Since(began), time.Second)
		})
	})
	t.Run("deadline", func(t *testing.T) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, because)
			defer cancel()
			began := time.Now()
			_, err := start(t, n, ctx).Wait()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, because)
			require.LessOrEqual(t, time.Since(began), 1050*time.Millisecond)
		})
	})
}

// slowStorage takes a while for every read.
type slowStorage struct {
	mapStorage
	takes time.Duration
}

func (s *slowStorage) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(s.takes)
	return s.mapStorage.ReadAt(p, off)
}

// A check of a slow storage ends within a second of the context.
func TestAPICancelledWhileReading(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, part{"", runtime.GOMAXPROCS(0) << 20}) // each core reads it for 400 ms
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		store := &slowStorage{takes: 100 * time.Millisecond}
		store.b = s.raw
		because := errors.New("because")
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		client := clientAt(t, n.NewHost("80.0.0.1", 0, 0, 0), new(torrent.Client))
		d, err := s.Start(ctx, &torrent.Options{Client: client, Storage: func(*torrent.Torrent) (torrent.Storage, error) { return store, nil }})
		require.NoError(t, err)
		simnet.Sleep(150 * time.Millisecond)
		st := d.Stats()
		require.True(t, st.Checking, fmt.Sprintf("%+v", st))
		began := time.Now()
		cancel(because)
		_, err = d.Wait()
		require.LessOrEqual(t, time.Since(began), time.Second)
		require.ErrorIs(t, err, because)
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, d.Close())
		require.Equal(t, 1, store.closes)
	})
}

// A check of a directory ends with its context as well.
func TestAPICancelledWhileChecking(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{PieceLength: 4 << 20}, part{"", 96 << 20})
	because := errors.New("because")
	before := count()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	d, err := s.Start(ctx, &torrent.Options{Dir: s.dir})
	require.NoError(t, err)
	until(t, "checking", func() bool { st := d.Stats(); return st.Checking || st.Complete })
	cancel(because)
	_, err = wait(t, d)
	if err != nil { // a fast machine may be done
		require.ErrorIs(t, err, because)
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, d.Close())
	settled(t, before)
}
