package torrent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/stretchr/testify/require"
)

// sampleDir is a directory of files that share pieces, with an odd last piece and an empty file.
func sampleDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sample")
	for name, size := range map[string]int{"a.bin": 300_000, "b/c.txt": 17, "b/d.bin": 1_000_003, "b/empty": 0, "z.bin": 65_536} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		b := make([]byte, size)
		rand.Read(b)
		require.NoError(t, os.WriteFile(path, b, 0o644))
	}
	return dir
}

// seed shares dir on loopback and returns its address.
func seed(t *testing.T, tor *Torrent, dir string, client *Client) netip.AddrPort {
	t.Helper()
	if client == nil {
		client = &Client{NoDHT: true, NoUTP: true}
	}
	client.Listen = "127.0.0.1:0"
	d, err := tor.Start(t.Context(), &Options{Dir: dir, Seed: true, Client: client})
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	<-d.Done()
	return netip.MustParseAddrPort(client.Addr().String())
}

func requireSame(t *testing.T, dir string, files *Downloaded) {
	t.Helper()
	n := 0
	for f := range files.Files() {
		want, err := os.ReadFile(filepath.Join(filepath.Dir(dir), filepath.FromSlash(f.Path())))
		require.NoError(t, err)
		got, err := f.Bytes()
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), f.Path())
		n++
	}
	require.Equal(t, 5, n)
}

func TestDownloadAll(t *testing.T) {
	for name, policy := range map[string]EncryptionPolicy{"prefer": PreferEncryption, "require": RequireEncryption, "disable": DisableEncryption} {
		t.Run(name, func(t *testing.T) {
			dir := sampleDir(t)
			tor, err := Create(dir, &CreateOptions{PieceLength: 32 << 10})
			require.NoError(t, err)
			addr := seed(t, tor, filepath.Dir(dir), &Client{NoDHT: true, NoUTP: true, Encryption: policy})
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			for _, to := range []string{"", t.TempDir()} {
				files, err := tor.DownloadAll(ctx, &Options{Dir: to, Peers: []netip.AddrPort{addr}, Client: &Client{NoDHT: true, NoUTP: true, Encryption: policy}})
				require.NoError(t, err)
				requireSame(t, dir, files)
				require.NoError(t, files.Close())
			}
		})
	}
}

// eventsAt returns the events that were announced to a tracker since it was last called, in order.
func eventsAt(tr *simtracker.Tracker) (events []string) {
	for _, a := range tr.Announces() {
		events = append(events, a.Event)
	}
	tr.Forget()
	return events
}

// A paused download has no connection and makes no announce. What it has can be read, and it goes on from there.
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
		_, err := c.connect(t.Context(), us.Addr(6881), content.infoHash, anyWay)
		require.Error(t, err, "it is not served")
		seed.AddPeers(us.Addr(6881)) // which dials in vain
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

// Close ends a paused download. A pause also holds if it comes while the content is still checked.
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

// Announces go to the trackers of the options as well as to those of the torrent.
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

// Events report the course of a download to each reader, however slow it is.
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
				simnet.Sleep(time.Hour) // a slow reader holds up nothing
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
		require.Less(t, index("tracker http://tracker.sim/announce"), index("connected"))
		require.Less(t, index("connected"), index("file "))
		require.Less(t, index("file "), index("seeding"))
		require.Less(t, index("file "), index("gone: both sides have everything"))
		require.Equal(t, len(said)-1, index("stopped"))
	})
}

// Events that come faster than they are read are counted, and nothing waits for the reader.
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
