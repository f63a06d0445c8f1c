package dht_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"crypto/ed25519"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/dht"
)

// network carries datagrams between nodes in a synctest bubble.
type network struct {
	t     *testing.T
	mu    sync.Mutex
	nodes map[netip.AddrPort]*dht.Node
	down  bool
	sent  int
}

func newNetwork(t *testing.T) *network {
	n := &network{t: t, nodes: make(map[netip.AddrPort]*dht.Node)}
	t.Cleanup(func() {
		n.mu.Lock()
		nodes := n.nodes
		n.nodes = nil
		n.mu.Unlock()
		for _, node := range nodes {
			node.Close()
		}
	})
	return n
}

func addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{21, byte(i >> 8), byte(i), 1}), 6881)
}

func addr6(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i), 15: 1}), 6881)
}

// join adds a node at its addresses, one of a family.
func (n *network) join(cfg dht.Config, at ...netip.AddrPort) *dht.Node {
	for _, a := range at {
		if a.Addr().Is4() {
			cfg.IPv4 = true
		} else {
			cfg.IPv6 = true
		}
	}
	cfg.Send = func(b []byte, to netip.AddrPort) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.sent++
		from := netip.AddrPort{}
		for _, a := range at {
			if a.Addr().Is4() == to.Addr().Is4() {
				from = a
			}
		}
		node := n.nodes[to]
		if n.down || !from.IsValid() {
			return errors.New("no route")
		}
		if node != nil {
			b = slices.Clone(b)
			time.AfterFunc(20*time.Millisecond, func() { node.Receive(b, from) })
		}
		return nil
	}
	cfg.Rand = rand.New(rand.NewPCG(uint64(at[0].Addr().As16()[15])+uint64(len(n.nodes)), 1))
	node := dht.New(cfg)
	n.mu.Lock()
	for _, a := range at {
		n.nodes[a] = node
	}
	n.mu.Unlock()
	return node
}

// crowd has n nodes join that know each other.
func (n *network) crowd(count int) (nodes []*dht.Node) {
	for i := range count {
		nodes = append(nodes, n.join(dht.Config{Nodes: []string{addr(0).String(), addr(i / 2).String()}}, addr(i)))
	}
	time.Sleep(3 * time.Minute)
	return nodes
}

func collect(ctx context.Context, n *dht.Node, hash dht.ID) (peers []netip.AddrPort, err error) {
	for p, e := range n.Peers(ctx, hash) {
		if e != nil {
			return peers, e
		}
		peers = append(peers, p)
	}
	return peers, nil
}

func TestAnnounceAndPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := newNetwork(t).crowd(40)
		hash := dht.ID{1, 2, 3}
		peers, err := collect(t.Context(), nodes[3], hash)
		require.NoError(t, err)
		require.Empty(t, peers)

		stored, err := nodes[5].Announce(t.Context(), dht.Torrent{Hash: hash, Port: 4321, Seed: true})
		require.NoError(t, err)
		require.GreaterOrEqual(t, stored, 8)
		stored, err = nodes[6].Announce(t.Context(), dht.Torrent{Hash: hash, ImpliedPort: true})
		require.NoError(t, err)
		require.GreaterOrEqual(t, stored, 8)

		peers, err = collect(t.Context(), nodes[3], hash)
		require.NoError(t, err)
		require.ElementsMatch(t, []netip.AddrPort{netip.AddrPortFrom(addr(5).Addr(), 4321), addr(6)}, peers)
		for p, err := range nodes[8].Peers(t.Context(), hash) {
			require.NoError(t, err)
			require.Contains(t, peers, p)
			break
		}

		seeds, others, err := nodes[7].Scrape(t.Context(), hash)
		require.NoError(t, err)
		require.Equal(t, 1, seeds)
		require.Equal(t, 1, others)
		require.Positive(t, nodes[3].Stats().Lookups)
		require.GreaterOrEqual(t, len(nodes[3].Nodes()), 8)
		require.Equal(t, addr(3).Addr(), nodes[3].Stats().External4)
	})
}

func TestItemsAcross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := newNetwork(t).crowd(30)
		ctx := t.Context()
		_, err := nodes[1].Get(ctx, dht.ID{1})
		require.ErrorIs(t, err, dht.ErrNotFound)

		value := []byte("996:" + strings.Repeat("x", 996))
		item := &dht.Item{Value: value}
		stored, err := nodes[1].Put(ctx, item, nil)
		require.NoError(t, err)
		require.GreaterOrEqual(t, stored, 8)
		got, err := nodes[2].Get(ctx, item.Target())
		require.NoError(t, err)
		require.Equal(t, value, got)

		key := ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", 32)))
		public := key.Public().(ed25519.PublicKey)
		_, err = nodes[2].GetSigned(ctx, public, []byte("salt"))
		require.ErrorIs(t, err, dht.ErrNotFound)
		for seq := range int64(3) {
			_, err = nodes[3].Put(ctx, dht.Sign(key, []byte("salt"), fmt.Appendf(nil, "i%de", seq), seq), nil)
			require.NoError(t, err)
			signed, err := nodes[4].GetSigned(ctx, public, []byte("salt"))
			require.NoError(t, err)
			require.Equal(t, seq, signed.Seq)
			require.Equal(t, fmt.Sprintf("i%de", seq), string(signed.Value))
			require.NoError(t, signed.Check())
		}
		var refusal *dht.Refusal
		_, err = nodes[3].Put(ctx, dht.Sign(key, []byte("salt"), []byte("i9e"), 1), nil)
		require.ErrorAs(t, err, &refusal)
		require.True(t, refusal.IsConflict())
		require.EqualValues(t, 302, refusal.Code)
		cas := int64(1)
		_, err = nodes[3].Put(ctx, dht.Sign(key, []byte("salt"), []byte("i9e"), 3), &cas)
		require.ErrorAs(t, err, &refusal)
		require.EqualValues(t, 301, refusal.Code)
		cas = 2
		_, err = nodes[3].Put(ctx, dht.Sign(key, []byte("salt"), []byte("i9e"), 3), &cas)
		require.NoError(t, err)
		// Another publishes it again without the key.
		signed, err := nodes[5].GetSigned(ctx, public, []byte("salt"))
		require.NoError(t, err)
		_, err = nodes[5].Put(ctx, signed, nil)
		require.NoError(t, err)

		_, err = nodes[3].Put(ctx, &dht.Item{Value: []byte("no bencode")}, nil)
		require.Error(t, err)
	})
}

func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := newNetwork(t).crowd(30)
		hash := dht.ID{9}
		var mu sync.Mutex
		var found []netip.AddrPort
		keep := func(i int) *dht.Kept {
			return nodes[i].Keep(dht.Torrent{Hash: hash, Port: uint16(1000 + i)}, func(_ netip.Addr, peers []netip.AddrPort) {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, peers...)
			})
		}
		first := keep(1)
		time.Sleep(time.Minute)
		second := keep(2)
		time.Sleep(20 * time.Second)
		peer := func(i int) netip.AddrPort { return netip.AddrPortFrom(addr(i).Addr(), uint16(1000+i)) }
		mu.Lock()
		require.Contains(t, found, peer(1))
		require.NotContains(t, found, peer(2))
		found = nil
		mu.Unlock()
		first.SetSeed(true)
		time.Sleep(17 * time.Minute)
		mu.Lock()
		require.Contains(t, found, peer(2), "it looks again after a quarter of an hour")
		mu.Unlock()
		require.Equal(t, 1, nodes[1].Stats().Torrents)

		// One whose peers are few looks sooner, but less and less so.
		before := nodes[2].Stats().Lookups
		for range 30 {
			second.Hurry()
			time.Sleep(30 * time.Second)
		}
		hurried := nodes[2].Stats().Lookups - before
		require.GreaterOrEqual(t, hurried, int64(3))
		require.LessOrEqual(t, hurried, int64(6))

		second.Close()
		second.Close()
		second.Hurry()
		require.Zero(t, nodes[2].Stats().Torrents)
		time.Sleep(50 * time.Minute)
		peers, err := collect(t.Context(), nodes[5], hash)
		require.NoError(t, err)
		require.Contains(t, peers, peer(1), "it is announced again and again")
		require.NotContains(t, peers, peer(2), "what is not is forgotten")
		seeds, _, err := nodes[7].Scrape(t.Context(), hash)
		require.NoError(t, err)
		require.Equal(t, 1, seeds)
	})
}

// Each family has a DHT of its own. A node of both finds one by the other.
func TestBothFamilies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork(t)
		var four, six, both []*dht.Node
		for i := range 10 {
			four = append(four, net.join(dht.Config{Nodes: []string{addr(0).String()}}, addr(i)))
			six = append(six, net.join(dht.Config{Nodes: []string{addr6(0).String()}}, addr6(i)))
		}
		for i := range 10 {
			known := []string{addr(i).String()}
			if i == 0 {
				known = append(known, addr6(0).String())
			}
			both = append(both, net.join(dht.Config{Nodes: append(known, addr(100).String())}, addr(100+i), addr6(100+i)))
		}
		time.Sleep(5 * time.Minute)
		for _, n := range both {
			s := n.Stats()
			require.Greater(t, s.Nodes4, 8)
			require.Greater(t, s.Nodes6, 8)
		}
		for _, n := range four {
			require.Zero(t, n.Stats().Nodes6)
		}
		hash := dht.ID{7}
		_, err := both[3].Announce(t.Context(), dht.Torrent{Hash: hash, Port: 77})
		require.NoError(t, err)
		peers, err := collect(t.Context(), four[2], hash)
		require.NoError(t, err)
		require.Equal(t, []netip.AddrPort{netip.AddrPortFrom(addr(103).Addr(), 77)}, peers)
		peers, err = collect(t.Context(), six[2], hash)
		require.NoError(t, err)
		require.Equal(t, []netip.AddrPort{netip.AddrPortFrom(addr6(103).Addr(), 77)}, peers)
		peers, err = collect(t.Context(), both[5], hash)
		require.NoError(t, err)
		require.Len(t, peers, 2)
	})
}

func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork(t)
		net.join(dht.Config{}, addr(0))
		net.join(dht.Config{Nodes: []string{addr(0).String()}}, addr(1))
		var mu sync.Mutex
		var asked []string
		lookUp := func(ctx context.Context, host string, _ uint16) ([]netip.Addr, error) {
			mu.Lock()
			asked = append(asked, host)
			mu.Unlock()
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			if host == "node.example" {
				return []netip.Addr{netip.MustParseAddr("::ffff:21.0.0.1")}, nil
			}
			return nil, errors.New("no such host")
		}
		n := net.join(dht.Config{Nodes: []string{"gone.example:1", "node.example:6881", "malformed", "node.example:99999"}, LookUp: lookUp}, addr(2))
		_, err := collect(t.Context(), n, dht.ID{1})
		require.NoError(t, err, "a lookup waits for the first nodes")
		require.Equal(t, 2, n.Stats().Nodes4)
		require.Contains(t, asked, "gone.example")

		n = net.join(dht.Config{Routers: []string{"gone.example:1"}, LookUp: lookUp}, addr(3))
		_, err = collect(t.Context(), n, dht.ID{1})
		require.ErrorIs(t, err, dht.ErrNoNodes)
		n.AddHost("node.example:6881")
		time.Sleep(5 * time.Minute)
		require.NotZero(t, n.Stats().Nodes4)
		n = net.join(dht.Config{}, addr(4))
		_, err = n.Announce(t.Context(), dht.Torrent{Hash: dht.ID{1}, Port: 1})
		require.ErrorIs(t, err, dht.ErrNoNodes)
		n.AddNode(addr(1))
		time.Sleep(time.Second)
		_, err = n.Announce(t.Context(), dht.Torrent{Hash: dht.ID{1}, Port: 1})
		require.NoError(t, err)
	})
}

func TestCancelAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork(t)
		nodes := net.crowd(10)
		net.mu.Lock()
		net.down = true
		net.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := collect(ctx, nodes[1], dht.ID{1})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = nodes[1].Get(ctx, dht.ID{1})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Positive(t, nodes[1].Stats().SendErrors)

		errs := make(chan error, 2)
		go func() {
			_, err := collect(t.Context(), nodes[2], dht.ID{1})
			errs <- err
		}()
		go func() {
			_, _, err := nodes[2].Scrape(t.Context(), dht.ID{1})
			errs <- err
		}()
		synctest.Wait()
		nodes[2].Close()
		require.ErrorIs(t, <-errs, dht.ErrClosed)
		require.ErrorIs(t, <-errs, dht.ErrClosed)
		queries := nodes[2].Stats().QueriesSent
		_, err = nodes[2].Put(t.Context(), &dht.Item{Value: []byte("i1e")}, nil)
		require.ErrorIs(t, err, dht.ErrClosed)
		_, err = collect(t.Context(), nodes[2], dht.ID{1})
		require.ErrorIs(t, err, dht.ErrClosed)
		require.Equal(t, queries, nodes[2].Stats().QueriesSent)
		nodes[2].Close()
		nodes[2].Receive([]byte("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"), addr(3))
		nodes[2].AddNode(addr(4))

		// With the network, everything comes back.
		time.Sleep(time.Hour)
		net.mu.Lock()
		net.down = false
		net.mu.Unlock()
		nodes[1].NetworkChanged(true, false)
		time.Sleep(30 * time.Second)
		_, err = collect(t.Context(), nodes[1], dht.ID{1})
		require.NoError(t, err)
	})
}

// An idle node has one goroutine.
// Names that are never answered, as the author of a torrent may have it, do not keep the routers from being asked.
func TestNamesThatAreNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork(t)
		net.join(dht.Config{}, addr(0))
		net.join(dht.Config{Nodes: []string{addr(0).String()}}, addr(1))
		n := net.join(dht.Config{
			Nodes:   []string{addr(9).String()}, // gone
			Routers: []string{"router.example:6881"},
			LookUp: func(ctx context.Context, host string, _ uint16) ([]netip.Addr, error) {
				if host == "router.example" {
					return []netip.Addr{addr(0).Addr()}, nil
				}
				select {
				case <-time.After(30 * time.Second):
				case <-ctx.Done():
				}
				return nil, errors.New("no answer")
			},
		}, addr(2))
		for i := range 60 {
			n.AddHost(fmt.Sprintf("stalls-%d.example:6881", i))
		}
		time.Sleep(time.Minute)
		require.NotZero(t, n.Stats().Nodes4)
	})
}

func TestGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := runtime.NumGoroutine()
		newNetwork(t).crowd(20)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Less(t, runtime.NumGoroutine()-before, 25)
	})
}
