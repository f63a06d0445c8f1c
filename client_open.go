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
	"net/netip"
	"net/url"
	"runtime"
	"time"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/blockpool"
	"github.com/shoal-go/torrent/internal/lsd"
	"github.com/shoal-go/torrent/internal/portmap"
	"github.com/shoal-go/torrent/internal/printable"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/tracker"
	"github.com/shoal-go/torrent/internal/webseed"
)

// hooks are the seams that tests of this package use in place of the system and of chance. Their zero
// value is the real thing.
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
	seed            uint64 // of all that is drawn by lot but for keys; 0 is none
	blockMemory     int64  // bytes of blocks of started pieces; 0 is blockpool.Limit
	heldMemory      int64  // bytes of what else strangers have us hold; 0 is account.Limit
}

// orSystem returns the hooks with the system in place of those that are not set.
func (h hooks) orSystem() hooks {
	if h.wall == nil {
		h.wall = time.Now
	}
	if h.openFiles == nil {
		h.openFiles = storage.OpenFiles
	}
	return h
}

// identity is what others know the client by, in the swarm of one torrent. It is another one in each swarm and
// each run, so that no one can tell which torrents a client has from meeting it.
type identity struct {
	id  [20]byte
	key uint32 // that trackers know us by (BEP 7)
}

// identity is the client's in the swarm of h. It stays the same as long as the client lives, for private
// trackers count those that they know.
func (c *Client) identity(h Hash) (who identity) {
	drawn := sha256.Sum256(append(c.secret[:], h[:]...))
	copy(who.id[copy(who.id[:], peerIDPrefix):], drawn[:])
	who.key = binary.BigEndian.Uint32(drawn[len(who.id):])
	return who
}

// peerIDPrefix names the client and its version in peer ids (BEP 20).
const peerIDPrefix = "-SL0100-"

// Open makes the client ready and listens for peers, as the first Start that names it does otherwise. An error
// leaves the client as it was, to be opened again. Open of a client that is open does nothing; once it was closed
// it returns ErrClosed.
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
	c.opened, c.hooks, c.sockets = true, h, ways
	c.prepare()
	if l != nil {
		c.takeFrom(l)
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

// prepare sets what is fixed by Open.
func (c *Client) prepare() {
	c.drawSecret()
	c.log = slog.New(slog.DiscardHandler)
	if c.Logger != nil {
		c.log = slog.New(printable.Handler(c.Logger.Handler()))
	}
	c.prepareHTTP()
	c.webSeeds = webseed.NewClient(c.http, func(u *url.URL) bool { return tracker.Direct(c.http, u) })
	c.account = account.New(c.hooks.heldMemory)
	c.preparePackets()
	c.hashing = make(chan []byte, runtime.GOMAXPROCS(0))
	for range cap(c.hashing) {
		c.hashing <- nil
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if !c.NoTCP {
		c.transport.dialTCP = c.sockets.Dial
	}
	if c.transport.timeout = dialTimeout; c.Proxy != nil {
		c.transport.timeout = proxyDialTimeout
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocks = blockpool.New(blockSize, c.hooks.blockMemory)
	c.registry.init()
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// takeFrom accepts peers from a listener until the client is closed.
func (c *Client) takeFrom(l net.Listener) {
	c.transport.add(l)
	c.tasks.Go(func() { c.accept(l) })
}

// Serve accepts peers from l, beside what Listen says, and returns at once. The client closes l when it is closed,
// or at once if that is an error. With NoListen, what trackers are told is the port of the first such listener.
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
				c.takeFrom(l)
			}
		}
	}
	if err != nil {
		l.Close()
	}
	return err
}

// drawSecret draws the client's secret, and seeds its source of chance.
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

// newRand returns a source of chance of its own, for a download.
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
