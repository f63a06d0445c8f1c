package torrent

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
)

// eventsAt is what was announced to a tracker, in order, since it was last called.
func eventsAt(tr *simtracker.Tracker) (events []string) {
	for _, a := range tr.Announces() {
		events = append(events, a.Event)
	}
	tr.Forget()
	return events
}

// A paused download has no connection and makes no announce; what it has can be read, and it goes on from there.
func TestPause(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 4<<20)
		content.trackers = [][]string{{"http://tracker.sim/announce"}}
		tracker, theirs := simtracker.New(1), simtracker.New(2)
		us, them := n.NewHost("80.0.0.1", 0, 200<<10, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		tracker.Add(them.Addr(6881))
		seed := simSeed(t, simClient(t, them, theirs), content)
		c := simClient(t, us, tracker)
		d := simLeech(t, c, content)
		simnet.Sleep(5 * time.Second)
		require.Equal(t, Downloading, d.Stats().State)
		require.Equal(t, []string{"started"}, eventsAt(tracker))

		d.Pause()
		simnet.Sleep(2 * time.Second)
		st := d.Stats()
		require.Equal(t, Paused, st.State)
		require.Empty(t, st.Peers)
		require.Empty(t, seed.Stats().Peers)
		require.Equal(t, []string{"stopped"}, eventsAt(tracker))
		verified := d.Verified()
		require.NotZero(t, verified.Count())
		_, err := c.connect(t.Context(), us.Addr(6881), content.infoHash)
		require.Error(t, err, "it is not served")
		seed.AddPeers(us.Addr(6881)) // who calls in vain
		d.AddTrackers("http://tracker.sim/other")
		d.Announce()
		simnet.Sleep(time.Hour)
		require.Empty(t, eventsAt(tracker))
		require.Empty(t, d.Stats().Peers)
		require.Equal(t, verified, d.Verified())

		before := d.Stats().Downloaded
		d.Resume()
		simnet.Sleep(5 * time.Second)
		require.Equal(t, Downloading, d.Stats().State)
		require.Equal(t, []string{"started", "started"}, eventsAt(tracker), "to both trackers that it knows now")
		<-d.Done()
		require.EqualValues(t, content.length, d.Stats().Downloaded+d.Stats().Wasted-before+before, "nothing is fetched twice")
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"completed", "completed"}, eventsAt(tracker))

		d.Pause()
		simnet.Sleep(time.Second)
		d.Resume()
		simnet.Sleep(time.Minute)
		require.Equal(t, []string{"stopped", "stopped", "started", "started"}, eventsAt(tracker), "and no completed again")
	})
}

// Close of a paused download ends it, and a pause that comes before the start has checked its content holds as well.
func TestPauseAtOnce(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 4<<20)
		content.trackers = [][]string{{"http://tracker.sim/announce"}}
		tracker := simtracker.New(1)
		d := simLeech(t, simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), tracker), content)
		d.Pause()
		simnet.Sleep(time.Minute)
		require.Empty(t, eventsAt(tracker))
		require.NoError(t, d.Close())
		d.Resume()
		simnet.Sleep(time.Minute)
		require.Equal(t, Stopped, d.Stats().State)
		require.Empty(t, eventsAt(tracker))
	})
}

// Trackers of the options are announced to beside those of the torrent.
func TestOptionsTrackers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20)
		content.trackers = [][]string{{"http://one.sim/announce"}}
		c := simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), simtracker.New(1))
		o := &Options{Client: c, Storage: newSimStorage(content).open, Trackers: [][]string{{"http://two.sim/announce"}, {"http://one.sim/announce"}}}
		d, err := content.Start(t.Context(), o)
		require.NoError(t, err)
		simnet.Sleep(time.Second)
		d.AddTrackers("http://three.sim/announce", "http://two.sim/announce", "gopher://four.sim/")
		simnet.Sleep(time.Second)
		var urls []string
		for _, s := range d.Stats().Trackers {
			urls = append(urls, s.URL)
			require.Equal(t, s.URL != "gopher://four.sim/", s.Err == nil, s.URL)
		}
		slices.Sort(urls)
		require.Equal(t, []string{"gopher://four.sim/", "http://one.sim/announce", "http://three.sim/announce", "http://two.sim/announce"}, urls)
	})
}
