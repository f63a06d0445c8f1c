package picker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// serves adds a supplier that sends runs, has everything and has a rate of 1 MiB/s.
func (sc *scene) serves(name string) *Supplier {
	r := sc.join(name)
	r.Runs, r.Ready = true, true
	return r
}

// runs has a supplier ask for a run of up to n blocks, and returns its first and last one, how many there are, and whose requests
// are cancelled.
func (sc *scene) runs(name string, n int) string {
	sc.t.Helper()
	blocks, cancel := sc.s.NextRun(sc.peers[name], n, sc.now, nil)
	if len(blocks) == 0 {
		return "none"
	}
	first, last := blocks[0], blocks[len(blocks)-1]
	s := fmt.Sprintf("%d.%d to %d.%d, %d", first.Piece, first.Index, last.Piece, last.Index, len(blocks))
	for _, c := range cancel {
		for name, r := range sc.peers {
			if c.Supplier == r {
				s += fmt.Sprintf(" -%s:%d.%d", name, c.Block.Piece, c.Block.Index)
			}
		}
	}
	return s
}

func TestRunsInOrder(t *testing.T) {
	sc := newScene(t, 10)
	sc.serves("w")
	sc.serves("v")
	require.Equal(t, "0.0 to 1.1, 6", sc.runs("w", 6), "without peers, in order")
	require.Equal(t, "1.2 to 3.3, 10", sc.runs("v", 10), "the started piece is completed first")
	sc.s.Prioritise(7, high)
	require.Equal(t, "7.0 to 7.3, 4", sc.runs("w", 4), "a piece of higher priority")
	sc.s.Prioritise(5, skip)
	require.Equal(t, "4.0 to 4.3, 4", sc.runs("w", 100), "up to an unwanted piece")
	require.Equal(t, "6.0 to 6.3, 4", sc.runs("w", 100), "up to blocks requested from another supplier")
	require.Equal(t, "8.0 to 9.3, 8", sc.runs("w", 100), "up to the end")
}

// A slow supplier is asked for short runs, so that it keeps few blocks from others.
func TestRunLength(t *testing.T) {
	sc := newScene(t, 1)
	w := sc.serves("w")
	require.Equal(t, 4*64, w.RunLength(), "what it sends in four seconds")
	w.pipe.rtt = 3 * time.Second
	require.Equal(t, 4*4*64, w.RunLength(), "fewer requests to one that takes long to answer")
	w.pace.rate = 1 << 10
	require.Equal(t, 4*startDepth, w.RunLength())
	w.pace.rate = 1 << 30
	require.Equal(t, MaxRun, w.RunLength())
	require.Equal(t, "none", sc.runs("w", 0), "no block is asked for")
}

// A run begins at the rarest piece and continues for minRun blocks, however common the next pieces are.
func TestRunRarestFirst(t *testing.T) {
	sc := newScene(t, 200)
	sc.serves("w")
	var most []int
	for i := range 200 {
		if i < 40 || i >= 45 {
			most = append(most, i)
		}
	}
	sc.join("a", most...)
	sc.join("b", 0, 1, 2)
	require.Equal(t, "40.0 to 103.3, 256", sc.runs("w", 1000), "the rarest, up to minRun")
	require.Equal(t, "104.0 to 199.3, 384", sc.runs("w", 1000), "of equally rare pieces, the start of the longest run")
	require.Equal(t, "3.0 to 39.3, 148", sc.runs("w", 1000))
	require.Equal(t, "0.0 to 2.3, 12", sc.runs("w", 1000), "the most common pieces last")
}

// Pieces that a reader waits for come before later ones, and a run does not extend past pieces that are wanted more.
func TestRunOfReader(t *testing.T) {
	sc := newScene(t, 100)
	sc.serves("w")
	for k := range 3 {
		sc.s.Prioritise(50+k, urgent-uint8(k))
	}
	sc.s.Prioritise(20, urgent-1)
	require.Equal(t, "50.0 to 51.3, 8", sc.runs("w", 100), "then the piece of another reader has a higher priority")
	require.Equal(t, "20.0 to 20.3, 4", sc.runs("w", 100))
	require.Equal(t, "52.0 to 69.3, 72", sc.runs("w", 72), "past the piece of a reader, because nothing is more urgent")
}

// A fast supplier takes over the end of a run, whose requests are cancelled.
func TestRunTakenOver(t *testing.T) {
	sc := newScene(t, 8)
	slow, fast := sc.serves("slow"), sc.serves("fast")
	slow.pace.rate = 100 << 10
	fast.pace.rate = 900 << 10
	require.Equal(t, "0.0 to 7.3, 32", sc.runs("slow", 100))
	blocks, cancel := sc.s.NextRun(fast, 100, sc.now, nil)
	require.True(t, slices.IsSortedFunc(blocks, compareBlocks), "in order")
	require.Equal(t, Block{7, 3}, blocks[len(blocks)-1])
	require.Len(t, cancel, len(blocks), "no block is requested from both")
	require.Equal(t, 32, slow.Outstanding()+fast.Outstanding())
	require.Greater(t, fast.Outstanding(), 20)
	require.Less(t, fast.Outstanding(), 32)
	for k := range fast.queue {
		require.Equal(t, blocks[k], fast.queue[k].Block)
	}
	require.Equal(t, "none", sc.runs("slow", 100), "the slow one takes nothing back")
}

// A piece on parole is requested from one supplier, and a run does not continue into it.
func TestRunOfParole(t *testing.T) {
	sc := newScene(t, 4)
	w := sc.serves("w")
	require.Equal(t, "0.0 to 3.3, 16", sc.runs("w", 100))
	for k := range int32(4) {
		sc.sends("w", 2, k, Accepted)
	}
	require.Equal(t, []any{"w"}, sc.s.Failed(2, make([]uint64, 4)))
	sc.s.Release(w, everything)
	require.Equal(t, "0.0 to 1.3, 8", sc.runs("w", 100))
	require.Equal(t, "2.0 to 2.3, 4", sc.runs("w", 100), "a piece on parole is a run of its own")
	require.Equal(t, "3.0 to 3.3, 4", sc.runs("w", 100))
	require.Equal(t, w, sc.s.Started(2).Sole)
}

// spoiledScene has a web seed, w, and a peer, a, that spoiled the only piece.
func spoiledScene(t *testing.T) (sc *scene, w, a *Supplier) {
	sc = newScene(t, 1)
	w, a = sc.serves("w"), sc.join("a")
	a.Ready = true
	sc.fetch("aaaa")
	sc.failed()
	return sc, w, a
}

// A web seed and a peer used to take a piece on parole from each other again and again before either could send a block of it: the
// web seed because it had sent true blocks, the peer because the web seed had lapsed. The one that has sent far more true blocks keeps it.
func TestRunOfParoleTakenOnce(t *testing.T) {
	sc, w, a := spoiledScene(t)
	sc.s.senders.all[sc.s.senderOf(w)].given = 1
	sc.s.spoiled[0].records["w"] = record{lapses: 1}
	require.Equal(t, "0.0 to 0.3, 4", sc.runs("w", 4))
	require.Empty(t, sc.asks("a", 4), "it has sent no true block")
	sc.s.senders.all[a.sender].given = 1
	require.Equal(t, "0.0 0.1 0.2 0.3 -w:0.0 -w:0.1 -w:0.2 -w:0.3", sc.asks("a", 4), "the web seed has lapsed")
	require.Equal(t, "none", sc.runs("w", 4))
}

// A web seed that has sent true blocks takes a piece on parole from a stranger that has sent nothing of it. Others may have the piece
// until the web seed asks for it: when that will be is not known, because the requests to its host are limited.
func TestRunOfParoleOfAStranger(t *testing.T) {
	sc, w, _ := spoiledScene(t)
	sc.s.senders.all[sc.s.senderOf(w)].given = 1
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("a", 4))
	require.Equal(t, "0.0 to 0.3, 4 -a:0.0 -a:0.1 -a:0.2 -a:0.3", sc.runs("w", 4))
	require.Empty(t, sc.asks("a", 4))
}

// A web seed that sent a block of a piece on parole, failed and rests used to keep the piece for as long, however often it failed.
func TestRunOfParoleBreaksOff(t *testing.T) {
	sc, w, _ := spoiledScene(t)
	require.Equal(t, "0.0 to 0.3, 4", sc.runs("w", 4))
	sc.sends("w", 0, 0, Accepted)
	w.Ready = false
	require.Empty(t, sc.asks("a", 4), "it may send what it was asked for")
	sc.s.Release(w, everything)
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("a", 4))
}

// Suppliers that send runs (web seeds) do not count in the availability.
func TestAvailabilityWithoutRuns(t *testing.T) {
	sc := newScene(t, 4)
	w := sc.serves("w")
	sc.s.Bitfield(w, bits.New(4))
	require.True(t, sc.s.Have(w, 2))
	require.Zero(t, sc.s.Availability(2))
	require.Equal(t, "2.0 to 2.3, 4", sc.runs("w", 100))
	require.Len(t, sc.s.DontHave(w, 2), 4)
	require.Equal(t, "none", sc.runs("w", 100))
	require.False(t, sc.s.Interesting(w))
}

func TestOffer(t *testing.T) {
	sc := newScene(t, 4)
	w := sc.serves("w")
	sc.join("a")
	require.Equal(t, "1.0 1.1", func() string {
		sc.s.Prioritise(1, high)
		return sc.asks("a", 2)
	}())
	sc.s.Prioritise(3, skip)
	offer := func(piece, index int32) bool {
		cancel, wanted := sc.s.Offer(w, Block{piece, index}, sc.now)
		require.Empty(t, cancel)
		return wanted
	}
	require.True(t, offer(0, 0), "a piece that is not started")
	require.False(t, offer(0, 0), "it is requested from w already")
	require.True(t, offer(1, 0), "requested from a peer, but w sends it anyway")
	require.Equal(t, "a", sc.sends("w", 1, 0, Accepted))
	require.False(t, offer(1, 0), "it has arrived")
	require.False(t, offer(3, 0), "not wanted")
	sc.sends("w", 0, 0, Accepted)
	require.Zero(t, w.Outstanding())
}

// Two suppliers that are slow do not keep a block from one that sends it in any case.
func TestOfferReplacesOneOfTwo(t *testing.T) {
	sc := newScene(t, 1)
	w := sc.serves("w")
	sc.join("a").pace.rate = 1 << 10
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("a", 4))
	sc.join("b").pace.rate = 1 << 13
	require.Equal(t, "0.3", sc.asks("b", 1))
	cancel, wanted := sc.s.Offer(w, Block{0, 3}, sc.now)
	require.True(t, wanted)
	require.Equal(t, []Request{{sc.peers["b"], Block{0, 3}}}, cancel)
	require.Equal(t, "a", sc.sends("w", 0, 3, Accepted))
	sc.sends("b", 0, 3, Wasted)
}

// TestRunHistories makes random events happen to suppliers with and without runs, checks the state after each, and ends when all
// pieces have arrived.
func TestRunHistories(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		pieces := 1 + rng.IntN(40)
		pk := New(layout.New(3*layout.BlockSize, layout.File{Length: int64(pieces)*3*layout.BlockSize - int64(rng.IntN(40000))}), seed)
		for i := range pieces {
			pk.Prioritise(i, uint8(1+rng.IntN(2)))
		}
		now := epoch
		var all []*Supplier
		for k := range 1 + rng.IntN(4) {
			s := &Supplier{Origin: k, Host: k, Ready: true, Runs: k == 0 || rng.IntN(2) == 0}
			pk.Join(s)
			pk.Bitfield(s, bits.Full(pieces))
			all = append(all, s)
		}
		for step := 0; pk.Needed().Count() > 0; step++ {
			require.Less(t, step, 100_000, "seed %d", seed)
			now = now.Add(time.Duration(rng.IntN(100)) * time.Millisecond)
			s := all[rng.IntN(len(all))]
			switch k := rng.IntN(20); {
			case k < 6 && s.Runs:
				if s.Outstanding() == 0 {
					blocks, _ := pk.NextRun(s, 1+rng.IntN(30), now, nil)
					require.Equal(t, len(blocks), s.Outstanding(), "seed %d", seed)
				}
			case k < 6:
				pk.Next(s, 1+rng.IntN(5), now, nil)
			case k == 6:
				pk.Release(s, func(Block) bool { return rng.IntN(2) == 0 })
			case k == 7:
				pk.Offer(s, Block{int32(rng.IntN(pieces)), 0}, now)
			case k == 8:
				pk.Rush(rng.IntN(pieces), now, func(_ []Request, n int) int { return n })
			case k == 9:
				pk.Prioritise(rng.IntN(pieces), uint8(1+rng.IntN(200)))
			case s.Outstanding() > 0:
				id := s.queue[0].Block
				if pk.Received(s, id, now).Verdict == Accepted && pk.Started(int(id.Piece)).Left == 0 {
					if rng.IntN(10) == 0 {
						pk.Failed(int(id.Piece), make([]uint64, pk.layout.NumBlocks(int(id.Piece))))
					} else {
						pk.Passed(int(id.Piece), make([]uint64, pk.layout.NumBlocks(int(id.Piece))))
					}
				}
			}
			for _, s := range all {
				for _, q := range s.queue {
					b := pk.started[q.Piece].blocks.at(int(q.Index))
					require.True(t, b.owner[0] == s || b.owner[1] == s, "seed %d: %v is requested from another", seed, q.Block)
				}
			}
			for _, p := range pk.started {
				free := 0
				for k := range p.blocks.len() {
					if p.isFree(k) {
						free++
						require.GreaterOrEqual(t, k, p.cursor, "seed %d", seed)
					}
				}
				require.Equal(t, free, p.free, "seed %d", seed)
				require.Equal(t, free > 0, p.open, "seed %d", seed)
			}
		}
	}
}

// runScene returns a picker that wants n pieces of a block each, has each every-th, and has two suppliers: a peer that has all but the
// piece rare, and one that sends runs and has all but lacks.
func runScene(n, every, rare, lacks int) (*Picker, *Supplier) {
	pk := New(layout.New(layout.BlockSize, layout.File{Path: "x", Length: int64(n) * layout.BlockSize}), 1)
	for i := range n {
		pk.Prioritise(i, 1)
		if every > 0 && i%every == 0 {
			pk.Passed(i, nil)
		}
	}
	without := func(i int) bits.Set {
		has := bits.Full(n)
		has.Remove(i)
		return has
	}
	peer, w := &Supplier{}, &Supplier{Ready: true, Runs: true}
	pk.Join(peer)
	pk.Bitfield(peer, without(rare))
	pk.Join(w)
	pk.Bitfield(w, without(lacks))
	return pk, w
}

// A run is found in a bounded number of steps, also if the web seed lacks the rarest piece, so that none is as good as that one, or if
// no run is as long as it may be. It once took two seconds, in which no peer was served.
func TestRunsOfManyPieces(t *testing.T) {
	const n = 300_000
	for _, every := range []int{0, 10, 100} {
		for _, lacks := range []int{0, n - 1} {
			pk, w := runScene(n, every, n-1, lacks)
			for range 20 {
				before := pk.Work()
				blocks, _ := pk.NextRun(w, MaxRun, time.Time{}, nil)
				require.NotEmpty(t, blocks)
				require.Less(t, pk.Work()-before, int64(4*maxLooks), "every %d, lacks %d", every, lacks)
			}
		}
	}
}

// Of more pieces than are looked at for a run, one of a higher priority, or a rarer one, is still found.
func TestRunOfThePieceThatMattersAmongMany(t *testing.T) {
	const n = 300_000
	pk, w := runScene(n, 0, 250_000, n-1)
	for pk.heap.untidy > 0 {
		pk.Tidy()
	}
	blocks, _ := pk.NextRun(w, 100, time.Time{}, nil)
	require.Equal(t, Block{Piece: 250_000}, blocks[0], "the rarest one")
	pk.Prioritise(200_000, 2)
	blocks, _ = pk.NextRun(w, 100, time.Time{}, nil)
	require.Equal(t, Block{Piece: 200_000}, blocks[0], "the one of higher priority")
}

// The time that a server takes to answer used to count as slowness, so that it seemed slower the less it was asked for at a time, and
// so did the time in which a server without ranges sends what is not wanted.
func TestRateOfOneThatTakesLongToAnswer(t *testing.T) {
	sc := newScene(t, 64)
	w := sc.serves("w")
	w.pace = pace{}
	for range 20 {
		require.NotEqual(t, "none", sc.runs("w", 4))
		sc.now = sc.now.Add(5 * time.Second)
		w.Begins(sc.now)
		for len(w.queue) > 0 {
			sc.now = sc.now.Add(100 * time.Millisecond)
			id := w.queue[0].Block
			require.Equal(t, Accepted, sc.s.Received(w, id, sc.now).Verdict)
		}
	}
	require.InDelta(t, 10*layout.BlockSize, w.pace.rate, layout.BlockSize)
	require.Less(t, w.eta(0, sc.now), 6*time.Second)
	require.Greater(t, w.eta(0, sc.now), 5*time.Second)
	require.Equal(t, 10*layout.BlockSize, (w.Gap()+1000)/layout.BlockSize*layout.BlockSize, "in a quarter of four seconds")
}

// A server that takes long to answer used to be asked for each few blocks that peers had left over, and for each piece that they had
// spoiled, by a request of its own.
func TestRunWithGaps(t *testing.T) {
	sc := newScene(t, 4)
	w, a := sc.serves("w"), sc.join("a")
	a.Ready = true
	sc.s.spoiled[2] = &suspicion{records: make(map[any]record)}
	sc.s.Prioritise(2, high)
	require.Equal(t, "2.0 2.1 2.2 2.3", sc.asks("a", 4))
	sc.sends("a", 2, 0, Accepted)
	sc.s.Prioritise(2, normal)
	sc.s.Prioritise(1, high)
	require.Equal(t, "1.0 1.1", sc.asks("a", 2))
	sc.s.Prioritise(1, normal)
	sc.s.Release(a, func(id Block) bool { return id == Block{1, 0} })
	sc.s.senders.all[sc.s.senderOf(w)].given = 1
	require.Equal(t, "1.0 to 1.0, 1", sc.runs("w", 100), "it answers promptly")
	sc.s.Release(w, everything)
	w.pipe.rtt = 5 * time.Second
	require.Equal(t, "1.0 to 3.3, 11 -a:2.1 -a:2.2 -a:2.3", sc.runs("w", 100))
	require.Equal(t, w, sc.s.Started(2).Sole)
}

// What a server without ranges sends of a piece on parole used to be in vain while any stranger had its turn there.
func TestOfferOfAPieceOnParole(t *testing.T) {
	sc, w, a := spoiledScene(t)
	require.Equal(t, "0.0 0.1 0.2 0.3", sc.asks("a", 4))
	sc.sends("a", 0, 0, Accepted)
	_, wanted := sc.s.Offer(w, Block{0, 0}, sc.now)
	require.False(t, wanted, "it has sent no true block either")
	sc.s.senders.all[sc.s.senderOf(w)].given = 1
	cancel, wanted := sc.s.Offer(w, Block{0, 0}, sc.now)
	require.True(t, wanted)
	require.Equal(t, []Request{{a, Block{0, 1}}, {a, Block{0, 2}}, {a, Block{0, 3}}}, cancel)
	require.Equal(t, w, sc.s.Started(0).Sole)
	sc.sends("w", 0, 0, Accepted)
	require.Equal(t, 3, sc.s.Started(0).Free)
}

// A stranger used to take over a piece on parole from a web seed that takes some seconds for each answer, before it could send a block.
func TestPieceOnParoleOfOneThatTakesLongToAnswer(t *testing.T) {
	sc, w, a := spoiledScene(t)
	require.Equal(t, "0.0 to 0.3, 4", sc.runs("w", 4))
	sc.now = sc.now.Add(snubTimeout / 2)
	sc.s.senders.all[sc.s.senderOf(w)].given = 1
	require.Empty(t, sc.asks("a", 4))
	sc.now = sc.now.Add(snubTimeout / 2)
	require.NotEmpty(t, sc.asks("a", 4), "it takes too long")
	require.Equal(t, a, sc.s.Started(0).Sole)
}

// Strangers who came one after another and rejected what they were asked for used to take the last block again and again from a server that
// takes seconds for each answer, which had to begin again each time.
func TestStrangersEndNoRun(t *testing.T) {
	sc := newScene(t, 1)
	w := sc.serves("w")
	w.sender = sc.s.senderOf(w)
	require.Equal(t, "0.0 to 0.3, 4", sc.runs("w", 4))
	sc.now = sc.now.Add(5 * time.Second)
	sc.join("s")
	require.Equal(t, "0.3 0.2 -w:0.3 -w:0.2", sc.asks("s", 2), "neither has credit")
	sc.s.Leave(sc.peers["s"])
	require.Equal(t, "0.2 to 0.3, 2", sc.runs("w", 4))
	sc.s.senders.all[w.sender].given = 100
	sc.now = sc.now.Add(5 * time.Second)
	for _, name := range []string{"t", "u", "v"} {
		sc.join(name).pace.rate *= 4
		require.NotContains(t, sc.asks(name, 4), "-w")
	}
	require.Len(t, w.queue, 4)
	require.NotEmpty(t, sc.peers["t"].queue, "both are asked")
}
