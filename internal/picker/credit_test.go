package picker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

// A stranger has no turn at a piece on parole while a supplier is there that has sent true blocks.
func TestStrangersComeLast(t *testing.T) {
	sc := newScene(t, 2)
	a := sc.join("a", 0)
	a.Ready = true
	sc.join("l", 0).Ready = true
	sc.fetch("alal")
	sc.failed()
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("l", 4), "neither has sent a true block")
	require.Empty(t, sc.asks("a", 4))
	sc.s.senders.all[a.sender].given = fairPart + 1
	require.Equal(t, "0.0 0.1 0.2 0.3 -l:0.0 -l:0.1 -l:0.2 -l:0.3", sc.asks("a", 4), "a has, and l sent nothing yet")

	fast := sc.join("s", 0)
	fast.Ready, fast.pace.rate = true, 1<<30
	sc.now = sc.now.Add(2 * time.Second)
	require.Empty(t, sc.asks("s", 4), "however fast it seems")
	a.Choking = true
	sc.s.Release(a, everything)
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("s", 4), "but if a cannot send it")
	sc.sends("s", 0, 0, Accepted)
	a.Choking = false
	require.Empty(t, sc.asks("a", 4), "a piece is not taken from a peer that sends")
	fast.snubbed = true
	sc.s.Release(fast, everything)
	sc.join("t", 0).Ready = true
	require.Empty(t, sc.asks("t", 4))
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("a", 4))

	sc.s.spoiled[0].records[a.Host] = record{stuck: maxStuck - 1}
	a.snubbed = true
	sc.s.Release(a, everything)
	a.snubbed = false
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("t", 4), "after some lapses, a comes no sooner than others")

	stranger := sc.peers["t"]
	stranger.sender = sc.s.senderOf(stranger)
	sc.s.senders.all[stranger.sender].given = 1
	require.Greater(t, sc.s.creditOf(a), fairPart*sc.s.creditOf(stranger), "one block is little beside what a sent")
	sc.s.senders.all[stranger.sender].given = 2
	require.LessOrEqual(t, sc.s.creditOf(a), fairPart*sc.s.creditOf(stranger))
}

// A peer that sent most of the content, and then sends a block now and then, used to keep all pieces on parole from the others,
// which had sent little.
func TestTriedSupplierThatSlowsDown(t *testing.T) {
	sc := newScene(t, 1)
	a := sc.join("a")
	a.Ready = true
	sc.join("b").Ready = true
	sc.fetch("abab")
	sc.failed()
	sc.s.senders.all[a.sender].given, sc.s.senders.all[a.sender].best = 1000, a.pace.rate
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("a", 4))
	sc.sends("a", 0, 0, Accepted)
	a.pace.rate /= fairPart
	sc.now = sc.now.Add(9 * time.Second)
	require.Empty(t, sc.asks("b", 4), "it is not so slow yet")
	a.pace.rate /= 2
	require.Equal(t, "0.0 0.1 0.2 0.3 -a:0.1 -a:0.2 -a:0.3", sc.asks("b", 4))
	require.Empty(t, sc.asks("a", 4))
}

// A peer that sent most of the content and cannot send a piece on parole used to take precedence there from those that sent less,
// so that each stranger had a turn before them.
func TestCreditOfOneThatCannotSend(t *testing.T) {
	sc := newScene(t, 2)
	sc.s.Prioritise(1, 0)
	a := sc.join("a")
	a.Ready = true
	sc.join("b").Ready = true
	sc.fetch("abab")
	sc.failed()
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("b", 4))
	most := sc.join("d", 1)
	most.Ready = true
	sc.s.senders.all[a.sender].given = 50
	sc.s.senders.all[sc.s.senderOf(most)].given = 1000
	require.Equal(t, "0.0 0.1 0.2 0.3 -b:0.0 -b:0.1 -b:0.2 -b:0.3", sc.asks("a", 4))
}

// A peer with credit used to lose its precedence if others took the piece over again and again before its first block.
func TestTakeoversCostNoPrecedence(t *testing.T) {
	sc := newScene(t, 1)
	a, b := sc.join("a"), sc.join("b")
	a.Ready, b.Ready = true, true
	sc.fetch("abab")
	sc.failed()
	sc.s.senders.all[a.sender].given, sc.s.senders.all[b.sender].given = 100, 100
	for range maxStuck {
		b.snubbed = true
		require.Contains(t, sc.asks("a", 4), "0.0 0.1 0.2 0.3")
		b.snubbed, b.pace.rate = false, 1<<30
		a.pace.rate = 1 << 12
		require.Contains(t, sc.asks("b", 4), "0.0 0.1 0.2 0.3")
	}
	require.Equal(t, record{turns: maxStuck, lapses: maxStuck}, sc.s.spoiled[0].records["a"])
	b.snubbed = true
	sc.s.Release(b, everything)
	sc.join("s").Ready = true
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("s", 4))
	require.Equal(t, "0.0 0.1 0.2 0.3 -s:0.0 -s:0.1 -s:0.2 -s:0.3", sc.asks("a", 4))
}

// onParole returns a scene with one piece on parole, and a peer with credit.
func onParole(t *testing.T) (*scene, *Supplier) {
	sc := newScene(t, 1)
	a := sc.join("a")
	a.Ready = true
	sc.join("l")
	sc.fetch("aala")
	sc.s.Failed(0, []uint64{10, 11, 99, 13})
	sc.s.senders.all[a.sender].given = 100
	return sc, a
}

// A peer with credit that is snubbed again and again used to keep precedence at the pieces that no other peer took over meanwhile.
func TestSnubEndsPrecedence(t *testing.T) {
	sc, a := onParole(t)
	stranger := sc.join("s")
	for range maxStuck {
		require.True(t, sc.s.outranked(stranger, sc.s.started[0]))
		require.Equal(t, "0.2", sc.asks("a", 4))
		sc.now = sc.now.Add(time.Minute)
		require.Len(t, sc.s.Snub(a, sc.now), 1)
		require.Equal(t, a, sc.s.Started(0).Sole)
		a.snubbed = false
		sc.s.ranking = ranking{}
	}
	require.False(t, sc.s.outranked(stranger, sc.s.started[0]))
}

// A peer that chokes now and then used to lose its precedence for good, so that strangers without end had all turns at a piece.
func TestPrecedenceComesBack(t *testing.T) {
	sc, a := onParole(t)
	precedes := func() bool { return sc.s.precedes(a, sc.join("s"), sc.s.started[0]) }
	stuck := func() {
		sc.s.note(0, "a", func(r *record) { r.turns, r.stuck = r.turns+1, r.stuck+1 })
		sc.s.spoiled[0].turns++
	}
	for range maxStuck {
		require.True(t, precedes())
		stuck()
	}
	for k := range otherTurns {
		require.False(t, precedes(), k)
		s := sc.join(fmt.Sprint("s", k))
		sc.s.assign(sc.s.started[0], s)
		sc.s.endTurn(sc.s.started[0])
	}
	require.True(t, precedes())
	stuck()
	require.False(t, precedes(), "once for so many turns of others")
}

// A peer with credit used to take over one piece on parole after another before it was asked for the rest of those that it had begun.
// When it choked, it lost what it had sent of all of them.
func TestPieceOnParoleIsCompletedFirst(t *testing.T) {
	sc := newScene(t, 2)
	a := sc.join("a")
	a.Ready = true
	sc.s.senderOf(a)
	sc.s.senderOf(sc.join("l"))
	for i := range 2 {
		sc.s.spoiled[int32(i)] = &suspicion{failures: 2, records: make(map[any]record)}
		sc.spoil(i)
		name := fmt.Sprint("s", i)
		sc.join(name, i)
		require.Len(t, strings.Fields(sc.asks(name, 4)), 4)
	}
	sc.s.senders.all[a.sender].given = 100
	require.Equal(t, "0.0 0.1 -s0:0.0 -s0:0.1 -s0:0.2 -s0:0.3", sc.asks("a", 2))
	require.Equal(t, "0.2 0.3", sc.asks("a", 2), "the rest, and not what is due of the other piece")
	require.Equal(t, "1.0 1.1 -s1:1.0 -s1:1.1 -s1:1.2 -s1:1.3", sc.asks("a", 2))
}

// What a peer with credit had sent of a piece on parole used to be dropped when it choked and a stranger took over. The piece never came
// if the peer always choked before it had sent all of it.
func TestBlocksOfOneThatChokesAreKept(t *testing.T) {
	truth := []uint64{10, 11, 12, 13}
	sc := newScene(t, 1)
	a, l := sc.join("a"), sc.join("l")
	a.Ready, l.Ready = true, true
	sc.fetch("alal")
	sc.s.spoiled[0] = &suspicion{failures: 2, records: make(map[any]record)}
	sc.s.Failed(0, []uint64{10, 99, 12, 13})
	sc.s.senders.all[a.sender].given = 100
	chokes := func(choking bool) {
		a.Choking = choking
		sc.s.Release(a, everything)
	}
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("a", 4))
	sc.sends("a", 0, 0, Accepted)
	sc.sends("a", 0, 1, Accepted)
	chokes(true)
	require.Equal(t, "0.2 0.3", sc.asks("l", 4), "the others of a are kept")
	sc.sends("l", 0, 2, Accepted)
	sc.sends("l", 0, 3, Accepted)
	require.Empty(t, sc.s.Failed(0, []uint64{10, 11, 99, 13}), "a is believed, but nothing is proven")
	require.Equal(t, 2, sc.s.Started(0).Kept)
	chokes(false)
	require.Equal(t, "0.2 0.3", sc.asks("a", 4))
	sc.sends("a", 0, 2, Accepted)
	sc.sends("a", 0, 3, Accepted)
	require.Equal(t, "l", sc.passed(truth))
}

// Each connection of a peer carried less than a piece, and what it had sent of one on parole was dropped when it left: it never completed
// any beside strangers. The piece waits for it, until another would have sent all of it sooner.
func TestPieceWaitsForOneThatLeaves(t *testing.T) {
	for _, how := range []string{"leave", "choke", "choke, then leave", "choke twice"} {
		leaves := strings.HasSuffix(how, "leave")
		sc := newScene(t, 1)
		sc.join("a").Ready = true
		sc.join("l").Ready = true
		sc.fetch("alal")
		sc.failed()
		pause := func() {
			a := sc.peers["a"]
			if how != "leave" {
				sc.s.Choke(a)
				sc.s.Release(a, everything)
			}
			if how == "choke twice" {
				sc.s.Choke(a)
			}
			if leaves {
				sc.s.Leave(a)
			}
		}
		comes := func() {
			if sc.peers["a"].Choking = false; leaves {
				a := sc.join("a")
				a.Ready, a.pace.rate = true, 1<<20
			}
		}
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("a", 4))
		sc.sends("a", 0, 0, Accepted)
		pause()
		require.Empty(t, sc.asks("l", 4), how)
		comes()
		require.Equal(t, "0.1 0.2 0.3", sc.asks("a", 4))
		pause()
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("l", 4), "it sent nothing since")
		sc.sends("l", 0, 0, Accepted)
		sc.peers["l"].snubbed = true
		comes()
		require.Contains(t, sc.asks("a", 4), "0.0 0.1 0.2 0.3")
		for k := range int32(3) {
			sc.sends("a", 0, k, Accepted)
		}
		pause()
		sc.peers["l"].snubbed = false
		require.Empty(t, sc.asks("l", 4))
		sc.now = sc.now.Add(time.Minute)
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("l", 4), "it is away for long")
	}
}

// A peer that had some turns at a piece used to leave it to slow strangers for good: one after another took it over.
func TestTurnsOfOthersCount(t *testing.T) {
	sc := newScene(t, 1)
	sc.join("a")
	slow := sc.join("s")
	sc.fetch("asas")
	sc.failed()
	slow.pace.rate = 1 << 14
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("s", 4))
	u := sc.s.spoiled[0]
	u.records["a"], u.turns = record{turns: 10}, 11
	require.Empty(t, sc.asks("a", 4))
	u.turns += 10 * otherTurns
	require.Equal(t, "0.0 0.1 0.2 0.3 -s:0.0 -s:0.1 -s:0.2 -s:0.3", sc.asks("a", 4))
}

// A piece waits neither for a liar nor for one that has far less credit.
func TestPieceWaitsForNoLiar(t *testing.T) {
	for _, liar := range []bool{false, true} {
		sc := newScene(t, 1)
		a := sc.join("a")
		a.Ready = true
		l := sc.join("l")
		sc.fetch("alal")
		sc.failed()
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("l", 4))
		sc.sends("l", 0, 0, Accepted)
		sc.s.Leave(l)
		require.Empty(t, sc.asks("a", 4))
		if liar {
			require.Equal(t, "0.0", ids(sc.s.Disown(func(origin any) bool { return origin == "l" })))
		} else {
			sc.s.senders.all[a.sender].given = 1
		}
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("a", 4))
	}
}

// A peer with credit that spoils a piece itself is not believed for ever.
func TestCreditIsNotBelievedForEver(t *testing.T) {
	sc := newScene(t, 1)
	a := sc.join("a")
	sc.join("b")
	sc.fetch("aaab")
	sc.s.senders.all[a.sender].given = 100
	sc.s.spoiled[0] = &suspicion{failures: maxBelieved - 1, records: make(map[any]record)}
	require.Empty(t, sc.s.Failed(0, make([]uint64, 4)))
	require.Equal(t, 3, sc.s.Started(0).Kept)
	require.Equal(t, "0.3", sc.asks("b", 4))
	sc.sends("b", 0, 3, Accepted)
	require.Empty(t, sc.s.Failed(0, make([]uint64, 4)))
	require.Zero(t, sc.s.Started(0), "all blocks are dropped")
}

// A peer with credit that had several turns at a piece used to leave it to a stranger that took a hundred times as long.
func TestSlowStrangerGivesWay(t *testing.T) {
	sc := newScene(t, 1)
	a, s := sc.join("a"), sc.join("s")
	a.Ready, s.Ready = true, true
	sc.fetch("asas")
	sc.failed()
	sc.s.spoiled[0].records[a.Host] = record{turns: 6, stuck: maxStuck - 1}
	a.Choking = true
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("s", 4))
	sc.sends("s", 0, 0, Accepted)
	a.Choking, s.pace.rate = false, a.pace.rate/100
	require.Empty(t, sc.asks("a", 4), "it has no credit")
	sc.s.senders.all[a.sender].given = 100
	require.Equal(t, "0.0 0.1 0.2 0.3 -s:0.1 -s:0.2 -s:0.3", sc.asks("a", 4))
}

// A peer with credit that connected again used to have none until a block of it came, and strangers that were slow kept all pieces on
// parole until then.
func TestCreditOfOneThatConnectsAgain(t *testing.T) {
	sc := newScene(t, 1)
	a := sc.join("a")
	sc.join("s").pace.rate = 1 << 10
	sc.fetch("asas")
	sc.failed()
	sc.s.senders.all[a.sender].given, sc.s.senders.all[a.sender].best = 100, 1<<20
	sc.s.spoiled[0].records["a"] = record{turns: 12}
	sc.s.Leave(a)
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("s", 4))
	sc.sends("s", 0, 0, Accepted)
	sc.join("a")
	require.Equal(t, "0.0 0.1 0.2 0.3 -s:0.1 -s:0.2 -s:0.3", sc.asks("a", 4))
}

// A peer whose rate fell for good, maybe because ours was limited, used to lose its credit for the rest of the download.
func TestCreditOfOneThatStaysSlower(t *testing.T) {
	sc := newScene(t, 200)
	a := sc.join("a")
	a.Ready = true
	sends := func(n int, pause time.Duration) {
		for range n {
			require.Len(t, strings.Fields(sc.asks("a", 1)), 1)
			sc.now = sc.now.Add(pause)
			id := a.queue[0].Block
			require.Equal(t, Accepted, sc.s.Received(a, id, sc.now).Verdict)
			if i := int(id.Piece); sc.s.Started(i).Left == 0 {
				sc.s.Passed(i, make([]uint64, 4))
			}
		}
	}
	sends(200, 10*time.Millisecond)
	require.NotZero(t, sc.s.creditOf(a))
	sends(50, 500*time.Millisecond)
	require.Zero(t, sc.s.creditOf(a))
	sends(400, 500*time.Millisecond)
	require.NotZero(t, sc.s.creditOf(a))
}

// A liar with credit sent one block each time it was unchoked, then choked until a slower honest peer had sent half of the rest, which was
// dropped when the liar came back. So it had a turn for each block of the piece.
func TestOneBlockATurnHoldsNoPiece(t *testing.T) {
	const n = 1024
	length := int64(n * layout.BlockSize)
	sc := &scene{t: t, s: New(layout.New(length, layout.File{Length: length}), 1), now: epoch, peers: make(map[string]*Supplier)}
	sc.s.Prioritise(0, normal)
	liar, honest := sc.join("liar"), sc.join("honest")
	liar.Ready, honest.Ready = true, true
	sc.s.senderOf(liar)
	sc.s.senderOf(honest)
	p := sc.s.start(0)
	for k := range int32(n) {
		sc.s.block(p, k).sender = k % 2
		p.free--
		p.left--
	}
	sc.s.close(p)
	sc.s.spoiled[0] = &suspicion{failures: 2, records: make(map[any]record)}
	sc.s.Failed(0, make([]uint64, n))
	const liarRate, honestRate = 1 << 20, 1 << 18
	sc.s.senders.all[liar.sender].given = 100
	turns := 0
	for sc.s.started[0] == nil || sc.s.started[0].left > 0 {
		sc.s.Choke(liar)
		sc.s.Release(liar, everything)
		sc.asks("honest", n)
		for sent := 0; len(honest.queue) > 0 && len(liar.queue) == 0; sent++ {
			sc.now = sc.now.Add(layout.BlockSize * time.Second / honestRate)
			sc.s.Received(honest, honest.queue[0].Block, sc.now)
			liar.pace.rate, honest.pace.rate = liarRate, honestRate
			if p := sc.s.started[0]; 2*sent > p.lacks()-6 && p.left > 0 { // it would still send all in half of the time
				liar.Choking, liar.heard = false, sc.now
				sc.s.Next(liar, 2, sc.now, nil)
				if len(liar.queue) == 0 {
					sc.s.Choke(liar)
				}
			}
		}
		if len(liar.queue) > 0 {
			turns++
			sc.s.Received(liar, liar.queue[0].Block, sc.now.Add(layout.BlockSize*time.Second/liarRate))
		}
		require.Less(t, turns, 10)
	}
	t.Logf("%d turns of the liar", turns)
}
