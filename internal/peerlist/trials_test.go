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
		peers = append(peers, Worth{ID: k + 1, Addr: netip.MustParseAddr(addr), Earned: now, Mutual: true, Rate: float64(len(addrs) - k)})
	}
	return peers
}

func TestTrialsOfNewcomers(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := earners(now, "1.0.0.1", "1.0.1.1", "2.0.0.1", "2.0.1.1", "2.0.2.1", "3.0.0.1")
	for k := range peers {
		peers[k].Joined = now.Add(1 - TurnoverEvery)
	}
	var trials Trials
	displaced := func(newcomer string) int {
		id, _ := trials.Displaced(now, peers, Connection{Addr: netip.MustParseAddr(newcomer)}, false)
		return id
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
	peers[1].Joined = now.Add(-TurnoverEvery)
	require.Equal(t, 2, displaced("7.0.0.1"), "one that has had its place for a while")
	require.Zero(t, displaced("7.0.0.1"), "each /24 may try once")
}

// Newcomers that dial use up no trials of their neighbours in other /24s or /48s, unless they are of a few of these, nor those of any
// that we dial.
func TestTrialsOfNetworks(t *testing.T) {
	now := epoch.Add(time.Hour)
	for _, narrow := range []string{"4.0.%d.%d", "2001:db8:%d::%d"} {
		var trials Trials
		tries := func(k, host int, incoming bool) bool {
			addr := netip.MustParseAddr(fmt.Sprintf(narrow, k, host))
			_, ok := trials.Displaced(now, earners(now, "1.0.0.1", "1.0.1.1", "2.0.0.1", "2.0.1.1"), Connection{Addr: addr, Incoming: incoming}, false)
			return ok
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
	var trials Trials
	for k := range maxTrials + 1 {
		addr := netip.AddrFrom16([16]byte{0: 0x20, 14: byte(k >> 8), 15: byte(k)})
		a := addr.String()
		_, ok := trials.Displaced(now, earners(now, a, a, a), Connection{Addr: addr}, true)
		require.Equal(t, k < maxTrials, ok)
	}
	_, ok := trials.Displaced(now, earners(now, "1.0.0.1", "1.0.1.1"), Connection{Addr: netip.MustParseAddr("2.0.0.1")}, false)
	require.True(t, ok)
}

// Peers that leave, and are back at once, are not new.
func TestTrialsAgainstThoseThatComeBack(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := earners(now, "1.0.0.1", "2.0.0.1", "3.0.0.1")
	for k := range peers {
		peers[k].Joined = now
	}
	var trials Trials
	trials.Left(netip.MustParseAddr("2.0.9.1"), now.Add(-trialEvery))
	_, ok := trials.Displaced(now, peers, Connection{Addr: netip.MustParseAddr("4.0.0.1")}, false)
	require.False(t, ok, "all are new")
	trials.Left(netip.MustParseAddr("2.0.9.1"), now.Add(1-trialEvery))
	id, _ := trials.Displaced(now, peers, Connection{Addr: netip.MustParseAddr("4.0.0.1")}, false)
	require.Equal(t, 2, id)
}

// At an address that is full, each end that dials has its trial.
func TestTrialsOfNeighbours(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := earners(now, "1.0.0.1", "2.0.0.1", "2.0.0.1", "2.0.0.1", "2.0.0.2")
	var trials Trials
	displaced := func(incoming bool) int {
		id, _ := trials.Displaced(now, peers, Connection{Addr: netip.MustParseAddr("2.0.0.1"), Incoming: incoming}, true)
		return id
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
	var trials Trials
	tries := func(k int) bool {
		peers := earners(now, "1.0.0.1", "1.0.1.1", "2.0.0.1", "2.0.1.1")
		_, ok := trials.Displaced(now, peers, Connection{Addr: netip.AddrFrom4([4]byte{byte(20 + k>>8), byte(k), 0, 1})}, false)
		return ok
	}
	for k := range maxTrials + 1 {
		require.Equal(t, k < maxTrials, tries(k))
	}
	now = now.Add(trialEvery)
	require.True(t, tries(maxTrials))
	require.Equal(t, 1, trials.ofNetworks.Len())
}
