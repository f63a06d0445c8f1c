package torrent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/blockpool"
	"github.com/shoal-go/torrent/internal/lsd"
	"github.com/shoal-go/torrent/internal/mse"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/portmap"
	"github.com/shoal-go/torrent/internal/printable"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/sockets"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/tracker"
	"github.com/shoal-go/torrent/internal/udpmux"
	"github.com/shoal-go/torrent/internal/utp"
	"github.com/shoal-go/torrent/internal/webseed"
)

// EncryptionPolicy says what to do about Message Stream Encryption, which hides from onlookers that
// a connection is BitTorrent's. It is no protection against a determined observer.
type EncryptionPolicy uint8

const (
	// PreferEncryption hides the handshake wherever the peer can, and connects in plain where it
	// cannot. What follows the handshake is encrypted if the peer insists.
	PreferEncryption EncryptionPolicy = iota
	// RequireEncryption encrypts everything (RC4), and connects to no peer that does not.
	RequireEncryption
	// DisableEncryption connects in plain, and to no peer that insists on more.
	DisableEncryption
)

var encryptionNames = [...]string{"prefer", "require", "disable"}

// String is prefer, require, disable, or the number of another policy.
func (p EncryptionPolicy) String() string { return nameOf(p, encryptionNames[:]) }

// methods are the methods that may follow an encrypted handshake, the preferred one first. PreferEncryption only
// hides the protocol, for which plain text after the handshake is enough and costs nothing.
func (p EncryptionPolicy) methods() mse.Options {
	if p == RequireEncryption {
		return mse.Options{Methods: []mse.Method{mse.RC4}}
	}
	return mse.Options{Methods: []mse.Method{mse.Plaintext, mse.RC4}}
}

// A Client holds what several downloads share: a listener, limits and a budget of connections and memory. The zero value is ready
// to use. Its fields must not be changed after Open, or after the first Start that names it. A table in the package
// documentation, under "Ways out", shows how Dial, ListenPacket, HTTPClient, Proxy, Bind and Allow affect each kind of traffic.
type Client struct {
	// Listen is the TCP address to accept peers on. Empty is any free port on all addresses.
	Listen string
	// NoListen accepts no peers, except from the listeners that Serve is given.
	NoListen bool
	// MaxPeers bounds the connections of all downloads together, beside each download's own bound; 0 is 2,000.
	MaxPeers int
	// DownloadLimit and UploadLimit bound the payload of all downloads together in bytes a second, and the metadata and
	// hashes that they send to peers. Nil is no limit, and a limit of 0 lets nothing pass. The limiters may be shared with
	// other clients, and changed while in use. They may have any burst; a burst of 0 is set to 16 KiB.
	DownloadLimit *rate.Limiter
	UploadLimit   *rate.Limiter
	// Encryption says whether connections are encrypted.
	Encryption EncryptionPolicy
	// LocalDiscovery looks for peers in the local network, by multicast (BEP 14). It never does so for private
	// torrents. Whether a magnet link is of a private torrent is known only once it is resolved.
	LocalDiscovery bool
	// NoDHT keeps the client out of the DHT (BEP 5). Otherwise the client joins it with the first download of a torrent
	// that is not private, or with the first call of DHT.
	NoDHT bool
	// DHTNodes are the nodes, as host:port, at which joining the DHT begins, such as DHT().Nodes() of an earlier run. Nil is the
	// well-known routers; an empty list is none, until a torrent or a peer names some.
	DHTNodes []string
	// NoUTP neither connects nor accepts by uTP (BEP 29), which yields to other traffic and passes some routers. Otherwise
	// peers are dialled by TCP, and a moment later by uTP, and the first connection that is made is used. uTP goes through
	// the UDP sockets of ListenPacket, which are bound to the host of Listen, if that is an IP address, and to its port.
	NoUTP bool
	// NoTCP connects and accepts by uTP alone.
	NoTCP bool
	// MapPorts asks the routers of this machine to forward a port, by PCP, NAT-PMP or UPnP, and tells trackers, the DHT and
	// peers the external port. The mapping is renewed as long as the client is open, and deleted at Close.
	MapPorts bool
	// Allow reports whether peers at an address may be dialled and accepted, and DHT nodes there queried and answered, no
	// matter where the address came from; nil allows all. Existing connections are not affected. Allow is called often, from
	// any goroutine, and must neither block nor call the client or a download.
	Allow func(netip.Addr) bool
	// Dial connects to peers by TCP; nil is a net.Dialer. Download.Close and Resolve wait until its connections are closed.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// ListenPacket opens the UDP sockets, one on "udp4" and one on "udp6", and another when one has failed; nil is a
	// net.ListenConfig. It may take its time until its context ends, as it does at Close. A socket that takes over three seconds
	// to write a packet has failed, and is closed. With Dial set and ListenPacket nil no UDP is sent at all, so that nothing
	// bypasses Dial.
	ListenPacket func(ctx context.Context, network, addr string) (net.PacketConn, error)
	// HTTPClient speaks to trackers and web seeds; nil is one of the client's own, closed with it. With Proxy or Bind, one whose
	// Transport is nil or an *http.Transport connects as they say. A Transport of another type is used as it is: the caller has
	// to make it obey them.
	HTTPClient *http.Client
	// Proxy is the URL of a proxy that all traffic goes through. Its scheme is "socks5" or "socks5h", with a user and password
	// if the proxy wants them, or "http", with which CONNECT is used. Connections to peers, trackers and web seeds go through it,
	// and with SOCKS also uTP, the DHT and UDP trackers, by UDP ASSOCIATE. If the proxy does not relay UDP, none is sent, and
	// Stats says so. Nothing bypasses the proxy: there is no listener, so peers cannot connect to the client, no local discovery
	// and no port mapping, whatever other fields say. Names are looked up at the proxy, with socks5 as with socks5h, because
	// local look-ups would reveal them. Only the proxy's own name is looked up locally; peers that are given by a host name are
	// left out. While the proxy is out of reach, it is tried again and all traffic waits. Dial and ListenPacket, if set, are
	// used to reach the proxy. UDP packets go to IPv4 addresses only.
	Proxy *url.URL
	// Bind is the one address of this machine that every socket is bound to: those for peers, trackers, web seeds, the DHT, uTP,
	// local discovery, port mapping and the look-ups of Go's own resolver. Where the system supports it, sockets are also bound
	// to the interface that has the address (on Linux, and on macOS and Windows, where this is untested). Addresses of the other
	// family are not used at all. If the address goes away, all traffic stops until it is back. Listen may name no other address.
	// A name server that cannot be reached from this address, such as one on the loopback, is not asked. Connections made by Dial
	// are refused unless they come from Bind; ListenPacket is given the address to bind to. The zero value is all addresses.
	Bind netip.Addr
	// Logger receives log records; nil discards them. Records about a download have the attributes torrent (its name) and
	// infohash; records about a magnet link that is being resolved have magnet and infohash. Further attributes are peer (an
	// address), tracker (a URL), piece (an index) and err (an error). These names are stable. A handler may call Stats.
	Logger *slog.Logger

	hooks hooks

	opening sync.Mutex // held by Open, taken before mu
	opened  bool       // guarded by opening

	// Fixed by Open.
	secret    [16]byte // that identities are drawn from
	log       *slog.Logger
	sockets   *sockets.Sockets
	http      *http.Client
	ownHTTP   bool
	webSeeds  *webseed.Client
	udp       *tracker.UDP
	moves     *rate.Limiter // of announces because our addresses have changed
	pace      *tracker.Pace
	mux       *udpmux.Mux      // of the UDP sockets
	mapper    *portmap.Mapper  // nil without MapPorts
	utp       *utp.Socket      // nil if there is none
	local     *lsd.Discovery   // nil if it is not wanted, or not available
	account   *account.Account // of the memory that strangers make us hold
	uploads   *ratelimit.Queue // of UploadLimit
	blockPool *blockpool.Pool
	ctx       context.Context // ended by Close
	cancel    context.CancelFunc
	opens     context.Context // of the opening of sockets: ended as soon as Close is called, which may wait for it
	stopOpens context.CancelFunc

	peers     atomic.Int64 // connections that budget counts, to read without the mutex
	swarms    atomic.Int64 // downloads and magnet links in registry, likewise
	readBack  readBack     // may be used without the mutex
	verifiers *storage.Workers
	calls     *storage.Quota // calls of storage, which may wait for a disk
	openings  *storage.Quota // of storage, likewise
	hashReads ration         // of blocks that are read for their hashes
	looks     ration         // of files that are looked at before uploads
	answers   answers        // has its own mutex
	dhtMember dhtMember      // has its own mutex
	transport transport      // has its own mutex
	packets   packetSockets  // has its own mutex
	refusals  atomic.Int32   // refused connections that are being closed
	tasks     sync.WaitGroup // all goroutines of the client

	mu         sync.Mutex
	closed     bool
	rng        *mathrand.Rand
	registry   registry
	budget     peerlist.Budget
	exchanges  peerlist.Exchanges
	mapped     portMappings
	handshakes peerlist.Handshakes // incoming connections in their handshake, each owned by a pendingHandshake
}

// Addr returns the address at which the client accepts peers. It is nil before Open or the first Start, and with
// NoListen.
func (c *Client) Addr() net.Addr { return c.transport.addr() }

// port is where we accept peers, or 0.
func (c *Client) port() uint16 {
	if a := c.Addr(); a != nil {
		return netaddr.Of(a).Port()
	}
	return 0
}

// Close stops every download. It returns once no goroutine of the client is left, except for those of downloads whose context has
// ended and whose disk hangs: for these it waits a few seconds. It must not be called by a function in Options or
// Client, or by a log handler: it waits for these.
func (c *Client) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	if c.stopOpens != nil {
		c.stopOpens()
	}
	c.mu.Unlock()
	if !c.isOpen() {
		return nil
	}
	var stopped sync.WaitGroup
	for d := range c.Downloads() {
		stopped.Go(func() { d.Close() })
	}
	stopped.Wait()
	if first {
		c.cancel()
		c.closeHandshakes()
		c.transport.close()
		if c.utp != nil {
			c.utp.Close()
		}
		c.dhtMember.leave()
		c.mux.Close()
		c.sockets.Close()
	}
	c.tasks.Wait()
	if c.ownHTTP {
		c.http.CloseIdleConnections()
	}
	return nil
}

// isOpen reports whether the client was opened, and waits for an Open under way.
func (c *Client) isOpen() bool {
	c.opening.Lock()
	defer c.opening.Unlock()
	return c.opened
}

// borrow delays Close until release is called.
func (c *Client) borrow() (release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	c.tasks.Add(1)
	return c.tasks.Done, nil
}

// hooks replace the operating system and the source of randomness in tests of this package. The zero value uses the
// real ones.
type hooks struct {
	listen          func(network, addr string) (net.Listener, error)
	listenMulticast func(network string, group netip.AddrPort) (net.PacketConn, error)
	lookup          func(ctx context.Context, host string) ([]netip.Addr, error)
	dial            func(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) // beside Client.Dial
	listenPacket    func(ctx context.Context, network, addr string) (net.PacketConn, error)
	addrs           func() ([]netip.Addr, error)                                       // of this machine
	wall            func() time.Time                                                   // a clock that goes on while the machine sleeps
	openFiles       func(storage.Content, string, *slog.Logger) (storage.Store, error) // what a directory is
	gateways        func() ([]portmap.Gateway, error)
	seed            uint64 // seeds everything random except keys; 0 is no fixed seed
	blockMemory     int64  // bytes of blocks of started pieces; 0 is blockpool.Limit
	heldMemory      int64  // bytes of what else strangers make us hold; 0 is account.Limit
}

// orSystem returns the hooks with the system in place of those that are not set.
func (h hooks) orSystem() hooks {
	if h.wall == nil {
		h.wall = time.Now
	}
	if h.openFiles == nil {
		h.openFiles = new(storage.Claims).OpenFiles
	}
	return h
}

// identity identifies the client to others in the swarm of one torrent. It differs in each swarm and each run, so
// that a peer which meets a client cannot tell which other torrents it has.
type identity struct {
	id  [20]byte
	key uint32 // that trackers know us by (BEP 7)
	lot uint64 // by which lots are drawn among networks; never sent
}

// identity returns the client's identity in the swarm of h. It stays the same as long as the client is open, because
// private trackers recognise clients by it.
func (c *Client) identity(h Hash) (who identity) {
	drawn := sha256.Sum256(append(c.secret[:], h[:]...))
	copy(who.id[copy(who.id[:], peerIDPrefix):], drawn[:])
	who.key = binary.BigEndian.Uint32(drawn[len(who.id):])
	who.lot = binary.BigEndian.Uint64(drawn[len(who.id)+4:])
	return who
}

// peerIDPrefix names the client and its version in peer ids (BEP 20).
const peerIDPrefix = "-SL0100-"

// Open makes the client ready and listens for peers. It is optional: the first Start that names the client opens it.
// After an error the client is as before and can be opened again. If the client is already open, Open does nothing;
// after Close it returns ErrClosed.
func (c *Client) Open() error {
	c.opening.Lock()
	defer c.opening.Unlock()
	if c.isClosed() {
		return ErrClosed
	}
	if c.opened {
		return nil
	}
	h := c.hooks.orSystem()
	ways, err := c.newSockets(h)
	if err != nil {
		return err
	}
	var l net.Listener
	if c.listens() && !c.NoTCP {
		addr := c.Listen
		if addr == "" {
			addr = ":0"
		}
		if l, err = ways.Listen(addr); err != nil {
			ways.Close()
			return fmt.Errorf("listen for peers: %w", err)
		}
	}
	c.mu.Lock()
	c.opened, c.hooks, c.sockets = true, h, ways
	c.mu.Unlock()
	c.prepare()
	if l != nil {
		c.acceptFrom(l)
	}
	if c.utp != nil && c.listens() {
		if err := c.listenUTP(); err != nil {
			c.log.Warn("no uTP", "err", err)
			if c.NoTCP {
				c.opened = false
				c.cancel()
				c.mux.Close()
				ways.Close()
				return fmt.Errorf("listen for peers: %w", err)
			}
			c.tasks.Go(c.openPacketsLater)
		}
	}
	if c.MapPorts {
		c.mapPorts()
	}
	if c.LocalDiscovery && c.Proxy == nil && (c.Dial == nil || c.ListenPacket != nil) {
		c.openLocal()
	}
	c.tasks.Go(c.watchNetwork)
	return nil
}

// openInTime is Open, but returns once ctx has ended: functions of the user's own may take their time.
func (c *Client) openInTime(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- c.Open() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("open client: %w", contextError(ctx))
	}
}

// prepare sets the fields that Open fixes.
func (c *Client) prepare() {
	c.drawSecret()
	c.log = slog.New(slog.DiscardHandler)
	if c.Logger != nil {
		c.log = slog.New(printable.Handler(c.Logger.Handler()))
	}
	c.prepareHTTP()
	c.account = account.New(c.hooks.heldMemory)
	c.webSeeds = webseed.NewClient(c.http, func(u *url.URL) bool { return tracker.Direct(c.http, u) }, c.account)
	c.hashReads.account = ratelimit.NewAccount(hashReadRate, hashReadsAtOnce, time.Now())
	c.looks.account = ratelimit.NewAccount(lookRate, lookRate, time.Now())
	c.moves = rate.NewLimiter(rate.Every(movesEvery), movesAtOnce)
	c.preparePackets()
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if !c.NoTCP {
		c.transport.dialTCP = c.sockets.Dial
	}
	if c.transport.timeout = dialTimeout; c.Proxy != nil {
		c.transport.timeout = proxyDialTimeout
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uploads = ratelimit.NewQueue(c.UploadLimit)
	if c.opens, c.stopOpens = context.WithCancel(c.ctx); c.closed {
		c.stopOpens()
	}
	c.blockPool = blockpool.New(blockSize, c.hooks.blockMemory)
	c.verifiers, c.calls, c.openings = storage.NewWorkers(), storage.NewQuota(storage.MaxCalls), storage.NewQuota(storage.MaxOpening)
	c.registry.init()
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// acceptFrom accepts peers from a listener until the client is closed.
func (c *Client) acceptFrom(l net.Listener) {
	c.transport.add(l)
	c.tasks.Go(func() { c.accept(l) })
}

// Serve accepts peers from l, in addition to the address of Listen, and returns at once. The client closes l when it
// is closed, or at once if Serve returns an error. With NoListen, trackers are told the port of the first such
// listener. Download.Close and Resolve wait until connections from l are closed.
func (c *Client) Serve(l net.Listener) error {
	if l == nil {
		return errors.New("serve: no listener")
	}
	err := c.Open()
	if err == nil {
		var release func()
		if release, err = c.borrow(); err == nil {
			defer release()
			if c.Proxy != nil {
				err = fmt.Errorf("accept peers beside Client.Proxy: %w", ErrUnsupported)
			} else {
				c.acceptFrom(l)
			}
		}
	}
	if err != nil {
		l.Close()
	}
	return err
}

// drawSecret draws the client's secret, and seeds its source of randomness.
func (c *Client) drawSecret() {
	rand.Read(c.secret[:])
	seed := [2]uint64{mathrand.Uint64(), mathrand.Uint64()}
	if c.hooks.seed != 0 {
		seed = [2]uint64{c.hooks.seed, c.hooks.seed}
		c.secret = [16]byte{}
		binary.BigEndian.PutUint64(c.secret[:], c.hooks.seed)
	}
	c.rng = mathrand.New(mathrand.NewPCG(seed[0], seed[1]))
}

// newRand returns a new source of randomness for a download.
func (c *Client) newRand() *mathrand.Rand {
	c.mu.Lock()
	defer c.mu.Unlock()
	return mathrand.New(mathrand.NewPCG(c.rng.Uint64(), c.rng.Uint64()))
}

func (c *Client) openLocal() {
	c.local = lsd.New(lsd.Config{Listen: c.listenMulticast, Port: c.port, Cookie: c.rng.Uint64(), Log: c.log})
	c.tasks.Go(func() { c.local.Run(c.ctx) })
}

// hasLocal reports whether peers in the local network can be found.
func (c *Client) hasLocal() bool { return c.local != nil && c.local.Joined() }

// lookLocally looks for peers of a torrent in the local network, if the client does that at all, until
// stop is called.
func (c *Client) lookLocally(hash Hash, found func(netip.AddrPort) bool) (stop func()) {
	if c.local == nil {
		return func() {}
	}
	return c.local.Join(hash, found)
}
