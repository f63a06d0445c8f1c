package torrenttest

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/internal/simnet"
)

// delay is how long what one host sends takes to the middle of a Network.
const delay = 10 * time.Millisecond

// A Network is a network in memory, with a round trip of 40 ms between any two of its clients. It is for tests in a
// testing/synctest bubble, in which waiting takes no time. All methods may be called from any goroutine of the bubble.
type Network struct {
	tb  testing.TB
	net *simnet.Network

	mu    sync.Mutex
	hosts int
}

// NewNetwork returns a network that ends with the test. In a bubble tb is that of the function that synctest.Test calls.
func NewNetwork(tb testing.TB) *Network {
	n := &Network{tb: tb, net: simnet.New()}
	tb.Cleanup(n.net.Close)
	return n
}

// Join connects a client that was not opened yet to the network, instead of the machine's own, and returns the address at
// which it accepts peers. It sets Dial, HTTPClient, NoListen and NoDHT, and opens the client, which is closed with the test at the latest.
func (n *Network) Join(c *torrent.Client) netip.AddrPort {
	n.tb.Helper()
	addr, err := n.join(c)
	if err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() {
		c.Close()
		c.HTTPClient.CloseIdleConnections()
	})
	return addr
}

// Seed is the function of that name in the network.
func (n *Network) Seed(files map[string]string) (*torrent.Torrent, netip.AddrPort) {
	n.tb.Helper()
	return seed(n.tb, n, files, torrent.FSStorage(inMemory(files)))
}

// Liar is the function of that name in the network.
func (n *Network) Liar(files map[string]string) (*torrent.Torrent, netip.AddrPort) {
	n.tb.Helper()
	return seed(n.tb, n, files, lies)
}

// Tracker is the function of that name in the network.
func (n *Network) Tracker(peers ...netip.AddrPort) (announce string) {
	n.tb.Helper()
	return runTracker(n.tb, n, peers)
}

// host adds a machine to the network.
func (n *Network) host() *simnet.Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts++
	ip := netip.AddrFrom4([4]byte{10, byte(n.hosts >> 16), byte(n.hosts >> 8), byte(n.hosts)})
	return n.net.NewHost(ip.String(), 0, 0, delay)
}

func (n *Network) join(c *torrent.Client) (netip.AddrPort, error) {
	host := n.host()
	c.NoDHT, c.NoListen, c.Dial = true, true, host.Dial
	c.HTTPClient = &http.Client{Transport: &http.Transport{DialContext: host.Dial}}
	l, err := host.Listen("tcp", ":6881")
	if err != nil {
		return netip.AddrPort{}, err
	}
	return host.Addr(6881), c.Serve(l)
}

func (n *Network) listen() (net.Listener, error) { return n.host().Listen("tcp", ":80") }
