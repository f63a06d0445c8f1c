package picker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// Priorities.
const (
	skip   = 0
	normal = 1
	high   = 2
	urgent = 255
)

// swarmScene is a scheduler of some pieces of four blocks each, all wanted, among peers called a, b, c….
type swarmScene struct {
	t     *testing.T
	s     *Picker
	now   time.Time
	peers map[string]*Supplier
}

func newSwarmScene(t *testing.T, pieces int) *swarmScene {
	length := int64(4 * layout.BlockSize)
	sc := &swarmScene{
		t:     t,
		s:     New(layout.New(length, layout.File{Length: int64(pieces) * length}), 1),
		now:   epoch,
		peers: make(map[string]*Supplier),
	}
	for i := range pieces {
		sc.s.Prioritise(i, normal)
	}
	return sc
}

// join connects a peer that has the pieces given, or everything, and sends 1 MiB/s.
func (sc *swarmScene) join(name string, has ...int) *Supplier {
	r := &Supplier{all: len(has) == 0, has: bits.New(sc.s.layout.NumPieces()), pace: pace{rate: 1 << 20}}
	for _, i := range has {
		r.has.Add(i)
	}
	r.Origin, r.Host = name, name
	sc.s.join(r)
	sc.peers[name] = r
	return r
}

func ids(blocks []Block) string {
	var s []string
	for _, b := range blocks {
		s = append(s, fmt.Sprintf("%d.%d", b.Piece, b.Index))
	}
	return strings.Join(s, " ")
}

func blocksOf(cancel []Request) (blocks []Block) {
	for _, c := range cancel {
		blocks = append(blocks, c.Block)
	}
	return blocks
}

// asks has a peer ask for n blocks, and returns them, and whose requests for what are cancelled.
func (sc *swarmScene) asks(name string, n int) string {
	blocks, cancel := sc.s.Next(sc.peers[name], n, sc.now, nil)
	s := ids(blocks)
	for _, c := range cancel {
		for name, r := range sc.peers {
			if c.Supplier == r {
				s += fmt.Sprintf(" -%s:%d.%d", name, c.Block.Piece, c.Block.Index)
			}
		}
	}
	return s
}

// sends has a peer send a block, and returns whose requests for it are cancelled.
func (sc *swarmScene) sends(name string, piece, index int32, want Verdict) (cancelled string) {
	sc.t.Helper()
	got := received(sc.s, sc.peers[name], Block{piece, index}, sc.now)
	require.Equal(sc.t, want, got.Verdict)
	for name, r := range sc.peers {
		if slices.Contains(got.Cancel[:], r) {
			cancelled += name
		}
	}
	return cancelled
}

// received has a block come from a peer that stays as fast as the test says.
func received(s *Picker, r *Supplier, id Block, now time.Time) Receipt {
	pace, pipe := r.pace, r.pipe
	defer func() { r.pace, r.pipe = pace, pipe }()
	return s.Received(r, id, now)
}

func everything(Block) bool { return true }

func TestRarestFirst(t *testing.T) {
	sc := newSwarmScene(t, 3)
	sc.join("s")
	sc.join("a", 0, 1)
	sc.join("b", 1, 2)
	sc.join("c", 1, 2)
	require.Equal(t, "0.0 0.1", sc.asks("a", 2), "piece 0 is only with a, and with the seed, which does not count")
	require.Equal(t, "2.0 2.1", sc.asks("b", 2), "b has not got 0; 2 is rarer than 1")
	require.Equal(t, "0.2 0.3 2.2 2.3", sc.asks("s", 4), "started pieces come before new ones, the oldest first")
	sc.s.Leave(sc.peers["c"])
	require.Equal(t, "1.0", sc.asks("s", 1))
}

func TestTwoClientsDoNotChooseAlike(t *testing.T) {
	order := func(seed uint64) (order []int) {
		h := newPieceHeap(50, seed)
		for i := range 50 {
			h.prioritise(i, 1)
			h.push(i)
		}
		for h.len() > 0 {
			i := h.top()
			h.remove(i)
			order = append(order, i)
		}
		return order
	}
	require.Equal(t, order(1), order(1))
	require.NotEqual(t, order(1), order(2))
	require.False(t, slices.IsSorted(order(1)), "nor in order")
}

func TestPriority(t *testing.T) {
	sc := newSwarmScene(t, 3)
	sc.join("s")
	first := sc.s.heap.top()
	other := (first + 1) % 3
	require.Equal(t, fmt.Sprintf("%d.0", first), sc.asks("s", 1))
	sc.s.Prioritise(other, high)
	require.Equal(t, fmt.Sprintf("%d.0 %d.1 %d.2 %d.3 %d.1", other, other, other, other, first), sc.asks("s", 5),
		"what is more wanted comes before what is begun")
	require.Equal(t, fmt.Sprintf("%d.0 %d.1", first, first), ids(blocksOf(sc.s.yield(sc.peers["s"], high, true))), "and may take its place")

	cancel := sc.s.Prioritise(other, skip)
	require.Len(t, cancel, 4, "what is not wanted any more is cancelled")
	require.False(t, sc.s.need.Has(other))
	sc.sends("s", int32(other), 0, Wasted)
	sc.s.Prioritise(first, skip)
	sc.s.Prioritise(3-first-other, skip)
	require.Empty(t, sc.asks("s", 1))
	require.False(t, sc.s.Interesting(sc.peers["s"]), "and interest ends with what is wanted")
}

func TestInterest(t *testing.T) {
	sc := newSwarmScene(t, 2)
	a := sc.join("a", 0)
	require.True(t, sc.s.Interesting(a))
	sc.s.Passed(0, nil)
	require.False(t, sc.s.Interesting(a), "we have what it has")
	require.True(t, sc.s.Have(a, 1))
	require.False(t, sc.s.Have(a, 1), "no news")
	require.True(t, sc.s.Interesting(a))
	sc.s.lose(a, 1)
	require.False(t, sc.s.Interesting(a))
}

func TestBlocksComeBack(t *testing.T) {
	sc := newSwarmScene(t, 1)
	a, b := sc.join("a"), sc.join("b")
	require.Equal(t, "0.0 0.1 0.2", sc.asks("a", 3))
	sc.s.Release(a, everything)
	a.Choking = true
	require.Empty(t, sc.asks("a", 3), "it chokes us")
	require.Equal(t, "0.0 0.1", sc.asks("b", 2), "what it was asked for is free at once")
	require.Equal(t, "b", sc.sends("a", 0, 0, Accepted), "a block that comes after the choke is taken, and nobody else need send it")
	sc.sends("b", 0, 1, Accepted)
	sc.sends("a", 0, 1, Wasted)
	sc.sends("a", 0, 3, Unrequested)
	sc.sends("a", 0, 0, Unrequested)
	require.Equal(t, "0.2 0.3", sc.asks("b", 9))
	sc.s.Leave(b)
	a.Choking = false
	require.Equal(t, "0.2 0.3", sc.asks("a", 9), "a lost connection frees what is not here")
}

func TestStartedPieceWithoutHolders(t *testing.T) {
	sc := newSwarmScene(t, 2)
	a := sc.join("a", 0)
	sc.join("b", 1)
	require.Equal(t, "0.0", sc.asks("a", 1))
	sc.s.Leave(a)
	require.Empty(t, sc.s.started, "a piece of which nothing is here or under way begins anew")
	require.True(t, sc.s.heap.holds(0))
	require.Equal(t, "1.0 1.1 1.2 1.3", sc.asks("b", 9), "and it is in nobody's way")
}

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
			sc := newSwarmScene(t, 1)
			sc.join("a").pace.rate = tc.owner
			require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("a", 4))
			sc.peers["a"].snubbed = tc.snubbed
			sc.join("t").pace.rate = tc.thief
			require.Equal(t, tc.want, sc.asks("t", 9))
		})
	}
}

func TestEndgame(t *testing.T) {
	sc := newSwarmScene(t, 1)
	slow := sc.join("a")
	slow.pace.rate = 1 << 10
	sc.asks("a", 4)
	sc.join("b").pace.rate = 1 << 16
	require.Equal(t, "0.3 0.2 0.1 0.0", sc.asks("b", 9), "the one expected last is taken over first")
	sc.join("c").pace.rate = 1 << 14
	require.Empty(t, sc.asks("c", 9), "two copies of a block are enough")
	require.Equal(t, "a", sc.sends("b", 0, 3, Accepted), "the first copy wins, the other is cancelled")
	sc.sends("a", 0, 3, Wasted)
	require.Equal(t, "b", sc.sends("a", 0, 2, Accepted))
	sc.s.Release(slow, everything)
	sc.peers["c"].pace.rate = 1 << 20
	require.Equal(t, "0.0", sc.asks("c", 1), "a block that one gave back may be stolen again")
	sc.peers["c"].pipe.rtt = time.Minute
	require.Empty(t, sc.asks("c", 1), "but not from afar")
}

func TestSilentPeerIsExpectedLater(t *testing.T) {
	sc := newSwarmScene(t, 1)
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
			sc := newSwarmScene(t, 1)
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

// The rate of a peer is that of the last seconds in which it was asked for something.
func TestRateOfAnswers(t *testing.T) {
	for silence, want := range map[time.Duration]float64{
		0:               layout.BlockSize, // that may have been ready
		time.Second:     layout.BlockSize,
		5 * time.Second: layout.BlockSize / 5.,
		time.Minute:     layout.BlockSize / 60.,
	} {
		var r pace
		r.add(layout.BlockSize, silence, epoch)
		require.InEpsilon(t, want, r.rate, 1e-9, silence)
	}
	var r pace
	for range 50 {
		r.add(layout.BlockSize, 100*time.Millisecond, epoch)
	}
	require.InEpsilon(t, 10*layout.BlockSize, r.rate, 1e-9)
	for range 10 {
		r.add(layout.BlockSize, time.Second, epoch)
	}
	require.InEpsilon(t, 2*layout.BlockSize, r.rate, 0.3, "it has become slower")
	r.add(layout.BlockSize, time.Minute, epoch)
	require.InEpsilon(t, layout.BlockSize/60., r.rate, 0.01, "and slower")
}

// That a peer is slow is believed less and less until it shows it again.
func TestOldRateIsDoubted(t *testing.T) {
	var r Supplier
	r.pace.add(layout.BlockSize, 4*time.Second, epoch)
	r.pace.add(layout.BlockSize, 4*time.Second, epoch)
	took := r.eta(0, epoch)
	require.Equal(t, took/2, r.eta(0, epoch.Add(10*time.Second)))
	require.Equal(t, took/7, r.eta(0, epoch.Add(time.Hour)))
	r.heard = epoch.Add(time.Hour)
	r.enqueue(outstanding{at: r.heard})
	require.Equal(t, took/7, r.eta(0, r.heard), "to be asked changes nothing yet")
	require.Equal(t, took, r.eta(0, r.heard.Add(took)), "silence does")
	r.pace.add(layout.BlockSize, 4*time.Second, epoch.Add(time.Hour))
	require.Equal(t, took, r.eta(0, epoch.Add(time.Hour)))
}

func TestSnubbedPeerIsTriedWithOne(t *testing.T) {
	sc := newSwarmScene(t, 3)
	a := sc.join("a")
	sc.asks("a", 2)
	a.snubbed = true
	require.Empty(t, sc.asks("a", 9))
	sc.s.Release(a, everything)
	require.Len(t, strings.Fields(sc.asks("a", 9)), 1, "one block, to see whether it is back")
	sc.sends("a", a.queue[0].Piece, a.queue[0].Index, Accepted)
	require.Len(t, strings.Fields(sc.asks("a", 5)), 5, "it is")
}

func TestFastPieces(t *testing.T) {
	sc := newSwarmScene(t, 4)
	a := sc.join("a", 1, 3)
	sc.join("b", 0, 1, 2)
	a.Choking = true
	a.allowed = map[int32]struct{}{2: {}, 3: {}}
	require.Equal(t, "3.0 3.1 3.2 3.3", sc.asks("a", 9), "what it has of what a choke does not stop (BEP 6)")
	b := sc.peers["b"]
	top := sc.s.first(b)
	other := (top + 1) % 3
	b.Suggest(other)
	require.Equal(t, other, sc.s.first(b), "a suggestion overrules rarity")
	sc.s.Prioritise(top, high)
	require.Equal(t, top, sc.s.first(b), "but not what is wanted more")
	for i := range maxSuggested + 3 {
		b.Suggest(i)
	}
	require.Equal(t, []int32{3, 4, 5, 6, 7, 8, 9, 10}, b.suggested)
}

func TestSuggestedPieces(t *testing.T) {
	sc := newSwarmScene(t, 4)
	sc.join("a", 0, 1, 2, 3)
	b := sc.join("b", 0, 1, 2, 3)
	sc.asks("a", 1)
	started := int(sc.peers["a"].queue[0].Piece)
	b.Suggest((started + 1) % 4)
	blocks := func(piece int, from, to int) (ids []string) {
		for k := from; k < to; k++ {
			ids = append(ids, fmt.Sprintf("%d.%d", piece%4, k))
		}
		return ids
	}
	require.Equal(t, blocks(started+1, 0, 2), strings.Fields(sc.asks("b", 2)), "what is suggested comes before what is started")
	require.Equal(t, slices.Concat(blocks(started+1, 2, 4), blocks(started, 1, 2)), strings.Fields(sc.asks("b", 3)), "to its end")
	b.Suggest((started + 2) % 4)
	sc.s.Prioritise(started, high)
	require.Equal(t, slices.Concat(blocks(started, 2, 4), blocks(started+2, 0, 1)), strings.Fields(sc.asks("b", 3)), "but not before what is wanted more")
}

// fetch has each of four blocks of piece 0 sent by the peer that is named in its place.
func (sc *swarmScene) fetch(names string) {
	sc.t.Helper()
	for k, name := range names {
		for range 4 { // others may have to take turns until this one is asked for block k
			if slices.ContainsFunc(sc.peers[string(name)].queue, func(a outstanding) bool { return int(a.Index) == k }) {
				break
			}
			sc.s.Release(sc.peers[string(name)], everything)
			sc.asks(string(name), 1)
		}
		sc.sends(string(name), 0, int32(k), Accepted)
	}
}

// origins writes out some origins, each of which is a name.
func origins(liars []any) (names string) {
	for _, name := range liars {
		names += name.(string)
	}
	return names
}

// passed has piece 0 pass its hash, and returns who is shown to have lied.
func (sc *swarmScene) passed(truth []uint64) string {
	_, liars := sc.s.Passed(0, truth)
	return origins(liars)
}

func TestWhoSpoiledThePiece(t *testing.T) {
	truth := []uint64{10, 11, 12, 13}

	t.Run("who alone sent a bad piece", func(t *testing.T) {
		sc := newSwarmScene(t, 1)
		sc.join("l")
		sc.fetch("llll")
		require.Equal(t, "l", origins(sc.s.Failed(0, []uint64{10, 11, 12, 99})))
	})

	t.Run("one of several", func(t *testing.T) {
		sc := newSwarmScene(t, 1)
		sc.join("a")
		sc.join("l")
		sc.fetch("alal")
		require.Empty(t, sc.s.Failed(0, []uint64{10, 99, 12, 13}), "nobody knows yet")

		require.Equal(t, "0.0 0.1", sc.asks("a", 2))
		require.Empty(t, sc.asks("l", 2), "it is on parole with a alone")
		for k := range int32(4) {
			sc.asks("a", 1)
			sc.sends("a", 0, k, Accepted)
		}
		require.Equal(t, "l", sc.passed(truth), "the block that differs was l's")
		require.Empty(t, sc.passed(truth), "and that is the end of it")
	})

	t.Run("the liar has it on parole", func(t *testing.T) {
		sc := newSwarmScene(t, 1)
		sc.join("a")
		sc.join("l")
		sc.fetch("alal")
		sc.s.Failed(0, []uint64{10, 99, 12, 13})
		sc.fetch("llll")
		require.Equal(t, "l", origins(sc.s.Failed(0, []uint64{10, 98, 12, 13})))
	})

	t.Run("a parole that is not served", func(t *testing.T) {
		sc := newSwarmScene(t, 1)
		sc.join("a")
		sc.join("b")
		sc.fetch("abab")
		sc.s.Failed(0, truth)
		sc.asks("a", 4)
		sc.sends("a", 0, 0, Accepted)
		require.Empty(t, sc.asks("b", 4), "b would not have it sooner")
		sc.peers["a"].Choking = true
		sc.s.Release(sc.peers["a"], everything)
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("b", 4), "a chokes us: b begins anew, for its blocks alone prove something")
		sc.sends("a", 0, 1, Wasted)
		sc.peers["b"].snubbed = true
		sc.peers["a"].Choking = false
		require.Equal(t, "0.0 0.1 0.2 0.3 -b:0.0 -b:0.1 -b:0.2 -b:0.3", sc.asks("a", 4))
		sc.s.Leave(sc.peers["a"])
		require.True(t, sc.s.heap.holds(0), "and so it does when a leaves")
	})

	t.Run("a slow one has it on parole", func(t *testing.T) {
		sc := newSwarmScene(t, 1)
		sc.join("a").pace.rate = 1 << 12
		sc.join("b")
		sc.fetch("abab")
		sc.s.Failed(0, truth)
		sc.asks("a", 4)
		require.Equal(t, "0.0 0.1 0.2 0.3 -a:0.0 -a:0.1 -a:0.2 -a:0.3", sc.asks("b", 4), "all of it is stolen, or none")
	})

	t.Run("who has it on parole is busy with others", func(t *testing.T) {
		sc := newSwarmScene(t, 2)
		sc.s.Prioritise(1, 0)
		sc.join("a").pace.rate = 1 << 12
		sc.join("b", 0).pace.rate = 1 << 10
		sc.join("c", 0)
		sc.fetch("abab")
		sc.s.Failed(0, truth)
		require.Equal(t, "0.0", sc.asks("a", 1))
		sc.sends("a", 0, 0, Accepted)
		sc.s.Prioritise(1, high)
		require.Equal(t, "1.0 1.1 1.2 1.3", sc.asks("a", 4))
		require.Empty(t, sc.asks("b", 4), "b would not have it sooner")
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("c", 4), "c would, and begins anew")
	})

	t.Run("a crowd passes it around", func(t *testing.T) {
		sc := newSwarmScene(t, 1)
		sc.join("a").pace.rate = 70e3
		for _, name := range []string{"c", "d", "e", "f", "g"} {
			sc.join(name).pace.rate = 0
		}
		sc.fetch("acac")
		sc.s.Failed(0, truth)
		sc.asks("c", 4)
		require.Empty(t, sc.asks("d", 4), "who has shown nothing yet takes nothing")
		for k, name := range []string{"d", "e", "f", "g"} {
			sc.peers[[]string{"c", "d", "e", "f"}[k]].snubbed = true
			require.Contains(t, sc.asks(name, 4), "0.0 0.1 0.2 0.3", "but from one who lets it wait for too long")
		}
		sc.now = sc.now.Add(2 * time.Second)
		require.Equal(t, "0.0 0.1 0.2 0.3 -g:0.0 -g:0.1 -g:0.2 -g:0.3", sc.asks("a", 4), "however many have let it wait")
		sc.peers["a"].Choking = true
		sc.s.Release(sc.peers["a"], everything)
		sc.peers["c"].snubbed = false
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("c", 4))
		sc.peers["a"].Choking = false
		sc.now = sc.now.Add(2 * time.Second)
		require.Empty(t, sc.asks("a", 4), "who let it wait itself has to be so much sooner")
		sc.now = sc.now.Add(2 * time.Second)
		require.Contains(t, sc.asks("a", 4), "0.0 0.1 0.2 0.3")
	})

	t.Run("who has let it wait before", func(t *testing.T) {
		sc := newSwarmScene(t, 1)
		sc.join("a").pace.rate = 500e3
		sc.join("b")
		sc.fetch("abab")
		sc.s.Failed(0, truth)
		sc.asks("b", 4)
		sc.peers["b"].snubbed = true
		sc.s.Release(sc.peers["b"], everything)
		sc.peers["b"].snubbed = false
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("b", 4), "b may be the first to ask again, and is fast")
		require.Equal(t, "0.0 0.1 0.2 0.3 -b:0.0 -b:0.1 -b:0.2 -b:0.3", sc.asks("a", 4), "but it is a's turn")
		require.Empty(t, sc.asks("b", 4), "even if that takes longer")
		sc.now = sc.now.Add(time.Second)
		require.Equal(t, "0.0 0.1 0.2 0.3 -a:0.0 -a:0.1 -a:0.2 -a:0.3", sc.asks("b", 4), "unless that takes too long")
		sc.sends("b", 0, 0, Accepted)
		require.Empty(t, sc.asks("a", 4), "and who sends is not disturbed")
	})

	t.Run("what an earlier run left is nobody's lie", func(t *testing.T) {
		sc := newSwarmScene(t, 1)
		sc.join("a")
		left := bits.Full(4)
		sc.s.Restore(0, &left)
		require.Empty(t, sc.s.Failed(0, []uint64{99, 11, 12, 13}))
		sc.fetch("aaaa")
		require.Empty(t, sc.passed(truth))
	})

	t.Run("many attempts", func(t *testing.T) {
		sc := newSwarmScene(t, 1)
		sc.join("a")
		sc.join("b")
		sc.s.spoiled[0] = &suspicion{attempts: make([]attempt, maxAttempts), records: make(map[any]record)}
		sc.fetch("aaaa")
		for k, sender := range []string{"a", "b", "a", "a"} {
			sc.s.started[0].blocks[k].sender = sc.s.senderOf(sc.peers[sender])
		}
		sc.s.Failed(0, truth)
		require.Len(t, sc.s.spoiled[0].attempts, maxAttempts, "are not all remembered")
	})
}

// A started piece of which storage may hold something else begins anew, whoever is to blame for that.
func TestAbandon(t *testing.T) {
	sc := newSwarmScene(t, 1)
	require.Empty(t, sc.s.Abandon(0), "it was not begun")
	a := sc.join("a")
	require.Equal(t, "0.0 0.1 0.2", sc.asks("a", 3))
	sc.sends("a", 0, 0, Accepted)
	require.Equal(t, []Request{{a, Block{0, 1}}, {a, Block{0, 2}}}, sc.s.Abandon(0))
	require.True(t, sc.s.heap.holds(0))
	require.Empty(t, a.queue)
	sc.fetch("aaaa")
	require.Empty(t, sc.s.Abandon(0), "it is on its way to be hashed")
}

func TestPieceInDoubt(t *testing.T) {
	sc := newSwarmScene(t, 2)
	sc.join("s")
	sc.s.Passed(0, nil)
	sc.s.Passed(1, nil)
	require.False(t, sc.s.Interesting(sc.peers["s"]))
	require.True(t, sc.s.Doubt(0))
	require.False(t, sc.s.Doubt(0), "it is already")
	sc.s.Prioritise(0, high)
	require.Empty(t, sc.asks("s", 1), "nobody asks for it before it is known to be lost")
	sc.s.Lost(0)
	require.Equal(t, "0.0", sc.asks("s", 1))
}

// A peer that has few of many pieces, none of them near the top, costs one pass over its bitfield.
func TestSparsePeer(t *testing.T) {
	const n = 20_000
	h := newPieceHeap(n, 7)
	rng := rand.New(rand.NewPCG(7, 7))
	all := bits.Full(n)
	for i := range n {
		h.prioritise(i, uint8(1+rng.IntN(2)))
		h.push(i)
	}
	h.count(&all, 1)
	for range 200 {
		sparse := bits.New(n)
		for range 1 + rng.IntN(20) {
			sparse.Add(rng.IntN(n))
		}
		best := -1
		for i := range sparse.All() {
			if best < 0 || h.key(int32(i)) < h.key(int32(best)) {
				best = i
			}
		}
		require.Equal(t, best, h.first(&sparse))
	}
	none := bits.New(n)
	require.Equal(t, -1, h.first(&none))
}

func TestLateBlocksAreBounded(t *testing.T) {
	sc := newSwarmScene(t, maxForgiven/4+1)
	a := sc.join("a")
	for range 2 {
		sc.asks("a", maxForgiven+4)
		sc.s.Release(a, everything)
		require.LessOrEqual(t, a.forgiven.len(), 2*maxForgiven)
		require.GreaterOrEqual(t, a.forgiven.len(), maxForgiven)
	}
}

// Who is asked twice for a block, and told both times that it is not wanted any more, may answer twice.
func TestLateBlocksAreCounted(t *testing.T) {
	sc := newSwarmScene(t, 1)
	a := sc.join("a")
	for range 2 {
		require.Equal(t, "0.0", sc.asks("a", 1))
		sc.s.Release(a, everything)
	}
	sc.asks("a", 1)
	sc.sends("a", 0, 0, Accepted)
	sc.sends("a", 0, 0, Wasted)
	sc.sends("a", 0, 0, Wasted)
	sc.sends("a", 0, 0, Unrequested)
}

func (f *forgiven) len() int { return len(f.latest) + len(f.older) }
