package picker

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/memtest"
)

// fetch makes the peer names[k] send block k of piece 0.
func (sc *scene) fetch(names string) {
	sc.t.Helper()
	for k, name := range names {
		for range 4 { // repeat until block k is requested from this peer
			if slices.ContainsFunc(sc.peers[string(name)].queue, func(q outstanding) bool { return int(q.Index) == k }) {
				break
			}
			sc.s.Release(sc.peers[string(name)], everything)
			sc.asks(string(name), 1)
		}
		sc.sends(string(name), 0, int32(k), Accepted)
	}
}

// origins joins origins, each of which is the name of a peer.
func origins(liars []any) (names string) {
	for _, name := range liars {
		names += name.(string)
	}
	return names
}

// passed makes piece 0 pass its hash, and returns the names of the liars.
func (sc *scene) passed(truth []uint64) string {
	_, liars := sc.s.Passed(0, truth)
	return origins(liars)
}

// failed makes piece 0 fail its hash as if it had failed twice before, so that all its blocks are dropped.
func (sc *scene) failed() {
	sc.s.spoiled[0] = &suspicion{failures: 2, records: make(map[any]record)}
	sc.s.Failed(0, make([]uint64, 4))
}

// spoil makes piece i fail its hash, with blocks of the first two senders.
func (sc *scene) spoil(i int) {
	p := sc.s.start(i)
	for k := range int32(4) {
		sc.s.block(p, k).sender = k % 2
		p.free--
		p.left--
	}
	sc.s.close(p)
	sc.s.Failed(i, make([]uint64, 4))
}

func TestWhoSpoiledThePiece(t *testing.T) {
	truth := []uint64{10, 11, 12, 13}

	t.Run("one peer sent all of it", func(t *testing.T) {
		sc := newScene(t, 1)
		sc.join("l")
		sc.fetch("llll")
		require.Equal(t, "l", origins(sc.s.Failed(0, []uint64{10, 11, 12, 99})))
	})

	t.Run("one of several", func(t *testing.T) {
		sc := newScene(t, 1)
		sc.join("a")
		sc.join("l")
		sc.fetch("alal")
		sc.s.spoiled[0] = &suspicion{failures: 2, records: make(map[any]record)}
		require.Empty(t, sc.s.Failed(0, []uint64{10, 99, 12, 13}), "either peer may have lied")

		require.Equal(t, "0.0 0.1", sc.asks("a", 2))
		require.Empty(t, sc.asks("l", 2), "a is the sole supplier")
		for k := range int32(4) {
			sc.asks("a", 1)
			sc.sends("a", 0, k, Accepted)
		}
		require.Equal(t, "l", sc.passed(truth), "l sent the block that differs")
		require.Empty(t, sc.passed(truth), "the suspicion has ended")
	})

	t.Run("the liar is the sole supplier", func(t *testing.T) {
		sc := newScene(t, 1)
		sc.join("a")
		sc.join("l")
		sc.fetch("alal")
		sc.failed()
		sc.fetch("llll")
		require.Equal(t, "l", origins(sc.s.Failed(0, []uint64{10, 98, 12, 13})))
	})

	t.Run("the sole supplier stops sending", func(t *testing.T) {
		sc := newScene(t, 1)
		sc.join("a")
		sc.join("b")
		sc.fetch("abab")
		sc.failed()
		sc.asks("a", 4)
		sc.sends("a", 0, 0, Accepted)
		require.Empty(t, sc.asks("b", 4), "b would not have it sooner")
		sc.peers["a"].Choking = true
		sc.s.Release(sc.peers["a"], everything)
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("b", 4), "a chokes us: b starts again, because its blocks alone prove something")
		sc.sends("a", 0, 1, Wasted)
		sc.peers["b"].snubbed = true
		sc.peers["a"].Choking = false
		require.Equal(t, "0.0 0.1 0.2 0.3 -b:0.0 -b:0.1 -b:0.2 -b:0.3", sc.asks("a", 4))
		sc.s.Leave(sc.peers["a"])
		require.True(t, sc.s.heap.holds(0), "the piece starts again when a leaves, too")
	})

	t.Run("the sole supplier is slow", func(t *testing.T) {
		sc := newScene(t, 1)
		sc.join("a").pace.rate = 1 << 12
		sc.join("b")
		sc.fetch("abab")
		sc.failed()
		sc.asks("a", 4)
		require.Equal(t, "0.0 0.1 0.2 0.3 -a:0.0 -a:0.1 -a:0.2 -a:0.3", sc.asks("b", 4), "the whole piece is taken over")
	})

	t.Run("the sole supplier is busy with another piece", func(t *testing.T) {
		sc := newScene(t, 2)
		sc.s.Prioritise(1, 0)
		a := sc.join("a")
		a.Ready, a.pace.rate = true, 1<<12
		sc.join("b", 0).pace.rate = 1 << 10
		sc.join("c", 0)
		sc.fetch("abab")
		sc.failed()
		require.Equal(t, "0.0", sc.asks("a", 1))
		sc.sends("a", 0, 0, Accepted)
		sc.s.Prioritise(1, high)
		require.Equal(t, "1.0 1.1 1.2 1.3", sc.asks("a", 4))
		require.Empty(t, sc.asks("b", 4), "b would not have it sooner")
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("c", 4), "c would, and starts the piece again")
	})

	t.Run("many suppliers pass it around", func(t *testing.T) {
		sc := newScene(t, 1)
		sc.join("a").pace.rate = 70e3
		for _, name := range []string{"c", "d", "e", "f", "g"} {
			sc.join(name).pace.rate = 0
		}
		sc.fetch("acac")
		sc.failed()
		sc.asks("c", 4)
		require.Empty(t, sc.asks("d", 4), "the rate of d is unknown")
		for k, name := range []string{"d", "e", "f", "g"} {
			sc.peers[[]string{"c", "d", "e", "f"}[k]].snubbed = true
			require.Contains(t, sc.asks(name, 4), "0.0 0.1 0.2 0.3", "the sole supplier is snubbed")
		}
		sc.now = sc.now.Add(2 * time.Second)
		require.Equal(t, "0.0 0.1 0.2 0.3 -g:0.0 -g:0.1 -g:0.2 -g:0.3", sc.asks("a", 4), "however many lapses there were")
		sc.peers["a"].Choking = true
		sc.s.Release(sc.peers["a"], everything)
		sc.peers["c"].snubbed = false
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("c", 4))
		sc.peers["a"].Choking = false
		sc.now = sc.now.Add(2 * time.Second)
		require.Empty(t, sc.asks("a", 4), "a had a turn, so it must be sooner by a larger margin")
		sc.now = sc.now.Add(2 * time.Second)
		require.Contains(t, sc.asks("a", 4), "0.0 0.1 0.2 0.3")
	})

	t.Run("one supplier has lapsed before", func(t *testing.T) {
		sc := newScene(t, 1)
		sc.join("a").pace.rate = 500e3
		sc.join("b")
		sc.fetch("abab")
		sc.failed()
		sc.asks("b", 4)
		sc.peers["b"].snubbed = true
		sc.s.Release(sc.peers["b"], everything)
		sc.peers["b"].snubbed = false
		require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("b", 4), "b calls Next first, and is fast")
		require.Equal(t, "0.0 0.1 0.2 0.3 -b:0.0 -b:0.1 -b:0.2 -b:0.3", sc.asks("a", 4), "but b has lapsed, and a has not")
		require.Empty(t, sc.asks("b", 4), "even if a takes longer")
		sc.now = sc.now.Add(time.Second)
		require.Equal(t, "0.0 0.1 0.2 0.3 -a:0.0 -a:0.1 -a:0.2 -a:0.3", sc.asks("b", 4), "unless a takes too long")
		sc.sends("b", 0, 0, Accepted)
		require.Empty(t, sc.asks("a", 4), "a piece is not taken from a peer that sends")
	})

	t.Run("an earlier run left it", func(t *testing.T) {
		sc := newScene(t, 1)
		sc.join("a")
		left := bits.Full(4)
		sc.s.Restore(0, &left)
		require.Empty(t, sc.s.Failed(0, []uint64{99, 11, 12, 13}))
		sc.fetch("aaaa")
		require.Empty(t, sc.passed(truth))
	})

	t.Run("many attempts", func(t *testing.T) {
		sc := newScene(t, 1)
		sc.join("a")
		sc.join("b")
		sc.s.spoiled[0] = &suspicion{attempts: make([]attempt, maxAttempts), records: make(map[any]record)}
		sc.fetch("aaaa")
		for k, sender := range []string{"a", "b", "a", "a"} {
			sc.s.block(sc.s.started[0], int32(k)).sender = sc.s.senderOf(sc.peers[sender])
		}
		sc.s.Failed(0, truth)
		require.Len(t, sc.s.spoiled[0].attempts, maxAttempts, "only maxAttempts are recorded")
	})
}

// Peers that must leave all pieces on parole to others used to look through all peers for each of these pieces.
func TestManyPiecesOnParoleCostLittle(t *testing.T) {
	const pieces, peers = 500, 80
	sc := newScene(t, pieces)
	for _, name := range []string{"l", "m"} {
		sc.s.senderOf(sc.join(name))
	}
	for i := range pieces {
		sc.spoil(i)
	}
	for k := range peers {
		o := sc.join(string(rune('A' + k)))
		o.Ready, o.Choking = true, k < peers-1
		sc.s.senders.all[sc.s.senderOf(o)].given = 1
	}
	sc.join("last").Ready = true
	before := sc.s.Work()
	require.Empty(t, sc.asks("last", 1))
	steps := sc.s.Work() - before
	t.Logf("%d steps", steps)
	require.Less(t, steps, int64(3*pieces))
}

// Only blocks of pieces that passed count as given.
func TestGivenBlocks(t *testing.T) {
	sc := newScene(t, 1)
	a, b := sc.join("a"), sc.join("b")
	sc.fetch("aaab")
	require.Zero(t, sc.s.creditOf(a))
	sc.s.Passed(0, make([]uint64, 4))
	require.Equal(t, []int{3, 1}, []int{sc.s.creditOf(a), sc.s.creditOf(b)})
	require.Zero(t, sc.s.creditOf(sc.join("c")))
}

// A piece that failed is not fetched again as a whole at once.
func TestBlocksOfAFailedPieceStay(t *testing.T) {
	truth := []uint64{10, 11, 12, 13}

	t.Run("the smallest share is replaced first", func(t *testing.T) {
		sc := newScene(t, 1)
		sc.join("a").Ready = true
		sc.join("l").Ready = true
		sc.fetch("aala")
		require.Empty(t, sc.s.Failed(0, []uint64{10, 11, 99, 13}))
		require.Equal(t, Started{Attempt: 1, Left: 1, Free: 1, Parole: true, Kept: 3}, sc.s.Started(0))
		require.Empty(t, sc.asks("l", 4), "l may not replace its own block")
		require.Equal(t, "0.2", sc.asks("a", 4))
		sc.sends("a", 0, 2, Accepted)
		require.Equal(t, "l", sc.passed(truth))
	})

	t.Run("then all but the largest, then all", func(t *testing.T) {
		sc := newScene(t, 1)
		for _, name := range []string{"a", "b", "c"} {
			sc.join(name).Ready = true
		}
		sc.fetch("abcc")
		sc.s.Failed(0, []uint64{10, 11, 99, 13})
		require.Equal(t, "0.0", sc.asks("b", 4))
		sc.sends("b", 0, 0, Accepted)
		require.Empty(t, sc.s.Failed(0, []uint64{10, 11, 99, 13}), "b and c sent two blocks each")
		require.Equal(t, 2, sc.s.Started(0).Kept)
		require.Equal(t, "0.0 0.1", sc.asks("a", 4))
		sc.sends("a", 0, 0, Accepted)
		sc.sends("a", 0, 1, Accepted)
		sc.s.Failed(0, []uint64{10, 11, 99, 13})
		require.Zero(t, sc.s.Started(0), "all blocks are dropped")
		sc.fetch("aaaa")
		require.Equal(t, "c", sc.passed(truth))
	})

	t.Run("only the sender of the dropped block is left", func(t *testing.T) {
		sc := newScene(t, 1)
		sc.join("a").Ready = true
		sc.join("l").Ready = true
		sc.fetch("aala")
		sc.s.Failed(0, []uint64{10, 11, 99, 13})
		sc.peers["a"].Choking = true
		require.Equal(t, "0.2", sc.asks("l", 4), "otherwise the piece would never be complete")
	})

	t.Run("the supplier that replaces blocks leaves", func(t *testing.T) {
		sc := newScene(t, 1)
		for _, name := range []string{"a", "b", "l"} {
			sc.join(name).Ready = true
		}
		sc.fetch("aall")
		sc.s.Failed(0, []uint64{10, 11, 99, 13})
		require.Equal(t, "0.0 0.1", sc.asks("b", 4))
		sc.sends("b", 0, 0, Accepted)
		sc.s.Leave(sc.peers["b"])
		require.Empty(t, sc.asks("a", 4), "the piece waits for b")
		sc.now = sc.now.Add(time.Second)
		require.Equal(t, "0.0 0.1", sc.asks("a", 4), "the other blocks stay")
	})
}

// Disown drops the unverified blocks of a known liar, and no others.
func TestDisown(t *testing.T) {
	sc := newScene(t, 3)
	sc.join("a").Ready = true
	sc.join("l").Ready = true
	require.Equal(t, "1.0 1.1", sc.asks("l", 2))
	require.Equal(t, "1.2 1.3 0.0", sc.asks("a", 3))
	for k := range int32(4) {
		sc.sends([]string{"l", "l", "a", "a"}[k], 1, k, Accepted)
	}
	require.Equal(t, "0.1", sc.asks("l", 1))
	sc.sends("l", 0, 1, Accepted)
	sc.sends("a", 0, 0, Accepted)
	liar := func(origin any) bool { return origin == "l" }
	require.Equal(t, "0.1", ids(sc.s.Disown(liar)), "a piece that is being hashed is left alone")
	require.Empty(t, sc.s.Disown(liar))
	require.Equal(t, 3, sc.s.Started(0).Left)

	require.Empty(t, sc.s.Failed(1, []uint64{10, 99, 12, 13}))
	arrived := sc.s.Arrived(1)
	require.False(t, arrived.Has(0) || arrived.Has(1), "a known liar is accused first, whatever its share")
	require.True(t, arrived.Has(2) && arrived.Has(3))
}

// If the false blocks of a piece are known, only these are fetched again, and their senders lied.
func TestExposedBlocks(t *testing.T) {
	sc := newScene(t, 1)
	for _, name := range []string{"a", "b", "c"} {
		sc.join(name)
	}
	sc.fetch("abca")
	require.Equal(t, "b", origins(sc.s.Exposed(0, func(k int) bool { return k == 1 })))
	arrived := sc.s.Arrived(0)
	require.Equal(t, []int{0, 2, 3}, slices.Collect(arrived.All()))
	p := sc.s.Started(0)
	require.Equal(t, []int{1, 1}, []int{p.Left, p.Free})
	require.False(t, p.Parole, "blocks are checked by their own hashes")
}

// If the false blocks of a piece are known, it has no sole supplier any more: any peer may send them.
func TestExposedBlocksEndParole(t *testing.T) {
	sc := newScene(t, 1)
	sc.join("a")
	sc.join("b")
	sc.fetch("abab")
	sc.failed()
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("a", 4))
	require.True(t, sc.s.Started(0).Parole)
	for k := range int32(4) {
		sc.sends("a", 0, k, Accepted)
	}
	require.Equal(t, "a", origins(sc.s.Exposed(0, func(k int) bool { return k == 1 })))
	require.Equal(t, "0.1", sc.asks("b", 4))
}

// Strangers come from more and more addresses for pieces on parole, which no peer has right. Each takes all of them and leaves. Their
// records used to be kept for ever: two million, of 200 MB, for 32 pieces and the addresses of a /48.
func TestRecordsAreForgotten(t *testing.T) {
	const pieces, hosts = 32, 5_000
	sc := newScene(t, pieces)
	for i := range int32(pieces) {
		a, b := sc.join("a", int(i)), sc.join("b", int(i))
		sc.asks("a", 3)
		sc.asks("b", 1)
		for k := range int32(3) {
			sc.sends("a", i, k, Accepted)
		}
		sc.sends("b", i, 3, Accepted)
		require.Empty(t, sc.s.Failed(int(i), []uint64{1, 2, 3, 4}))
		sc.s.Leave(a)
		sc.s.Leave(b)
	}
	come := func(host int) *Supplier {
		s := &Supplier{Ready: true, Origin: host, Host: host}
		sc.s.Join(s)
		sc.s.HaveAll(s)
		return s
	}
	sc.s.Next(come(-1), 1, sc.now, nil)
	before := memtest.Heap()
	for host := range hosts {
		s := come(host)
		taken, _ := sc.s.Next(s, pieces, sc.now, nil)
		require.GreaterOrEqual(t, len(taken), pieces-1)
		sc.s.Leave(s)
		require.LessOrEqual(t, sc.s.records, maxRecords)
	}
	require.Less(t, memtest.Heap()-before, int64(8<<20))
	counted := 0
	for _, u := range sc.s.spoiled {
		counted += len(u.records)
	}
	require.Equal(t, counted, sc.s.records)
	require.Equal(t, record{turns: 1}, sc.s.spoiled[0].records[-1], "it is here")

	for host := range 2 * maxRecords / pieces { // those that are here may be too many
		come(host)
		for i := range int32(pieces) {
			sc.s.note(i, host, func(r *record) { r.turns++ })
			require.LessOrEqual(t, sc.s.records, maxRecords)
		}
	}
}
