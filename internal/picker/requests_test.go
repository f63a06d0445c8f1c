package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

func TestReleasedBlocks(t *testing.T) {
	sc := newScene(t, 1)
	a, b := sc.join("a"), sc.join("b")
	require.Equal(t, "0.0 0.1 0.2", sc.asks("a", 3))
	sc.s.Release(a, everything)
	a.Choking = true
	require.Empty(t, sc.asks("a", 3), "it chokes us")
	require.Equal(t, "0.0 0.1", sc.asks("b", 2), "blocks that were requested from a are free at once")
	require.Equal(t, "b", sc.sends("a", 0, 0, Accepted), "a block that arrives after the choke is accepted, and the request to b is cancelled")
	sc.sends("b", 0, 1, Accepted)
	sc.sends("a", 0, 1, Wasted)
	sc.sends("a", 0, 3, Unrequested)
	sc.sends("a", 0, 0, Unrequested)
	require.Equal(t, "0.2 0.3", sc.asks("b", 9))
	sc.s.Leave(b)
	a.Choking = false
	require.Equal(t, "0.2 0.3", sc.asks("a", 9), "a lost connection frees the blocks that have not arrived")
}

func TestStartedPieceWithoutHolders(t *testing.T) {
	sc := newScene(t, 2)
	a := sc.join("a", 0)
	sc.join("b", 1)
	require.Equal(t, "0.0", sc.asks("a", 1))
	sc.s.Leave(a)
	require.Empty(t, sc.s.started, "a piece whose blocks are all free returns to the heap")
	require.True(t, sc.s.heap.holds(0))
	require.Equal(t, "1.0 1.1 1.2 1.3", sc.asks("b", 9), "b is not held up by it")
}

func TestForgivenBlocksAreBounded(t *testing.T) {
	sc := newScene(t, maxForgiven/4+1)
	a := sc.join("a")
	for range 2 {
		sc.asks("a", maxForgiven+4)
		sc.s.Release(a, everything)
		require.LessOrEqual(t, a.forgiven.len(), 2*maxForgiven)
		require.GreaterOrEqual(t, a.forgiven.len(), maxForgiven)
	}
}

// A peer that was sent two requests for a block, and a cancel for each, may answer both.
func TestForgivenBlocksAreCounted(t *testing.T) {
	sc := newScene(t, 1)
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

// Each cancel makes the caller search the messages that wait to be sent. That counts as work, because a peer that reads nothing,
// and announces and loses a piece again and again, repeats it for all requests for the piece.
func TestCancelsAreWork(t *testing.T) {
	const blocks = maxDepth
	length := int64(blocks * layout.BlockSize)
	pk := New(layout.New(length, layout.File{Length: length}), 1)
	pk.Prioritise(0, normal)
	s := &Supplier{Ready: true}
	pk.Join(s)
	for range 3 {
		require.True(t, pk.Have(s, 0))
		asked, _ := pk.Next(s, blocks, epoch, nil)
		require.Len(t, asked, blocks)
		before := pk.Work()
		require.Len(t, pk.DontHave(s, 0), blocks)
		require.GreaterOrEqual(t, pk.Work()-before, int64(blocks*blocks/16))
	}
}

// Requests may be rejected because there are too many of them. A supplier with credit is assumed to lack a piece only if it rejects a request
// for it that was made after that, and has sent no block of it meanwhile, and only for a while.
func TestRejectsOfASupplierThatHasThePiece(t *testing.T) {
	sc := newScene(t, 1)
	a := sc.join("a")
	reject := func(index int32) {
		asked, freed := sc.s.Rejected(a, Block{0, index}, sc.now)
		require.True(t, asked && freed)
	}
	require.Equal(t, "0.0 0.1 0.2", sc.asks("a", 3))
	sc.now = sc.now.Add(time.Second)
	sc.s.senders.all[sc.s.senderOf(a)].given = 1
	reject(1)
	reject(2)
	require.True(t, a.Has(0), "both were requested before the first was rejected")
	require.Equal(t, "0.1 0.2", sc.asks("a", 2))
	sc.sends("a", 0, 0, Accepted)
	reject(1)
	require.True(t, a.Has(0), "it has sent a block")
	sc.now = sc.now.Add(time.Second)
	require.Equal(t, "0.1", sc.asks("a", 1))
	reject(1)
	require.False(t, a.Has(0))
	require.False(t, sc.s.Interesting(a))
	require.False(t, sc.s.Regain(a, sc.now.Add(deniedTime-1)))
	sc.now = sc.now.Add(deniedTime)
	require.True(t, sc.s.Regain(a, sc.now))
	require.True(t, sc.s.Interesting(a))
	require.Equal(t, "0.1 0.3", sc.asks("a", 2))

	sc.s.DontHave(a, 0)
	require.False(t, sc.s.Regain(a, sc.now.Add(time.Hour)), "it said so")
}

// A stranger that rejects requests for a piece that another supplier has is not asked for it again.
func TestRejectsOfAStranger(t *testing.T) {
	sc := newScene(t, 1)
	a, b := sc.join("a"), sc.join("b")
	require.Equal(t, "0.0 0.1", sc.asks("a", 2))
	sc.s.Rejected(a, Block{0, 0}, sc.now)
	require.True(t, a.Has(0))
	sc.s.Rejected(a, Block{0, 1}, sc.now)
	require.False(t, a.Has(0))
	sc.now = sc.now.Add(deniedTime)
	require.False(t, sc.s.Regain(a, sc.now))
	sc.s.Leave(b)
	sc.now = sc.now.Add(deniedTime)
	require.True(t, sc.s.Regain(a, sc.now))
}

// A request that was released before it was sent has no answer: a reject is that of the next one.
func TestUnsentRequestHasNoAnswer(t *testing.T) {
	sc := newScene(t, 1)
	a := sc.join("a")
	require.Equal(t, "0.0", sc.asks("a", 1))
	sc.s.Release(a, everything)
	a.Unsent(Block{0, 0})
	require.Equal(t, "0.0", sc.asks("a", 1))
	_, freed := sc.s.Rejected(a, Block{0, 0}, sc.now)
	require.True(t, freed)
	require.Zero(t, a.Outstanding())
}
