package picker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

func TestSteal(t *testing.T) {
	// All four blocks of the only piece are requested from a. Then t joins, and no block is free.
	for _, tc := range []struct {
		name         string
		owner, thief float64 // bytes a second
		snubbed      bool
		want         string
	}{
		{"as fast", 1 << 20, 1 << 20, false, "0.3"}, // a needs four times as long for the fourth block as t
		{"far faster", 1 << 14, 1 << 20, false, "0.3 0.2 0.1 0.0"},
		{"a little slower", 1 << 20, 1 << 20 * 6 / 10, false, "0.3"},
		{"half as fast", 1 << 20, 1 << 19, false, ""},
		{"slow, from a snubbed peer", 1 << 20, 1 << 14, true, "0.3 0.2 0.1 0.0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := newScene(t, 1)
			sc.join("a").pace.rate = tc.owner
			require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("a", 4))
			sc.peers["a"].snubbed = tc.snubbed
			sc.join("t").pace.rate = tc.thief
			require.Equal(t, tc.want, sc.asks("t", 9))
		})
	}
}

func TestEndgame(t *testing.T) {
	sc := newScene(t, 1)
	slow := sc.join("a")
	slow.pace.rate = 1 << 10
	sc.asks("a", 4)
	sc.join("b").pace.rate = 1 << 20
	require.Equal(t, "0.3 0.2 0.1 0.0", sc.asks("b", 9), "the block that is expected last is taken over first")
	sc.join("c").pace.rate = 1 << 14
	require.Empty(t, sc.asks("c", 9), "two copies of a block are enough")
	require.Equal(t, "a", sc.sends("b", 0, 3, Accepted), "the first copy wins, the other is cancelled")
	sc.sends("a", 0, 3, Wasted)
	require.Equal(t, "b", sc.sends("a", 0, 2, Accepted))
	sc.s.Release(slow, everything)
	sc.peers["c"].pace.rate = 1 << 22
	require.Equal(t, "0.0", sc.asks("c", 1), "a block that is requested only once may be stolen again")
	sc.peers["c"].pipe.rtt = time.Minute
	require.Empty(t, sc.asks("c", 1), "but not if c is not sooner")
}

func TestSilentPeerIsExpectedLater(t *testing.T) {
	sc := newScene(t, 1)
	sc.join("a")
	sc.asks("a", 4)
	sc.join("b").pace.rate = 1 << 17
	require.Empty(t, sc.asks("b", 1), "b would not send a block in under half the time of a")
	sc.now = sc.now.Add(time.Second)
	require.Equal(t, "0.3", sc.asks("b", 1), "but a has been silent for a second")
}

// Each block is requested from two peers, and nothing has arrived for five seconds. A third peer replaces the slower one if it is
// expected to be sooner than both.
func TestThirdReplacesSlower(t *testing.T) {
	const unknown, slow, fast = 0, 1 << 10, 1 << 20
	for _, tc := range []struct {
		name          string
		first, second float64 // bytes a second
		third         float64
		choking       bool // the first two choke us
		asked         bool // a block was requested from the third before
		want          string
	}{
		{"the first is slower", slow, 2 * slow, fast, false, true, "0.3 -a:0.3"},
		{"the second is slower", 2 * slow, slow, fast, false, true, "0.3 -b:0.3"},
		{"the rate of the third is unknown", slow, 2 * slow, unknown, false, true, "0.3 -a:0.3"},
		{"all rates are unknown", unknown, unknown, unknown, false, true, ""},
		{"all rates are unknown, and the third was never asked", unknown, unknown, unknown, false, false, "0.3 -a:0.3"},
		{"all rates are unknown, and the first two choke us", unknown, unknown, unknown, true, true, "0.3 -a:0.3"},
		{"the third is fast, and the rates of the others are unknown", unknown, unknown, fast, false, true, "0.3 -a:0.3"},
		{"the third is slower still", slow, slow, slow / 8, false, true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := newScene(t, 1)
			a := sc.join("a")
			a.pace.rate = slow
			sc.asks("a", 4)
			b := sc.join("b")
			require.Equal(t, "0.3 0.2 0.1 0.0", sc.asks("b", 4))
			slices.Reverse(b.queue)
			a.pace.rate, b.pace.rate = tc.first, tc.second
			a.Choking, b.Choking = tc.choking, tc.choking
			sc.now = sc.now.Add(5 * time.Second)
			c := sc.join("c")
			c.pace.rate, c.asked = tc.third, tc.asked
			require.Equal(t, tc.want, sc.asks("c", 1))
		})
	}
}

// If all suppliers are fast, few blocks are fetched twice: a supplier does not steal while it has work, and thefts that gain less
// than a second, or less than twice the time of all suppliers together for the rest, are rationed.
func TestTheftsAreRationed(t *testing.T) {
	sc := newScene(t, 20)
	a := sc.join("a")
	a.pace.rate = 1 << 20
	sc.asks("a", 80)
	sc.join("b").pace.rate = 1 << 20
	require.Len(t, strings.Fields(sc.asks("b", 99)), 12, "until b has work for a fifth of a second")
	sc.s.Release(sc.peers["b"], everything)
	require.Len(t, strings.Fields(sc.asks("b", 99)), firstLoot-12, "until the ration is used up")
	sc.s.received += lootRatio
	require.Len(t, strings.Fields(sc.asks("b", 99)), 1, "the ration grows with the blocks received")
	sc.now = sc.now.Add(3 * time.Second)
	sc.s.Release(sc.peers["b"], everything)
	require.NotEmpty(t, sc.asks("b", 1), "a theft that gains seconds is not rationed")
}

// Slow suppliers have all blocks. One that is fast but far away, and of which a single block was requested in a round trip so far, takes
// over many at once, whatever rate that looks like.
func TestDistantSupplierTakesOverMany(t *testing.T) {
	sc := newScene(t, 20)
	sc.join("a").pace.rate = 2 << 10
	sc.asks("a", 80)
	sc.now = sc.now.Add(2 * time.Second)
	b := sc.join("b")
	b.pace.rate, b.pipe.rtt = 55<<10, 280*time.Millisecond
	require.Len(t, strings.Fields(sc.asks("b", startDepth)), startDepth)
}

// While the intake is full, a supplier may seem slow because its blocks wait for us. So no more is stolen from it than the ration
// allows, unless it is far slower or silent for long.
func TestTheftsWhileIntakeIsFull(t *testing.T) {
	for _, tc := range []struct {
		name    string
		owner   float64       // bytes a second
		silence time.Duration // of the owner
		runs    bool          // the thief sends runs
		others  int           // number of other suppliers
		want    bool          // whether the thief steals while the intake is full
	}{
		{name: "seconds slower", owner: 1 << 19},
		{name: "seconds slower than a thief that sends runs", owner: 1 << 19, runs: true},
		{name: "far slower", owner: 1 << 17, want: true},
		{name: "far slower than a thief that sends runs", owner: 1 << 17, runs: true, want: true},
		{name: "far slower, among many suppliers", owner: 1 << 17, others: 200},
		{name: "silent for a moment", owner: 1 << 20, silence: 1500 * time.Millisecond},
		{name: "silent for long", owner: 1 << 20, silence: 3 * time.Second, want: true},
		{name: "has never sent a block, silent for a moment", silence: 1500 * time.Millisecond},
		{name: "has never sent a block, silent for long", silence: 3 * time.Second, want: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := newScene(t, 20)
			owner := sc.join("a")
			owner.pace = pace{rate: tc.owner, seconds: 1}
			sc.asks("a", 80)
			owner.heard = sc.now.Add(-tc.silence)
			thief := sc.join("b")
			thief.pace.rate, thief.Runs = 2<<20, tc.runs
			for k := range tc.others {
				sc.join(fmt.Sprint(k))
			}
			next := sc.s.Next
			if tc.runs {
				next = sc.s.NextRun
			}
			steals := func() bool {
				sc.s.loot = firstLoot
				blocks, _ := next(thief, 1, sc.now, nil)
				sc.s.Release(thief, everything)
				return len(blocks) > 0
			}
			sc.s.intake = intake{since: sc.now, last: fullRate, best: fullRate}
			require.Equal(t, tc.want, steals())
			sc.s.intake.total = 5
			require.False(t, steals(), "not if many blocks came twice")
			sc.s.intake = intake{since: sc.now, best: fullRate, low: sc.now.Add(-intakeLull)}
			require.True(t, steals(), "after a lull the intake is not full")
			sc.s.intake = intake{since: sc.now, last: fullRate, best: fullRate, slack: true}
			require.True(t, steals(), "nor until the rate exceeds the best one")
			sc.s.intake.total = 5
			require.False(t, steals(), "unless many blocks came twice")
		})
	}
}

// The ration grows half as fast if many blocks come twice.
func TestRationShrinks(t *testing.T) {
	sc := newScene(t, 1)
	sc.s.received, sc.s.intake.total = 10*lootRatio, 10*lootRatio
	sc.s.loot = firstLoot + 9
	require.True(t, sc.s.hasRation())
	sc.s.intake.total += 7
	require.False(t, sc.s.hasRation())
	sc.s.loot = firstLoot + 4
	require.True(t, sc.s.hasRation())
}

// A supplier that sends a few more blocks in each round soon has thousands of outstanding requests, and keeps them as long as it
// sends one now and then. Others search these for requests to take over whenever a block becomes free. If they find none, that
// must cost little.
func TestFutileSearchesCostLittle(t *testing.T) {
	const pieces, perPiece, holders = 15_000, 4, 20
	pk := New(layout.New(perPiece*layout.BlockSize, layout.File{Length: pieces * perPiece * layout.BlockSize}), 1)
	for i := range pieces {
		pk.Prioritise(i, normal)
	}
	now := epoch
	var last *Supplier
	for range holders {
		s := &Supplier{Ready: true, all: true}
		pk.join(s)
		s.SetLimit(maxDepth)
		pk.Next(s, s.Room(), now, nil)
		wait := time.Millisecond // the first block arrives at once
		for sends := 1; s.Outstanding() < maxDepth*3/4; sends += 2 + sends/4 {
			require.Less(t, sends, 40, "so few blocks are enough for a long queue")
			now = now.Add(wait)
			wait = 60 * time.Millisecond
			for range sends {
				id := s.queue[0].Block
				require.Equal(t, Accepted, pk.Received(s, id, now).Verdict)
				if i := int(id.Piece); pk.Started(i).Left == 0 {
					pk.Passed(i, nil)
				}
			}
			pk.Next(s, s.Room(), now, nil)
		}
		last = s
	}
	for _, o := range pk.suppliers {
		o.Choking = true
		o.heard = now
	}
	s := &Supplier{Ready: true}
	pk.Join(s)
	first, other := int(last.queue[0].Piece), int(last.queue[perPiece*2].Piece)
	pk.Have(s, first)
	blocks, _ := pk.Next(s, s.Room(), now, nil)
	require.NotEmpty(t, blocks, "it takes over the requests that it can")

	work := pk.Work()
	const rounds = 20
	for range rounds {
		now = now.Add(50 * time.Millisecond)
		blocks, _ = pk.Next(s, s.Room(), now, nil)
		require.Empty(t, blocks)
	}
	require.Less(t, pk.Work()-work, int64(2*holders*maxDepth), "most searches look only at the last requests")

	pk.Have(s, other)
	now = now.Add(5 * time.Second)
	blocks, _ = pk.Next(s, s.Room(), now, nil)
	require.NotEmpty(t, blocks, "a request that it can take over now is found a little later")
}

// If fast suppliers have some thousands of outstanding requests, a supplier that searched these in vain soon searches again: it may
// be the end of the download.
func TestFutileSearchesDelayLittle(t *testing.T) {
	const holders, each = 5, 1000
	pk := New(layout.New(layout.BlockSize, layout.File{Length: holders * each * layout.BlockSize}), 1)
	for i := range holders * each {
		pk.Prioritise(i, normal)
	}
	for range holders {
		s := &Supplier{Ready: true, all: true}
		pk.join(s)
		s.pipe.depth, s.pipe.limit = each, each
		blocks, _ := pk.Next(s, each, epoch, nil)
		require.Len(t, blocks, each)
		s.Choking = true
	}
	s := &Supplier{Ready: true}
	pk.Join(s)
	before := pk.Work()
	blocks, _ := pk.Next(s, 1, epoch, nil)
	require.Empty(t, blocks, "it has nothing")
	require.Greater(t, pk.Work()-before, int64(holders*each))
	pk.Have(s, int(pk.suppliers[0].queue[0].Piece))
	blocks, _ = pk.Next(s, 1, epoch.Add(50*time.Millisecond), nil)
	require.NotEmpty(t, blocks)
}

// To learn when another supplier will send a block, its request is searched for in a queue of thousands. That counts as work.
func TestSearchInQueueIsWork(t *testing.T) {
	pk := New(layout.New(layout.BlockSize, layout.File{Length: maxDepth * layout.BlockSize}), 1)
	for i := range maxDepth {
		pk.Prioritise(i, normal)
	}
	join := func(rate float64) *Supplier {
		s := &Supplier{Ready: true, all: true}
		pk.join(s)
		s.pipe.depth, s.pipe.limit, s.pace.rate = maxDepth, maxDepth, rate
		return s
	}
	chokes := join(0)
	blocks, _ := pk.Next(chokes, maxDepth, epoch, nil)
	require.Len(t, blocks, maxDepth)
	chokes.Choking = true
	blocks, _ = pk.Next(join(1<<24), maxDepth, epoch, nil)
	require.Len(t, blocks, maxDepth, "every block is requested from a second supplier")
	slow := join(1 << 10)
	before := pk.Work()
	blocks, _ = pk.Next(slow, 1, epoch, nil)
	require.Empty(t, blocks, "the second supplier sends each block sooner than slow")
	require.Greater(t, pk.Work()-before, int64(maxDepth*maxDepth/2/requestsPerStep))
	before = pk.Work()
	blocks, _ = pk.Next(slow, 1, epoch, nil)
	require.Empty(t, blocks)
	require.Less(t, pk.Work()-before, int64(1000))
}

// A supplier that was silent when its requests were taken over does not take them back from a slow one until that is silent for
// longer. It used to, because its silence counted from its next request.
func TestSilenceIsRememberedByThieves(t *testing.T) {
	sc := newScene(t, 1)
	sc.join("slow").pace.rate = 4 << 10 // four seconds a block
	sc.join("silent")
	run := func(name string) int {
		sc.peers[name].Runs = true
		blocks, _ := sc.s.NextRun(sc.peers[name], 4, sc.now, nil)
		return len(blocks)
	}
	require.Equal(t, 4, run("silent"))
	sc.now = sc.now.Add(40 * time.Second)
	require.Equal(t, 4, run("slow"))
	require.Zero(t, run("silent"))
	sc.now = sc.now.Add(time.Minute)
	require.Zero(t, run("silent"))
	sc.now = sc.now.Add(time.Minute)
	require.Equal(t, 4, run("silent"), "the other may have stopped as well")
}

// A supplier whose requests were taken over because it choked takes over again from slow ones as soon as it unchokes. Its silence was
// the choke.
func TestChokeIsNoSilence(t *testing.T) {
	sc := newScene(t, 1)
	slow, fast := sc.join("slow"), sc.join("fast")
	slow.pace.rate = 4 << 10 // four seconds a block
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("fast", 4))
	fast.Choking = true
	sc.now = sc.now.Add(9 * time.Second)
	require.Equal(t, "0.3 0.2 0.1 0.0", sc.asks("slow", 4))
	for k := range int32(4) {
		sc.s.Rejected(fast, Block{0, k}, sc.now) // BEP 6
	}
	fast.Choking = false
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("fast", 4))
}
