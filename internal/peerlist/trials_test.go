package peerlist

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTrials(t *testing.T) {
	now := epoch.Add(time.Hour)
	var peers []Worth // each earns its place, four of one network and one of another
	for k, addr := range []string{"1.0.0.1", "1.0.1.1", "1.0.2.1", "1.0.3.1", "2.0.0.1"} {
		peers = append(peers, Worth{ID: k + 1, Addr: netip.MustParseAddr(addr), Earned: now, Mutual: true, Rate: float64(5 - k)})
	}
	var trials Trials
	displaced := func(newcomer string) int {
		id, _ := trials.Displaced(now, peers, netip.MustParseAddr(newcomer))
		return id
	}
	require.Zero(t, displaced("1.0.9.1"), "the network of the newcomer has as many places")
	require.Equal(t, 4, displaced("3.0.0.1"), "the most useless one of a fuller network")
	require.Zero(t, displaced("3.0.1.1"), "each network may try once")
	require.Equal(t, 4, displaced("4.0.0.1"))
	peers[3].Keep, peers[2].Joined = true, now
	require.Equal(t, 2, displaced("5.0.0.1"), "neither one that the user named nor one that is new")
	require.Zero(t, displaced("4.0.0.1"))
	now = now.Add(trialEvery)
	for k := range peers {
		peers[k].Earned = now
	}
	require.Equal(t, 3, displaced("4.0.0.1"), "and again after a while")
	for k := range peers {
		peers[k].Addr = netip.MustParseAddr(fmt.Sprintf("%d.9.0.1", k+1))
	}
	require.Zero(t, displaced("6.0.0.1"), "no network has more than one place")
}

// No more networks are remembered than that.
func TestTrialsAreForgotten(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := []Worth{{ID: 1, Addr: netip.MustParseAddr("1.0.0.1"), Earned: now}, {ID: 2, Addr: netip.MustParseAddr("1.0.1.1"), Earned: now}}
	var trials Trials
	for k := range maxTrials + 1 {
		_, ok := trials.Displaced(now, peers, netip.AddrFrom4([4]byte{byte(20 + k>>8), byte(k), 0, 1}))
		require.Equal(t, k < maxTrials, ok)
	}
	now = now.Add(trialEvery)
	peers[0].Earned, peers[1].Earned = now, now
	_, ok := trials.Displaced(now, peers, netip.MustParseAddr("200.0.0.1"))
	require.True(t, ok)
	require.Len(t, trials.began, 1)
}
