package torrent

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
)

// simTrackers answer by host with the peers that their functions return. A tracker fails if its function returns false, or if it has
// none.
func simTrackers(interval time.Duration, by map[string]func() ([]netip.AddrPort, bool)) *simtracker.Tracker {
	tracker := simtracker.New(1)
	tracker.Answer = func(req *http.Request) (*http.Response, error) {
		name := by[req.URL.Host]
		if name == nil {
			return simtracker.Response(req, 500, nil), nil
		}
		peers, ok := name()
		if !ok {
			return simtracker.Response(req, 500, nil), nil
		}
		var b []byte
		for _, p := range peers {
			b = append(append(b, p.Addr().AsSlice()...), byte(p.Port()>>8), byte(p.Port()))
		}
		return simtracker.Response(req, 200, fmt.Appendf(nil, "d8:intervali%de5:peers%d:%se", int(interval.Seconds()), len(b), b)), nil
	}
	return tracker
}

// muteSeed has a peer come that says that it has everything, and never unchokes.
func muteSeed(t *testing.T, n *simnet.Network, content *simContent) *simpeer.Peer {
	p := simpeer.New("mute", n.NewHost("66.0.0.1", 1e6, 0, time.Millisecond), 6881, content.truth, keepsPlace)
	require.NoError(t, p.Arrive())
	return p
}

// Two trackers of a tier answer, and name a peer that sends nothing. The third one, which knows a seed, is asked as well, and a private
// torrent goes there.
func TestTrackersThatNameAMutePeer(t *testing.T) {
	for _, private := range []bool{false, true} {
		for first := range 2 {
			t.Run(fmt.Sprintf("private %t, %d", private, first), func(t *testing.T) {
				simnet.Run(t, func(t *testing.T, n *simnet.Network) {
					content := newSimContent(1, blockSize, 64*blockSize)
					content.private = private
					content.trackers = [][]string{{"http://a.sim/announce", "http://b.sim/announce", "http://c.sim/announce"}}
					mute, seed := muteSeed(t, n, content), honestSeed(t, n, content)
					defer mute.Stop()
					defer seed.Stop()
					names := func(peers ...netip.AddrPort) func() ([]netip.AddrPort, bool) {
						return func() ([]netip.AddrPort, bool) { return peers, true }
					}
					c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), simTrackers(30*time.Minute, map[string]func() ([]netip.AddrPort, bool){
						"a.sim": names(mute.Addr()), "b.sim": names(seed.Addr()), "c.sim": names(mute.Addr()),
					}))
					c.hooks.seed = uint64(1 + 2*first)
					d := simLeech(t, c, content)
					simnet.Sleep(time.Minute)
					require.False(t, d.Stats().Complete, "another tracker is first")
					simnet.Sleep(22 * time.Minute)
					require.True(t, d.Stats().Complete)
				})
			})
		}
	}
}

// A seed comes after the first announce to the only tracker, which asks for two hours between announces. A peer that sends next to
// nothing does not have the download, or a magnet link, wait for that long.
func TestSeedThatComesAfterAMutePeer(t *testing.T) {
	for _, link := range []bool{false, true} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimResolvable(t, 1000, false)
			content.trackers = [][]string{{"http://a.sim/announce"}}
			mute := muteSeed(t, n, content)
			defer mute.Stop()
			tracker := simTrackers(2*time.Hour, map[string]func() ([]netip.AddrPort, bool){"a.sim": func() ([]netip.AddrPort, bool) {
				known := []netip.AddrPort{mute.Addr(), netip.MustParseAddrPort("90.0.0.1:6881")}
				if n.Now() < time.Minute {
					known = known[:1]
				}
				return known, true
			}})
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), tracker)
			var done <-chan struct{}
			if link {
				ctx, end := context.WithCancel(t.Context())
				done = ctx.Done()
				m := &Magnet{InfoHash: content.infoHash, Trackers: content.trackers[0]}
				go func() {
					defer end()
					_, err := m.Resolve(t.Context(), &Options{Client: c})
					require.NoError(t, err)
				}()
			} else {
				done = simLeech(t, c, content).Done()
			}
			simnet.Sleep(time.Minute)
			simSeed(t, simClient(t, n.NewHost("90.0.0.1", 0, 0, time.Millisecond), nil), content)
			select {
			case <-done:
			case <-time.After(10 * time.Minute):
				require.Fail(t, "not done", "link %t", link)
			}
		})
	}
}

// The first tracker of a private torrent, which knows its swarm, fails for two minutes. The torrent does not stay for good at the
// second one, which knows no peer.
func TestPrivateTorrentComesBackToItsTracker(t *testing.T) {
	for _, slow := range []bool{false, true} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, blockSize, 64*blockSize)
			content.private = true
			content.trackers = [][]string{{"http://a.sim/announce"}, {"http://b.sim/announce"}}
			seed := honestSeed(t, n, content)
			defer seed.Stop()
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), simTrackers(30*time.Minute, map[string]func() ([]netip.AddrPort, bool){
				"a.sim": func() ([]netip.AddrPort, bool) {
					if n.Now() < 2*time.Minute {
						if slow {
							time.Sleep(5 * time.Second)
						}
						return nil, false
					}
					return []netip.AddrPort{seed.Addr()}, true
				},
				"b.sim": func() ([]netip.AddrPort, bool) { return nil, true },
			}))
			d := simLeech(t, c, content)
			simnet.Sleep(12 * time.Minute)
			require.True(t, d.Stats().Complete, "slow %t", slow)
		})
	}
}

// A download that gets what it needs does not ask its tracker sooner, and neither does one that is slow because the user limits it. A
// limit that holds nothing back makes no difference.
func TestFedDownloadAsksNoSooner(t *testing.T) {
	for _, tc := range []struct {
		rate, limit float64
		sooner      bool
	}{{10e3, 0, false}, {10e3, 2e3, false}, {1e3, 0, true}, {1e3, 1e6, true}} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimRepeating(1, 4*blockSize, 1024*blockSize)
			content.trackers = [][]string{{"http://a.sim/announce"}}
			seed := simpeer.New("seed", n.NewHost("90.0.0.1", tc.rate, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
			require.NoError(t, seed.Arrive())
			defer seed.Stop()
			var asked atomic.Int32
			tracker := simTrackers(30*time.Minute, map[string]func() ([]netip.AddrPort, bool){"a.sim": func() ([]netip.AddrPort, bool) {
				asked.Add(1)
				return []netip.AddrPort{seed.Addr()}, true
			}})
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), tracker)
			if tc.limit > 0 {
				c.DownloadLimit = rate.NewLimiter(rate.Limit(tc.limit), blockSize)
			}
			simLeech(t, c, content)
			simnet.Sleep(20 * time.Minute)
			require.Equal(t, tc.sooner, asked.Load() > 1, "%+v", tc)
		})
	}
}

// A private torrent that gets a little does not leave its tracker, and so the only peer that sends something.
func TestPrivateTorrentKeepsASlowPeer(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimRepeating(1, 4*blockSize, 1024*blockSize)
		content.private = true
		content.trackers = [][]string{{"http://a.sim/announce"}, {"http://b.sim/announce"}}
		seed := simpeer.New("seed", n.NewHost("90.0.0.1", 1.2e3, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
		require.NoError(t, seed.Arrive())
		defer seed.Stop()
		var others atomic.Int32
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), simTrackers(30*time.Minute, map[string]func() ([]netip.AddrPort, bool){
			"a.sim": func() ([]netip.AddrPort, bool) { return []netip.AddrPort{seed.Addr()}, true },
			"b.sim": func() ([]netip.AddrPort, bool) { others.Add(1); return nil, true },
		}))
		simLeech(t, c, content)
		simnet.Sleep(time.Hour)
		require.Zero(t, others.Load())
	})
}
