package torrent

import (
	"cmp"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/shoal-go/torrent/internal/wire"
)

var (
	swarmSeed  = flag.Int64("seed", -1, "of the one history that TestSwarm is to replay, with all that is said in it if -v is given")
	swarmFirst = flag.Int64("first", 0, "seed of the first history that TestSwarm draws, if -seeds is given")
	swarmSeeds = flag.Int("seeds", 0, "how many histories TestSwarm draws; 0 means those from 80 to 159, or the first 80 with the race detector")
)

// The histories are shared out, so that each is drawn in a run without the race detector and one with it: the first to TestSwarm
// with the detector, then some to TestSwarm without it, then some to TestHistoryRepeats, which draws them twice.
const (
	racedHistories = 80
	drawnHistories = 160
	allHistories   = 200
)

// TestSwarm runs downloads in swarms that are drawn from a seed number, under the virtual clock. What a
// history must show is in simHistory.check. One that fails names its seed, and -seed replays it. They are no
// subtests: thousands would be listed behind the figures.
func TestSwarm(t *testing.T) {
	first, end := int64(racedHistories), int64(drawnHistories)
	switch {
	case *swarmSeed >= 0:
		first, end = *swarmSeed, *swarmSeed+1
	case *swarmSeeds > 0:
		first, end = *swarmFirst, *swarmFirst+int64(*swarmSeeds)
	case raceEnabled():
		first, end = 0, racedHistories
	}
	draw := func(t *testing.T, first, end int64) {
		sum := newSimFigures()
		for seed := first; seed < end; seed++ {
			runSeed(t, uint64(seed), sum)
		}
		t.Log(sum)
	}
	if !raceEnabled() {
		oneCourse(t)
		draw(t, first, end)
		return
	}
	// The race detector draws the order of goroutines at random in any case, so these histories may run beside others.
	t.Parallel()
	for ; first < end; first += 20 {
		from, to := first, min(first+20, end)
		t.Run(fmt.Sprintf("from %d", from), func(t *testing.T) {
			t.Parallel()
			draw(t, from, to)
		})
	}
}

// A history takes the same course whenever it is drawn.
func TestHistoryRepeats(t *testing.T) {
	if raceEnabled() {
		t.Skip("the race detector draws the order of goroutines at random")
	}
	oneCourse(t)
	const seeds = allHistories - drawnHistories
	same := 0
	for seed := uint64(drawnHistories); seed < allHistories; seed++ {
		one, other := newSimFigures(), newSimFigures()
		runSeed(t, seed, one)
		runSeed(t, seed, other)
		if one.String() == other.String() && slices.Equal(one.took, other.took) {
			same++
		}
	}
	t.Logf("%d of %d", same, seeds)
	require.Greater(t, same, seeds*3/4, "the runtime draws a little at random, too")
}

// oneCourse has histories take the same course each time: one processor runs them, no garbage is collected
// meanwhile, and every random source has a seed. Only the Go runtime still draws at random: the order of the keys
// of a map and of the timers of one instant, and one of the cases of a select that are ready.
func oneCourse(t *testing.T) {
	procs, percent := runtime.GOMAXPROCS(1), debug.SetGCPercent(-1)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(procs)
		debug.SetGCPercent(percent)
	})
}

// runSeed runs one history in a goroutine of its own, which a failure ends. If the history panics, as it does
// when it leaves a goroutine behind, runSeed says which one it was.
func runSeed(t *testing.T, seed uint64, sum *simFigures) {
	if !raceEnabled() { // where it takes one course
		runtime.GC()
		cryptotest.SetGlobalRandom(t, seed)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if why := recover(); why != nil {
				fmt.Fprintf(os.Stderr, "The history of seed %d:\n", seed)
				panic(why)
			}
		}()
		synctest.Test(t, func(t *testing.T) { runHistory(t, seed, sum) })
	}()
	<-done
}

func runHistory(t *testing.T, seed uint64, sum *simFigures) {
	n := simnet.New()
	defer n.Close()
	h := drawHistory(n, seed)
	h.drawWeb(t)
	if *swarmSeed >= 0 && testing.Verbose() {
		t.Log(h)
		for _, s := range h.options {
			s.client.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
		h.trace = t.Logf
	}
	defer func() {
		if t.Failed() {
			t.Logf("The history of seed %d:\n%v", seed, h)
		}
	}()
	h.run(t, sum)
}

// simFigures sum up what many histories showed.
type simFigures struct {
	histories, downloads int
	virtual              time.Duration
	kinds                map[string]int
	liars, liarsBanned   int // addresses that sent at least one false block
	proven               int // of these, such as can be told from who sent what
	honest, honestBanned int
	received             int64
	wasted               map[string]int64 // by kind
	steals               int64
	owed, held           int64           // the most work that a peer had overdrawn its account by, and the most bytes held for one
	took                 []time.Duration // by the downloads, in the order they were looked at
	slowest              float64         // of these, over its bound
	slowestSeed          uint64
}

func newSimFigures() *simFigures {
	return &simFigures{kinds: map[string]int{}, wasted: map[string]int64{}}
}

// history adds a history to the figures.
func (f *simFigures) history(h *simHistory) {
	f.histories++
	f.virtual += h.net.Now()
	for kind, n := range h.kinds {
		f.kinds[kind] += n
	}
}

// download adds a completed download to the figures.
func (f *simFigures) download(seed uint64, took, bound time.Duration) {
	f.downloads++
	f.took = append(f.took, took)
	if r := float64(took) / float64(bound); r > f.slowest {
		f.slowest, f.slowestSeed = r, seed
	}
}

func (f *simFigures) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d seeds, %d downloads completed, %.1f virtual hours\n", f.histories, f.downloads, f.virtual.Hours())
	for _, k := range mostFirst(f.kinds) {
		fmt.Fprintf(&b, "%6d  %s\n", f.kinds[k], k)
	}
	fmt.Fprintf(&b, "liars banned: %d of %d, %d of them proven; honest banned: %d of %d\n",
		f.liarsBanned, f.liars, f.proven, f.honestBanned, f.honest)
	wasted := int64(0)
	for _, n := range f.wasted {
		wasted += n
	}
	fmt.Fprintf(&b, "received: %d bytes, %d blocks stolen; wasted: %d bytes (%.2f %%)\n", f.received, f.steals, wasted, f.percent(wasted))
	for _, k := range mostFirst(f.wasted) {
		fmt.Fprintf(&b, "%5.2f %%  %s\n", f.percent(f.wasted[k]), k)
	}
	fmt.Fprintf(&b, "most that one peer had: %d steps of work beyond its account, %d bytes held\n", f.owed, f.held)
	fmt.Fprintf(&b, "slowest against its bound: %.2f of it (seed %d)\n", f.slowest, f.slowestSeed)
	return b.String()
}

func (f *simFigures) percent(n int64) float64 { return 100 * float64(n) / float64(max(f.received, 1)) }

func mostFirst[N int | int64](m map[string]N) []string {
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b))
	})
}

var sharingSwarms = flag.Int("sharing", 1, "how many random swarms share, with and without free riders")

// simRider is a connection of a free rider: the unchokes are taken out of what its end writes, whole messages
// at a time.
type simRider struct {
	net.Conn
	wrote int
}

func (c *simRider) Write(b []byte) (int, error) {
	n := len(b)
	var kept []byte
	if c.wrote < wire.HandshakeSize {
		k := min(len(b), wire.HandshakeSize-c.wrote)
		kept, b = append(kept, b[:k]...), b[k:]
	}
	c.wrote += n
	for len(b) > 0 {
		k := 4 + int(binary.BigEndian.Uint32(b))
		if k < 5 || wire.ID(b[4]) != wire.Unchoke {
			kept = append(kept, b[:k]...)
		}
		b = b[k:]
	}
	if len(kept) > 0 {
		if _, err := c.Conn.Write(kept); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// A swarm of one seed and twenty leechers, all of this library, in which every link has 1 MB/s up. The
// leechers feed each other, or the seed would take twenty times as long. Free riders, which upload nothing, cost
// them little and come last. Leechers stay when they are done, so from then on the riders have twenty seeds.
func TestSharingSwarm(t *testing.T) {
	if testing.Short() || raceEnabled() {
		t.Skip("4 GB that change hands take half a minute, and several under the race detector")
	}
	const size, up = 200e6, 1e6
	for _, riders := range []int{0, 5} {
		for seed := range uint64(*sharingSwarms) {
			t.Run(fmt.Sprintf("%d free riders, seed %d", riders, seed+1), func(t *testing.T) {
				t.Parallel()
				simnet.Run(t, func(t *testing.T, n *simnet.Network) {
					times, late := shareSwarm(t, n, seed+1, size, up, 20, riders)
					t.Logf("leechers took %v, %.2f times the seed's own time", times, times[19].Seconds()/(size/up))
					require.Less(t, times[19].Seconds(), 1.45*size/up)
					if riders > 0 {
						t.Logf("free riders took %v, the first of them %.2f times as long as the last leecher", late, late[0].Seconds()/times[19].Seconds())
						require.Greater(t, late[0].Seconds(), 1.05*times[19].Seconds(), "every one of them later than every leecher, by more than chance")
					}
				})
			})
		}
	}
}

// shareSwarm has leechers and free riders download from one seed and from each other, over links with up bytes a
// second up and eight times as many down. It returns how long each took, in order.
func shareSwarm(t *testing.T, n *simnet.Network, random uint64, size int64, up float64, leechers, riders int) (times, late []time.Duration) {
	content := newSimContent(random, 256<<10, size)
	tracker := simtracker.New(random)
	start := func(k int, o *Options, rides bool) *simDownload {
		h := n.NewHost(fmt.Sprintf("80.0.0.%d", k+1), up, 8*up, 10*time.Millisecond)
		c := &Client{NoDHT: true, NoUTP: true, Encryption: DisableEncryption, hooks: hooks{seed: random<<32 + uint64(k) + 1}}
		if rides {
			c.NoListen = true
			c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := h.Dial(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return &simRider{Conn: conn}, nil
			}
		}
		d := simStart(t.Context(), t, h, content, tracker, o, c)
		t.Cleanup(func() { d.end(t) })
		return d
	}
	seed := start(0, &Options{Seed: true, Storage: newSimStorage(content).fill().open}, false)
	<-seed.Done()
	simnet.Sleep(time.Second) // so that the tracker knows the seed before the first of the others asks
	var all []*simDownload
	for k := range leechers + riders {
		all = append(all, start(k+1, &Options{Seed: true, Storage: newSimStorage(content).open}, k >= leechers))
	}
	simWait(time.Hour, all...)
	for k, d := range all {
		require.True(t, d.done())
		if took := d.took.Round(time.Second); k < leechers {
			times = append(times, took)
		} else {
			late = append(late, took)
		}
	}
	slices.Sort(times)
	slices.Sort(late)
	return times, late
}

// A free rider that calls again is known, though not at another address.
func TestFreeRiderCallsAgain(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 512*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		store := newSimStorage(content)
		for i := range uint32(256) {
			store.written.Add(int(i))
		}
		_, err := content.Start(t.Context(), &Options{Client: simClient(t, us, nil), Storage: store.open})
		require.NoError(t, err)
		simnet.Sleep(time.Second)
		for k, want := range []bool{true, false, false, true} {
			s := speak(t, n.NewHost(fmt.Sprintf("81.0.0.%d", k/3), 0, 0, 0), content, us.Addr(6881), speech{fast: true})
			s.sayID(wire.HaveNone)
			s.say(wire.AppendHave(nil, 300)) // which we lack, and will not get
			s.sayID(wire.Interested)
			simnet.Sleep(20 * time.Second)
			require.Equal(t, want, slices.Contains(s.take(), "unchoke"), "call %d", k)
			for i := range uint32(200) {
				s.ask(i)
			}
			simnet.Sleep(20 * time.Second)
			require.Equal(t, want, slices.Contains(s.take(), "choke"), "call %d", k)
			s.Close()
			simnet.Sleep(time.Second)
		}
	})
}
