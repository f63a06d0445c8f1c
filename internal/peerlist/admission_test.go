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
		twice int
		ok    bool
	}{
		"the first":                     {Connection{Addr: public}, nil, 0, true},
		"others are elsewhere":          {Connection{Addr: public}, times(9, Connection{Addr: private}), 0, true},
		"a third of a public address":   {Connection{Addr: public}, times(2, Connection{Addr: public}), 0, true},
		"a fourth of a private address": {Connection{Addr: private, PeerID: low, Incoming: true}, times(3, Connection{Addr: private}), 0, true},
		"a fourth that we dialled":      {Connection{Addr: private}, times(3, Connection{Addr: private}), 0, true},
		"the other dialled too, and its id is lower": {
			Connection{Addr: public, PeerID: low, Incoming: true}, []Connection{{ID: 7, Addr: public, PeerID: low}}, 7, true,
		},
		"the other dialled too, and ours is lower": {
			Connection{Addr: public, PeerID: high, Incoming: true}, []Connection{{ID: 7, Addr: public, PeerID: high}}, 0, false,
		},
		"we dialled too, and its id is lower": {
			Connection{Addr: public, PeerID: low}, []Connection{{ID: 7, Addr: public, PeerID: low, Incoming: true}}, 0, false,
		},
		"we dialled too, and ours is lower": {
			Connection{Addr: public, PeerID: high}, []Connection{{ID: 7, Addr: public, PeerID: high, Incoming: true}}, 7, true,
		},
		"one dialled so much later that the other may find it too late": {
			Connection{Addr: public, PeerID: low, Incoming: true}, []Connection{{ID: 7, Addr: public, PeerID: low, Age: AtOnce - time.Second}}, 0, true,
		},
		"but not if ours is lower": {
			Connection{Addr: public, PeerID: high, Incoming: true}, []Connection{{ID: 7, Addr: public, PeerID: high, Age: AtOnce - time.Second}}, 0, false,
		},
		"one dialled later, whatever the ids": {
			Connection{Addr: public, PeerID: low, Incoming: true}, []Connection{{ID: 7, Addr: public, PeerID: low, Age: time.Minute, Idle: true}}, 0, false,
		},
		"one that we dialled later": {
			Connection{Addr: public, PeerID: high}, []Connection{{ID: 7, Addr: public, PeerID: high, Incoming: true, Age: time.Minute, Idle: true}}, 0, false,
		},
		"the user's own, later, where nothing came of the other": {
			Connection{Addr: public, PeerID: low, Named: true}, []Connection{{ID: 7, Addr: public, PeerID: low, Incoming: true, Age: time.Minute, Idle: true}}, 0, true,
		},
		"the user's own, where something did": {
			Connection{Addr: public, PeerID: low, Named: true}, []Connection{{ID: 7, Addr: public, PeerID: low, Incoming: true, Age: time.Minute}}, 0, false,
		},
		"one that we dial again, even if something did": {
			Connection{Addr: public, PeerID: low, Again: true},
			[]Connection{{ID: 7, Addr: public, PeerID: low, Incoming: true, Age: time.Second}}, 0, true,
		},
		"one dialled where nothing came of the other for long": {
			Connection{Addr: public, PeerID: low, Incoming: true},
			[]Connection{{ID: 7, Addr: public, PeerID: low, Age: TurnoverEvery + time.Second, Idle: true}}, 0, true,
		},
		"but not where something did": {
			Connection{Addr: public, PeerID: low, Incoming: true},
			[]Connection{{ID: 7, Addr: public, PeerID: low, Age: TurnoverEvery + time.Second}}, 0, false,
		},
		"one that replaces another, where there is no room": {
			Connection{Addr: public, PeerID: low, Incoming: true}, append(times(3, Connection{Addr: public}), Connection{ID: 7, Addr: public, PeerID: low}), 7, true,
		},
		"the same id at another address": {
			Connection{Addr: public, PeerID: high}, []Connection{{ID: 7, Addr: private, PeerID: high, Incoming: true}}, 0, true,
		},
	} {
		twice, ok := Admit(own, tc.k, tc.all)
		require.Equal(t, tc.ok, ok, name)
		require.Equal(t, tc.twice, twice, name)
	}
}

func TestIsFull(t *testing.T) {
	public, private := netip.MustParseAddr("80.0.0.1"), netip.MustParseAddr("10.0.0.1")
	there := []Connection{{Addr: private}, {Addr: public}, {Addr: private}, {Addr: public}, {Addr: private}}
	require.False(t, IsFull(Connection{Addr: public}, there), "there are two")
	there = append(there, Connection{Addr: public})
	require.True(t, IsFull(Connection{Addr: public}, there))
	require.True(t, IsFull(Connection{Addr: public, Incoming: true}, there))
	require.False(t, IsFull(Connection{Addr: public, Named: true}, there))
	require.False(t, IsFull(Connection{Addr: private}, there), "any number may stand behind it")
}

func TestCrowded(t *testing.T) {
	public, private := netip.MustParseAddr("80.0.0.1"), netip.MustParseAddr("10.0.0.1")
	there := []Connection{{Addr: private}, {Addr: public}, {Addr: private}, {Addr: public}, {Addr: public}}
	require.False(t, Crowded(Connection{Addr: private, Incoming: true}, there))
	there = append(there, Connection{Addr: private, Incoming: true})
	require.True(t, Crowded(Connection{Addr: private, Incoming: true}, there))
	require.False(t, Crowded(Connection{Addr: private}, there), "we dialled it")
	require.False(t, Crowded(Connection{Addr: public, Incoming: true}, there), "Admit refuses it")
}

func TestShed(t *testing.T) {
	silent, spoke := func(a string) Handshake { return Handshake{Addr: netip.MustParseAddr(a)} }, func(a string) Handshake { return Handshake{Addr: netip.MustParseAddr(a), Spoke: true} }
	for name, tc := range map[string]struct {
		handshakes []Handshake
		newcomer   string
		want       int
	}{
		"the oldest":                         {[]Handshake{silent("1.0.0.1"), silent("2.0.0.1")}, "9.0.0.1", 0},
		"that has said nothing":              {[]Handshake{spoke("1.0.0.1"), silent("2.0.0.1"), silent("3.0.0.1")}, "9.0.0.1", 1},
		"if there is one":                    {[]Handshake{spoke("1.0.0.1"), spoke("2.0.0.1")}, "9.0.0.1", 0},
		"of the largest crowd":               {[]Handshake{silent("1.0.0.1"), spoke("2.0.0.1"), silent("2.0.0.2"), silent("2.0.0.3")}, "9.0.0.1", 2},
		"even if all of it have spoken":      {[]Handshake{silent("1.0.0.1"), spoke("2.0.0.1"), spoke("2.0.0.2")}, "9.0.0.1", 1},
		"which may be the newcomer's":        {[]Handshake{silent("1.0.0.1"), silent("2.0.0.1"), silent("3.0.0.1")}, "3.0.0.9", 2},
		"a local address is one":             {[]Handshake{silent("1.0.0.1"), silent("10.0.0.1"), silent("10.0.0.1")}, "9.0.0.1", 1},
		"but not the network that it is of":  {[]Handshake{silent("1.0.0.1"), silent("10.0.0.1"), silent("10.0.0.2")}, "9.0.0.1", 0},
		"a /64 of IPv6 is one":               {[]Handshake{silent("1.0.0.1"), silent("2001:db8::1"), silent("2001:db8::2")}, "9.0.0.1", 1},
		"and so are many /24 of one network": {append([]Handshake{silent("1.0.0.1")}, many16()...), "9.0.0.1", 1},
	} {
		var all Handshakes
		for k := range tc.handshakes {
			all.Add(&tc.handshakes[k])
		}
		require.Same(t, &tc.handshakes[tc.want], all.Shed(netip.MustParseAddr(tc.newcomer)), name)
		for k := range tc.handshakes {
			all.Remove(&tc.handshakes[k])
		}
		require.Empty(t, all.crowds)
	}
}

// To find which one makes room takes no memory: anybody can come hundreds of times a second.
func TestShedCostsLittle(t *testing.T) {
	all := greeting(100)
	newcomer := netip.MustParseAddr("9.0.0.1")
	require.Zero(t, testing.AllocsPerRun(10, func() { all.Shed(newcomer) }))
}

func BenchmarkShed(b *testing.B) {
	all := greeting(100)
	newcomer := netip.MustParseAddr("9.0.0.1")
	for b.Loop() {
		all.Shed(newcomer)
	}
}

// greeting returns so many connections, each of a network of its own.
func greeting(n int) *Handshakes {
	all := new(Handshakes)
	for k := range n {
		all.Add(&Handshake{Addr: netip.AddrFrom4([4]byte{byte(60 + k), 1, 1, 1})})
	}
	return all
}

// many16 are handshakes of eight /24 of one /16.
func many16() (all []Handshake) {
	for k := range byte(8) {
		all = append(all, Handshake{Addr: netip.AddrFrom4([4]byte{2, 0, k, 1})})
	}
	return all
}
