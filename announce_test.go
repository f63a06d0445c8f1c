package torrent

import (
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/stretchr/testify/require"
)

func TestTrackersHearOfCompletionBeforeTheStop(t *testing.T) {
	for _, c := range []struct {
		name string
		seed bool
		want []string
	}{
		{"a download that ends when it is complete", false, []string{"started", "completed", "stopped"}},
		{"a download that goes on sharing", true, []string{"started", "completed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, 64<<10, 1<<20)
				content.trackers = [][]string{{"http://10.0.9.9/announce"}}
				tracker := newSimTracker(1)
				seed := newSimPeer("seed", n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), 6881, content, simScript{})
				require.NoError(t, seed.arrive())
				defer seed.stop()
				tracker.add(seed.addr())
				client := simClient(t, n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond), tracker)
				d, err := content.Start(t.Context(), &Options{Client: client, Seed: c.seed, Storage: newSimStorage(content).open})
				require.NoError(t, err)
				<-d.Done()
				simnet.Sleep(time.Second)
				var events []string
				for _, a := range tracker.said() {
					events = append(events, a.event)
				}
				require.Equal(t, c.want, events)
				require.Zero(t, tracker.said()[1].left)
			})
		})
	}
}
