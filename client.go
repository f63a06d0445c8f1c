package torrent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/mse"
)

// EncryptionPolicy says what to do about Message Stream Encryption, which hides from onlookers that
// a connection is BitTorrent's. It is no protection against somebody who means it.
type EncryptionPolicy uint8

const (
	// PreferEncryption hides the handshake wherever the peer can, and connects in plain where it
	// cannot. What follows the handshake is encrypted if the peer insists.
	PreferEncryption EncryptionPolicy = iota
	// RequireEncryption encrypts everything (RC4), and connects to nobody who does not.
	RequireEncryption
	// DisableEncryption connects in plain, and to nobody who insists on more.
	DisableEncryption
)

// methods are what may follow an encrypted handshake, the preferred one first. Where all that is
// wanted is not to be recognised, plain text after it costs nothing.
func (p EncryptionPolicy) methods() mse.Options {
	if p == RequireEncryption {
		return mse.Options{Methods: []mse.Method{mse.RC4}}
	}
	return mse.Options{Methods: []mse.Method{mse.Plaintext, mse.RC4}}
}

// Client is what downloads share: one listener, limits and a budget of connections and memory. The
// zero value is ready to use. Its fields are fixed by the first Start that names it.
type Client struct {
	// Listen is the TCP address to accept peers on. Empty is any free port on all addresses.
	Listen string
	// NoListen accepts nobody.
	NoListen bool
	// MaxPeers bounds the connections of all downloads together; 0 is no bound beside each download's own.
	MaxPeers int
	// DownloadLimit and UploadLimit bound the payload of all downloads together in bytes a second.
	// Nil is no limit. They may be shared further, and changed while in use.
	DownloadLimit *rate.Limiter
	UploadLimit   *rate.Limiter
	// Encryption says whether connections are encrypted.
	Encryption EncryptionPolicy
	// LocalDiscovery looks for peers in the local network, by multicast (BEP 14). It never does so for
	// private torrents, and whether a magnet link is of one is known once it is resolved.
	LocalDiscovery bool
	// Dial connects to peers; nil is a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// HTTPClient speaks to trackers; nil is one of the client's own, closed with it.
	HTTPClient *http.Client
	// Logger is told what goes on; nil is silent.
	Logger *slog.Logger

	// Seams for tests: how to listen, how to look names up, the seed of all that is drawn by lot but for
	// keys, and what a directory is.
	listen          func(network, addr string) (net.Listener, error)
	listenPacket    func(network, addr string) (net.PacketConn, error)
	listenMulticast func(network string, group netip.AddrPort) (net.PacketConn, error)
	lookup          func(ctx context.Context, host string) ([]netip.Addr, error)
	seed            uint64
	openFiles       func(*Torrent, string, *slog.Logger) (contents, error)

	once    sync.Once
	openErr error

	// Fixed by open.
	id       [20]byte
	key      uint32 // that trackers know us by (BEP 7)
	log      *slog.Logger
	http     *http.Client
	ownHTTP  bool
	udp      *udpTransport
	local    *localDiscovery // nil if it is not wanted, or cannot be had
	listener net.Listener    // nil if we do not listen
	memory   blockMemory
	hashing  chan []byte     // scratch buffers, nil until needed: one for each goroutine that may hash pieces
	ctx      context.Context // ended by Close
	cancel   context.CancelFunc
	tasks    sync.WaitGroup

	mu        sync.Mutex
	rng       *mathrand.Rand
	closed    bool
	downloads map[Hash]*Download // nil while Start is about to begin it
	serving   map[Hash]*Download // those that take incoming connections
	streams   map[[20]byte]Hash  // their info hashes by what encrypted handshakes show of them
	dials     dialBudget
	peers     int         // connections of all downloads
	refused   time.Time   // when a download with less than its share of them was last refused one
	greeting  []*greeting // incoming connections in their handshake, oldest first
}

const (
	maxGreeting           = 100 // incoming connections in their handshake
	maxGreetingPerAddress = 3
	maxPerAddress         = 3 // connections of one download to one public address
)

// open makes the client ready, once.
func (c *Client) open() error {
	c.once.Do(func() { c.openErr = c.openOnce() })
	if c.openErr != nil {
		return c.openErr
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	return nil
}

func (c *Client) openOnce() error {
	seed := [2]uint64{c.seed, c.seed}
	copy(c.id[:], peerIDPrefix)
	if c.seed == 0 {
		seed = [2]uint64{mathrand.Uint64(), mathrand.Uint64()}
		rand.Read(c.id[len(peerIDPrefix):])
	}
	c.rng = mathrand.New(mathrand.NewPCG(seed[0], seed[1]))
	if c.seed != 0 {
		for k := len(peerIDPrefix); k < len(c.id); k++ {
			c.id[k] = byte(c.rng.Uint32())
		}
	}
	c.key = c.rng.Uint32()
	c.log = c.Logger
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.http = c.HTTPClient
	if c.http == nil {
		c.http, c.ownHTTP = newTrackerHTTP(), true
	}
	listenPacket := c.listenPacket
	if listenPacket == nil {
		listenPacket = net.ListenPacket
	}
	if c.lookup == nil {
		c.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	c.udp = newUDPTransport(listenPacket, c.lookup)
	c.memory.init()
	c.hashing = make(chan []byte, runtime.GOMAXPROCS(0))
	for range cap(c.hashing) {
		c.hashing <- nil
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.downloads = make(map[Hash]*Download)
	c.serving = make(map[Hash]*Download)
	c.streams = make(map[[20]byte]Hash)
	if !c.NoListen {
		if err := c.openListener(); err != nil {
			return err
		}
	}
	if c.LocalDiscovery {
		c.openLocal()
	}
	return nil
}

func (c *Client) openListener() error {
	listen := c.listen
	if listen == nil {
		listen = net.Listen
	}
	addr := c.Listen
	if addr == "" {
		addr = ":0"
	}
	l, err := listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listener = l
	c.tasks.Go(func() { c.accept(l) })
	return nil
}

func (c *Client) openLocal() {
	listen := c.listenMulticast
	if listen == nil {
		listen = listenMulticast
	}
	if c.local = newLocalDiscovery(listen, c.port, c.rng.Uint64(), c.log); c.local != nil {
		c.tasks.Go(func() { c.local.run(c.ctx) })
	}
}

// lookLocally looks for peers of a torrent in the local network, if the client does that at all, until
// stop is called.
func (c *Client) lookLocally(hash Hash, found func(netip.AddrPort) bool) (stop func()) {
	if c.local == nil {
		return func() {}
	}
	return c.local.join(hash, found)
}

// peerIDPrefix names the client and its version in peer ids (BEP 20).
const peerIDPrefix = "-SL0100-"

// newRand returns a source of its own, for a download.
func (c *Client) newRand() *mathrand.Rand {
	c.mu.Lock()
	defer c.mu.Unlock()
	return mathrand.New(mathrand.NewPCG(c.rng.Uint64(), c.rng.Uint64()))
}

// port is where we accept peers, or 0.
func (c *Client) port() uint16 {
	if a := c.Addr(); a != nil {
		if a, err := netip.ParseAddrPort(a.String()); err == nil {
			return a.Port()
		}
	}
	return 0
}

// Addr is where the client accepts peers, or nil: before the first Start, and with NoListen.
func (c *Client) Addr() net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener == nil {
		return nil
	}
	return c.listener.Addr()
}

// Downloads yields the downloads under way, sharing ones included, in no order.
func (c *Client) Downloads() iter.Seq[*Download] {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.downloads))
	c.mu.Unlock()
	all = slices.DeleteFunc(all, func(d *Download) bool { return d == nil })
	return slices.Values(all)
}

// Close stops every download and returns once nothing of the client runs any more.
func (c *Client) Close() error {
	c.once.Do(func() { c.openErr = ErrClosed })
	if c.openErr != nil {
		return nil
	}
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	var stopped sync.WaitGroup
	for d := range c.Downloads() {
		stopped.Go(func() { d.Close() })
	}
	stopped.Wait()
	if first {
		c.cancel()
		if c.listener != nil {
			c.listener.Close()
		}
		c.udp.Close()
	}
	c.tasks.Wait()
	if c.ownHTTP {
		c.http.CloseIdleConnections()
	}
	return nil
}

// add reserves the place of a download that is about to begin; begin or remove follows.
func (c *Client) add(d *Download) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if _, taken := c.downloads[d.t.infoHash]; taken {
		return fmt.Errorf("%w: %s by this client", ErrInUse, d.t.name)
	}
	c.downloads[d.t.infoHash] = nil
	d.added = true
	return nil
}

// begin has others see a download that was added, unless the client was closed since.
func (c *Client) begin(d *Download) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.downloads[d.t.infoHash] = d
	if !d.ownClient() {
		c.tasks.Add(1) // until run ends
	}
	return nil
}

// serve has incoming connections handed to d from now on.
func (c *Client) serve(d *Download) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving[d.t.infoHash] = d
	c.streams[mse.StreamID(d.t.infoHash)] = d.t.infoHash
}

// remove forgets a download that was added, the first time that it is called.
func (c *Client) remove(d *Download) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !d.added {
		return
	}
	d.added = false
	h := d.t.infoHash
	delete(c.downloads, h)
	delete(c.serving, h)
	delete(c.streams, mse.StreamID(h))
}

// borrow has Close wait until release is called.
func (c *Client) borrow() (release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	c.tasks.Add(1)
	return c.tasks.Done, nil
}

// accept takes connections until the listener is closed.
func (c *Client) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err == nil {
			c.welcome(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		c.log.Warn("accept", "err", err)
		select { // out of file handles, most likely: let some go first
		case <-time.After(tick):
		case <-c.ctx.Done():
			return
		}
	}
}

// A greeting is an incoming connection in its handshake.
type greeting struct {
	from netip.Addr
	conn net.Conn
}

// welcome shakes hands with a peer that connected. Where too many are at it, the one that has taken
// longest makes room: a handshake that is meant takes no longer than a few round trips.
func (c *Client) welcome(conn net.Conn) {
	addr, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	addr = unmap(addr)
	g := &greeting{addr.Addr(), conn}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || c.closed || !isLocal(g.from) && c.greetings(g.from) >= maxGreetingPerAddress {
		conn.Close()
		return
	}
	if len(c.greeting) >= maxGreeting {
		c.greeting[0].conn.Close()
		c.greeting = c.greeting[1:]
	}
	c.greeting = append(c.greeting, g)
	c.tasks.Go(func() { c.receive(g, addr) })
}

// greetings is how many of those in their handshake come from an address.
func (c *Client) greetings(from netip.Addr) (n int) {
	for _, g := range c.greeting {
		if g.from == from {
			n++
		}
	}
	return n
}

// receive hands a connection to the download that the peer asks for.
func (c *Client) receive(g *greeting, addr netip.AddrPort) {
	k, d, err := c.answer(c.ctx, g.conn, addr)
	c.mu.Lock()
	if i := slices.Index(c.greeting, g); i >= 0 {
		c.greeting = slices.Delete(c.greeting, i, i+1)
	}
	c.mu.Unlock()
	if err != nil {
		c.log.Debug("incoming", "peer", addr, "err", err)
		return
	}
	if !d.addPeer(k, sourceIncoming) {
		k.Close()
	}
}

func (c *Client) servingDownload(h Hash) *Download {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.serving[h]
}
