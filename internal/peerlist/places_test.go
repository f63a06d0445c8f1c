package peerlist

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// found reports whether there is an id.
func found(id int) (int, bool) { return id, id != 0 }

// displaced returns the id of the peer that makes room for a newcomer without a trial.
func displaced(now time.Time, peers []Worth, newcomer netip.Addr) (id int, ok bool) {
	return found(new(Places).MakesRoom(now, peers, newcomer, true))
}

// crowding is like displaced, but only peers of crowds make room.
func crowding(now time.Time, peers []Worth, newcomer netip.Addr) (id int, ok bool) {
	return found(new(Places).MakesRoom(now, peers, newcomer, false))
}

// The cases show which peer makes room for which newcomer. Peers are numbered from 1 in the order in which they are
// listed.
func TestDisplaced(t *testing.T) {
	now := epoch.Add(time.Hour)
	const (
		old  = time.Hour
		new  = time.Second
		dull = -1 // never earned its place
	)
	// peer has connected so long ago, and earned its place so long ago.
	peer := func(addr string, joined, earned time.Duration) Worth {
		w := Worth{Addr: netip.MustParseAddr(addr), Joined: now.Add(-joined), Mutual: true, Priority: 1}
		if earned >= 0 {
			w.Earned, w.Rate = now.Add(-earned), 1000
		}
		return w
	}
	many := func(n int, format string, joined, earned time.Duration) (all []Worth) {
		for k := range n {
			all = append(all, peer(fmt.Sprintf(format, k+1), joined, earned))
		}
		return all
	}
	with := func(w Worth, change func(*Worth)) Worth {
		change(&w)
		return w
	}
	for _, tc := range []struct {
		name     string
		peers    [][]Worth
		newcomer string
		want     int // 0 is none
		crowds   int // of crowding; 0 is none
	}{
		{"there is no peer", nil, "9.0.0.1", 0, 0},
		{"those that came just now are given a minute", [][]Worth{many(3, "%d.0.0.1", new, dull)}, "9.0.0.1", 0, 0},
		{"then they have to have earned their places", [][]Worth{many(3, "%d.0.0.1", old, dull)}, "9.0.0.1", 1, 0},
		{"those that do earn them keep them", [][]Worth{many(3, "%d.0.0.1", old, time.Minute)}, "9.0.0.1", 0, 0},
		{"for a while", [][]Worth{many(3, "%d.0.0.1", old, 3*time.Minute)}, "9.0.0.1", 1, 0},
		{"of those that do not, one that neither side wants anything of", [][]Worth{
			many(2, "%d.0.0.1", old, dull),
			{with(peer("3.0.0.1", old, dull), func(w *Worth) { w.Mutual = false })},
		}, "9.0.0.1", 3, 0},
		{"then the slowest, and of these the one of lowest priority", [][]Worth{
			{with(peer("1.0.0.1", old, dull), func(w *Worth) { w.Rate = 9 })},
			many(2, "%d.2.0.1", old, dull),
			{with(peer("3.0.0.1", old, dull), func(w *Worth) { w.Priority = 0 })},
		}, "9.0.0.1", 4, 0},
		{"never the user's own", [][]Worth{
			{with(peer("1.0.0.1", old, dull), func(w *Worth) { w.Keep = true })},
		}, "9.0.0.1", 0, 0},

		{"a crowd of a /24 at once", [][]Worth{many(1, "8.0.0.%d", old, dull), many(2, "1.0.0.%d", new, dull)}, "9.0.0.1", 2, 2},
		{"but not for one of its own", [][]Worth{many(2, "1.0.0.%d", new, dull)}, "1.0.0.9", 0, 0},
		{"nor for one of a crowd that is larger", [][]Worth{many(3, "1.0.0.%d", old, dull), many(2, "2.0.0.%d", old, dull)}, "1.0.0.9", 1, 0},
		{"or as large", [][]Worth{many(1, "1.0.0.%d", new, dull), many(2, "2.0.0.%d", new, dull)}, "1.0.0.9", 0, 0},
		{"a crowd of one address", [][]Worth{many(2, "8.0.%d.1", old, dull), many(1, "1.0.0.%d", new, dull), many(1, "1.0.0.%d", new, dull)}, "9.0.0.1", 3, 3},
		{"a crowd of a /16, four of which are worth one", [][]Worth{many(8, "1.0.%d.1", new, dull)}, "9.0.0.1", 1, 1},
		{"but not fewer", [][]Worth{many(7, "1.0.%d.1", new, dull), many(7, "%d.2.0.1", new, dull)}, "99.0.0.1", 0, 0},
		{"a crowd of a /64", [][]Worth{many(2, "2001:db8::%d", new, dull)}, "2001:db8:1::1", 1, 1},
		{"of a /48", [][]Worth{many(4, "2001:db8:1:%d::1", new, dull)}, "9.0.0.1", 1, 1},
		{"of a /32", [][]Worth{many(16, "2001:db8:%d::1", new, dull)}, "9.0.0.1", 1, 1},
		{"the largest of several", [][]Worth{many(3, "1.0.0.%d", new, dull), many(4, "2.0.0.%d", new, dull)}, "9.0.0.1", 4, 4},
		{"a crowd that earns a share of all places", [][]Worth{many(10, "1.0.0.%d", old, 0), many(70, "%d.2.0.1", old, 0)}, "200.0.0.1", 0, 0},
		{"but not more", [][]Worth{many(70, "%d.2.0.1", old, 0), many(11, "1.0.0.%d", old, 0)}, "200.0.0.1", 71, 71},
		{"a network that earns half of all places", [][]Worth{many(40, "2001:db8:%d::1", old, 0), many(40, "%d.2.0.1", old, 0)}, "200.0.0.1", 0, 0},
		{"but not more, though the crowds in it are small", [][]Worth{many(39, "%d.2.0.1", old, 0), many(41, "2001:db8:%d::1", old, 0)}, "200.0.0.1", 40, 40},
		{"nor of few places", [][]Worth{many(3, "1.0.0.%d", old, 0), many(2, "1.0.2.%d", old, 0)}, "9.0.0.1", 1, 1},
		{"nor in favour of one of its own", [][]Worth{many(5, "1.0.%d.1", old, 0)}, "1.0.9.1", 0, 0},
		{"one of two", [][]Worth{many(2, "1.0.0.%d", old, 0)}, "9.0.0.1", 1, 1},
		{"but not the only one", [][]Worth{many(1, "1.0.0.%d", old, 0)}, "9.0.0.1", 0, 0},
		{"in favour of one of no crowd", [][]Worth{many(11, "1.0.0.%d", old, 0), many(11, "3.0.0.%d", old, 0)}, "3.0.0.99", 0, 0},

		{"three that share a local address keep what they earn", [][]Worth{many(1, "10.0.0.%d", old, 0), many(1, "10.0.0.%d", old, 0), many(1, "10.0.0.%d", old, 0)}, "9.0.0.1", 0, 0},
		{"four do not", [][]Worth{many(1, "10.0.0.%d", old, 0), many(1, "10.0.0.%d", old, 0), many(1, "10.0.0.%d", old, 0), many(1, "10.0.0.%d", old, 0)}, "9.0.0.1", 1, 1},
		{"and take no place of others", [][]Worth{many(1, "9.0.0.%d", new, dull), many(1, "10.0.0.%d", old, 0), many(1, "10.0.0.%d", old, 0), many(1, "10.0.0.%d", old, 0)}, "10.0.0.1", 0, 0},
		{"local addresses of one network are no crowd", [][]Worth{many(60, "10.0.0.%d", new, dull)}, "9.0.0.1", 0, 0},
		{"a zone is no other host", [][]Worth{many(1, "fe80::%d%%a", new, dull), many(1, "fe80::%d%%b", new, dull)}, "9.0.0.1", 1, 1},
	} {
		var peers []Worth
		for _, some := range tc.peers {
			peers = append(peers, some...)
		}
		for k := range peers {
			peers[k].ID = k + 1
		}
		id, ok := displaced(now, peers, netip.MustParseAddr(tc.newcomer))
		require.Equal(t, tc.want, id, tc.name)
		require.Equal(t, tc.want != 0, ok, tc.name)
		id, ok = crowding(now, peers, netip.MustParseAddr(tc.newcomer))
		require.Equal(t, tc.crowds, id, "for a candidate, %s", tc.name)
		require.Equal(t, tc.crowds != 0, ok, "for a candidate, %s", tc.name)
	}
}

func TestScarce(t *testing.T) {
	now := epoch.Add(time.Hour)
	peers := make([]Worth, 80)
	require.True(t, Scarce(now, peers))
	for k := range 4 {
		peers[k].Earned = now
	}
	require.True(t, Scarce(now, peers))
	peers[4].Earned = now
	require.False(t, Scarce(now, peers))
	require.False(t, Scarce(now, nil))
}

// A source that names hundreds of addresses of one network, in however many smaller ones, gets no more of the first dials for these than
// for a few others.
func TestPrefixesInTurn(t *testing.T) {
	c := newTestCandidates(false)
	for k := range 200 {
		c.Add(addrPort(fmt.Sprintf("1.0.0.%d:1", k)), FromTracker, "", epoch)
		c.Add(addrPort(fmt.Sprintf("[2001:db8::%d]:1", k)), FromTracker, "", epoch)
		c.Add(addrPort(fmt.Sprintf("3.0.%d.1:1", k)), FromTracker, "", epoch)
		c.Add(addrPort(fmt.Sprintf("[2001:db9:1:%d::1]:1", k)), FromTracker, "", epoch)
	}
	for k := range 10 {
		c.Add(addrPort(fmt.Sprintf("2.%d.0.1:1", k)), FromTracker, "", epoch)
	}
	honest := 0
	for range 22 { // of the crowds, twelve count as one: one, one, seven and three
		if a, _, _ := c.Next(epoch); a.Addr().Is4() && a.Addr().As4()[0] == 2 {
			honest++
		}
	}
	require.Equal(t, 10, honest)
	for _, k := range c.all {
		c.drop(k)
	}
	require.Empty(t, c.crowds)
}

// Each address counts as one of its largest crowd, for uploads.
func TestCrowds(t *testing.T) {
	for _, tc := range []struct {
		name  string
		addrs string
		want  []int
	}{
		{"none", "", nil},
		{"far from each other", "1.0.0.1 2.0.0.1 2001:db8::1", []int{1, 1, 1}},
		{"of a /24", "1.0.0.1 2.0.0.1 1.0.0.2 1.0.0.3", []int{3, 1, 3, 3}},
		{"one address", "1.0.0.1 1.0.0.1", []int{2, 2}},
		{"of a /16, four of which count as one", "1.0.0.1 1.0.1.1 1.0.2.1 1.0.3.1 1.0.4.1 1.0.5.1 1.0.6.1 1.0.7.1", []int{2, 2, 2, 2, 2, 2, 2, 2}},
		{"of a /64", "2001:db8::1 2001:db8::2 2001:db8:1::1", []int{2, 2, 1}},
		{"local ones", "10.0.0.1 10.0.0.2 10.0.0.2", []int{1, 1, 1}},
	} {
		var addrs []netip.Addr
		for _, a := range strings.Fields(tc.addrs) {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		require.Equal(t, tc.want, Crowds(addrs), tc.name)
	}
}
