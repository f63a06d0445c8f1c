package torrent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
)

// Events tell the course of a download to whoever reads them, however slowly.
func TestEvents(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20, 64<<10)
		content.trackers = [][]string{{"http://tracker.sim/announce"}, {"gone://tracker.sim/"}}
		them := n.NewHost("80.0.0.2", 0, 0, 0)
		seed := simSeed(t, simClient(t, them, simtracker.New(2)), content)
		d := simLeech(t, simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), simtracker.New(1)), content)
		var events []Event
		over := make(chan struct{})
		go func() {
			defer close(over)
			for e := range d.Events(context.Background()) {
				events = append(events, e)
			}
		}()
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for range d.Events(ctx) {
				simnet.Sleep(time.Hour) // a reader that takes its time holds nobody up
			}
		}()
		simnet.Sleep(time.Second)
		d.AddPeers(them.Addr(6881))
		<-d.Done()
		require.NoError(t, seed.Close())
		simnet.Sleep(time.Minute)
		require.NoError(t, d.Close())
		<-over
		cancel()
		<-stopped

		var said []string
		pieces := 0
		for _, e := range events {
			require.False(t, e.Time.IsZero())
			switch e.Kind {
			case PieceVerified:
				pieces++
			case FileVerified:
				said = append(said, "file "+e.File.Path)
			case PeerConnected:
				require.Equal(t, them.Addr(6881), e.Peer)
				said = append(said, "connected")
			case PeerGone:
				said = append(said, fmt.Sprint("gone: ", e.Err))
			case TrackerAnswered:
				said = append(said, fmt.Sprint("tracker ", e.Tracker))
			case StateChanged:
				said = append(said, e.State.String())
			default:
				said = append(said, e.Kind.String())
			}
		}
		require.Equal(t, content.NumPieces(), pieces)
		index := func(what string) int {
			i := slices.IndexFunc(said, func(s string) bool { return strings.HasPrefix(s, what) })
			require.GreaterOrEqual(t, i, 0, "%s in %v", what, said)
			return i
		}
		require.Less(t, index("downloading"), index("connected"))
		require.Less(t, index("tracker http://tracker.sim/announce"), index("connected"))
		require.Less(t, index("connected"), index("file "))
		require.Less(t, index("file "), index("seeding"))
		require.Less(t, index("file "), index("gone: both sides have everything"))
		require.Equal(t, len(said)-1, index("stopped"))
	})
}

// What comes faster than it is taken is counted, and nothing waits for it.
func TestEventsAreBounded(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 16<<10, 3*maxEvents/2*16<<10)
		d := simLeech(t, simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil), content)
		var first Event
		var rest []Event
		over := make(chan struct{})
		go func() {
			defer close(over)
			for e := range d.Events(t.Context()) {
				if first == (Event{}) {
					first = e
					simnet.Sleep(time.Hour)
					continue
				}
				rest = append(rest, e)
			}
		}()
		simnet.Sleep(time.Second)
		them := n.NewHost("80.0.0.2", 0, 0, 0)
		simSeed(t, simClient(t, them, nil), content)
		d.AddPeers(them.Addr(6881))
		<-d.Done()
		simnet.Sleep(2 * time.Hour)
		require.NoError(t, d.Close())
		<-over
		dropped := slices.IndexFunc(rest, func(e Event) bool { return e.Kind == EventsDropped })
		require.GreaterOrEqual(t, dropped, maxEvents)
		require.Greater(t, rest[dropped].Dropped, maxEvents/3)
	})
}

func TestEventAsText(t *testing.T) {
	b, err := json.Marshal([]EventKind{PieceVerified, EventsDropped, 99})
	require.NoError(t, err)
	require.JSONEq(t, `["piece verified", "events dropped", "99"]`, string(b))
}
