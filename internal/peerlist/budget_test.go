package peerlist

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var host = netip.MustParseAddr("80.0.0.1")

func TestBudgetOfOne(t *testing.T) {
	var b Budget
	now := epoch
	join := func(c Claim) bool {
		if !b.Dial(c, host, now) {
			return false
		}
		require.True(t, b.Join(c, netip.Addr{}, now))
		b.EndDial()
		now = now.Add(time.Second)
		return true
	}
	require.True(t, join(Claim{Has: 1000, Sharing: 7}), "without a bound")
	b.Left(host)
	for has := range 50 {
		require.True(t, join(Claim{Has: has, Sharing: 1, Most: 50}), "one alone may have everything")
	}
	require.False(t, b.Accept(Claim{Has: 50, Sharing: 1, Most: 50}, netip.Addr{}, now))
	connected, dialling := b.InUse()
	require.Equal(t, []int{50, 0}, []int{connected, dialling})
	b.Left(host)
	require.True(t, b.Accept(Claim{Has: 49, Sharing: 1, Most: 50}, netip.Addr{}, now), "a place that was left is free")
}

func TestBudgetIsDealtFairly(t *testing.T) {
	var b Budget
	take := func(has, sharing, n int) (got int) {
		for got < n && b.Accept(Claim{Has: has + got, Sharing: sharing, Most: 50}, netip.Addr{}, epoch) {
			got++
		}
		return got
	}
	require.Equal(t, 45, take(0, 2, 100), "beside another, all but a reserve for those below their share")
	require.Zero(t, b.Excess(Claim{Has: 45, Sharing: 2, Most: 50}, epoch), "the other asks for nothing yet")
	require.Equal(t, 5, take(0, 2, 100), "the other gets the reserve")
	require.Equal(t, 5, b.Excess(Claim{Has: 45, Sharing: 2, Most: 50}, epoch), "and was refused more: a quarter of the excess makes room")
	require.Zero(t, b.Excess(Claim{Has: 5, Sharing: 2, Most: 50}, epoch), "of those above their share")
	require.Equal(t, 1, b.Excess(Claim{Has: 26, Sharing: 2, Most: 50}, epoch), "at least one")
	require.Zero(t, b.Excess(Claim{Has: 45, Sharing: 2}, epoch))
	require.Zero(t, b.Excess(Claim{Has: 45, Sharing: 2, Most: 50}, epoch.Add(2*time.Second)), "while others ask for it")
}

// Of few connections, one is kept for downloads below their share.
func TestBudgetOfFew(t *testing.T) {
	var b Budget
	for has := range 3 {
		require.True(t, b.Accept(Claim{Has: has, Sharing: 2, Most: 4}, netip.Addr{}, epoch))
	}
	require.False(t, b.Accept(Claim{Has: 3, Sharing: 2, Most: 4}, netip.Addr{}, epoch))
	require.True(t, b.AllTaken(Claim{Has: 3, Sharing: 2, Most: 4}))
	require.True(t, b.Accept(Claim{Sharing: 2, Most: 4}, netip.Addr{}, epoch))
}

func TestBudgetAllTaken(t *testing.T) {
	var b Budget
	for has := range 10 {
		require.False(t, b.AllTaken(Claim{Has: has, Sharing: 1, Most: 10}))
		require.Equal(t, has == 9, b.AllTaken(Claim{Has: 5, Sharing: 2, Most: 10}), "the rest is for those below their share")
		require.True(t, b.Accept(Claim{Has: has, Sharing: 1, Most: 10}, netip.Addr{}, epoch))
	}
	require.True(t, b.AllTaken(Claim{Has: 10, Sharing: 1, Most: 10}))
	require.False(t, b.AllTaken(Claim{Has: 4, Sharing: 2, Most: 10}), "it has a claim to the other's")
	require.True(t, b.AllTaken(Claim{Has: 5, Sharing: 2, Most: 10}))
	require.False(t, b.AllTaken(Claim{Has: 10}), "without a bound")
}

func TestBudgetPacesDials(t *testing.T) {
	var b Budget
	c := Claim{Most: 30, Sharing: 1}
	later := epoch.Add(time.Minute)
	require.Equal(t, later, b.DialAt(c, later, epoch))
	require.Equal(t, epoch, b.DialAt(c, time.Time{}, epoch))
	for range 20 {
		require.True(t, b.Dial(c, host, epoch))
	}
	require.False(t, b.Dial(c, host, epoch), "too many are half open")
	require.Equal(t, epoch.Add(time.Second), b.DialAt(c, time.Time{}, epoch))
	for range 10 {
		require.True(t, b.Join(c, netip.Addr{}, epoch))
		b.EndDial()
	}
	for range 10 {
		require.True(t, b.Dial(c, host, epoch.Add(500*time.Millisecond)))
	}
	require.Equal(t, later, b.DialAt(c, later, epoch.Add(500*time.Millisecond)))
	require.Equal(t, epoch.Add(1500*time.Millisecond), b.DialAt(c, epoch, epoch.Add(500*time.Millisecond)), "too many are connected")
	for range 10 {
		b.EndDial()
	}
	require.Equal(t, epoch.Add(time.Second), b.DialAt(c, epoch, epoch.Add(600*time.Millisecond)), "too many dials in a second")
	require.False(t, b.Dial(c, host, epoch.Add(600*time.Millisecond)))
	require.True(t, b.Dial(c, host, epoch.Add(time.Second)))
}

// Dials under way take no place from peers that dial us. One that succeeds when the last place is taken has none.
func TestBudgetOfPeersThatDial(t *testing.T) {
	var b Budget
	c := Claim{Sharing: 1, Most: 3}
	for range 3 {
		require.True(t, b.Dial(c, host, epoch))
	}
	require.False(t, b.Dial(c, host, epoch))
	require.True(t, b.Join(c, netip.Addr{}, epoch))
	for has := 1; has < 3; has++ {
		require.True(t, b.Accept(Claim{Has: has, Sharing: 1, Most: 3}, netip.Addr{}, epoch))
	}
	require.False(t, b.Accept(Claim{Has: 3, Sharing: 1, Most: 3}, netip.Addr{}, epoch))
	require.False(t, b.Join(Claim{Has: 3, Sharing: 1, Most: 3}, netip.Addr{}, epoch))
	later := epoch.Add(time.Minute)
	require.Zero(t, b.Excess(Claim{Has: 3, Sharing: 2, Most: 3}, later))
	require.False(t, b.Join(Claim{Has: 0, Sharing: 2, Most: 3}, netip.Addr{}, later))
	require.Equal(t, 1, b.Excess(Claim{Has: 3, Sharing: 2, Most: 3}, later), "in favour of one below its share")
}

// There are more downloads than connections. What is given up for the dial of one is not for peers that dial others.
func TestConnectionKeptForADial(t *testing.T) {
	var b Budget
	c := Claim{Sharing: 9, Most: 3}
	for range 3 {
		require.True(t, b.Accept(c, netip.Addr{}, epoch))
	}
	givesUp := func(now time.Time) {
		_, ok := found(b.Idlest(now, []Worth{{ID: 1, Joined: now.Add(-joinedGrace)}}))
		require.True(t, ok)
		b.Left(netip.Addr{})
	}
	givesUp(epoch)
	require.True(t, b.Accept(c, netip.Addr{}, epoch), "no download was refused a dial")
	require.False(t, b.Dial(c, host, epoch))
	require.True(t, b.Starves(c, epoch))
	givesUp(epoch)
	now := epoch.Add(budgetRound)
	require.False(t, b.Accept(c, netip.Addr{}, now))
	require.True(t, b.Dial(c, host, now))
	require.False(t, b.Accept(c, netip.Addr{}, now))
	require.True(t, b.Join(c, netip.Addr{}, now))
	b.EndDial()
	b.Left(netip.Addr{})
	require.True(t, b.Accept(c, netip.Addr{}, now), "it was used")
	require.False(t, b.Dial(c, host, now))
	givesUp(now)
	require.True(t, b.Accept(c, netip.Addr{}, now.Add(keptFor)), "or not in time")
}

// All peers are new, because others come all the time. One in a while makes room for a download that has none and dials.
func TestNewPeersMakeRoomForADial(t *testing.T) {
	var b Budget
	c := Claim{Sharing: 9, Most: 1}
	require.True(t, b.Accept(c, netip.Addr{}, epoch))
	gaveUp := 0
	for k := range 35 {
		now := epoch.Add(time.Duration(k) * budgetRound)
		require.False(t, b.Dial(c, host, now))
		peers := []Worth{{ID: 1, Joined: now}, {ID: 2, Joined: now, Earned: now}, {ID: 3, Joined: now, Keep: true}}
		if id, ok := found(b.Idlest(now, peers)); ok {
			require.Equal(t, 1, id)
			gaveUp++
		}
	}
	require.Equal(t, 3, gaveUp)
	_, ok := found(b.Idlest(epoch.Add(time.Minute), []Worth{{ID: 1, Joined: epoch.Add(time.Minute)}}))
	require.False(t, ok, "no download dials any more")
}

// A download may fill what its share lacks, and beyond that what the others leave, but for the reserve.
func TestFreePlaces(t *testing.T) {
	var b Budget
	for range 5 {
		b.Replace(netip.MustParseAddr("1.0.0.1"))
	}
	require.Equal(t, 2, b.Free(Claim{Has: 1, Sharing: 10, Most: 30}))
	require.Equal(t, 1, b.Free(Claim{Has: 1, Sharing: 2, Most: 6}))
	require.Equal(t, 22, b.Free(Claim{Has: 3, Sharing: 10, Most: 30}))
	require.LessOrEqual(t, b.Free(Claim{Has: 3, Sharing: 2, Most: 5}), 0)
	require.Greater(t, b.Free(Claim{Has: 3}), 1000)
}
