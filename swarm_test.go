package torrent

import (
	"cmp"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/stretchr/testify/require"
)

var (
	swarmSeed  = flag.Int64("seed", -1, "of the one history that TestSwarm is to replay, with all that is said in it if -v is given")
	swarmFirst = flag.Int64("first", 0, "seed of the first history that TestSwarm draws")
	swarmSeeds = flag.Int("seeds", 200, "how many histories TestSwarm draws")
)

// TestSwarm runs downloads in swarms that are drawn from a seed number, under the virtual clock. What a
// history must show is in simHistory.check. One that fails names its seed, and -seed replays it. They are no
// subtests: thousands would be listed behind the figures.
func TestSwarm(t *testing.T) {
	oneCourse(t)
	sum := newSimFigures()
	first, n := *swarmFirst, *swarmSeeds
	if *swarmSeed >= 0 {
		first, n = *swarmSeed, 1
	}
	for seed := first; seed < first+int64(n); seed++ {
		runSeed(t, uint64(seed), sum)
	}
	t.Log(sum)
}

// A history takes the same course whenever it is drawn.
func TestHistoryRepeats(t *testing.T) {
	if raceEnabled() {
		t.Skip("the race detector draws the order of goroutines by lot")
	}
	oneCourse(t)
	const seeds = 40
	same := 0
	for seed := range uint64(seeds) {
		one, other := newSimFigures(), newSimFigures()
		runSeed(t, seed, one)
		runSeed(t, seed, other)
		if one.String() == other.String() && slices.Equal(one.took, other.took) {
			same++
		}
	}
	t.Logf("%d of %d", same, seeds)
	require.Greater(t, same, seeds*3/4, "the runtime draws a little by lot, too")
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
	runtime.GC()
	cryptotest.SetGlobalRandom(t, seed)
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
	fmt.Fprintf(&b, "slowest against its bound: %.2f of it (seed %d)\n", f.slowest, f.slowestSeed)
	return b.String()
}

func (f *simFigures) percent(n int64) float64 { return 100 * float64(n) / float64(max(f.received, 1)) }

func mostFirst[N int | int64](m map[string]N) []string {
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b))
	})
}
