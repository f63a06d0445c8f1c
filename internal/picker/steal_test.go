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
	// a has all four blocks of the only piece under way; t comes when nothing is left.
	for _, tc := range []struct {
		name         string
		owner, thief float64 // bytes a second
		snubbed      bool
		want         string
	}{
		{"as fast", 1 << 20, 1 << 20, false, "0.3"}, // the fourth block is expected in four times t's time
		{"far faster", 1 << 14, 1 << 20, false, "0.3 0.2 0.1 0.0"},
		{"a little slower", 1 << 20, 1 << 20 * 6 / 10, false, "0.3"},
		{"half as fast", 1 << 20, 1 << 19, false, ""},
		{"slow, from one that snubs us", 1 << 20, 1 << 14, true, "0.3 0.2 0.1 0.0"},
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
	require.Equal(t, "0.3 0.2 0.1 0.0", sc.asks("b", 9), "the one expected last is taken over first")
	sc.join("c").pace.rate = 1 << 14
	require.Empty(t, sc.asks("c", 9), "two copies of a block are enough")
	require.Equal(t, "a", sc.sends("b", 0, 3, Accepted), "the first copy wins, the other is cancelled")
	sc.sends("a", 0, 3, Wasted)
	require.Equal(t, "b", sc.sends("a", 0, 2, Accepted))
	sc.s.Release(slow, everything)
	sc.peers["c"].pace.rate = 1 << 22
	require.Equal(t, "0.0", sc.asks("c", 1), "a block that one gave back may be stolen again")
	sc.peers["c"].pipe.rtt = time.Minute
	require.Empty(t, sc.asks("c", 1), "but not from afar")
}

func TestSilentPeerIsExpectedLater(t *testing.T) {
	sc := newScene(t, 1)
	sc.join("a")
	sc.asks("a", 4)
	sc.join("b").pace.rate = 1 << 17
	require.Empty(t, sc.asks("b", 1), "a block takes b an eighth of a second, and a sends all in half of that")
	sc.now = sc.now.Add(time.Second)
	require.Equal(t, "0.3", sc.asks("b", 1), "but a has been silent for a second")
}

// Two were asked for each block, and nothing has come for five seconds. A third takes the place of one
// of them if it is known to be sooner than both.
func TestThirdTakesAPlace(t *testing.T) {
	const unknown, slow, fast = 0, 1 << 10, 1 << 20
	for _, tc := range []struct {
		name          string
		first, second float64 // bytes a second
		third         float64
		choking       bool // the first two do
		asked         bool // the third was, before
		want          string
	}{
		{"the first is slower", slow, 2 * slow, fast, false, true, "0.3 -a:0.3"},
		{"the second is slower", 2 * slow, slow, fast, false, true, "0.3 -b:0.3"},
		{"the third has shown nothing yet", slow, 2 * slow, unknown, false, true, "0.3 -a:0.3"},
		{"none has shown anything", unknown, unknown, unknown, false, true, ""},
		{"none has shown anything, and the third was never asked", unknown, unknown, unknown, false, false, "0.3 -a:0.3"},
		{"none has shown anything, and nothing will come of two", unknown, unknown, unknown, true, true, "0.3 -a:0.3"},
		{"the third is fast, and the others may be", unknown, unknown, fast, false, true, "0.3 -a:0.3"},
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

// Where all are fast, few blocks are fetched twice: a supplier does not steal while it has work, and a theft that gains
// less than a second, or less than all together take for the rest, comes out of a ration.
func TestThievesAreRationed(t *testing.T) {
	sc := newScene(t, 20)
	a := sc.join("a")
	a.pace.rate = 1 << 20
	sc.asks("a", 80)
	sc.join("b").pace.rate = 1 << 20
	require.Len(t, strings.Fields(sc.asks("b", 99)), 12, "until b has work for a fifth of a second")
	sc.s.Release(sc.peers["b"], everything)
	require.Len(t, strings.Fields(sc.asks("b", 99)), firstLoot-12, "until the ration is used up")
	sc.s.received += lootRatio
	require.Len(t, strings.Fields(sc.asks("b", 99)), 1, "which grows with what comes")
	sc.now = sc.now.Add(3 * time.Second)
	sc.s.Release(sc.peers["b"], everything)
	require.NotEmpty(t, sc.asks("b", 1), "what would come seconds later is stolen whatever the ration")
}

// While as much comes as we can take, a supplier may look slow because what it sent waits for us. So no more is stolen
// from it than the ration allows, unless it is slow beyond that.
func TestFullIntakeSparesTheSlow(t *testing.T) {
	for _, tc := range []struct {
		name    string
		owner   float64       // bytes a second
		silence time.Duration // of the owner
		runs    bool          // the thief is asked for runs
		others  int           // suppliers
		want    bool          // that it is stolen from while the intake is full
	}{
		{name: "seconds slower", owner: 1 << 19},
		{name: "seconds slower than a thief that is asked for runs", owner: 1 << 19, runs: true},
		{name: "far slower", owner: 1 << 17, want: true},
		{name: "far slower than a thief that is asked for runs", owner: 1 << 17, runs: true, want: true},
		{name: "far slower, as some of many seem to be", owner: 1 << 17, others: 200},
		{name: "silent for a moment", owner: 1 << 20, silence: 1500 * time.Millisecond},
		{name: "silent for long", owner: 1 << 20, silence: 3 * time.Second, want: true},
		{name: "never heard of for a moment", silence: 1500 * time.Millisecond},
		{name: "never heard of for long", silence: 3 * time.Second, want: true},
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
			require.False(t, steals(), "not if much came twice before")
			sc.s.intake = intake{since: sc.now, best: fullRate, low: sc.now.Add(-intakeLull)}
			require.True(t, steals(), "once less comes")
			sc.s.intake = intake{since: sc.now, last: fullRate, best: fullRate, slack: true}
			require.True(t, steals(), "nor while it takes thefts to have more come")
			sc.s.intake.total = 5
			require.False(t, steals(), "unless these came twice")
		})
	}
}

// The ration grows half as fast where much comes twice.
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

// A supplier that sends a few blocks more in each round is soon asked for thousands, which it may keep as long as it sends one
// now and then. Others look through these for what they may take over, and that must not take them long each time that a block
// comes free.
func TestLooksInVainCostLittle(t *testing.T) {
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
		wait := time.Millisecond // the first comes at once
		for sends := 1; s.Outstanding() < maxDepth*3/4; sends += 2 + sends/4 {
			require.Less(t, sends, 40, "so few blocks do")
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
	require.NotEmpty(t, blocks, "it takes over what it can")

	work := pk.Work()
	const rounds = 20
	for range rounds {
		now = now.Add(50 * time.Millisecond)
		blocks, _ = pk.Next(s, s.Room(), now, nil)
		require.Empty(t, blocks)
	}
	require.Less(t, pk.Work()-work, int64(2*holders*maxDepth), "most of them look at little")

	pk.Have(s, other)
	now = now.Add(5 * time.Second)
	blocks, _ = pk.Next(s, s.Room(), now, nil)
	require.NotEmpty(t, blocks, "and what it can take over now is found a little later")
}

// The place of a request among thousands is looked for to learn when another supplier sends the block, which is work, too.
func TestLooksAtSharedRequestsAreWork(t *testing.T) {
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
	require.Len(t, blocks, maxDepth, "all of which another will send")
	slow := join(1 << 10)
	before := pk.Work()
	blocks, _ = pk.Next(slow, 1, epoch, nil)
	require.Empty(t, blocks, "sooner than a slow one")
	require.Greater(t, pk.Work()-before, int64(maxDepth*maxDepth/2/requestsPerStep))
	before = pk.Work()
	blocks, _ = pk.Next(slow, 1, epoch, nil)
	require.Empty(t, blocks)
	require.Less(t, pk.Work()-before, int64(1000))
}
