package picker_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/picker"
)

const blocks = 4 // of each piece

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// newPicker returns a Picker with the given number of pieces, all wanted.
func newPicker(pieces int) *picker.Picker {
	const length = blocks * layout.BlockSize
	pk := picker.New(layout.New(length, layout.File{Length: int64(pieces) * length}), 1)
	for i := range pieces {
		pk.Prioritise(i, 1)
	}
	return pk
}

// join adds a supplier that has the given pieces and does not choke.
func join(pk *picker.Picker, origin string, has bits.Set) *picker.Supplier {
	s := &picker.Supplier{Origin: origin, Host: origin, Ready: true}
	pk.Join(s)
	pk.Bitfield(s, has)
	return s
}

func set(pieces int, has ...int) bits.Set {
	b := bits.New(pieces)
	for _, i := range has {
		b.Add(i)
	}
	return b
}

// askOne requests one block from s.
func askOne(t *testing.T, pk *picker.Picker, s *picker.Supplier) picker.Block {
	t.Helper()
	asked, cancel := pk.Next(s, 1, start, nil)
	require.Len(t, asked, 1)
	require.Empty(t, cancel)
	return asked[0]
}

func all(picker.Block) bool { return true }

// One supplier sends all pieces, through the exported API.
func TestDownloadFromOne(t *testing.T) {
	const pieces = 3
	pk := newPicker(pieces)
	require.Equal(t, pieces, pk.Needed().Count())
	require.Empty(t, pk.Suppliers())

	s := &picker.Supplier{Origin: "a", Host: "a", Choking: true}
	pk.Join(s)
	require.Equal(t, []*picker.Supplier{s}, pk.Suppliers())
	require.False(t, pk.Interesting(s), "it has no pieces yet")
	require.True(t, pk.Have(s, 1))
	require.Equal(t, 1, s.Count())
	require.False(t, s.HasAll())
	require.EqualValues(t, 1, pk.Availability(1))
	pk.Bitfield(s, bits.Full(pieces))
	require.Zero(t, pk.Availability(1), "suppliers that have everything are not counted")
	require.True(t, s.HasAll())
	require.Equal(t, pieces, s.Count())
	require.True(t, pk.Interesting(s))

	require.Zero(t, s.Room(), "it is not ready")
	s.Ready = true
	require.Zero(t, s.Room(), "it chokes us")
	s.Choking = false
	s.SetLimit(3)
	require.Equal(t, 3, s.Room())
	now := start
	for pk.Needed().Count() > 0 {
		asked, cancel := pk.Next(s, s.Room(), now, nil)
		require.NotEmpty(t, asked)
		require.Empty(t, cancel)
		require.Equal(t, len(asked), s.Outstanding())
		for _, b := range asked {
			now = now.Add(time.Second)
			require.True(t, s.IsAsked(int(b.Piece)))
			require.Equal(t, picker.Receipt{}, pk.Received(s, b, now), "the block is accepted")
			st := pk.Started(int(b.Piece))
			require.NotZero(t, st.Attempt)
			require.Equal(t, blocks-pk.Arrived(int(b.Piece)).Count(), st.Left)
			if st.Left == 0 {
				require.NotZero(t, pk.NumStarted())
				cancel, liars := pk.Passed(int(b.Piece), nil)
				require.Empty(t, cancel)
				require.Empty(t, liars)
				require.Equal(t, picker.Started{}, pk.Started(int(b.Piece)))
			}
		}
	}
	require.True(t, pk.Verified().Full())
	require.False(t, pk.Interesting(s))
	require.Zero(t, pk.Steals())
	require.Zero(t, pk.Leave(s))
	require.Empty(t, pk.Suppliers())
}

// A reject frees the block for others (BEP 6). Two in a row for one piece mean that the peer does not have it.
func TestRejected(t *testing.T) {
	pk := newPicker(2)
	s := join(pk, "a", set(2, 0))
	asked, freed := pk.Rejected(s, picker.Block{Piece: 0, Index: 1}, start)
	require.False(t, asked, "the block was never requested")
	require.False(t, freed)

	reject := func(b picker.Block) {
		asked, freed := pk.Rejected(s, b, start)
		require.True(t, asked)
		require.True(t, freed)
		require.Zero(t, s.Outstanding())
		asked, _ = pk.Rejected(s, b, start)
		require.False(t, asked, "a reject answers one request")
	}
	s.AllowFast(0)
	s.Choking = true
	require.NotZero(t, s.Room(), "an allowed-fast piece can be requested")
	require.True(t, s.AllowedFast(0))
	reject(askOne(t, pk, s))
	require.False(t, s.AllowedFast(0), "a reject while choking ends allowed-fast")
	left, _ := pk.Next(s, 1, start, nil)
	require.Empty(t, left)

	s.Choking = false
	reject(askOne(t, pk, s))
	require.True(t, s.Has(0), "one reject may mean too many requests")
	reject(askOne(t, pk, s))
	require.False(t, s.Has(0))
	require.False(t, pk.Interesting(s))

	require.True(t, pk.Have(s, 1))
	b := askOne(t, pk, s)
	require.Equal(t, 1, pk.Release(s, all))
	asked, freed = pk.Rejected(s, b, start)
	require.True(t, asked)
	require.False(t, freed, "the request was released before")
	require.Equal(t, picker.Unrequested, pk.Received(s, b, start).Verdict, "a rejected block is not expected any more")
}

// A peer that is silent for too long is asked for only one block until it sends one.
func TestSnub(t *testing.T) {
	pk := newPicker(1)
	s := join(pk, "a", bits.Full(1))
	asked, _ := pk.Next(s, 3, start, nil)
	require.Len(t, asked, 3)
	require.Empty(t, pk.Snub(s, start.Add(19*time.Second)))
	require.False(t, s.Snubbed())
	late := start.Add(21 * time.Second)
	require.Len(t, pk.Snub(s, late), 3, "all its requests are to be cancelled")
	require.True(t, s.Snubbed())
	require.Zero(t, s.Outstanding())
	asked, _ = pk.Next(s, 3, late, nil)
	require.Len(t, asked, 1)
	require.Equal(t, picker.Receipt{Again: true}, pk.Received(s, asked[0], late), "the block may answer the first request")
	require.False(t, s.Snubbed())
}

// When a block that was requested from two suppliers arrives, the other request is cancelled.
func TestSecondCopyIsCancelled(t *testing.T) {
	pk := newPicker(1)
	a, b := join(pk, "a", bits.Full(1)), join(pk, "b", bits.Full(1))
	asked, _ := pk.Next(a, blocks, start, nil)
	require.Len(t, asked, blocks)
	stolen := askOne(t, pk, b)
	require.EqualValues(t, 1, pk.Steals())
	require.Equal(t, picker.Receipt{Cancel: [2]*picker.Supplier{a}}, pk.Received(b, stolen, start))
	require.Equal(t, picker.Wasted, pk.Received(a, stolen, start).Verdict)
	require.Equal(t, blocks-1, pk.Leave(a))
}

// However many pieces a peer allows fast, only 64 are recorded.
func TestAllowedFastIsBounded(t *testing.T) {
	s := new(picker.Supplier)
	allowed := 0
	for i := range 1000 {
		s.AllowFast(i)
		if s.AllowedFast(i) {
			allowed++
		}
	}
	require.Equal(t, 64, allowed)
}

// A delay of our own reads does not count as silence of the supplier.
func TestHeldIsNotSnubbed(t *testing.T) {
	pk := newPicker(1)
	s := join(pk, "s", set(1, 0))
	askOne(t, pk, s)
	require.NotZero(t, s.Memory(), "a request takes memory")
	s.Held(start.Add(19 * time.Second))
	require.Empty(t, pk.Snub(s, start.Add(38*time.Second)))
	require.Len(t, pk.Snub(s, start.Add(40*time.Second)), 1)
}

// Haves may repeat pieces, and Lose may include pieces that the supplier lacks.
func TestHavesAndLose(t *testing.T) {
	pk := newPicker(8)
	s := join(pk, "s", set(8, 0))
	require.True(t, pk.Haves(s, set(8, 0, 1)))
	require.False(t, pk.Haves(s, set(8, 0, 1)), "not new")
	require.True(t, pk.HaveAll(s))
	require.False(t, pk.Haves(s, set(8, 5)), "it has every piece already")
	pk.Lose(s, 2, 6)
	require.Equal(t, 4, s.Count())
	require.False(t, s.Has(2) || s.Has(5))
	require.True(t, s.Has(1) && s.Has(6))
	pk.Lose(s, 4, 7)
	require.Equal(t, 3, s.Count(), "it lacked some of these before")
}
