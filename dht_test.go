package torrent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// dhtClient is a client on a simulated host that is in the DHT, and begins at some nodes.
func dhtClient(t *testing.T, h *simnet.Host, nodes ...string) *Client {
	c := simClient(t, h, nil)
	c.NoDHT, c.DHTNodes = false, append([]string{}, nodes...)
	return c
}

// dhtNetwork is so many clients that know of each other through the first, which is returned as host:port.
func dhtNetwork(t *testing.T, n *simnet.Network, count int) (router string) {
	for k := range count {
		h := n.NewHost(fmt.Sprintf("81.%d.0.1", k), 0, 0, 10*time.Millisecond)
		c := dhtClient(t, h)
		if k > 0 {
			c.DHTNodes = []string{router}
		} else {
			router = h.Addr(6881).String()
		}
		require.NoError(t, c.DHT().Stats().Err)
	}
	simnet.Sleep(time.Minute)
	return router
}

// A magnet link that names nothing but an info hash is resolved and downloaded by means of the DHT alone.
func TestDHTFindsPeers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		router := dhtNetwork(t, n, 20)
		content := newSimResolvable(t, 8, false)
		seeder := dhtClient(t, n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), router)
		simSeed(t, seeder, content)
		simnet.Sleep(time.Minute)
		require.Equal(t, 1, seeder.Stats().DHT.Torrents)

		leecher := dhtClient(t, n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond), router)
		began := time.Now()
		m := &Magnet{InfoHash: content.infoHash}
		tor, err := m.Resolve(t.Context(), &Options{Client: leecher})
		require.NoError(t, err)
		d, err := tor.Start(t.Context(), &Options{Client: leecher, Storage: newSimStorage(content).open, Seed: true})
		require.NoError(t, err)
		_, err = d.Wait()
		require.NoError(t, err)
		require.Less(t, time.Since(began), 20*time.Second)
	})
}

// Without a tracker the nodes of the DHT say how large a swarm is.
func TestDHTIsScraped(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		router := dhtNetwork(t, n, 20)
		content := newSimContent(1, 16<<10, 1<<20)
		lonely := simLeech(t, dhtClient(t, n.NewHost("80.0.1.1", 0, 0, 0), router), newSimContent(2, 16<<10, 1<<20))
		for k := range 3 {
			simSeed(t, dhtClient(t, n.NewHost(fmt.Sprintf("80.0.0.%d", k+1), 1, 0, 10*time.Millisecond), router), content)
		}
		simnet.Sleep(time.Minute)
		d := simLeech(t, dhtClient(t, n.NewHost("80.0.1.2", 0, 1, 10*time.Millisecond), router), content)
		simnet.Sleep(time.Minute)
		s, err := d.Scrape(t.Context())
		require.NoError(t, err)
		require.Equal(t, Scrape{Seeds: 3, Leechers: 1}, s)
		s, err = lonely.Scrape(t.Context())
		require.NoError(t, err, "it announced itself")
		require.Equal(t, Scrape{Leechers: 1}, s)
	})
}

// Nothing of a private torrent goes to the DHT, and a client that has no other does not join it.
func TestDHTNeverHearsOfPrivateTorrents(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		router := dhtNetwork(t, n, 5)
		content := newSimResolvable(t, 8, true)
		c := dhtClient(t, n.NewHost("80.0.0.1", 0, 0, 0), router)
		simSeed(t, c, content)
		simnet.Sleep(time.Hour)
		require.Nil(t, c.dhtMember.member())
		require.Empty(t, c.mux.Addrs(), "not even a socket")
		c.DHT()
		simnet.Sleep(time.Hour)
		require.Zero(t, c.Stats().DHT.Torrents)
	})
}

// Peers tell each other of their nodes, which is how a client without any finds the DHT (BEP 5).
func TestDHTNodesOfPeers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		router := dhtNetwork(t, n, 5)
		content := newSimContent(1, 16<<10, 64<<20)
		seed := dhtClient(t, n.NewHost("80.0.0.1", 100<<10, 0, 10*time.Millisecond), router)
		simSeed(t, seed, content)
		simnet.Sleep(time.Minute)
		newcomer := dhtClient(t, n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond))
		simLeech(t, newcomer, content, netip.MustParseAddrPort("80.0.0.1:6881"))
		simnet.Sleep(5 * time.Minute)
		require.GreaterOrEqual(t, newcomer.Stats().DHT.NodesIPv4, 5)
		require.NotEmpty(t, newcomer.DHT().Nodes())
	})
}

// Clients that know no node join at those that a torrent names (BEP 5), and find each other there.
func TestDHTNodesOfATorrent(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		router := dhtNetwork(t, n, 5)
		content := newSimContent(1, 16<<10, 1<<20)
		content.nodes = []string{"81.99.0.1:6881", router} // the first does not exist
		seed := dhtClient(t, n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond))
		simSeed(t, seed, content)
		simnet.Sleep(time.Minute)
		newcomer := dhtClient(t, n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond))
		d := simLeech(t, newcomer, content)
		simnet.Sleep(5 * time.Minute)
		require.NotZero(t, d.Stats().FromDHT)
		_, err := d.Wait()
		require.NoError(t, err)
	})
}

// An item that one client puts is available from any other.
func TestDHTItems(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		router := dhtNetwork(t, n, 10)
		one := dhtClient(t, n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), router).DHT()
		two := dhtClient(t, n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond), router).DHT()
		simnet.Sleep(time.Minute)
		value := []byte("12:Hello World!")
		target, err := one.Put(t.Context(), value)
		require.NoError(t, err)
		require.Equal(t, "e5f96f6f38320f0f33959cb4d3d656452117aadb", target.String(), "as in BEP 44")
		got, err := two.Get(t.Context(), target)
		require.NoError(t, err)
		require.Equal(t, value, got)
		_, err = two.Get(t.Context(), Hash{1})
		require.ErrorIs(t, err, ErrNotFound)
		_, err = one.Put(t.Context(), []byte("not bencoded"))
		require.ErrorContains(t, err, "put: ")

		public, private, err := ed25519.GenerateKey(bytes.NewReader(make([]byte, 32)))
		require.NoError(t, err)
		require.NoError(t, one.PutSigned(t.Context(), private, []byte("salt"), []byte("i1e"), 1))
		require.NoError(t, two.PutSigned(t.Context(), private, []byte("salt"), []byte("i2e"), 2))
		got, seq, err := one.GetSigned(t.Context(), public, []byte("salt"))
		require.NoError(t, err)
		require.Equal(t, "i2e", string(got))
		require.EqualValues(t, 2, seq)
		_, _, err = one.GetSigned(t.Context(), public, nil)
		require.ErrorIs(t, err, ErrNotFound)
		_, _, err = one.GetSigned(t.Context(), public[:5], nil)
		require.ErrorContains(t, err, "public key of 5 bytes")
		require.ErrorContains(t, one.PutSigned(t.Context(), private[:5], nil, []byte("i1e"), 1), "private key of 5 bytes")
	})
}

// Announce and Peers work without a download.
func TestDHTAnnounce(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		router := dhtNetwork(t, n, 10)
		one := dhtClient(t, n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), router).DHT()
		two := dhtClient(t, n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond), router).DHT()
		simnet.Sleep(time.Minute)
		require.NoError(t, one.Announce(t.Context(), Hash{7}, 4711))
		var found []netip.AddrPort
		for a, err := range two.Peers(t.Context(), Hash{7}) {
			require.NoError(t, err)
			found = append(found, a)
		}
		require.Equal(t, []netip.AddrPort{netip.MustParseAddrPort("80.0.0.1:4711")}, found)
	})
}

// Every method of the DHT of a client without it returns an error that says why.
func TestNoDHT(t *testing.T) {
	for name, c := range map[string]*Client{
		"by choice":                  {NoDHT: true, NoUTP: true, NoListen: true},
		"without a way to send":      {NoListen: true, Dial: new(net.Dialer).DialContext},
		"after the client is closed": {NoListen: true},
	} {
		want := ErrUnsupported
		if name == "after the client is closed" {
			want = ErrClosed
			require.NoError(t, c.Close())
		}
		d := c.DHT()
		require.ErrorIs(t, d.Stats().Err, want, name)
		require.Nil(t, d.Nodes())
		_, err := d.Get(t.Context(), Hash{})
		require.ErrorIs(t, err, want, name)
		_, err = d.Put(t.Context(), []byte("i1e"))
		require.ErrorIs(t, err, want, name)
		require.ErrorIs(t, d.Announce(t.Context(), Hash{}, 1), want, name)
		for _, err := range d.Peers(t.Context(), Hash{}) {
			require.ErrorIs(t, err, want, name)
		}
		require.NoError(t, c.Close())
	}
	_, err := (&Magnet{}).Resolve(t.Context(), &Options{Client: &Client{NoListen: true, NoDHT: true, NoUTP: true}})
	require.ErrorContains(t, err, "no peer to ask")
}

// dhtCalls are the methods of d that return errors, by name.
func dhtCalls(d *DHT) map[string]func(ctx context.Context) error {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	return map[string]func(ctx context.Context) error{
		"Peers": func(ctx context.Context) (last error) {
			for _, err := range d.Peers(ctx, Hash{1}) {
				last = err
			}
			return last
		},
		"Announce": func(ctx context.Context) error { return d.Announce(ctx, Hash{1}, 1) },
		"Get": func(ctx context.Context) error {
			_, err := d.Get(ctx, Hash{1})
			return err
		},
		"Put": func(ctx context.Context) error {
			_, err := d.Put(ctx, []byte("i1e"))
			return err
		},
		"GetSigned": func(ctx context.Context) error {
			_, _, err := d.GetSigned(ctx, key.Public().(ed25519.PublicKey), nil)
			return err
		},
		"PutSigned": func(ctx context.Context) error { return d.PutSigned(ctx, key, nil, []byte("i1e"), 1) },
	}
}

// A call that a context ends says so, and why; one whose context has ended asks no node.
func TestDHTContexts(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		d := dhtClient(t, n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), dhtNetwork(t, n, 5)).DHT()
		simnet.Sleep(time.Minute)
		cause := errors.New("no time")
		for name, call := range dhtCalls(d) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Millisecond, func() { cancel(cause) })
			for _, when := range []string{"on its way", "before"} {
				lookups := d.Stats().Lookups
				err := call(ctx)
				require.ErrorIs(t, err, context.Canceled, "%s, %s", name, when)
				require.ErrorIs(t, err, cause, "%s, %s", name, when)
				if when == "before" {
					require.Equal(t, lookups, d.Stats().Lookups, name)
				}
			}
		}
	})
}

// After its client is closed, a DHT still returns its nodes, and an error that says that it is closed.
func TestDHTAfterClose(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		c := dhtClient(t, n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), dhtNetwork(t, n, 5))
		d := c.DHT()
		simnet.Sleep(time.Minute)
		ended := make(chan error, 1)
		go func() { ended <- dhtCalls(d)["Get"](t.Context()) }()
		simnet.Sleep(time.Millisecond)
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-ended, ErrClosed)
		for name, call := range dhtCalls(d) {
			require.ErrorIs(t, call(t.Context()), ErrClosed, name)
		}
		require.ErrorIs(t, d.Stats().Err, ErrClosed)
		require.ErrorIs(t, c.Stats().DHT.Err, ErrClosed)
		require.NotEmpty(t, d.Nodes(), "for the next run")
	})
}

// Calls that cannot succeed say why, and ask no node.
func TestDHTRefusals(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		d := dhtClient(t, n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), dhtNetwork(t, n, 5)).DHT()
		simnet.Sleep(time.Minute)
		key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
		lookups := d.Stats().Lookups
		require.ErrorContains(t, d.Announce(t.Context(), Hash{1}, 0), "port 0")
		_, err := d.Put(t.Context(), fmt.Appendf(nil, "997:%997s", ""))
		require.ErrorContains(t, err, "1,000 bytes")
		require.ErrorContains(t, d.PutSigned(t.Context(), key, make([]byte, 65), []byte("i1e"), 1), "64 bytes")
		_, _, err = d.GetSigned(t.Context(), key.Public().(ed25519.PublicKey), make([]byte, 65))
		require.ErrorContains(t, err, "a salt of 65 bytes")
		require.Equal(t, lookups, d.Stats().Lookups)
		_, err = d.Put(t.Context(), fmt.Appendf(nil, "996:%996s", ""))
		require.NoError(t, err)
	})
}

// The DHT takes no more than four goroutines, among them those that read its sockets, which serve uTP and UDP trackers,
// too.
func TestDHTGoroutines(t *testing.T) {
	c := &Client{NoUTP: true, DHTNodes: []string{}, Listen: ":0"}
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	require.NoError(t, c.Open())
	// A goroutine inherits the labels of the one that starts it, so that no other goroutine of this process counts.
	pprof.Do(t.Context(), pprof.Labels("of", "the DHT"), func(context.Context) { require.NoError(t, c.DHT().Stats().Err) })
	var profile strings.Builder
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))
	n := 0
	for _, like := range regexp.MustCompile(`(?m)^(\d+) @.*\n# labels: {"of":"the DHT"}$`).FindAllStringSubmatch(profile.String(), -1) {
		k, err := strconv.Atoi(like[1])
		require.NoError(t, err)
		n += k
	}
	require.Positive(t, n)
	require.LessOrEqual(t, n, 4)
	t.Log(n, "goroutines")
}

// A node of the DHT that Allow refuses is neither asked nor answered, whatever its source.
func TestAllowInTheDHT(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		router := dhtNetwork(t, n, 5)
		s := newSpy(n.NewHost("85.0.0.1", 0, 0, 0))
		c := dhtClient(t, s.host, router, "81.2.0.1:6881")
		c.Dial, c.ListenPacket, c.hooks = nil, nil, s.hooks()
		refused := netip.MustParseAddr("81.2.0.1")
		c.Allow = func(a netip.Addr) bool { return a != refused }
		node := c.DHT()
		c.heardOfNode(netip.AddrPortFrom(refused, 6881))
		simnet.Sleep(10 * time.Minute)
		require.Equal(t, 4, node.Stats().NodesIPv4)
		require.NotEmpty(t, s.seen("DHT packet 81.1.0.1:"))
		require.Empty(t, s.seen("packet 81.2.0.1:"))
		for _, a := range node.Nodes() {
			require.NotContains(t, a, "81.2.0.1")
		}
	})
}

// A download that ends while a router gives the client another port is not announced to the DHT any more.
func TestDHTForgetsWhatEndsWhileThePortChanges(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		router := dhtNetwork(t, n, 3)
		c := dhtClient(t, n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), router)
		d := simSeed(t, c, newSimResolvable(t, 8, false))
		simnet.Sleep(time.Minute)
		require.Equal(t, 1, c.Stats().DHT.Torrents)
		f := d.discovery
		seeds := f.seeds
		f.seeds = func() bool {
			f.seeds = seeds
			f.keep(nil) // as at the end of the download
			return true
		}
		f.portChanged()
		require.Zero(t, c.Stats().DHT.Torrents)
		f.keep(c.dhtMember.member())
		f.portChanged()
		require.Equal(t, 1, c.Stats().DHT.Torrents)
	})
}
