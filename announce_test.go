package torrent

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/shoal-go/torrent/internal/wire"
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
				tracker := simtracker.New(1)
				seed := simpeer.New("seed", n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), 6881, content.truth, simpeer.Script{})
				require.NoError(t, seed.Arrive())
				defer seed.Stop()
				tracker.Add(seed.Addr())
				client := simClient(t, n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond), tracker)
				d, err := content.Start(t.Context(), &Options{Client: client, Seed: c.seed, Storage: newSimStorage(content).open})
				require.NoError(t, err)
				<-d.Done()
				simnet.Sleep(time.Second)
				var events []string
				for _, a := range tracker.Announces() {
					events = append(events, a.Event)
				}
				require.Equal(t, c.want, events)
				require.Zero(t, tracker.Announces()[1].Left)
			})
		})
	}
}

// BEP 27: with another tracker, all peers are dropped but the user's, no matter which side made the connection.
func TestPrivateTrackerSwitchDropsPeers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		content.private = true
		content.trackers = [][]string{{"http://old.sim/announce"}, {"http://new.sim/announce"}}
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		listen := func(ip string) *metadataSpeaker {
			return speakMetadata(t, n.NewHost(ip, 0, 0, 0), content, metadataScript{})
		}
		named, user := listen("80.0.0.2"), listen("80.0.0.3")
		tracker := simtracker.New(1)
		var broken atomic.Bool
		tracker.Answer = func(req *http.Request) (*http.Response, error) {
			if req.URL.Host == "new.sim" {
				return simtracker.Response(req, 200, []byte("d8:intervali300ee")), nil
			} else if broken.Load() {
				return simtracker.Response(req, 500, nil), nil
			}
			return simtracker.Response(req, 200, []byte("d8:intervali120e5:peers6:\x50\x00\x00\x02\x1a\xe1e")), nil
		}
		d := simLeech(t, simClient(t, us, tracker), content, user.addr())
		simnet.Sleep(time.Second)
		s := speak(t, n.NewHost("80.0.0.4", 0, 0, 0), content, us.Addr(6881), speech{extended: true})
		s.sayHello(wire.ExtHandshake{P: 77})
		silent := speak(t, n.NewHost("80.0.0.5", 0, 0, 0), content, us.Addr(6881), speech{})
		simnet.Sleep(time.Second)
		require.Len(t, d.Stats().Peers, 4)
		broken.Store(true)
		simnet.Sleep(2 * time.Minute)
		require.True(t, s.hungUp())
		require.True(t, silent.hungUp())
		require.False(t, connectedTo(d, named.addr()))
		require.True(t, connectedTo(d, user.addr()))
		require.Equal(t, 1, d.Stats().Known)
	})
}
