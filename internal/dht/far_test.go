package dht

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

// The nodes nearest to a torrent that we know may all be liars, who name only each other, though the nodes that store its peers are
// nearer. Every other lookup asks other nodes, which know these.
func TestLookupBesideLiarsInTheTable(t *testing.T) {
	net := newSimNet(3, 0)
	hash := krpc.RandomID(net.rng)
	node := net.join(Config{}, 0)
	table := &node.core.fams[ipv4].table
	table.rename(krpc.WithCommon(net.rng, hash, 0))

	// add adds a node whose id follows from its address and shares from least to most bits with the torrent.
	add := func(least, most int, answer func(r *krpc.Message) (late time.Duration)) krpc.Contact {
		c := krpc.Contact{Addr: net.address()}
		for c.ID = secureID(c.Addr.Addr(), net.rng); krpc.Common(c.ID, hash) < least || krpc.Common(c.ID, hash) > most; {
			c.Addr = net.address()
			c.ID = secureID(c.Addr.Addr(), net.rng)
		}
		there := &simNode{addr: c.Addr, core: newCore(net.now, &Config{IPv4: true}, rand.New(rand.NewPCG(1, 1)))}
		there.answer = func(from netip.AddrPort, b []byte) bool {
			var m krpc.Message
			if m.Parse(b) == nil && m.Kind == krpc.Query {
				r, late := krpc.Message{Kind: krpc.Response, TID: m.TID, Has: krpc.HasID | krpc.HasNodes, ID: c.ID, Token: []byte("token")}, time.Duration(0)
				if string(m.Method) == krpc.GetPeers {
					late = answer(&r)
				}
				net.send(c.Addr, from, r.Append(nil), late)
			}
			return true
		}
		net.nodes[c.Addr] = there
		return c
	}
	var liars, stores []krpc.Contact
	peer := net.address()
	for range 12 {
		stores = append(stores, add(13, 160, func(r *krpc.Message) time.Duration {
			r.Values = append(r.Values, peer)
			return 100 * time.Millisecond
		}))
	}
	for range 24 {
		liars = append(liars, add(9, 10, func(r *krpc.Message) time.Duration {
			for _, i := range net.rng.Perm(len(liars))[:8] {
				r.Nodes = append(r.Nodes, liars[i])
			}
			return 0
		}))
	}
	for i := range 150 {
		honest := add(0, 5, func(r *krpc.Message) time.Duration {
			r.Nodes = append(r.Nodes, stores[:8]...)
			return 100 * time.Millisecond
		})
		table.answered(net.now, honest, time.Second, false)
		if i < len(liars) {
			table.answered(net.now, liars[i], time.Millisecond, false)
		}
	}

	found := 0
	node.core.keep(net.now, Torrent{Hash: hash}, func(_ netip.Addr, peers []netip.AddrPort) {
		if slices.Contains(peers, peer) {
			found++
		}
	})
	net.touch(node)
	net.run(17 * time.Minute) // the second lookup begins within 16 minutes, or sooner without peers
	require.NotZero(t, found)
}
