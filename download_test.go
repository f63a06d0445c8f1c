package torrent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
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
		_, err := c.connect(t.Context(), us.Addr(6881), content.infoHashes(), content.infoHash, []way{byTCP})
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

// A download that is paused from the start is checked, and joins no swarm before Resume.
func TestStartPaused(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 4<<20)
		content.trackers = [][]string{{"http://tracker.sim/announce"}}
		tracker, us := simtracker.New(1), n.NewHost("80.0.0.1", 0, 0, 0)
		c, st := simClient(t, us, tracker), newSimStorage(content)
		d, err := content.Start(t.Context(), &Options{Client: c, Storage: st.open, Paused: true})
		require.NoError(t, err)
		require.Equal(t, Paused, d.Stats().State, "though it is checked")
		simnet.Sleep(time.Minute)
		require.Equal(t, Paused, d.Stats().State)
		require.False(t, d.Stats().Checking)
		require.Empty(t, eventsAt(tracker))
		_, err = c.connect(t.Context(), us.Addr(6881), content.infoHashes(), content.infoHash, []way{byTCP})
		require.Error(t, err, "it is not served")
		d.Resume()
		simnet.Sleep(time.Minute)
		require.Equal(t, Downloading, d.Stats().State)
		require.Equal(t, []string{"started"}, eventsAt(tracker))
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
// gated is a storage that is not read before open is closed.
type gated struct {
	Storage
	open <-chan struct{}
}

func (s gated) ReadAt(p []byte, off int64) (int, error) {
	<-s.open
	return s.Storage.ReadAt(p, off)
}

func TestEvents(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20, 64<<10)
		content.trackers = [][]string{{"http://tracker.sim/announce"}, {"gone://tracker.sim/"}}
		them := n.NewHost("80.0.0.2", 0, 0, 0)
		seed := simSeed(t, simClient(t, them, simtracker.New(2)), content)
		subscribed := make(chan struct{})
		d, err := content.Start(t.Context(), &Options{
			Client: simClient(t, n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), simtracker.New(1)), Seed: true,
			Storage: func(t *Torrent) (Storage, error) {
				s, err := newSimStorage(content).open(t)
				return gated{s, subscribed}, err
			},
		})
		require.NoError(t, err)
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
		synctest.Wait()
		close(subscribed) // so that they hear of every state
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
		require.Less(t, index("downloading"), index("connected"))
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

// Close of the only reader ends its Read that waits.
func TestCloseEndsTheOnlyRead(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 16<<10, 64<<10)
		d := simLeech(t, simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil), content)
		var path string
		for f := range content.Files() {
			path = f.Path
		}
		r, err := d.Open(t.Context(), path)
		require.NoError(t, err)
		read := make(chan error, 1)
		go func() {
			_, err := r.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait()
		require.NoError(t, r.Close())
		require.ErrorIs(t, <-read, fs.ErrClosed)
	})
}

// A reader that seeks into the middle of a file of 2 GB gets its first bytes within two round trips and the time
// that the peers, which unchoked us long ago, need for what was on the wire and for one piece. Each peer may send
// two blocks more: the one that it was about to send, and one because blocks cannot be shared out evenly. A
// hundredth more is allowed because rates are estimates.
func TestSeekIsServedFirst(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		rates       []float64 // of the peers, bytes a second
		delay       time.Duration
		pieceLength int64
		fast        bool // BEP 6
	}{
		{name: "one peer", rates: []float64{2e6}, delay: 50 * time.Millisecond, pieceLength: 1 << 20},
		{name: "one slow peer", rates: []float64{200e3}, delay: 20 * time.Millisecond, pieceLength: 1 << 20, fast: true},
		{name: "a far peer", rates: []float64{2e6}, delay: 250 * time.Millisecond, pieceLength: 1 << 20, fast: true},
		{name: "four alike", rates: []float64{1e6, 1e6, 1e6, 1e6}, delay: 25 * time.Millisecond, pieceLength: 1 << 20, fast: true},
		{name: "fast and slow", rates: []float64{4e6, 1e6, 200e3, 30e3}, delay: 25 * time.Millisecond, pieceLength: 1 << 20, fast: true},
		{name: "long pieces", rates: []float64{4e6, 2e6, 1e6}, delay: 25 * time.Millisecond, pieceLength: 16 << 20, fast: true},
		{name: "many slow peers", rates: slices.Repeat([]float64{100e3}, 30), delay: 50 * time.Millisecond, pieceLength: 2 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			skipUnderRace(t, len(tt.rates) != 4)
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimRepeating(1, tt.pieceLength, 2e9)
				m := &simMeeting{net: n, content: content}
				defer m.end(t)
				o := &Options{Storage: newSimStorage(content).open}
				total := 0.0
				for _, rate := range tt.rates {
					p := m.meet(t, rate, simpeer.Script{Fast: tt.fast})
					p.Host.Delay = tt.delay
					o.Peers = append(o.Peers, p.Addr())
					total += rate
				}
				host := n.NewHost("81.0.0.1", 0, 0, 0)
				m.client = simStart(t.Context(), t, host, content, nil, o, nil)
				time.Sleep(30 * time.Second) // until rates are known and pipelines full
				require.Len(t, m.client.Stats().Peers, len(tt.rates))

				file, err := m.client.Open(t.Context(), content.name)
				require.NoError(t, err)
				defer file.Close()
				for _, at := range []int64{1e9, 1_900_000_000, 300_000_000} {
					for m.client.verified().Has(int(at / tt.pieceLength)) {
						at += tt.pieceLength
					}
					_, err = file.Seek(at, io.SeekStart)
					require.NoError(t, err)
					wire, began := host.UnderWay()+int64(2*blockSize*len(tt.rates)), time.Now()
					b := make([]byte, 4096)
					_, err = io.ReadFull(file, b)
					require.NoError(t, err)
					require.Equal(t, content.truth.Run(at/tt.pieceLength*tt.pieceLength, tt.pieceLength)[at%tt.pieceLength:][:len(b)], b)
					took := time.Since(began)
					// The slowest may have been given one block more, since blocks cannot be shared out evenly.
					block := time.Duration(blockSize / slices.Min(tt.rates) * float64(time.Second))
					most := block + 4*tt.delay + time.Duration(1.01*(float64(wire)+float64(tt.pieceLength))/total*float64(time.Second))
					t.Logf("first bytes at %d after %v; bound %v, with %d bytes on the wire", at, took, most, wire)
					require.LessOrEqual(t, took, most)
					time.Sleep(5 * time.Second)
				}
				require.Empty(t, m.client.account(m.peers...))
			})
		})
	}
}

// A reader that seeks to the middle of a large file gets its first bytes within two round trips, the time for what
// was on the wire, and that for one piece at the peers' rates. Other requests are cancelled to make room.
func TestSeekDelay(t *testing.T) {
	t.Parallel()
	const rtt = 100 * time.Millisecond
	for _, pieceLength := range []int64{256 << 10, 64 << 10, 1 << 20, 4 << 20} {
		for name, rates := range map[string][]float64{
			"one peer":             {5e6},
			"four peers":           {2e6, 2e6, 2e6, 2e6},
			"one fast, three slow": {10e6, 200e3, 200e3, 200e3},
			"slow peers":           {100e3, 100e3, 100e3, 100e3},
		} {
			t.Run(fmt.Sprintf("pieces of %d KiB, %s", pieceLength>>10, name), func(t *testing.T) {
				skipUnderRace(t, pieceLength != 256<<10 || name == "four peers" || name == "slow peers")
				found(t, newSimRepeating(1, pieceLength, 2<<30), func(t *testing.T, m *simMeeting) {
					sum := 0.0
					o := &Options{Storage: newSimStorage(m.content).open}
					for _, rate := range rates {
						sum += rate
						p := m.meet(t, rate, simpeer.Script{})
						p.Host.Delay = rtt / 4
						o.Peers = append(o.Peers, p.Addr())
					}
					host := m.net.NewHost("81.0.0.1", 0, 0, rtt/4)
					m.client = simStart(t.Context(), t, host, m.content, nil, o, nil)
					time.Sleep(10 * time.Second)

					r, err := m.client.Open(t.Context(), m.content.layout.File(0).Path)
					require.NoError(t, err)
					defer r.Close()
					for _, where := range []int64{1 << 30, 1<<29 + 12345, 3<<29 + 1} {
						_, err = r.Seek(where, io.SeekStart)
						require.NoError(t, err)
						wire := host.Clearing(blockSize) // and a block that each has begun
						start := time.Now()
						_, err = io.ReadFull(r, make([]byte, 1))
						require.NoError(t, err)
						took := time.Since(start)
						piece := time.Duration(float64(pieceLength) / sum * float64(time.Second))
						t.Logf("took %v, of round trips %v, on the wire %v, a piece %v", took, 2*rtt, wire, piece)
						// One block more, since blocks cannot be shared out evenly.
						block := time.Duration(blockSize / slices.Min(rates) * float64(time.Second))
						bound := 2*rtt + wire + piece + block
						require.LessOrEqual(t, took, bound)
						time.Sleep(5 * time.Second)
					}
				})
			})
		}
	}
}
