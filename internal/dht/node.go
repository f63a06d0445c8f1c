package dht

import (
	"context"
	crand "crypto/rand"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
)

var (
	// ErrClosed means that the node was closed.
	ErrClosed = errors.New("DHT node closed")
	// ErrNoNodes means that no node answered, because we know none or cannot be reached.
	ErrNoNodes = errors.New("no DHT node answered")
	// ErrNotFound means that nodes answered, and none has the item.
	ErrNotFound = errors.New("not in the DHT")
)

const (
	lookAtOnce  = 8 // names that are looked up
	lookTimeout = 10 * time.Second
)

// maxSpare is how large a buffer of datagrams is kept for the next time.
const maxSpare = 64 << 10

// Config says how a node works. All of it is optional but Send and a family.
type Config struct {
	// Send sends a datagram to a node. It must not block, nor keep b. An error is counted, and otherwise the
	// same as a datagram that is lost. Several goroutines may call it at a time.
	Send func(b []byte, to netip.AddrPort) error

	IPv4, IPv6 bool     // whether there is a socket of the family
	Nodes      []string // host:port of nodes to begin with, such as those of an earlier run
	Routers    []string // host:port of well-known routers, asked while fewer than three nodes are known

	// LookUp returns the addresses of a host that Nodes, Routers or AddHost name, with the port of the node there.
	// If it is nil, only addresses are used. Several goroutines may call it at a time.
	LookUp func(ctx context.Context, host string, port uint16) ([]netip.Addr, error)

	Allow    func(netip.Addr) bool // which addresses are asked and answered; nil is all
	ReadOnly bool                  // answers no queries, and says so (BEP 43)
	Version  string                // what we say that we are, the key v: two letters and two bytes of version
	Rand     *rand.Rand            // the node's alone; nil draws a seed
}

// Routers are the well-known nodes at which a node without any other begins.
func Routers() []string {
	return []string{"dht.libtorrent.org:25401", "dht.transmissionbt.com:6881", "router.bittorrent.com:6881", "router.utorrent.com:6881"}
}

// Node takes part in the DHTs of IPv4 and IPv6. Its methods may be called by any goroutine.
type Node struct {
	cfg  Config
	ctx  context.Context // ends at Close
	stop context.CancelFunc
	wg   sync.WaitGroup
	wake chan struct{} // there is something to hand on, or to look up

	mu      sync.Mutex
	core    *core
	spare   packets // an empty buffer for the next datagrams
	timer   *time.Timer
	armed   time.Time // when the timer goes off
	names   []string  // to be looked up
	looking int       // goroutines that look them up
}

// New makes a node and starts its goroutine. It begins to look for nodes at once. The caller hands it
// datagrams by Receive.
func New(cfg Config) *Node {
	rng := cfg.Rand
	if rng == nil {
		var seed [32]byte
		crand.Read(seed[:]) // never fails
		rng = rand.New(rand.NewChaCha8(seed))
	}
	n := &Node{cfg: cfg, wake: make(chan struct{}, 1)}
	n.ctx, n.stop = context.WithCancel(context.Background())
	now := time.Now()
	n.core = newCore(now, &n.cfg, rng)
	n.timer, n.armed = time.NewTimer(0), now
	n.wg.Go(n.run)
	return n
}

// Close ends the node and all its operations.
func (n *Node) Close() {
	n.stop()
	n.wg.Wait()
}

// Closed reports whether the node was closed.
func (n *Node) Closed() bool { return n.ctx.Err() != nil }

// Receive takes a datagram that may be a message of the DHT. It does not keep b. It may send.
func (n *Node) Receive(b []byte, from netip.AddrPort) {
	if n.Closed() {
		return
	}
	n.mu.Lock()
	now := time.Now()
	n.core.receive(now, b, from)
	n.unlock(now)
}

// run is the node's goroutine: it keeps the time, and delivers results.
func (n *Node) run() {
	defer n.timer.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.timer.C:
			n.mu.Lock()
			now := time.Now()
			n.armed = time.Time{}
			n.core.tick(now)
			n.unlock(now)
		case <-n.wake:
			n.mu.Lock()
			batch := n.core.found
			n.core.found = nil
			n.names = append(n.core.lookUp, n.names...) // the last ones, such as routers, are wanted most
			n.core.lookUp = nil
			for range min(len(n.names), lookAtOnce-n.looking) {
				n.looking++
				n.wg.Go(n.lookUp)
			}
			n.mu.Unlock()
			for _, f := range batch {
				f.kept.found(f.by, f.peers)
			}
		}
	}
}

// unlock sets the timer for the next tick, releases the mutex, and sends the datagrams of the core.
func (n *Node) unlock(now time.Time) {
	if next := n.core.next(now); !next.Equal(n.armed) {
		n.armed = next
		n.timer.Reset(next.Sub(now))
	}
	var out packets
	if len(n.core.out.list) > 0 {
		out = n.core.out
		n.core.out, n.spare = n.spare, packets{}
	}
	if len(n.core.found) > 0 || len(n.core.lookUp) > 0 {
		select {
		case n.wake <- struct{}{}:
		default: // awake already
		}
	}
	n.mu.Unlock()
	if len(out.list) == 0 {
		return
	}

	var failed int64
	for b, to := range out.each {
		if n.ctx.Err() != nil || n.cfg.Send(b, to) != nil {
			failed++
		}
	}
	if cap(out.buf) > maxSpare {
		return
	}
	out.reset()
	n.mu.Lock()
	n.spare = out
	n.core.stats.SendErrors += failed
	n.mu.Unlock()
}

// lookUp is a goroutine that looks up names, one after the other. It ends with the last.
func (n *Node) lookUp() {
	for {
		n.mu.Lock()
		if len(n.names) == 0 || n.ctx.Err() != nil {
			n.looking--
			n.mu.Unlock()
			return
		}
		name := n.names[0]
		n.names = n.names[1:]
		n.mu.Unlock()

		addrs := n.resolve(name)

		n.mu.Lock()
		now := time.Now()
		n.core.resolved(now, name, addrs)
		n.core.tick(now)
		n.unlock(now)
	}
}

// resolve finds the addresses of host:port.
func (n *Node) resolve(name string) (addrs []netip.AddrPort) {
	host, service, err := net.SplitHostPort(name)
	if err != nil || n.cfg.LookUp == nil {
		return nil
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(n.ctx, lookTimeout)
	defer cancel()
	ips, _ := n.cfg.LookUp(ctx, host, uint16(port))
	for _, ip := range ips {
		addrs = append(addrs, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return addrs
}

// AddNode names an address at which there may be a node, such as a peer's that sent a PORT message. It is asked when
// the node needs others, and remembered if it answers.
func (n *Node) AddNode(a netip.AddrPort) {
	n.mu.Lock()
	now := time.Now()
	n.core.tell(now, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	n.unlock(now)
}

// AddHost names a node by host:port, such as a torrent's key nodes holds. It is looked up when there is need.
func (n *Node) AddHost(hostport string) {
	n.mu.Lock()
	now := time.Now()
	n.core.addHost(hostport)
	n.core.tick(now)
	n.unlock(now)
}

// NetworkChanged tells the node that its addresses have changed or that the network is back, and which families have
// a socket now. The node makes itself known there, and announces all torrents again.
func (n *Node) NetworkChanged(ipv4, ipv6 bool) {
	n.mu.Lock()
	now := time.Now()
	n.core.networkChanged(now, ipv4, ipv6)
	n.core.tick(now)
	n.unlock(now)
}

// Located tells the node of our external address, as a router says. Its id follows from that (BEP 42), unless other nodes
// agree on another address.
func (n *Node) Located(a netip.Addr) {
	n.mu.Lock()
	now := time.Now()
	n.core.located(now, a.Unmap())
	n.core.tick(now)
	n.unlock(now)
}

// Nodes returns nodes that answer, for Config.Nodes of a later run: up to 64 of each family.
func (n *Node) Nodes() (nodes []netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.core.fams {
		if h != nil {
			good := h.table.good()
			nodes = append(nodes, good[:min(len(good), 64)]...)
		}
	}
	return nodes
}

// Stats returns what the node has done so far.
func (n *Node) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.core.statsNow()
}

// Kept is a torrent that a node looks up and announces again and again.
type Kept struct {
	node *Node
	kept *kept
}

// Keep looks a torrent's peers up and announces it: now, and every 15 minutes or so until the Kept is
// closed, as evenly as queries allow. found sees peers as they are found, and the node that named them, and no peers at the end of each
// lookup. It is called by a goroutine of the node's, one call at a time, and must not block; it may be called one last time while Close runs.
func (n *Node) Keep(t Torrent, found func(by netip.Addr, peers []netip.AddrPort)) *Kept {
	n.mu.Lock()
	now := time.Now()
	k := &Kept{n, n.core.keep(now, t, found)}
	n.core.tick(now)
	n.unlock(now)
	return k
}

// Hurry makes the node look the torrent up sooner, because it has few peers: at the soonest a minute after the last
// time, and after twice as long for each further call in a row.
func (k *Kept) Hurry() {
	k.node.mu.Lock()
	now := time.Now()
	k.node.core.hurry(k.kept)
	k.node.core.tick(now)
	k.node.unlock(now)
}

// SetSeed sets whether we have all of the torrent.
func (k *Kept) SetSeed(seed bool) {
	k.node.mu.Lock()
	defer k.node.mu.Unlock()
	k.kept.Seed = seed
}

// Close ends it.
func (k *Kept) Close() {
	k.node.mu.Lock()
	defer k.node.mu.Unlock()
	k.node.core.forget(k.kept)
}

// Refusal is the error of a node that would not store.
type Refusal struct {
	Code int64 // of BEP 5 and BEP 44
	Text string
}

func (e *Refusal) Error() string {
	return "refused by a node: " + strconv.Quote(e.Text) + " (code " + strconv.FormatInt(e.Code, 10) + ")"
}

// IsConflict reports whether the item is there with a higher sequence number, or another than the one
// that was to be replaced.
func (e *Refusal) IsConflict() bool { return e.Code == krpc.CASMismatch || e.Code == krpc.SeqTooLow }
