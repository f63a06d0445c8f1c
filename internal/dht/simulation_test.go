package dht

import (
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

var (
	simNodes = flag.Int("nodes", 500, "how many nodes TestSimulation has")
	simLiars = flag.String("liars", "", "the one kind of liars that TestSimulation has, all of them if empty, \"none\", or \"each\" for one run of each kind")
	simSeed  = flag.Uint64("seed", 1, "of TestSimulation")
)

// simFigures is what a simulation comes to.
type simFigures struct {
	lookups, found int
	queries, hops  []int
	first, whole   []time.Duration
	idle           float64 // bytes a second that an honest node sends while it looks nothing up
	victimIdle     float64 // queries a minute that the victim gets from all nodes together, nothing being looked up
	victimMost     int     // queries that the victim got of one lookup
	victimAll      int     // of all lookups
	table          int     // nodes in the table of an honest one, median
	verified, took int
}

func (f *simFigures) String() string {
	slices.Sort(f.queries)
	slices.Sort(f.hops)
	slices.Sort(f.first)
	slices.Sort(f.whole)
	at := func(p float64, n int) int { return min(int(p*float64(n)), n-1) }
	var b strings.Builder
	fmt.Fprintf(&b, "found what is there: %d of %d lookups (%.2f %%)\n", f.found, f.lookups, 100*float64(f.found)/float64(f.lookups))
	sum := 0
	for _, q := range f.queries {
		sum += q
	}
	n := len(f.queries)
	fmt.Fprintf(&b, "queries a lookup: %.1f on average, median %d, 95 %% %d, most %d\n", float64(sum)/float64(n), f.queries[n/2], f.queries[at(.95, n)], f.queries[n-1])
	if n := len(f.hops); n > 0 {
		fmt.Fprintf(&b, "hops to the first peer: median %d, 95 %% %d\n", f.hops[n/2], f.hops[at(.95, n)])
		fmt.Fprintf(&b, "time to the first peer: median %v, 95 %% %v\n", f.first[n/2].Round(time.Millisecond), f.first[at(.95, n)].Round(time.Millisecond))
	}
	fmt.Fprintf(&b, "time of a lookup: median %v, 95 %% %v\n", f.whole[n/2].Round(time.Millisecond), f.whole[at(.95, n)].Round(time.Millisecond))
	fmt.Fprintf(&b, "an idle node sends %.0f bytes/s and knows %d nodes; %d of %d honest ones have a verified id\n", f.idle, f.table, f.verified, f.took)
	fmt.Fprintf(&b, "a victim that liars name gets %.2f queries of a lookup on average, %d at most; %.1f a minute of all nodes while they are idle", float64(f.victimAll)/float64(f.lookups), f.victimMost, f.victimIdle)
	return b.String()
}

// simulate has nodes join, some of them liars, and leave; then honest ones announce, and others look up.
func simulate(seed uint64, nodes int, share float64, kinds []int, logf func(string, ...any)) *simFigures {
	const (
		joining = 3 * time.Minute
		lying   = 5 * time.Minute // when the first liars begin: in a network in which no node has a verified id, none can have one
		settled = 12 * time.Minute
		idle    = 3 * time.Minute
		asking  = 6 * time.Minute
		life    = 60 * time.Minute // of a node, on average
		loss    = 0.02
	)
	net := newSimNet(seed, loss)
	l := newLiars(net)
	victim := net.watch(l.victim.Addr())

	join := func() *simNode {
		node := net.join(Config{Version: "SH01"}, 5)
		if len(kinds) > 0 && net.rng.Float64() < share {
			node.liar = true
			net.after(max(0, net.start.Add(lying).Sub(net.now)), func() {
				if !node.gone {
					liarKinds[kinds[net.rng.IntN(len(kinds))]].make(l, node)
				}
			})
		}
		return node
	}
	var churn func(node *simNode)
	churn = func(node *simNode) {
		net.after(time.Duration(net.rng.ExpFloat64()*float64(life)), func() {
			if node.gone {
				return
			}
			net.leave(node)
			if node.liar {
				l.nodes = slices.DeleteFunc(l.nodes, func(o *simNode) bool { return o == node })
			}
			churn(join())
		})
	}
	for range nodes {
		net.after(time.Duration(net.rng.Int64N(int64(joining))), func() { churn(join()) })
	}
	net.run(settled)
	logf("%v", net)

	honest := func() *simNode {
		for {
			if node := net.alive[net.rng.IntN(len(net.alive))]; !node.liar {
				return node
			}
		}
	}
	f := &simFigures{}

	// How much they send when nothing is looked up.
	before := make(map[*simNode]int64)
	for _, node := range net.alive {
		if !node.liar {
			before[node] = node.core.stats.BytesSent
		}
	}
	gotBefore := victim.packets
	net.run(idle)
	var sent int64
	var sizes []int
	n := 0
	for node, bytes := range before {
		if !node.gone {
			sent += node.core.stats.BytesSent - bytes
			sizes = append(sizes, node.core.fams[ipv4].table.size)
			n++
			f.took++
			if verifiedID(node.core.fams[ipv4].table.self, node.addr.Addr()) {
				f.verified++
			}
		}
	}
	slices.Sort(sizes)
	f.table = sizes[len(sizes)/2]
	f.idle = float64(sent) / float64(n) / idle.Seconds()
	f.victimIdle = float64(victim.packets-gotBefore) / idle.Minutes()

	// Announcers stay, and announce again and again.
	type announced struct {
		hash ID
		node *simNode
	}
	var all []announced
	for range 100 {
		a := announced{krpc.RandomID(net.rng), honest()}
		a.node.core.keep(net.now, Torrent{Hash: a.hash, Port: a.node.addr.Port()}, func(netip.Addr, []netip.AddrPort) {})
		net.touch(a.node)
		all = append(all, a)
	}
	net.run(3 * time.Minute)
	logf("%v", net)

	// Honest nodes look up what was announced by others that are still there.
	lookups := max(200, nodes/10)
	for range lookups {
		net.after(time.Duration(net.rng.Int64N(int64(asking))), func() {
			a, node := all[net.rng.IntN(len(all))], honest()
			for a.node.gone {
				a = all[net.rng.IntN(len(all))]
			}
			f.lookUp(net, victim, node, a.hash, a.node.addr)
		})
	}
	net.run(asking + time.Minute)
	logf("%v", net)
	return f
}

// lookUp looks for a peer that is there.
func (f *simFigures) lookUp(net *simNet, victim *simSink, node *simNode, hash ID, want netip.AddrPort) {
	began := net.now
	victimBefore := victim.from[node.addr]
	depth := make(map[netip.AddrPort]int) // how far from our own table
	node.got = func(from netip.AddrPort, b []byte) {
		var m krpc.Message
		if m.Parse(b) != nil || m.Kind != krpc.Response {
			return
		}
		for _, n := range m.Nodes {
			if d, ok := depth[n.Addr]; !ok || d > depth[from]+1 {
				depth[n.Addr] = depth[from] + 1
			}
		}
	}
	var lastFrom netip.AddrPort
	found := false
	s := &search{target: hash, method: krpc.GetPeers}
	inner := node.got
	node.got = func(from netip.AddrPort, b []byte) { lastFrom = from; inner(from, b) }
	s.found = func(_ netip.Addr, peers []netip.AddrPort) {
		if !found && slices.Contains(peers, want) {
			found = true
			f.first = append(f.first, net.now.Sub(began))
			f.hops = append(f.hops, depth[lastFrom]+1)
		}
	}
	s.ended = func(now time.Time) {
		f.lookups++
		if found {
			f.found++
		}
		f.queries = append(f.queries, s.walks[ipv4].lookup.asked)
		f.whole = append(f.whole, now.Sub(began))
		got := victim.from[node.addr] - victimBefore
		f.victimAll += got
		f.victimMost = max(f.victimMost, got)
		node.got = nil
	}
	node.core.start(s, node.core.fams[:]...)
	net.touch(node)
}

// A network of honest nodes and liars, small in an ordinary run. For the figures:
//
//	go test -v -timeout 60m -run 'TestSimulation$' ./internal/dht -nodes 10000 -liars each
func TestSimulation(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("many seconds of one goroutine")
	}
	var all []int
	for i := range liarKinds {
		all = append(all, i)
	}
	run := func(name string, share float64, kinds []int) {
		started := time.Now()
		f := simulate(*simSeed, *simNodes, share, kinds, t.Logf)
		t.Logf("%d nodes, liars: %s (took %v)\n%v", *simNodes, name, time.Since(started).Round(time.Second), f)
		require.GreaterOrEqual(t, float64(f.found), .99*float64(f.lookups), name)
	}
	switch *simLiars {
	case "none":
		run("none", 0, nil)
	case "":
		run("30 % of all kinds", .3, all)
	default:
		for i, kind := range liarKinds {
			if *simLiars == kind.name || *simLiars == "each" {
				run("30 % that "+kind.name, .3, []int{i})
			}
		}
		if *simLiars == "each" {
			run("30 % of all kinds", .3, all)
		}
	}
}
