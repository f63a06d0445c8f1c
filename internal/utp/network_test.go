package utp_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/utp"
)

// network joins sockets in memory, for a testing/synctest bubble.
type network struct {
	delay time.Duration

	mu    sync.Mutex
	loss  float64
	cut   bool // nothing arrives
	rand  *rand.Rand
	hosts map[netip.AddrPort]*host
	held  *account.Account                        // of all sockets; may be nil
	tap   func(p []byte, from, to netip.AddrPort) // hears every packet
}

// host is the network as one socket has it.
type host struct {
	n      *network
	addr   netip.AddrPort
	socket *utp.Socket
}

func newNetwork() *network {
	return &network{delay: 20 * time.Millisecond, rand: rand.New(rand.NewPCG(1, 1)), hosts: make(map[netip.AddrPort]*host)}
}

// socket is a new Socket on an address.
func (n *network) socket(t testing.TB, addr string, unconfirmed int) *utp.Socket {
	h := &host{n: n, addr: netip.MustParseAddrPort(addr)}
	h.socket = utp.NewSocket(utp.Config{Network: h, Unconfirmed: unconfirmed, Random: rand.NewPCG(2, uint64(h.addr.Port())), Account: n.held})
	n.mu.Lock()
	n.hosts[h.addr] = h
	n.mu.Unlock()
	t.Cleanup(func() { h.socket.Close() })
	return h.socket
}

func (h *host) Send(p []byte, segment int, to netip.AddrPort) (int, error) {
	h.n.send(p, segment, h.addr, to)
	return len(p), nil
}

func (n *network) send(p []byte, segment int, from, to netip.AddrPort) {
	if segment == 0 {
		segment = len(p)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var arrives []byte
	for b := p; len(b) > 0; {
		k := min(segment, len(b))
		if n.tap != nil {
			n.tap(b[:k], from, to)
		}
		if !n.cut && n.rand.Float64() >= n.loss {
			arrives = append(arrives, b[:k]...)
		}
		b = b[k:]
	}
	if dest := n.hosts[to]; dest != nil && len(arrives) > 0 {
		time.AfterFunc(n.delay, func() {
			dest.socket.Receive(arrives, segment, from)
			dest.socket.Flush()
		})
	}
}

func (h *host) Probe([]byte, netip.AddrPort) error { return errors.ErrUnsupported }
func (h *host) Addrs() []netip.AddrPort            { return []netip.AddrPort{h.addr} }

func (n *network) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

const here, there = "10.0.0.1:6881", "10.0.0.2:6881"

var thereAddr = netip.MustParseAddrPort(there)

// pair is a connection, and what it runs on.
type pair struct {
	n      *network
	s1, s2 *utp.Socket
	l      net.Listener
	c1, c2 net.Conn // dialled, accepted
}

func connect(t *testing.T) *pair { return connectOver(t, newNetwork()) }

func connectOver(t *testing.T, n *network) *pair {
	p := &pair{n: n}
	p.s1, p.s2 = p.n.socket(t, here, 0), p.n.socket(t, there, 0)
	l, err := p.s2.Listen()
	require.NoError(t, err)
	p.l = l
	p.c1, p.c2 = p.another(t)
	return p
}

func (p *pair) another(t *testing.T) (c1, c2 net.Conn) {
	c1, err := p.s1.Dial(t.Context(), thereAddr)
	require.NoError(t, err)
	c2, err = p.l.Accept()
	require.NoError(t, err)
	return c1, c2
}

// synPacket is a SYN as any host may send it.
func synPacket(id, seq uint16) []byte {
	p := make([]byte, 20)
	p[0] = 0x41
	binary.BigEndian.PutUint16(p[2:], id)
	binary.BigEndian.PutUint32(p[12:], 1<<20)
	binary.BigEndian.PutUint16(p[16:], seq)
	return p
}
