package tracker

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// A download without peers asks a tracker that does not answer soon again, then as seldom as any.
func TestHungryRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
		r.hungry = true
		r.net.NewHost("10.0.1.1", 0, 0, 0) // which refuses connections
		trackers, end := r.start()
		defer end()
		began := time.Now()
		var asked []time.Duration
		for at := (time.Time{}); time.Since(began) < 2*time.Minute; simnet.Sleep(100 * time.Millisecond) {
			if last := trackers.Status()[0].LastAnnounce; last != at {
				at = last
				asked = append(asked, last.Sub(began).Round(time.Second))
			}
		}
		require.Equal(t, []time.Duration{0, time.Second, 4 * time.Second, 11 * time.Second, 26 * time.Second, 56 * time.Second, 116 * time.Second}, asked)

		last := trackers.Status()[0].LastAnnounce
		trackers.Announce()
		simnet.Sleep(20 * time.Second)
		require.Equal(t, 15*time.Second, trackers.Status()[0].LastAnnounce.Sub(last).Round(time.Second), "as soon as the first retry would be")
	})
}

func TestRetryAfter(t *testing.T) {
	for k, want := range []time.Duration{15, 30, 60, 120, 240, 480, 960, 1800, 1800} {
		require.Equal(t, want*time.Second, retryAfter(k, false), k)
		require.Equal(t, want*time.Second, retryAfter(k+3, true), k)
	}
	require.Equal(t, lastRetry, retryAfter(1<<30, true))
}

// Announce brings the next announce forward to what the tracker allows, and no further.
func TestAnnounceObeysMinInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
		var s said
		r.serve("10.0.1.1", honest(&s, "d8:intervali1800e12:min intervali120e5:peers0:e"))
		trackers, end := r.start()
		defer end()
		simnet.Sleep(time.Second)
		require.Equal(t, "started", s.take())
		trackers.Announce()
		simnet.Sleep(118 * time.Second)
		require.Empty(t, s.take())
		simnet.Sleep(2 * time.Second)
		require.Equal(t, "-", s.take())
		simnet.Sleep(29 * time.Minute)
		require.Empty(t, s.take(), "then the interval holds again")
	})
}

// Trackers that are added are asked at once; those that are known, and those beyond the bound, change nothing.
func TestAddTrackers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
		var one, two said
		r.serve("10.0.1.1", honest(&one, onePeer))
		r.serve("10.0.1.2", honest(&two, onePeer))
		trackers, end := r.start()
		simnet.Sleep(time.Second)
		trackers.Add("http://10.0.1.2/announce", "http://10.0.1.1/announce", "")
		simnet.Sleep(time.Second)
		require.Equal(t, "started", one.take())
		require.Equal(t, "started", two.take())
		require.Len(t, trackers.Status(), 2)

		// Run may begin again after a Stop.
		end()
		trackers.Stop(t.Context())
		require.Equal(t, "stopped", one.take())
		_, end = r.run(trackers)
		defer end()
		simnet.Sleep(time.Second)
		require.Equal(t, "started", one.take())

		for k := range 2 * maxTrackers {
			trackers.Add(fmt.Sprintf("http://10.0.9.%d:%d/", k%250, k+1))
		}
		require.Len(t, trackers.Status(), maxTrackers)
	})
}

// The trackers of a torrent, however many, leave room for the user's.
func TestUsersTrackersBesideMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tiers [][]string
		for k := range maxTrackers {
			tiers = append(tiers, []string{fmt.Sprintf("http://10.0.1.9/%d", k)})
		}
		r := newTrackerRig(t, tiers...)
		r.config.UserTiers = [][]string{{"http://10.0.1.1/announce"}}
		var one, two said
		r.serve("10.0.1.1", honest(&one, onePeer))
		r.serve("10.0.1.2", honest(&two, onePeer))
		trackers, _ := r.start()
		trackers.Add("http://10.0.1.2/announce")
		simnet.Sleep(5 * time.Minute)
		require.Equal(t, "started", one.take())
		require.Equal(t, "started", two.take())
	})
}

// An Announce while a tracker is being asked counts for the next time: what it was told may be out of date.
func TestAnnounceWhileAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
		var s said
		r.serve("10.0.1.1", honest(&s, "d8:intervali1800e12:min intervali120e5:peers0:e"))
		trackers, end := r.start()
		defer end()
		simnet.Sleep(time.Millisecond)
		trackers.Announce()
		simnet.Sleep(time.Minute)
		require.Equal(t, "started", s.take())
		simnet.Sleep(2 * time.Minute)
		require.Equal(t, "-", s.take())
		simnet.Sleep(10 * time.Minute)
		require.Empty(t, s.take())
	})
}

// A machine that has moved says so to every tracker at once, whatever intervals say, but not many times in a row.
func TestMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"}, []string{"http://10.0.1.2/announce"})
		var s said
		r.serve("10.0.1.1", honest(&s, "d8:intervali1800e12:min intervali900e5:peers0:e"))
		trackers, end := r.start()
		defer end()
		simnet.Sleep(time.Hour / 4)
		require.Equal(t, "started", s.take())
		trackers.Moved()
		simnet.Sleep(time.Second)
		require.Equal(t, "-", s.take(), "the tracker knows us, and is told once")
		for range 10 {
			trackers.Moved()
			simnet.Sleep(time.Second)
		}
		require.Empty(t, s.take())
		simnet.Sleep(10 * time.Second)
		require.Equal(t, "-", s.take())
		var late said
		r.serve("10.0.1.2", honest(&late, onePeer)) // which had failed so often that it would wait for long
		trackers.Moved()
		simnet.Sleep(20 * time.Second)
		require.Equal(t, "started", late.take())
	})
}

// An announce that waits for an answer to an address that is no more begins again.
func TestMovedWhileAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
		var s said
		silent := true
		r.serve("10.0.1.1", func(w http.ResponseWriter, req *http.Request) {
			if silent {
				<-req.Context().Done()
				return
			}
			honest(&s, onePeer)(w, req)
		})
		trackers, end := r.start()
		defer end()
		simnet.Sleep(2 * time.Second)
		silent = false
		trackers.Moved()
		simnet.Sleep(16 * time.Second)
		require.Equal(t, "started", s.take())
	})
}
