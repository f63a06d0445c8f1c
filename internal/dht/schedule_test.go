package dht

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

// A client with 1,000 torrents announces each every 15 minutes or so, within its budget of queries, and
// answers what callers wait for meanwhile.
func TestManyTorrents(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("many seconds of one goroutine")
	}
	const torrents = 1000
	net := newSimNet(1, .01)
	for range 100 {
		net.join(Config{}, 4)
	}
	net.run(5 * time.Minute)
	node := net.join(Config{}, 4)
	net.run(time.Minute)
	require.Greater(t, node.core.statsNow().Nodes4, 20)

	hashes := make([]ID, torrents)
	for i := range hashes {
		hashes[i] = krpc.RandomID(net.rng)
		node.core.keep(net.now, Torrent{Hash: hashes[i], Port: 1000}, func(netip.Addr, []netip.AddrPort) {})
	}
	net.touch(node)
	at := make(map[ID][]time.Time) // when each was announced
	sent := make(map[int64]int)    // queries by the second
	perMinute := make(map[int]int) // announces
	node.sent = func(netip.AddrPort) { sent[net.now.Unix()]++ }
	before := node.core.stats.QueriesSent
	start := net.now
	for _, other := range net.alive {
		other.got = func(from netip.AddrPort, b []byte) {
			var m krpc.Message
			if from == node.addr && m.Parse(b) == nil && string(m.Method) == krpc.AnnouncePeer {
				if last := len(at[m.Target]) - 1; last < 0 || net.now.Sub(at[m.Target][last]) > time.Minute {
					at[m.Target] = append(at[m.Target], net.now)
					perMinute[int(net.now.Sub(start)/time.Minute)]++
				}
			}
		}
	}
	var asked []time.Duration
	for range 33 {
		net.run(time.Minute)
		began := net.now
		s := &search{target: krpc.RandomID(net.rng), method: krpc.GetPeers}
		s.ended = func(now time.Time) { asked = append(asked, now.Sub(began)) }
		node.core.start(s, node.core.fams[:]...)
		net.touch(node)
	}
	net.run(30 * time.Second)

	require.Len(t, at, torrents)
	var gaps, firsts []time.Duration
	for _, times := range at {
		require.GreaterOrEqual(t, len(times), 2)
		firsts = append(firsts, times[0].Sub(start))
		for i := range times[1:] {
			gap := times[i+1].Sub(times[i])
			require.Less(t, gap, 17*time.Minute)
			if i > 0 { // the first is drawn, so that they spread
				gaps = append(gaps, gap)
			}
		}
	}
	require.Less(t, slices.Max(firsts), 15*time.Minute)
	require.Greater(t, slices.Min(gaps), 13*time.Minute)
	require.Less(t, slices.Max(gaps), 17*time.Minute)
	fewest, most := torrents, 0
	for minute := 15; minute < 33; minute++ {
		fewest, most = min(fewest, perMinute[minute]), max(most, perMinute[minute])
	}
	require.Greater(t, fewest, torrents/15/2)
	require.Less(t, most, torrents/15*2)
	rate := float64(node.core.stats.QueriesSent-before) / net.now.Sub(start).Seconds()
	require.Less(t, rate, float64(queryRate))
	var perSecond []int
	for _, n := range sent {
		perSecond = append(perSecond, n)
	}
	slices.Sort(perSecond)
	slices.Sort(asked)
	require.Len(t, asked, 33)
	require.Less(t, asked[len(asked)-1], 20*time.Second)
	t.Logf("%.1f queries a second, %d in the busiest; the first announce after %v at the latest, later ones after %v to %v, %d to %d a minute; a lookup that is waited for took %v at most",
		rate, perSecond[len(perSecond)-1], slices.Max(firsts).Round(time.Second), slices.Min(gaps).Round(time.Second), slices.Max(gaps).Round(time.Second), fewest, most, asked[len(asked)-1].Round(time.Millisecond))
}

// The schedule keeps its order, whatever is done to it.
func TestSchedule(t *testing.T) {
	b := newBench(t, Config{})
	b.fill(ipv4, 20)
	var all []*kept
	for i := range 30 {
		all = append(all, b.keep(b.now, Torrent{Hash: ID{byte(i)}, Port: 1}, func(netip.Addr, []netip.AddrPort) {}))
	}
	b.tick(b.now)
	require.Equal(t, maxKept, b.kept.running, "some at a time")
	require.Equal(t, 30, b.statsNow().Torrents)
	for i, k := range all {
		if i%2 == 0 {
			b.forget(k)
		}
	}
	require.Equal(t, maxKept/2, b.kept.running)
	require.Len(t, b.searches, maxKept/2)
	require.Equal(t, 15, b.statsNow().Torrents)

	// No node answers: each comes again soon, and none is lost.
	b.pass(10 * time.Minute)
	require.Equal(t, 15, b.statsNow().Torrents)
	for i, k := range all {
		if i%2 == 1 {
			b.forget(k)
		}
	}
	require.Zero(t, b.statsNow().Torrents)
	b.hurry(all[1])
	b.pass(time.Hour)
	require.Zero(t, b.kept.running)
	require.Zero(t, b.kept.Len())
}

// A torrent that has no peers for hours is looked up sooner at first, and then as often as others are.
func TestTorrentThatStaysWithoutPeers(t *testing.T) {
	b := newBench(t, Config{})
	b.local(40)
	lookups, soon := 0, 0
	var k *kept
	k = b.keep(b.now, Torrent{Hash: ID{1}}, func(_ netip.Addr, peers []netip.AddrPort) {
		if len(peers) == 0 {
			lookups++
			b.hurry(k)
		}
	})
	const hours = 5
	for began := b.now; b.now.Sub(began) < hours*time.Hour; b.now = b.now.Add(15 * time.Second) {
		b.tick(b.now)
		b.serve(func(*krpc.Message, *krpc.Message, netip.AddrPort) bool { return true })
		for _, f := range b.found {
			f.kept.found(f.by, f.peers)
		}
		b.found = nil
		if b.now.Sub(began) < 10*time.Minute {
			soon = lookups
		}
	}
	require.GreaterOrEqual(t, soon, 3)
	require.GreaterOrEqual(t, lookups, 4*hours)
	require.LessOrEqual(t, lookups, 5+5*hours)
}

// A new torrent does not wait for the many that are overdue.
func TestNewTorrentComesFirst(t *testing.T) {
	b := newBench(t, Config{})
	b.local(40)
	keep := func(i int) *kept {
		return b.keep(b.now, Torrent{Hash: ID{byte(i)}}, func(netip.Addr, []netip.AddrPort) {})
	}
	for i := range 3 * maxKept {
		keep(i)
	}
	for range 8 {
		b.tick(b.now)
		b.serve(func(*krpc.Message, *krpc.Message, netip.AddrPort) bool { return true })
		b.now = b.now.Add(5 * time.Second)
	}
	require.Zero(t, b.kept.running)
	for k := range b.kept.All() {
		require.False(t, k.last.IsZero())
	}
	b.now = b.now.Add(time.Hour)
	last := keep(200)
	b.tick(b.now)
	require.Equal(t, maxKept, b.kept.running)
	require.NotNil(t, last.search)
}

// A node that answers an announce without saying who it is does not keep the torrent from being looked up again.
func TestKeptGoesOnAfterAnAnswerWithoutAnID(t *testing.T) {
	b := newBench(t, Config{})
	b.local(40)
	b.keep(b.now, Torrent{Hash: ID{1}, Port: 7}, func(netip.Addr, []netip.AddrPort) {})
	liars, announces := 0, 0
	for began := b.now; b.now.Sub(began) < 2*time.Hour; b.now = b.now.Add(15 * time.Second) {
		b.tick(b.now)
		b.serve(func(m, r *krpc.Message, at netip.AddrPort) bool {
			switch string(m.Method) {
			case krpc.GetPeers:
				r.Token = []byte("token")
			case krpc.AnnouncePeer:
				if announces++; announces%lookupDepth == 1 {
					r.Has &^= krpc.HasID
					liars++
				}
			}
			return true
		})
	}
	require.GreaterOrEqual(t, liars, 8, "lookups in two hours")
	require.LessOrEqual(t, b.kept.running, 1)
}

func TestPackets(t *testing.T) {
	var p packets
	for range p.each {
		t.Error("nothing was added")
	}
	for i := range 3 {
		p.add([]byte{byte(i), byte(i)}, host(i))
	}
	i := 0
	for b, to := range p.each {
		require.Equal(t, []byte{byte(i), byte(i)}, b)
		require.Equal(t, host(i), to)
		if i++; i == 2 {
			break
		}
	}
	require.Equal(t, 2, i)
	p.reset()
	require.Empty(t, p.list)
}

// A network that comes and goes, as a proxy may do each half a minute, has torrents looked up again soon at first, and then as often as
// others are. A change after a quiet time has them looked up at once.
func TestNetworkThatComesAndGoes(t *testing.T) {
	b := newBench(t, Config{})
	b.local(40)
	lookups := 0
	b.keep(b.now, Torrent{Hash: ID{1}}, func(_ netip.Addr, peers []netip.AddrPort) {
		if len(peers) == 0 {
			lookups++
		}
	})
	pass := func(d time.Duration, flaps bool) (n int) {
		before := lookups
		for i := range int(d / (15 * time.Second)) {
			if flaps && i%2 == 0 {
				b.networkChanged(b.now, true, true)
			}
			b.tick(b.now)
			b.serve(func(*krpc.Message, *krpc.Message, netip.AddrPort) bool { return true })
			for _, f := range b.found {
				f.kept.found(f.by, f.peers)
			}
			b.found = nil
			b.now = b.now.Add(15 * time.Second)
		}
		return lookups - before
	}
	soon := pass(5*time.Minute, true)
	require.GreaterOrEqual(t, soon, 2)
	require.LessOrEqual(t, soon, 5)
	require.LessOrEqual(t, pass(5*time.Hour, true), 5*5+5)
	quiet := pass(5*time.Hour, false)
	require.LessOrEqual(t, quiet, 5*5)
	b.networkChanged(b.now, true, true)
	require.Equal(t, 1, pass(time.Minute, false), "at once")
}
