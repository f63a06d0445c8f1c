// Package udpmux shares one UDP socket a family of addresses between the DHT, UDP trackers and uTP, which
// are told apart by the first bytes of a packet.
//
// A Mux owns its sockets, and one goroutine for each that reads it and hands its packets on.
// Everything else may be called from any goroutine. Where the Linux kernel can, runs of packets to and from
// one address pass through it in one piece (segmentation offload), and packets are read in batches.
package udpmux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
)

// Config says how a Mux opens its sockets. Its zero value is useful.
type Config struct {
	// Listen opens a socket on "udp4" or "udp6", as net.ListenConfig does, which nil means. What it returns
	// may be anything; a *net.UDPConn is read and written faster.
	Listen func(ctx context.Context, network, addr string) (net.PacketConn, error)
	// Bind is the one address that the socket is bound to. The zero value is all addresses of both families.
	Bind netip.Addr
	// NoOffload leaves the kernel's segmentation offload alone, to compare, and to test what other systems do.
	NoOffload bool
}

// Mux is a pair of UDP sockets on one port number.
type Mux struct {
	config   Config
	families [2]*family // IPv4, IPv6
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu   sync.Mutex // held by Open
	open bool
}

// New returns a Mux that has no socket before Open.
func New(c Config) *Mux {
	if c.Listen == nil {
		c.Listen = new(net.ListenConfig).ListenPacket
	}
	m := &Mux{config: c}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	for i, network := range [...]string{"udp4", "udp6"} {
		m.families[i] = &family{mux: m, network: network, reopen: make(chan struct{}, 1)}
	}
	return m
}

// Handle has receive called with every packet of a kind that comes from now on, and flush, if it is not
// nil, after the packets that were read at once. The goroutines of both sockets call them, each for itself,
// so they must not wait. A packet is the caller's again when receive returns. Packets of a kind that has no
// receiver are dropped, and so are those from port 0. A nil receive ends it, though a call that has begun
// may still be under way.
func (m *Mux) Handle(k Kind, receive func(p []byte, from netip.AddrPort), flush func()) {
	var runs func(p []byte, segment int, from netip.AddrPort)
	if receive != nil {
		runs = func(p []byte, segment int, from netip.AddrPort) {
			for len(p) > 0 {
				n := min(segment, len(p))
				receive(p[:n:n], from)
				p = p[n:]
			}
		}
	}
	m.HandleRuns(k, runs, flush)
}

// HandleRuns is as Handle for those who take a run of packets at once, as they came from one address:
// packets of segment bytes each, and what is left in the last one.
func (m *Mux) HandleRuns(k Kind, receive func(p []byte, segment int, from netip.AddrPort), flush func()) {
	var r *receiver
	if receive != nil {
		r = &receiver{receive, flush}
	}
	for _, f := range m.families {
		f.receivers[k].Store(r)
	}
}

const portAttempts = 16

// Open opens the sockets on a port, the same for both families, or on one that is free if port is 0. A
// family that this machine does not have is no error if there is the other; it is tried again from time to
// time. If Open fails it may be called again; once it succeeded, it does nothing.
func (m *Mux) Open(ctx context.Context, port uint16) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return net.ErrClosed
	}
	if m.open {
		return nil
	}
	for attempt := 1; ; attempt++ {
		err := m.listen(ctx, port)
		if err == nil {
			break
		}
		// The number that one family got may be taken in the other.
		if port != 0 || attempt == portAttempts || !errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("listen for packets: %w", err)
		}
	}
	m.open = true
	for _, f := range m.families {
		if f.wanted() {
			m.running.Go(f.run)
		}
	}
	return nil
}

// listen opens both sockets or none. The caller holds m.mu.
func (m *Mux) listen(ctx context.Context, port uint16) error {
	var failed error
	opened := 0
	for _, f := range m.families {
		if !f.wanted() {
			continue
		}
		f.port = port
		err := f.listen(ctx)
		switch {
		case err == nil:
			opened++
			addr, _ := f.addr()
			port = addr.Port()
		case errors.Is(err, syscall.EADDRINUSE) || ctx.Err() != nil:
			m.shut()
			return err
		case failed == nil:
			failed = err
		}
	}
	if opened == 0 {
		return failed
	}
	for _, f := range m.families {
		f.port = port
	}
	return nil
}

func (m *Mux) shut() {
	for _, f := range m.families {
		f.close()
	}
}

// Addrs are the local addresses of the sockets that are open.
func (m *Mux) Addrs() (addrs []netip.AddrPort) {
	for _, f := range m.families {
		if a, ok := f.addr(); ok {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// Send sends p to an address, as packets of segment bytes each and what is left in the last one; with a
// segment of 0 as one packet. It does not wait: n is how many bytes of p went out, in whole packets, and
// less than len(p) without an error if the system's queue is full, which it may still be in a millisecond.
// An error concerns this packet and its destination alone; it is a *net.OpError or net.ErrClosed.
func (m *Mux) Send(p []byte, segment int, to netip.AddrPort) (n int, err error) {
	return m.family(to).send(p, segment, to, false)
}

// Probe sends one packet that no router may fragment. The error matches errors.ErrUnsupported where packets
// cannot be sent so: on systems other than Linux, and through what Config.Listen returns if it is no
// *net.UDPConn.
func (m *Mux) Probe(p []byte, to netip.AddrPort) error {
	_, err := m.family(to).send(p, 0, to, true)
	return err
}

func (m *Mux) family(to netip.AddrPort) *family {
	if to.Addr().Unmap().Is4() {
		return m.families[0]
	}
	return m.families[1]
}

// Reopen replaces the sockets, on the same port, as is needed on some systems after a network change.
func (m *Mux) Reopen() {
	for _, f := range m.families {
		f.renew()
	}
}

// Close closes the sockets. No receiver runs after it has returned, so none may call it.
func (m *Mux) Close() error {
	m.cancel()
	m.shut()
	m.mu.Lock() // an Open under way comes to its end
	m.shut()
	m.mu.Unlock() // since handlers may call Open before they return
	m.running.Wait()
	return nil
}

// addressFor is what a family's socket is to be bound to.
func (m *Mux) addressFor(port uint16) string {
	host := ""
	if m.config.Bind.IsValid() {
		host = m.config.Bind.Unmap().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
