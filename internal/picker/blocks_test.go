package picker

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/memtest"
)

// only adds a supplier that has a single piece.
func only(pk *Picker, piece int) *Supplier {
	s := &Supplier{Ready: true}
	pk.Join(s)
	pk.Have(s, piece)
	return s
}

// opened returns a Picker whose pieces are all open: each was started by a supplier that had only this piece, sent a block and
// left.
func opened(t *testing.T, pieces int, pieceLength int64) *Picker {
	length := int64(pieces) * pieceLength
	pk := New(layout.New(pieceLength, layout.File{Length: length}), 1)
	for i := range pieces {
		pk.Prioritise(i, 1)
	}
	now := time.Unix(1, 0)
	for i := range pieces {
		s := only(pk, i)
		blocks, _ := pk.Next(s, 1, now, nil)
		require.Len(t, blocks, 1)
		require.Equal(t, Accepted, pk.Received(s, blocks[0], now).Verdict)
		pk.Leave(s)
	}
	require.Len(t, pk.open, pieces)
	return pk
}

// The state of started pieces takes less memory than the blocks that arrived, however long the pieces are. Here one block each of
// 403 pieces of 512 MiB has arrived.
func TestStartedPiecesHoldLittle(t *testing.T) {
	const pieces = 403
	before := memtest.Heap()
	pk := opened(t, pieces, 512<<20)
	held := memtest.Heap() - before
	require.Less(t, held, int64(pieces*layout.BlockSize/2))
	require.Greater(t, int64(pk.Memory()), held/2, "Memory counts it")
	require.Less(t, int64(pk.Memory()), 2*held)
	runtime.KeepAlive(pk)
}

// Thousands of open pieces cost little for a supplier that has none of them. A supplier that has only the last one finds it.
func TestOpenPiecesCostLittle(t *testing.T) {
	const pieces = 15_816
	pk := opened(t, pieces, 4*layout.BlockSize)
	now := time.Unix(2, 0)
	var all []*Supplier
	for range 78 {
		s := &Supplier{Ready: true}
		pk.Join(s)
		all = append(all, s)
	}
	choking := &Supplier{Ready: true, Choking: true}
	pk.Join(choking)
	pk.Bitfield(choking, bits.Full(pieces))
	choking.AllowFast(3)
	pk.Passed(3, nil)

	work := pk.Work()
	for _, s := range append(all, choking) {
		blocks, _ := pk.Next(s, 10, now, nil)
		require.Empty(t, blocks)
	}
	require.Less(t, pk.Work()-work, int64(200*len(all)), "includes the search for requests to take over")
	pk.Have(all[0], pieces-1)
	blocks, _ := pk.Next(all[0], 10, now, nil)
	require.Len(t, blocks, 3)
}

// A blockTable behaves like a slice of blocks.
func TestBlockTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var runs blockRuns
	var table blockTable
	for range 100 {
		want := make([]block, 1+rng.IntN(1000))
		table.reset(len(want), &runs)
		for k := range want {
			want[k].sender = noSender
		}
		for range rng.IntN(50) {
			k := rng.IntN(len(want))
			want[k].sender, want[k].kept = int32(k), true
			*table.ref(k, &runs) = want[k]
		}
		require.Equal(t, len(want), table.len())
		for k, b := range want {
			require.Equal(t, b, table.at(k))
		}
		for k, b := range table.known {
			require.Equal(t, want[k], *b)
			want[k] = block{sender: noSender}
		}
		for _, b := range want {
			require.True(t, b.free(), "blocks that known does not yield are free")
		}
		require.LessOrEqual(t, runs.inUse, 50)
		require.Equal(t, len(table.runs), runs.entries)
	}
	table.reset(0, &runs)
	require.Zero(t, runs.inUse)
	require.Zero(t, runs.entries)
	require.Less(t, len(runs.spare), maxSpareRuns)
}

// A piece may be so long that the search for its free blocks counts as work. A peer that chokes again and again repeats it.
func TestSearchForFreeBlocksIsWork(t *testing.T) {
	const blocks = 32_768
	length := int64(blocks * layout.BlockSize)
	pk := New(layout.New(length, layout.File{Length: length}), 1)
	pk.Prioritise(0, normal)
	here := bits.Full(blocks)
	here.Remove(0)
	here.Remove(blocks - 1)
	pk.Restore(0, &here)
	s := &Supplier{Ready: true, all: true}
	pk.join(s)
	for range 10 {
		before := pk.Work()
		asked, _ := pk.Next(s, 32, epoch, nil)
		require.Len(t, asked, 2)
		require.GreaterOrEqual(t, pk.Work()-before, int64(blocks))
		require.Equal(t, 2, pk.Release(s, func(Block) bool { return true }))
	}
}

// Starting a piece and returning it to the heap visits every supplier and moves entries of the heap. That counts as work, because
// a peer that chokes again and again repeats it for each of its requests.
func TestStartingPiecesIsWork(t *testing.T) {
	const pieces, suppliers, depth = 10_000, 80, 32
	pk := New(layout.New(layout.BlockSize, layout.File{Length: pieces * layout.BlockSize}), 1)
	for i := range pieces {
		pk.Prioritise(i, normal)
	}
	for range suppliers - 1 {
		pk.Join(&Supplier{Ready: true, Choking: true})
	}
	s := &Supplier{Ready: true, all: true}
	pk.join(s)
	for range 10 {
		before := pk.Work()
		asked, _ := pk.Next(s, depth, epoch, nil)
		require.Len(t, asked, depth)
		require.Equal(t, depth, pk.Release(s, func(Block) bool { return true }))
		require.GreaterOrEqual(t, pk.Work()-before, int64(depth*suppliers))
	}
	most := bits.Full(pieces)
	most.Remove(1)
	before := pk.Work()
	pk.Bitfield(pk.suppliers[0], most)
	require.Less(t, pk.Work()-before, int64(3*pieces), "the pieces of a bitfield count, not each swap in the heap")
}
