package peerlist

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTurnover(t *testing.T) {
	for _, tc := range []struct{ connected, most, want int }{
		{0, 80, 0}, {71, 80, 0}, {72, 80, 2}, {80, 80, 3}, {500, 500, 20}, {9, 10, 1}, {1, 1, 1},
	} {
		require.Len(t, TurnedOver(epoch.Add(time.Hour), make([]Worth, tc.connected), tc.most), tc.want, "%d of %d", tc.connected, tc.most)
	}
}

func TestWorst(t *testing.T) {
	old, now := epoch, epoch.Add(time.Hour)
	peers := []Worth{
		{ID: 1, Joined: old, Mutual: true, Rate: 100, Priority: 1},
		{ID: 2, Joined: old, Mutual: true, Rate: 0, Priority: 9},
		{ID: 3, Joined: old, Mutual: true, Rate: 0, Priority: 8},
		{ID: 4, Joined: old, Mutual: false, Rate: 0, Priority: 99},
		{ID: 5, Joined: old, Keep: true},
		{ID: 6, Joined: now.Add(-joinedGrace / 2)},
	}
	may := func(p Worth) bool { return !p.Keep && !p.isNew(now) }
	require.Empty(t, idsOf(worst(now, peers, 0, may)))
	require.Equal(t, []int{4}, idsOf(worst(now, peers, 1, may)), "neither side wants anything")
	require.Equal(t, []int{4, 3, 2}, idsOf(worst(now, peers, 3, may)), "then the slow ones, of these the one of lower priority first")
	require.Equal(t, []int{4, 3, 2, 1}, idsOf(worst(now, peers, 10, may)), "never the user's own, nor one that just came")
	peers[3].Earned = now.Add(-time.Minute)
	require.Equal(t, []int{3, 2, 1, 4}, idsOf(worst(now, peers, 10, may)), "what a peer gave counts more than what it says")
	require.Equal(t, 1, peers[0].ID, "the argument is left as it is")
	peers[2].Waits = true
	require.Equal(t, []int{2, 1, 3, 4}, idsOf(worst(now, peers, 10, may)), "of those that give nothing, one that had no turn comes last")
}

// All peers are new, because they come without end and displace one another. Those that have to be dialled still get their turn.
func TestTurnedOver(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := []Worth{{ID: 1, Joined: now, Rate: 1}, {ID: 2, Joined: now}, {ID: 3, Joined: now, Keep: true}}
	require.Equal(t, []int{2}, TurnedOver(now, peers, 3))
	require.Empty(t, TurnedOver(now, peers, 4), "there are places left")
	require.Empty(t, TurnedOver(now, peers[2:], 1), "never the user's own")
	peers[0].Joined = epoch
	require.Equal(t, []int{1}, TurnedOver(now, peers, 3), "nor new ones beside others")
}

// Those that have had their places for a while and give little make room: the one that gives least, or else the oldest.
func TestGivesLittle(t *testing.T) {
	now, old := epoch.Add(time.Hour), epoch
	fast := Worth{ID: 1, Joined: old, Earned: now, Mean: littleRate}
	for _, tc := range []struct {
		name    string
		peer    Worth
		limited bool
		out     bool
	}{
		{"gives little", Worth{Joined: old, Earned: now, Mean: littleRate - 1}, false, true},
		{"but cannot give more under a limit", Worth{Joined: old, Earned: now, Mean: littleRate - 1}, true, false},
		{"gives nothing any more", Worth{Joined: old, Earned: old, Mean: 2 * littleRate}, true, true},
		{"is new", Worth{Joined: now.Add(time.Second - TurnoverEvery)}, false, false},
		{"was named by the user", Worth{Joined: old, Keep: true}, false, false},
	} {
		tc.peer.ID = 2
		id, ok := found(new(Places).GivesLittle(now, []Worth{fast, tc.peer}, tc.limited))
		require.Equal(t, tc.out, ok, tc.name)
		require.Equal(t, tc.out, id == 2, tc.name)
	}
	many := []Worth{{ID: 1, Joined: now}}
	for k := range 7 {
		many = append(many, Worth{ID: 2 + k, Joined: old, Earned: now})
	}
	_, ok := found(new(Places).GivesLittle(now, many, false))
	require.False(t, ok, "beside too many that give nothing")
	_, ok = found(new(Places).GivesLittle(now, append(many, many[1]), false))
	require.True(t, ok)
	id, ok := found(new(Places).GivesLittle(now, []Worth{
		{ID: 1, Joined: old, Earned: now}, {ID: 2, Joined: old, Mean: 9}, {ID: 3, Joined: old.Add(1)}, {ID: 4, Joined: old.Add(2)},
	}, false))
	require.True(t, ok)
	require.Equal(t, 3, id)

	var places Places
	_, ok = found(places.GivesLittle(now, []Worth{fast}, false))
	require.False(t, ok)
	for _, at := range []time.Duration{0, tryEvery} {
		_, ok = found(places.GivesLittle(now.Add(at), []Worth{{ID: 1, Joined: old}}, false))
		require.True(t, ok)
		_, ok = found(places.GivesLittle(now.Add(at+tryEvery-1), []Worth{{ID: 1, Joined: old}}, false))
		require.False(t, ok)
	}
}

func TestIdlest(t *testing.T) {
	now := epoch.Add(time.Hour)
	old := epoch
	_, ok := found(new(Budget).Idlest(now, []Worth{{ID: 1, Joined: old, Earned: now}, {ID: 2, Joined: now}, {ID: 3, Joined: old, Keep: true}}))
	require.True(t, ok, "to earn a place costs little")
	_, ok = found(new(Budget).Idlest(now, []Worth{
		{ID: 1, Joined: now.Add(1 - TurnoverEvery), Earned: now}, {ID: 2, Joined: now}, {ID: 3, Joined: old, Keep: true},
	}))
	require.False(t, ok)
	id, ok := found(new(Budget).Idlest(now, []Worth{{ID: 1, Joined: old, Rate: 2}, {ID: 2, Joined: old, Rate: 1}, {ID: 3, Joined: now}}))
	require.True(t, ok)
	require.Equal(t, 2, id)
}

// The user's own keep their places from others, but from one another only by earning them.
func TestContend(t *testing.T) {
	now := epoch.Add(time.Hour)
	own := func(id int, joined, earned time.Time) Worth {
		return Worth{ID: id, Addr: netip.MustParseAddr("1.0.0.1"), Keep: true, Joined: joined, Earned: earned}
	}
	for name, tc := range map[string]struct {
		peer Worth
		out  bool
	}{
		"gave nothing":  {own(1, epoch, time.Time{}), true},
		"gave once":     {own(1, epoch, now.Add(-earnedGrace)), true},
		"gives":         {own(1, epoch, now.Add(-time.Minute)), false},
		"has just come": {own(1, now.Add(-joinedGrace/2), time.Time{}), false},
	} {
		peers := []Worth{tc.peer}
		_, ok := displaced(now, peers, netip.MustParseAddr("9.0.0.1"))
		require.False(t, ok, name)
		Contend(now, peers)
		_, ok = displaced(now, peers, netip.MustParseAddr("9.0.0.1"))
		require.Equal(t, tc.out, ok, name)
	}
}

// Some of the peers that let us wait make room for none of as large a crowd, for a while. Of which networks these are does not
// change when they come again.
func TestSpare(t *testing.T) {
	now, old := epoch.Add(time.Hour), epoch.Add(30*time.Minute)
	var peers []Worth
	for k := range 16 {
		a := netip.AddrFrom4([4]byte{byte(20 + k), 0, 0, 1})
		peers = append(peers, Worth{ID: k + 1, Addr: a, Joined: old, Awaited: k < 4, Lot: NetworkLot(7, a)})
	}
	spared := func() (ids []int) {
		all := slices.Clone(peers)
		Spare(now, all)
		for _, p := range all {
			if p.Patient {
				ids = append(ids, p.ID)
			}
		}
		return ids
	}
	first := spared()
	require.Len(t, first, 2)
	for k := range peers {
		peers[k].Joined = now.Add(-2 * time.Minute)
		peers[k].ID += 100
	}
	require.Equal(t, []int{first[0] + 100, first[1] + 100}, spared())
	for k := range peers {
		peers[k].Joined = epoch
	}
	require.Empty(t, spared(), "they let us wait for too long")
	peers[0].Earned = old
	require.Equal(t, []int{101}, spared(), "but this one gave something meanwhile")

	for k := range peers {
		peers[k].Awaited, peers[k].Joined, peers[k].Earned = k == 5, old, now
	}
	peers[5].Earned = time.Time{}
	newcomer := netip.MustParseAddr("90.0.0.1")
	makesRoom := func() (n int) {
		if _, ok := displaced(now, peers, newcomer); ok {
			n++
		}
		if slices.Equal(TurnedOver(now, peers, len(peers)), []int{106}) {
			n++
		}
		if id, ok := found(new(Places).GivesLittle(now, peers, true)); ok && id == 106 {
			n++
		}
		if id, ok := found(new(Places).Displaced(now, peers, Connection{Addr: newcomer}, false)); ok && id == 106 {
			n++
		}
		return n
	}
	require.Equal(t, 4, makesRoom())
	Spare(now, peers)
	require.Zero(t, makesRoom())
	for k := range 4 {
		peers[k].Awaited, peers[k].Earned, peers[k].Patient, peers[k].Lot = true, time.Time{}, false, 1
	}
	peers[5].Patient, peers[5].Lot = false, 2
	require.Equal(t, []int{101, 106}, spared(), "one of each network")
	Spare(now, peers)
	peers[4].Addr = netip.MustParseAddr("25.0.0.2") // of its /24
	_, ok := displaced(now, peers, newcomer)
	require.True(t, ok, "of a crowd")
}
