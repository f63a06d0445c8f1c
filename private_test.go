package torrent

import (
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
)

// A strictTracker records all that it is told.
type strictTracker struct {
	mu     sync.Mutex
	said   []url.Values
	agents []string
}

func (s *strictTracker) take() (said []url.Values) {
	s.mu.Lock()
	defer s.mu.Unlock()
	said, s.said = s.said, nil
	return said
}

func eventsOf(said []url.Values) (events []string) {
	for _, q := range said {
		events = append(events, q.Get("event"))
	}
	return events
}

// withAgent sets the user agent, as a program of the user's may.
type withAgent struct{ http.RoundTripper }

func (w withAgent) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", "approved/1.0")
	return w.RoundTripper.RoundTrip(r)
}

// The announces of a private torrent are what a strict tracker wants: one peer id and key a run, each event once, and
// numbers that go on from one run to the next.
func TestPrivateAnnounces(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 64, true)
		content.trackers = [][]string{{"http://tracker.sim/announce?passkey=1"}}
		us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 200<<10, 0, 0)
		var strict strictTracker
		tracker := simtracker.New(1)
		tracker.Answer = func(r *http.Request) (*http.Response, error) {
			strict.mu.Lock()
			defer strict.mu.Unlock()
			strict.said = append(strict.said, r.URL.Query())
			strict.agents = append(strict.agents, r.Header.Get("User-Agent"))
			return simtracker.Response(r, http.StatusOK, fmt.Appendf(nil, "d8:intervali1800e12:min intervali1800e5:peers6:%s\x1a\xe1e", them.IP().AsSlice())), nil
		}
		seed := simSeed(t, simClient(t, them, simtracker.New(2)), content)
		storage := newSimStorage(content)
		size := content.length

		run := func(o Options) (first url.Values, all []url.Values) {
			c := simClient(t, us, tracker)
			c.HTTPClient = &http.Client{Transport: withAgent{c.HTTPClient.Transport}}
			c.hooks.seed += uint64(o.Downloaded) // another run, another secret
			o.Client, o.Seed, o.Storage = c, true, storage.open
			d, err := content.Start(t.Context(), &o)
			require.NoError(t, err)
			<-d.Done()
			simnet.Sleep(time.Minute)
			d.Pause()
			simnet.Sleep(time.Minute)
			d.Resume()
			simnet.Sleep(time.Hour)
			require.NoError(t, d.Close())
			require.NoError(t, c.Close())
			all = strict.take()
			for _, q := range all {
				require.Equal(t, all[0].Get("peer_id"), q.Get("peer_id"))
				require.Equal(t, all[0].Get("key"), q.Get("key"))
				require.Equal(t, "1", q.Get("passkey"))
				require.Equal(t, "6881", q.Get("port"))
				want := "200"
				if q.Get("event") == "stopped" {
					want = "0"
				}
				require.Equal(t, want, q.Get("numwant"))
			}
			require.NotEmpty(t, all[0].Get("peer_id"))
			require.NotEmpty(t, all[0].Get("key"))
			return all[0], all
		}

		one, said := run(Options{})
		require.Equal(t, []string{"started", "completed", "stopped", "started", "", "stopped"}, eventsOf(said))
		require.Equal(t, fmt.Sprint(size), one.Get("left"))
		require.Equal(t, "0", one.Get("downloaded"))
		for _, q := range said[1:] {
			require.Equal(t, "0", q.Get("left"), q)
			require.Equal(t, fmt.Sprint(size), q.Get("downloaded"))
		}
		require.EqualValues(t, size, seed.Stats().Uploaded)

		two, said := run(Options{Downloaded: size, Uploaded: 12345})
		require.Equal(t, []string{"started", "stopped", "started", "", "stopped"}, eventsOf(said), "it was complete before")
		require.Equal(t, "0", two.Get("left"))
		require.Equal(t, fmt.Sprint(size), two.Get("downloaded"))
		require.Equal(t, "12345", two.Get("uploaded"))
		require.NotEqual(t, one.Get("peer_id"), two.Get("peer_id"))
		require.NotEqual(t, one.Get("key"), two.Get("key"))
		for _, agent := range strict.agents {
			require.Equal(t, "approved/1.0", agent)
		}
	})
}
