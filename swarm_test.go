package torrent

import (
	"cmp"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	swarmSeed  = flag.Int64("seed", -1, "of the one history that TestSwarm is to replay, with all that is said in it if -v is given")
	swarmFirst = flag.Int64("first", 0, "seed of the first history that TestSwarm draws")
	swarmSeeds = flag.Int("seeds", 200, "how many histories TestSwarm draws")
)

// TestSwarm runs downloads in swarms that are drawn from a seed number, under the virtual clock. What a
// history has to show is in simHistory.check; one that fails names its seed, and -seed replays it. They
// are no subtests, of which thousands would be listed behind the figures.
func TestSwarm(t *testing.T) {
	sum := &simFigures{kinds: map[string]int{}, wasted: map[string]int64{}}
	first, n := *swarmFirst, *swarmSeeds
	if *swarmSeed >= 0 {
		first, n = *swarmSeed, 1
	}
	var running sync.WaitGroup
	turns := make(chan struct{}, runtime.GOMAXPROCS(0))
	for seed := first; seed < first+int64(n); seed++ {
		turns <- struct{}{}
		running.Go(func() {
			defer func() { <-turns }()
			defer nameSeed(seed)
			synctest.Test(t, func(t *testing.T) { runHistory(t, uint64(seed), sum) })
		})
	}
	running.Wait()
	t.Log(sum)
}

// nameSeed says which history it was that panicked, as one does that leaves a goroutine behind.
func nameSeed(seed int64) {
	if why := recover(); why != nil {
		fmt.Fprintf(os.Stderr, "The history of seed %d:\n", seed)
		panic(why)
	}
}

func runHistory(t *testing.T, seed uint64, sum *simFigures) {
	n := newSimNet()
	defer n.close()
	h := drawHistory(n, seed)
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
	mu                   sync.Mutex
	histories, downloads int
	virtual              time.Duration
	kinds                map[string]int
	liars, liarsBanned   int // addresses that sent at least one false block
	proven               int // of these, such as can be told from who sent what
	honest, honestBanned int
	received             int64
	wasted               map[string]int64 // by kind
	steals               int64
	slowest              float64 // time taken over its bound
	slowestSeed          uint64
}

// history takes a history into account.
func (f *simFigures) history(h *simHistory) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.histories++
	f.virtual += h.net.now()
	for kind, n := range h.kinds {
		f.kinds[kind] += n
	}
}

// download takes one that was completed into account.
func (f *simFigures) download(seed uint64, took, bound time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.downloads++
	if r := float64(took) / float64(bound); r > f.slowest {
		f.slowest, f.slowestSeed = r, seed
	}
}

func (f *simFigures) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
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
