package tracker

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// Many torrents announce to their tracker a few at a time, and all of them get there.
func TestAnnouncesUnderWayAtAHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const torrents = 4 * placesAtHost
		r := newTrackerRig(t)
		var mu sync.Mutex
		var under, most, asked int
		r.serve("10.0.1.1", func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			under, asked = under+1, asked+1
			most = max(most, under)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			under--
			mu.Unlock()
			fmt.Fprint(w, "d8:intervali1800ee")
		})
		r.config.UserTiers = [][]string{{"http://10.0.1.1/announce"}}
		for range torrents {
			r.start()
		}
		simnet.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, torrents, asked)
		require.Equal(t, placesAtHost, most)
		r.config.Pace.places.mu.Lock()
		defer r.config.Pace.places.mu.Unlock()
		require.Empty(t, r.config.Pace.places.at)
	})
}

// The wait for a place is no silence of the tracker, if it has addresses of one family only.
func TestWaitForAPlaceIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const torrents = 4 * placesAtHost
		r := newTrackerRig(t)
		r.names["one.example"] = []netip.Addr{netip.MustParseAddr("10.0.1.1")}
		var failed atomic.Int32
		r.config.Heard = func(s Status) {
			if s.Err != nil {
				failed.Add(1)
			}
		}
		var asked said
		r.serve("10.0.1.1", func(w http.ResponseWriter, req *http.Request) {
			time.Sleep(6 * time.Second)
			honest(&asked, onePeer)(w, req)
		})
		r.config.UserTiers = [][]string{{"http://one.example/announce"}}
		for range torrents {
			r.start()
		}
		simnet.Sleep(28 * time.Second)
		require.Zero(t, failed.Load())
		require.Len(t, strings.Fields(asked.take()), torrents)
	})
}

// A tracker that does not answer holds up no announce to another one, nor `stopped` to itself.
func TestAnnouncesBesideAStalledHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t)
		var stalled atomic.Bool
		var first, other said
		r.serve("10.0.1.1", func(w http.ResponseWriter, req *http.Request) {
			if e := req.URL.Query().Get("event"); stalled.Load() && e != "stopped" {
				<-req.Context().Done()
				return
			}
			honest(&first, onePeer)(w, req)
		})
		r.serve("10.0.1.2", honest(&other, onePeer))
		r.config.UserTiers = [][]string{{"http://10.0.1.1/announce"}}
		leaving, end := r.start()
		simnet.Sleep(5 * time.Second)
		require.Equal(t, "started", first.take())
		stalled.Store(true)
		for range 3 * placesAtHost {
			r.start()
		}
		r.config.UserTiers = [][]string{{"http://10.0.1.2/announce"}}
		r.start()
		simnet.Sleep(5 * time.Second)
		require.Equal(t, "started", other.take())
		end()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		leaving.Stop(ctx)
		require.Equal(t, "stopped", first.take())
	})
}
