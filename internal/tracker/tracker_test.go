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

// A download without peers first retries a failed tracker after short delays, and then after the usual ones.
func TestHungryRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
		r.hungry = true
		r.net.NewHost("10.0.1.1", 0, 0, 0) // refuses connections
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
		require.Equal(t, 15*time.Second, trackers.Status()[0].LastAnnounce.Sub(last).Round(time.Second), "after the delay of the first retry")
	})
}

func TestRetryAfter(t *testing.T) {
	for k, want := range []time.Duration{15, 30, 60, 120, 240, 480, 960, 1800, 1800} {
		require.Equal(t, want*time.Second, retryAfter(k, false), k)
		require.Equal(t, min(want*time.Second, hungryRetry), retryAfter(k+3, true), k)
	}
	require.Equal(t, lastRetry, retryAfter(1<<30, false))
	require.Equal(t, hungryRetry, retryAfter(1<<30, true))
}

// Announce moves the next announce to the end of `min interval`, not before it.
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
		require.Empty(t, s.take(), "then the interval applies again")
	})
}

// Added trackers are asked at once. Those that are known already, and those beyond maxTrackers, are ignored.
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

		// Run may be called again after Stop.
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

// A download that is resumed announces `started` at once, whatever `min interval` is left of before: it said `stopped`.
func TestAnnouncesAtOnceWhenResumed(t *testing.T) {
	for _, hungry := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
			r.config.Hungry = func() bool { return hungry }
			var s said
			r.serve("10.0.1.1", honest(&s, "d8:intervali1800e12:min intervali1200e5:peers0:e"))
			trackers, end := r.start()
			simnet.Sleep(time.Minute)
			end()
			trackers.Stop(t.Context())
			require.Equal(t, "started stopped", s.take())
			r.run(trackers)
			simnet.Sleep(time.Second)
			require.Equal(t, "started", s.take(), "hungry: %v", hungry)
		})
	}
}

// However many trackers a torrent has, there is room for those of the user.
func TestUserTrackersAmongMany(t *testing.T) {
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

// A call of Announce during an announce brings the next one forward: the one under way may have sent outdated numbers.
func TestAnnounceWhileAnnouncing(t *testing.T) {
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

// After Moved, every tracker is announced to at once, whatever its intervals, but not repeatedly within 15 seconds.
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
		require.Equal(t, "-", s.take(), "one announce, without an event, because the tracker knows us")
		for range 10 {
			trackers.Moved()
			simnet.Sleep(time.Second)
		}
		require.Empty(t, s.take())
		simnet.Sleep(10 * time.Second)
		require.Equal(t, "-", s.take())
		var late said
		r.serve("10.0.1.2", honest(&late, onePeer)) // it failed so often that its next retry is far away
		trackers.Moved()
		simnet.Sleep(20 * time.Second)
		require.Equal(t, "started", late.take())
	})
}

// Moved restarts an announce under way, whose answer would go to the old address.
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
