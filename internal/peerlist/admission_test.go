package peerlist

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAdmit(t *testing.T) {
	public, private := netip.MustParseAddr("80.0.0.1"), netip.MustParseAddr("10.0.0.1")
	own, low, high := [20]byte{5}, [20]byte{1}, [20]byte{9}
	times := func(n int, c Connection) (all []Connection) {
		for range n {
			c.ID++
			all = append(all, c)
		}
		return all
	}
	for name, tc := range map[string]struct {
		k     Connection
		all   []Connection
		full  bool
		twice int
		ok    bool
	}{
		"the first":                       {Connection{Addr: public}, nil, true, 0, true},
		"others are elsewhere":            {Connection{Addr: public}, times(9, Connection{Addr: private}), false, 0, true},
		"a third of a public address":     {Connection{Addr: public}, times(2, Connection{Addr: public}), false, 0, true},
		"a fourth of a public address":    {Connection{Addr: public}, times(3, Connection{Addr: public}), false, 0, false},
		"a fourth of a private address":   {Connection{Addr: private, PeerID: low, Incoming: true}, times(3, Connection{Addr: private}), false, 0, true},
		"a fourth where there is no room": {Connection{Addr: private, PeerID: low, Incoming: true}, times(3, Connection{Addr: private}), true, 0, false},
		"a fourth that we dialled":        {Connection{Addr: private}, times(3, Connection{Addr: private}), true, 0, true},
		"the other dialled too, and its id is lower": {
			Connection{Addr: public, PeerID: low, Incoming: true}, []Connection{{ID: 7, Addr: public, PeerID: low}}, false, 7, true,
		},
		"the other dialled too, and ours is lower": {
			Connection{Addr: public, PeerID: high, Incoming: true}, []Connection{{ID: 7, Addr: public, PeerID: high}}, false, 0, false,
		},
		"we dialled too, and its id is lower": {
			Connection{Addr: public, PeerID: low}, []Connection{{ID: 7, Addr: public, PeerID: low, Incoming: true}}, false, 0, false,
		},
		"we dialled too, and ours is lower": {
			Connection{Addr: public, PeerID: high}, []Connection{{ID: 7, Addr: public, PeerID: high, Incoming: true}}, false, 7, true,
		},
		"the same id at another address": {
			Connection{Addr: public, PeerID: high}, []Connection{{ID: 7, Addr: private, PeerID: high, Incoming: true}}, false, 0, true,
		},
	} {
		twice, ok := Admit(own, tc.k, tc.all, tc.full)
		require.Equal(t, tc.ok, ok, name)
		require.Equal(t, tc.twice, twice, name)
	}
}

func TestUseless(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := []Worth{
		{ID: 1, Joined: epoch, Mutual: true},
		{ID: 2, Joined: epoch, Priority: 2},
		{ID: 3, Joined: epoch, Priority: 1},
		{ID: 4, Joined: epoch, Keep: true},
		{ID: 5, Joined: now},
	}
	id, ok := Useless(now, peers)
	require.True(t, ok)
	require.Equal(t, 3, id)
	_, ok = Useless(now, peers[:1])
	require.False(t, ok)
	_, ok = Useless(now, peers[3:])
	require.False(t, ok, "never the user's own, nor one that just came")
}

func TestCrowding(t *testing.T) {
	crowd, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("80.0.0.1")
	var peers []Worth
	for id := range 4 {
		peers = append(peers, Worth{ID: id + 1, Addr: crowd, Joined: epoch, Rate: float64(10 - id)})
	}
	id, ok := Crowding(epoch, append(peers, Worth{ID: 9, Addr: other}), other)
	require.True(t, ok)
	require.Equal(t, 4, id, "the slowest of the crowd, however new")
	_, ok = Crowding(epoch, peers[1:], other)
	require.False(t, ok, "three are no crowd")
	_, ok = Crowding(epoch, peers, crowd)
	require.False(t, ok, "one of the crowd takes no place of another")
	for k := range peers {
		peers[k].Keep = true
	}
	_, ok = Crowding(epoch, peers, other)
	require.False(t, ok, "the user's own are kept")
	require.Equal(t, epoch, peers[0].Joined, "the argument is left as it is")
}
