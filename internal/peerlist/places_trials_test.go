package peerlist

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// earners are peers that earn their places, the most useful first.
func earners(now time.Time, addrs ...string) (peers []Worth) {
	for k, addr := range addrs {
		peers = append(peers, Worth{ID: k + 1, Addr: netip.MustParseAddr(addr), Earned: now, Given: 1 << 40, Mutual: true, Rate: float64(len(addrs) - k)})
	}
	return peers
}

func TestTrialsOfNewcomers(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := earners(now, "1.0.0.1", "1.0.1.1", "2.0.0.1", "2.0.1.1", "2.0.2.1", "3.0.0.1")
	for k := range peers {
		peers[k].Joined = now.Add(1 - TurnoverEvery)
	}
	var places Places
	displaced := func(newcomer string) int {
		return places.Displaced(now, peers, Connection{Addr: netip.MustParseAddr(newcomer)}, false)
	}
	require.Zero(t, displaced("2.0.9.1"), "the network of the newcomer has as many places, and they are new")
	require.Equal(t, 5, displaced("3.0.1.1"), "the most useless one of a fuller network than that of the newcomer will be")
	require.Equal(t, 5, displaced("4.0.0.1"))
	require.Zero(t, displaced("4.0.0.9"), "each /24 may try once")
	for k := range trialsOfNetwork - 1 {
		require.Equal(t, 5, displaced(fmt.Sprintf("4.0.%d.1", 1+k)))
	}
	require.Zero(t, displaced("4.0.9.1"), "and each network a few times")
	peers[4].Keep = true
	require.Equal(t, 4, displaced("5.0.0.1"), "but the user's own")
	peers[2].Earned, peers[2].Joined = time.Time{}, now
	require.Equal(t, 3, displaced("6.0.0.1"), "first one that has given nothing, though it is new")
	now = now.Add(trialEvery - 1)
	for k := range peers {
		peers[k].Earned = now
	}
	require.Zero(t, displaced("4.0.0.1"))
	now = now.Add(1)
	require.Equal(t, 4, displaced("4.0.0.1"), "and again after a while")
	for k := range peers {
		peers[k].Addr, peers[k].Joined = netip.MustParseAddr(fmt.Sprintf("%d.9.0.1", k+1)), now.Add(1-TurnoverEvery)
	}
	require.Zero(t, displaced("7.0.0.1"), "no network has more than one place")
	for k := range peers[:5] {
		peers[k].Joined = now.Add(-TurnoverEvery)
	}
	peers[4].Keep, peers[3].Rate = false, 1
	require.Equal(t, 4, displaced("7.0.0.1"), "the most useless one that has had its place for a while")
	require.Zero(t, displaced("7.0.0.1"), "each /24 may try once")
	for k := range peers {
		peers[k].Joined = now
	}
	peers[0].Joined, peers[0].Rate = now.Add(-TurnoverEvery), 10
	require.Zero(t, displaced("8.0.0.1"), "one that gives far more than most stays, though all others are new")
	peers[2].Joined, peers[2].Given = now.Add(-joinedGrace), littleRate*60-1
	require.Equal(t, 3, displaced("8.0.0.1"), "one that gives little is not new for long")
}

// tenGivers are peers of as many networks, which give just enough to earn their places.
func tenGivers(now time.Time) (peers []Worth) {
	for k := range 10 {
		peers = append(peers, Worth{ID: k + 1, Addr: netip.MustParseAddr(fmt.Sprintf("%d.0.0.1", 20+k)), Joined: now, Earned: now, Rate: 600})
	}
	return peers
}

// Networks that find no place have their turns in the order in which they first dialled, however often they do.
func TestTurnsOfNetworks(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := tenGivers(now)
	for k := range peers[:8] {
		peers[k].Given = 1 << 40
	}
	var places Places
	dials := func(network int) bool {
		addr := netip.MustParseAddr(fmt.Sprintf("%d.0.0.1", network))
		id, ok := found(places.Displaced(now, peers, Connection{Addr: addr, Incoming: true}, false))
		if ok {
			peers[id-1] = Worth{ID: id, Addr: netip.MustParseAddr(fmt.Sprintf("%d.0.0.1", network)), Joined: now, Earned: now, Given: 1 << 40}
		}
		return ok
	}
	for k := range 3 {
		require.False(t, dials(90+k), "all are new")
	}
	now = now.Add(joinedGrace)
	for k := range peers {
		peers[k].Earned = now
	}
	require.False(t, dials(92), "two make room, for which two have waited longer")
	require.False(t, dials(93))
	require.True(t, dials(91))
	require.False(t, dials(92), "one makes room, for which one has waited longer")
	now = now.Add(keptForTurn - 1)
	require.False(t, dials(92))
	now = now.Add(1)
	require.True(t, dials(92), "it is kept for a while only")
	require.False(t, dials(90), "none makes room")
	peers[0].Given, peers[0].Joined, peers[0].Earned = 0, now.Add(-joinedGrace), now
	require.False(t, dials(93))
	now = now.Add(waitsForPlace + 1)
	for k := range peers {
		peers[k].Earned = now
		peers[k].Joined = now.Add(1 - TurnoverEvery)
	}
	require.True(t, dials(93), "the one before it has not dialled for long")
	require.False(t, dials(94))
	require.False(t, dials(90))
	peers[1].Given, peers[1].Joined, peers[1].Earned = 0, now.Add(-joinedGrace), now
	require.False(t, dials(94))
	require.True(t, dials(90), "it has its turn when it dials again")
	for k := range maxRemembered {
		places.MayFill(now, Connection{Addr: netip.AddrFrom4([4]byte{byte(100 + k>>8), byte(k), 0, 1}), Incoming: true}, 1)
	}
	require.LessOrEqual(t, places.line.order.Len(), maxRemembered)
}

// Free places are left to those that have waited longer, unless we dial.
func TestTurnsAtFreePlaces(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := tenGivers(now)
	var places Places
	newcomer := func(addr string, incoming bool) Connection {
		return Connection{Addr: netip.MustParseAddr(addr), Incoming: incoming}
	}
	require.True(t, places.MayFill(now, newcomer("90.0.0.1", true), 1), "none waits")
	for _, addr := range []string{"91.0.0.1", "92.0.0.1"} {
		_, ok := found(places.Displaced(now, peers, newcomer(addr, true), false))
		require.False(t, ok)
	}
	require.False(t, places.MayFill(now, newcomer("90.0.0.1", true), 2))
	require.True(t, places.MayFill(now, newcomer("90.0.0.1", false), 2))
	require.True(t, places.MayFill(now, newcomer("92.0.0.1", true), 2))
	require.False(t, places.MayFill(now, newcomer("90.0.0.1", true), 1))
	require.False(t, places.MayFill(now, newcomer("91.0.9.1", true), 1), "another of its network has waited longer")
	require.True(t, places.MayFill(now, newcomer("91.0.0.1", true), 1))
	require.True(t, places.MayFill(now, newcomer("90.0.0.1", true), 1))
	require.True(t, places.MayFill(now, newcomer("91.0.9.1", true), 1))
}

// Neighbours, by address or prefix, have their turns at the places of their network in the order in which they first dialled,
// however many they are, and however often they do. None has another soon.
func TestTurnsOfNeighbours(t *testing.T) {
	for _, format := range []string{"90.0.0.%d", "90.0.%d.1", "2001:db8:1:%d::1", "2001:db8:%d::1"} {
		now := epoch.Add(time.Hour)
		var places Places
		neighbour := func(k int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(format, k)) }
		peers := tenGivers(now)
		peers[9].Addr = neighbour(100)
		for k := range peers[:9] {
			peers[k].Given = 1 << 40
		}
		dials := func(k int) bool {
			id, ok := found(places.Displaced(now, peers, Connection{Addr: neighbour(k), Incoming: true}, false))
			if ok {
				require.Equal(t, 10, id)
				peers[9] = Worth{ID: 10, Addr: neighbour(k), Joined: now, Earned: now, Rate: 600}
			}
			return ok
		}
		const n = 8
		for k := range n {
			require.False(t, dials(k), "all are new")
		}
		for turn := range n {
			now = now.Add(joinedGrace)
			for k := range peers {
				peers[k].Earned = now
				if k < 9 {
					peers[k].Joined = now
				}
			}
			for k := n - 1; k >= 0; k-- {
				require.Equal(t, k == turn, dials(k), "%s in turn %d", neighbour(k), turn)
			}
		}
	}
}

// A network that had no place lately comes before those that had, and need not wait until their peers are no longer new.
func TestTurnsOfThoseThatHadNone(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := tenGivers(now)
	var places Places
	for k := range 20 {
		places.PeerLeft(netip.MustParseAddr(fmt.Sprintf("%d.0.0.1", 20+k)), now)
	}
	tries := func(addr string) bool {
		return places.Displaced(now, peers, Connection{Addr: netip.MustParseAddr(addr), Incoming: true}, false) != 0
	}
	for k := range 10 {
		require.False(t, tries(fmt.Sprintf("%d.0.0.1", 30+k)))
	}
	require.True(t, tries("90.0.0.1"))
}

// A network whose newcomers can take no place keeps none from others: the only peer that would make room is of its own, and gives
// far more than most.
func TestTurnsOfThoseThatHaveNone(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := tenGivers(now.Add(-TurnoverEvery))
	for k := range peers {
		peers[k].Earned = now
	}
	peers[9].Rate = 1e6
	var places Places
	tries := func(addr string) bool {
		return places.Displaced(now, peers, Connection{Addr: netip.MustParseAddr(addr), Incoming: true}, false) != 0
	}
	require.False(t, tries("29.0.1.1"))
	require.Zero(t, places.line.order.Len())
	require.True(t, tries("90.0.0.1"))
}

// New peers that are patient will make no room, so that a network which waits for them keeps no place from others.
func TestTurnsBesidePatientPeers(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := tenGivers(now)
	for k := range peers {
		peers[k].Earned, peers[k].Patient = time.Time{}, true
	}
	var places Places
	_, ok := found(places.Displaced(now, peers, Connection{Addr: netip.MustParseAddr("90.0.0.1"), Incoming: true}, false))
	require.False(t, ok)
	require.Zero(t, places.line.order.Len())
}

// Newcomers that dial use up no trials of their neighbours in other /24s or /48s, unless they are of a few of these, nor those of
// any that we dial.
func TestTrialsOfNetworks(t *testing.T) {
	now := epoch.Add(time.Hour)
	for _, narrow := range []string{"4.0.%d.%d", "2001:db8:%d::%d"} {
		var places Places
		tries := func(k, host int, incoming bool) bool {
			addr := netip.MustParseAddr(fmt.Sprintf(narrow, k, host))
			peers := earners(now, "1.0.0.1", "1.0.1.1", "2.0.0.1", "2.0.1.1")
			return places.Displaced(now, peers, Connection{Addr: addr, Incoming: incoming}, false) != 0
		}
		for k := range trialsOfNetwork {
			require.True(t, tries(k, 1, true))
			require.False(t, tries(k, 2, true))
		}
		require.False(t, tries(trialsOfNetwork, 1, true))
		require.True(t, tries(0, 2, false))
	}
}

// However many addresses were full, networks may try.
func TestTrialsOfManyAddresses(t *testing.T) {
	now := epoch.Add(time.Hour)
	var places Places
	for k := range maxRemembered + 1 {
		addr := netip.AddrFrom16([16]byte{0: 0x20, 14: byte(k >> 8), 15: byte(k)})
		a := addr.String()
		_, ok := found(places.Displaced(now, earners(now, a, a, a), Connection{Addr: addr}, true))
		require.Equal(t, k < maxRemembered, ok)
	}
	_, ok := found(places.Displaced(now, earners(now, "1.0.0.1", "1.0.1.1"), Connection{Addr: netip.MustParseAddr("2.0.0.1")}, false))
	require.True(t, ok)
}

// Peers that leave, and are back at once, are not new.
func TestTrialsAgainstThoseThatComeBack(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := earners(now, "1.0.0.1", "2.0.0.1", "3.0.0.1")
	for k := range peers {
		peers[k].Joined = now
	}
	var places Places
	places.PeerLeft(netip.MustParseAddr("2.0.9.1"), now.Add(-trialEvery))
	_, ok := found(places.Displaced(now, peers, Connection{Addr: netip.MustParseAddr("4.0.0.1")}, false))
	require.False(t, ok, "all are new")
	places.PeerLeft(netip.MustParseAddr("2.0.9.1"), now.Add(1-trialEvery))
	require.Equal(t, 2, places.Displaced(now, peers, Connection{Addr: netip.MustParseAddr("4.0.0.1")}, false))
}

// At an address that is full, each end that dials has its trial.
func TestTrialsOfNeighbours(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := earners(now, "1.0.0.1", "2.0.0.1", "2.0.0.1", "2.0.0.1", "2.0.0.2")
	var places Places
	displaced := func(incoming bool) int {
		return places.Displaced(now, peers, Connection{Addr: netip.MustParseAddr("2.0.0.1"), Incoming: incoming}, true)
	}
	require.Equal(t, 4, displaced(true), "the most useless one of the address")
	require.Zero(t, displaced(true))
	require.Equal(t, 4, displaced(false))
	require.Zero(t, displaced(false))
	peers[1].Earned = time.Time{}
	require.Equal(t, 2, displaced(true), "one that does not earn its place needs no trial")
	peers[1].Joined = now.Add(1 - joinedGrace)
	require.Zero(t, displaced(true), "unless it is new")
}

// Only so many networks are remembered, and while there are as many no other may try.
func TestTrialsAreForgotten(t *testing.T) {
	now := epoch.Add(time.Hour)
	var places Places
	tries := func(k int) bool {
		peers := earners(now, "1.0.0.1", "1.0.1.1", "2.0.0.1", "2.0.1.1")
		return places.Displaced(now, peers, Connection{Addr: netip.AddrFrom4([4]byte{byte(20 + k>>8), byte(k), 0, 1})}, false) != 0
	}
	for k := range maxRemembered + 1 {
		require.Equal(t, k < maxRemembered, tries(k))
	}
	now = now.Add(trialEvery)
	require.True(t, tries(maxRemembered))
	require.Equal(t, 1, places.began[0].Len())
}
