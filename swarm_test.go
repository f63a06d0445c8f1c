package torrent

import (
	"cmp"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	swarmSeed  = flag.Int64("seed", -1, "of the one history that TestSwarm is to replay, with all that is said in it if -v is given")
	swarmSeeds = flag.Int("seeds", 20, "how many histories TestSwarm draws")
)

// TestSwarm runs downloads in swarms that are drawn from a seed number, under the virtual clock. What a
// history has to show is in simHistory.check; its seed is part of the test's name, and -seed replays it.
func TestSwarm(t *testing.T) {
	sum := &simFigures{kinds: map[string]int{}}
	first, n := int64(0), *swarmSeeds
	if *swarmSeed >= 0 {
		first, n = *swarmSeed, 1
	}
	t.Run("seed", func(t *testing.T) {
		for seed := first; seed < first+int64(n); seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { runHistory(t, uint64(seed), sum) })
			})
		}
	})
	t.Log(sum)
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
	received, wasted     int64
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
	kinds := slices.SortedFunc(maps.Keys(f.kinds), func(a, b string) int {
		return cmp.Or(cmp.Compare(f.kinds[b], f.kinds[a]), cmp.Compare(a, b))
	})
	for _, k := range kinds {
		fmt.Fprintf(&b, "%6d  %s\n", f.kinds[k], k)
	}
	fmt.Fprintf(&b, "liars banned: %d of %d, %d of them proven; honest banned: %d of %d\n",
		f.liarsBanned, f.liars, f.proven, f.honestBanned, f.honest)
	fmt.Fprintf(&b, "received: %d bytes, of which wasted %d (%.2f %%), %d blocks stolen\n",
		f.received, f.wasted, 100*float64(f.wasted)/float64(max(f.received, 1)), f.steals)
	fmt.Fprintf(&b, "slowest against its bound: %.2f of it (seed %d)\n", f.slowest, f.slowestSeed)
	return b.String()
}
