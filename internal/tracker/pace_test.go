package tracker

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// Many torrents that list a host, by its address, by names or by redirects, have us ask it at a bounded rate, unless it is a tracker.
func TestManyTorrentsWithOneHost(t *testing.T) {
	const torrents = 300
	for _, tc := range []struct {
		name    string
		url     string
		tracker bool
		named   bool // by the user
	}{
		{name: "address", url: "http://10.0.1.1/%d/announce"},
		{name: "names", url: "http://n%d.example/announce"},
		{name: "redirects", url: "http://r%d.example/announce"},
		{name: "udp", url: "udp://10.0.1.1:80/%d"},
		{name: "tracker", url: "http://10.0.1.1/%d/announce", tracker: true},
		{name: "udp tracker", url: "udp://10.0.1.1:80/%d", tracker: true},
		{name: "the user's", url: "http://10.0.1.1/%d/announce", named: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t)
				r.hungry = true
				r.config.HTTP = NewHTTPClient(HTTPConfig{NoProxy: true, Single: true, Dial: func(ctx context.Context, network, addr string, check func(string) error) (net.Conn, error) {
					host := "10.0.1.1"
					if strings.HasPrefix(addr, "r") {
						host = "10.0.2.1"
					}
					if err := check(host); err != nil {
						return nil, err
					}
					return r.me.Dial(ctx, network, host+":80")
				}})
				t.Cleanup(r.config.HTTP.CloseIdleConnections)
				var a asks
				if strings.HasPrefix(tc.url, "udp") {
					r.serveUDP("10.0.1.1", func(p []byte, reply func([]byte)) {
						switch {
						case len(p) == 16:
							a.add()
							if tc.tracker {
								reply(append([]byte{0, 0, 0, 0}, append(p[12:16:16], make([]byte, 8)...)...))
							}
						case tc.tracker:
							reply(append([]byte{0, 0, 0, 1}, append(p[12:16:16], make([]byte, 12)...)...))
						}
					})
				} else {
					r.serve("10.0.1.1", func(w http.ResponseWriter, req *http.Request) {
						a.add()
						if tc.tracker {
							fmt.Fprint(w, "d8:intervali1800ee")
							return
						}
						http.NotFound(w, req)
					})
				}
				r.serve("10.0.2.1", func(w http.ResponseWriter, req *http.Request) {
					http.Redirect(w, req, "http://10.0.1.1/announce", http.StatusFound)
				})
				for k := range torrents {
					r.names[fmt.Sprintf("n%d.example", k)] = []netip.Addr{netip.MustParseAddr("10.0.1.1")}
					tiers := [][]string{{fmt.Sprintf(tc.url, k)}}
					r.config.Tiers, r.config.UserTiers = tiers, nil
					if tc.named {
						r.config.Tiers, r.config.UserTiers = nil, tiers
					}
					r.start()
				}
				simnet.Sleep(2 * time.Second)
				if tc.tracker || tc.named {
					require.GreaterOrEqual(t, a.within(time.Minute), torrents, "of all torrents")
				} else {
					require.GreaterOrEqual(t, a.within(time.Minute), paceBurst)
					require.LessOrEqual(t, a.within(time.Minute), paceBurst+int(2*time.Second/paceEvery))
				}
			})
		})
	}
}

// Announces whose time ends before their turns take none from later ones: once a dead tracker is there again, it is soon asked.
func TestAnnouncesInVainTakeNoTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, addr := NewPace(), netip.MustParseAddr("10.0.1.1")
		wait := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), connectTimeout)
			defer cancel()
			return p.wait(ctx, addr)
		}
		const announces = 1000
		asked := make(chan bool, announces)
		for range announces {
			go func() { asked <- wait() == nil }()
		}
		n := 0
		for range announces {
			if <-asked {
				n++
			}
		}
		require.InDelta(t, paceBurst+int(connectTimeout/paceEvery), n, 1)
		require.NoError(t, wait())
	})
}

// Announces over UDP have no deadline. If many are cancelled, as when the network has changed, those that follow are not late.
func TestCancelledAnnouncesTakeFewTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, addr := NewPace(), netip.MustParseAddr("10.0.1.1")
		ctx, cancel := context.WithCancel(t.Context())
		const announces = 1000
		done := make(chan error, announces)
		for range announces {
			go func() { done <- p.wait(ctx, addr) }()
		}
		time.Sleep(time.Second)
		cancel()
		for range announces {
			<-done
		}
		began := time.Now()
		require.NoError(t, p.wait(t.Context(), addr))
		require.LessOrEqual(t, time.Since(began), paceAhead+paceEvery)

		for range announces { // all have a turn in the end
			go func() { done <- p.wait(t.Context(), addr) }()
		}
		for range announces {
			require.NoError(t, <-done)
		}
		require.Less(t, time.Since(began), announces*paceEvery+3*paceAhead)
	})
}

// An announce that is cancelled while it waits for its turn connects to nothing later, though net/http goes on with its dials.
func TestCancelledAnnouncesDialNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t)
		var dialled, waiting atomic.Int32
		r.config.HTTP = NewHTTPClient(HTTPConfig{NoProxy: true, Single: true, Dial: func(_ context.Context, _, _ string, check func(string) error) (net.Conn, error) {
			waiting.Add(1)
			defer waiting.Add(-1)
			if err := check("10.0.1.1"); err != nil {
				return nil, err
			}
			dialled.Add(1)
			return nil, io.ErrUnexpectedEOF
		}})
		addr := netip.MustParseAddr("10.0.1.1")
		for range paceBurst {
			require.NoError(t, r.config.Pace.wait(t.Context(), addr))
		}
		for range 10 { // a second is full
			go r.config.Pace.wait(t.Context(), addr)
		}
		synctest.Wait()
		r.config.Tiers = [][]string{{"http://10.0.1.1/announce"}}
		_, end := r.start()
		synctest.Wait()
		require.EqualValues(t, 1, waiting.Load())
		end()
		synctest.Wait()
		require.Zero(t, waiting.Load())
		time.Sleep(2 * time.Second)
		require.Zero(t, dialled.Load())
	})
}
