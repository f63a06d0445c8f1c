// Package utp implements the transport of BEP 29: connections that carry streams of bytes in both directions over
// UDP, and yield to other traffic.
//
// A Socket owns its connections and their timers. The owner of the UDP socket, a udpmux.Mux, gives it the
// packets that come in, and sends those that go out. Connections are net.Conns, which any goroutine may
// use; none of them has a goroutine of its own.
//
// The behaviour of a connection is decided by an endpoint: plain data that takes packets and the time, and produces
// packets. See endpoint.go. The rest of the package connects endpoints with callers.
package utp

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"

	crand "crypto/rand"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/netaddr"
)

// Network sends packets, as a udpmux.Mux does. It may be called from any goroutine.
type Network interface {
	// Send sends p to an address, as packets of segment bytes each and what is left in the last one; with a
	// segment of 0 as one packet. n is how many bytes of p went out, which is less than len(p) without an
	// error if there is no room for more for now.
	Send(p []byte, segment int, to netip.AddrPort) (n int, err error)
	// Probe sends one packet that no router may fragment. The error matches errors.ErrUnsupported if it cannot.
	Probe(p []byte, to netip.AddrPort) error
	// Addrs are the local addresses.
	Addrs() []netip.AddrPort
}

// Config says how a Socket works. The zero value of each field but Network is useful.
type Config struct {
	Network Network
	// Unconfirmed bounds the incoming connections whose other end has not proved that it receives packets at its
	// address. 0 is 1000.
	Unconfirmed int
	// Random is the source of the numbers that make connections hard to guess; nil is an unpredictable one.
	Random rand.Source
	// Account is charged with data that has arrived and is not read; nil charges nothing. When it is full, other ends are told
	// to send less, and the connection that holds the most and was read the least is ended.
	Account *account.Account
}

const (
	defaultUnconfirmed = 1000 // about 2 KiB each; in a flood from everywhere, one lasts until about as many SYNs have come
	backlog            = 64   // connections that wait to be accepted
	resetsPerSecond    = 20   // answers to packets that belong to no connection
)

// Socket is one end of many connections.
type Socket struct {
	network Network
	account *account.Account // may be nil
	began   time.Time
	blocks  blocks
	clock   clock

	unacknowledged unacknowledged
	guesses        guesses

	mu          sync.Mutex
	random      *rand.Rand
	conns       map[connKey]*conn
	unconfirmed []*conn // in the order of their addresses
	most        int     // unconfirmed
	listener    *listener
	closed      bool
	resets      tally // that were sent

	touchedMu sync.Mutex
	touched   []*conn // that have received something since the last Flush
	spare     []*conn // memory for touched
}

// connKey identifies the connection of a packet.
type connKey struct {
	addr netip.AddrPort
	id   uint16
}

// NewSocket returns a socket whose packets go out through c.Network. Those that come in have to be given to
// Receive.
func NewSocket(c Config) *Socket {
	if c.Random == nil {
		var seed [32]byte
		crand.Read(seed[:])
		c.Random = rand.NewChaCha8(seed)
	}
	if c.Unconfirmed == 0 {
		c.Unconfirmed = defaultUnconfirmed
	}
	s := &Socket{
		network: c.Network, account: c.Account, began: time.Now(),
		random: rand.New(c.Random), most: c.Unconfirmed,
		conns:          make(map[connKey]*conn),
		unacknowledged: unacknowledged{limit: unacknowledgedLimit},
	}
	s.clock.init(s)
	return s
}

// now is the time of endpoints. It is never 0.
func (s *Socket) now() time.Duration { return time.Since(s.began) + time.Second }

// Receive takes packets that came from one address, of segment bytes each and what is left in the last one. Flush
// acts on them. The caller may reuse p when Receive returns.
func (s *Socket) Receive(p []byte, segment int, from netip.AddrPort) {
	now := s.now()
	var pk packet
	for len(p) > 0 {
		if !pk.parse(p[:min(segment, len(p))]) {
			p = p[min(segment, len(p)):]
			continue
		}
		c, victim := s.find(from, &pk)
		if victim != nil {
			victim.drop()
		}
		if c == nil {
			s.stray(&pk.header, from, now)
			p = p[min(segment, len(p)):]
			continue
		}
		p = p[c.receive(p, segment, &pk, now):]
	}
}

// Flush acts on what was received: it acknowledges, sends what may now be sent, and wakes the callers that
// wait.
func (s *Socket) Flush() {
	s.touchedMu.Lock()
	list := s.touched
	s.touched, s.spare = s.spare[:0], nil
	s.touchedMu.Unlock()
	if len(list) == 0 {
		return
	}
	now := s.now()
	for _, c := range list {
		c.mu.Lock()
		c.touched = false
		c.update(now)
		c.mu.Unlock()
	}
	clear(list)
	s.touchedMu.Lock()
	s.spare = list
	s.touchedMu.Unlock()
}

// touch makes Flush update a connection.
func (s *Socket) touch(c *conn) {
	s.touchedMu.Lock()
	s.touched = append(s.touched, c)
	s.touchedMu.Unlock()
}

// find is the connection that a packet belongs to, or nil. A new SYN makes one, for which another may have
// to make room.
func (s *Socket) find(from netip.AddrPort, h *packet) (c, victim *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := h.id
	if h.kind == typeSyn {
		id++ // the id in answers to a SYN is also the one in the packets that follow it
	}
	if c := s.conns[connKey{from, id}]; c != nil {
		return c, nil
	}
	switch h.kind {
	case typeSyn:
		return s.answer(from, h)
	case typeReset:
		// Some name the connection as we do when we send, others as they do.
		for _, id := range [...]uint16{h.id - 1, h.id + 1} {
			if c := s.conns[connKey{from, id}]; c != nil && c.e.sendID == h.id {
				return c, nil
			}
		}
	}
	return nil, nil
}

// answer makes a connection that another end asks for, if there may be one. The caller holds s.mu.
func (s *Socket) answer(from netip.AddrPort, h *packet) (c, victim *conn) {
	if s.listener == nil || s.closed {
		return nil, nil
	}
	if len(s.unconfirmed) >= s.most {
		victim = s.victim(from.Addr())
		s.forget(victim)
	}
	c = s.newConn(from)
	c.e.answer(h, uint16(s.random.Uint32()), s.now())
	c.unconfirmed = true
	s.unconfirmed = slices.Insert(s.unconfirmed, s.firstAt(from.Addr()), c)
	s.conns[connKey{from, c.e.recvID}] = c
	return c, victim
}

// victim returns the unconfirmed connection that makes room for a newcomer: the one with the nearest address, if both may be of one
// network, so that no network takes the place of others. Otherwise it is a random one: in a flood from everywhere none can be
// distinguished, and most honest connections get through. The caller holds s.mu.
func (s *Socket) victim(newcomer netip.Addr) *conn {
	all, at, near := s.unconfirmed, s.firstAt(newcomer), 0
	for _, c := range all[max(at-1, 0):min(at+1, len(all))] {
		near = max(near, common(c.remote.Addr(), newcomer))
	}
	isNear := func(c *conn) bool { return common(c.remote.Addr(), newcomer) >= near }
	from := sort.Search(at, func(i int) bool { return isNear(all[i]) })
	end := at + sort.Search(len(all)-at, func(i int) bool { return !isNear(all[at+i]) })
	return all[from+s.random.IntN(end-from)]
}

// firstAt returns the place of the first unconfirmed connection whose address is not before a. The caller holds s.mu.
func (s *Socket) firstAt(a netip.Addr) int {
	at, _ := slices.BinarySearchFunc(s.unconfirmed, a, func(c *conn, a netip.Addr) int { return c.remote.Addr().Compare(a) })
	return at
}

// common returns the length of the common prefix of two addresses, if one owner may hold all of a network of that
// size; otherwise 0.
func common(a, b netip.Addr) (n int) {
	least := 16
	if a.Is6() {
		least = 32
	}
	if a.Is6() != b.Is6() {
		return 0
	}
	p, q := a.As16(), b.As16()
	n = bits.LeadingZeros64(binary.BigEndian.Uint64(p[:8]) ^ binary.BigEndian.Uint64(q[:8]))
	if n == 64 {
		n += bits.LeadingZeros64(binary.BigEndian.Uint64(p[8:]) ^ binary.BigEndian.Uint64(q[8:]))
	}
	if a.Is4() {
		n -= 96 // those of every mapped address
	}
	if n < least {
		return 0
	}
	return n
}

// newConn makes a connection that no packet can reach yet. The caller holds s.mu.
func (s *Socket) newConn(remote netip.AddrPort) *conn {
	c := &conn{s: s, remote: remote}
	c.e.init(&s.blocks, &s.guesses, remote.Addr().Is6(), s.now())
	c.e.withheld.begin(s.random.Uint64()|1, c.e.out.order)
	c.e.epoch = uint32(s.random.Uint64())
	if netaddr.IsLocal(remote.Addr()) {
		c.e.takes = largestLocal // no path of the Internet carries more than Ethernet does
	}
	c.readable.L, c.writable.L = &c.mu, &c.mu
	if s.account != nil {
		c.holder = s.account.Join(func() { go c.giveWay() })
	}
	return c
}

// confirm removes a connection from the unconfirmed ones. The caller holds s.mu.
func (s *Socket) confirm(c *conn) {
	if !c.unconfirmed {
		return
	}
	c.unconfirmed = false
	i := s.firstAt(c.remote.Addr())
	i += slices.Index(s.unconfirmed[i:], c)
	s.unconfirmed = slices.Delete(s.unconfirmed, i, i+1)
}

// forget removes a connection, so that no packet reaches it any more. The caller holds s.mu.
func (s *Socket) forget(c *conn) {
	key := connKey{c.remote, c.e.recvID}
	if s.conns[key] == c {
		delete(s.conns, key)
	}
	s.confirm(c)
}

// stray answers a packet that belongs to no connection.
func (s *Socket) stray(h *header, to netip.AddrPort, now time.Duration) {
	if h.kind == typeReset {
		return
	}
	s.mu.Lock()
	may := s.resets.lately(resetsPerSecond, now) <= resetsPerSecond-1 && !s.closed
	if may {
		s.resets.n++
	}
	seq := uint16(s.random.Uint32())
	s.mu.Unlock()
	if !may {
		return
	}
	b := s.blocks.allocate(smallBlock)
	defer s.blocks.release(b)
	// It acknowledges the packet that it answers, which proves that the reset is not forged.
	reset := header{kind: typeReset, id: h.id, stamp: stamp(now), seq: seq, ack: h.seq}
	reset.put(b, 0)
	s.network.Send(b[:headerSize], 0, to)
}

// localAddr returns our address as the other end sees it, as far as it is known.
func (s *Socket) localAddr(remote netip.AddrPort) Addr {
	for _, a := range s.network.Addrs() {
		if a.Addr().Is4() == remote.Addr().Is4() {
			return Addr(a)
		}
	}
	return Addr{}
}

// Close ends everything at once. The other ends are told, as far as one packet each tells them.
func (s *Socket) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.closed = true
	conns := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		conns = append(conns, c)
	}
	l := s.listener
	s.mu.Unlock()
	if l != nil {
		l.Close()
	}
	for _, c := range conns {
		c.abort(net.ErrClosed)
	}
	s.clock.stop()
	return nil
}
