package sockets

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
)

// LookUp returns the addresses of a host, without those that Reaches reports false for. With a proxy it is an error: only
// the proxy looks up names, and it does not return addresses.
func (s *Sockets) LookUp(ctx context.Context, host string) (addrs []netip.Addr, err error) {
	switch {
	case s.proxy != nil:
		return nil, fmt.Errorf("look up %s: %w", host, errNoName)
	case s.config.System.LookUp != nil:
		addrs, err = s.config.System.LookUp(ctx, host)
	default:
		addrs, err = s.resolver().LookupNetIP(ctx, "ip", host)
	}
	return slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !s.Reaches(a) }), err
}

// resolver returns the resolver for names. If Config.Bind is set, it is Go's own resolver, whose queries come from the bound
// address too. A name server on this machine is refused then, because its own queries would not come from that address.
func (s *Sockets) resolver() *net.Resolver {
	if !s.config.Bind.IsValid() {
		return net.DefaultResolver
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if ip, err := netip.ParseAddrPort(addr); err != nil || s.isHere(ip.Addr().Unmap()) {
			return nil, fmt.Errorf("ask name server %s: %w", addr, errNameHere)
		}
		return s.dial(ctx, network, addr, nil)
	}}
}

// isHere reports whether a is an address of this machine, unless the bound address is a loopback one. In that case it reports
// false, because all traffic stays within the machine.
func (s *Sockets) isHere(a netip.Addr) bool {
	if s.config.Bind.IsLoopback() {
		return false
	}
	own, err := s.Addrs()
	return a.IsLoopback() || err == nil && slices.Contains(own, a)
}

// A Kind is a UDP protocol with which a host can be queried through a proxy to learn its address.
type Kind uint8

const (
	Tracker Kind = iota // BEP 15
	DHT                 // BEP 5
)

// LookUpFor returns a function that returns the addresses of a host that speaks protocol k at a UDP port. Without a proxy
// the function looks up the name. With one, it sends a query to the name through the proxy, and returns the address that
// the answer comes from.
func (s *Sockets) LookUpFor(k Kind) func(ctx context.Context, host string, port uint16) ([]netip.Addr, error) {
	return func(ctx context.Context, host string, port uint16) ([]netip.Addr, error) {
		if err := s.NoUDP(); err != nil {
			return nil, err
		}
		if s.proxy == nil {
			return s.LookUp(ctx, host)
		}
		a, err := s.ask(ctx, k, host, port)
		if err != nil {
			return nil, fmt.Errorf("look up %s by the proxy: %w", host, err)
		}
		return []netip.Addr{a}, nil
	}
}

// askTimeout is how long ask waits, for a UDP association and the answer together.
const askTimeout = 15 * time.Second

// An asking is a query that was sent to a name and is not answered yet.
type asking struct {
	port   uint16              // the port that the answer must come from
	is     func(p []byte) bool // reports whether p is the answer
	answer chan netip.Addr     // receives the sender; of capacity 1
}

// hostPort is a net.Addr with a host name.
type hostPort string

func (hostPort) Network() string  { return "udp" }
func (a hostPort) String() string { return string(a) }

// ask sends a query to a name through the proxy, repeats it until it is answered, and returns the address of the sender.
func (s *Sockets) ask(ctx context.Context, k Kind, host string, port uint16) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s.mu.Lock()
	r := s.relay
	s.mu.Unlock()
	if r == nil {
		return netip.Addr{}, net.ErrClosed
	}
	question, is := connectRequest()
	if k == DHT {
		question, is = ping()
	}
	a := &asking{port: port, is: is, answer: make(chan netip.Addr, 1)}
	r.mu.Lock()
	r.asked = append(r.asked, a)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.asked = slices.DeleteFunc(r.asked, func(b *asking) bool { return a == b })
		r.mu.Unlock()
	}()
	to := hostPort(net.JoinHostPort(host, strconv.Itoa(int(port))))
	for wait := time.Second; ; wait *= 2 {
		_, changed := r.current()
		if _, err := r.WriteTo(question, to); err != nil && r.error() != nil {
			return netip.Addr{}, r.error()
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-r.ctx.Done():
		case <-timer.C:
		case <-changed:
			wait = time.Second / 2
		case from := <-a.answer:
			timer.Stop()
			return from, nil
		}
		timer.Stop()
		if r.ctx.Err() != nil {
			return netip.Addr{}, net.ErrClosed
		}
		if ctx.Err() != nil {
			return netip.Addr{}, context.Cause(ctx)
		}
	}
}

// answers reports whether a packet answers one of the queries under way. If so, it passes the sender on to ask.
func (r *relay) answers(p []byte, from netip.AddrPort) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, a := range r.asked {
		if from.IsValid() && from.Port() == a.port && a.is(p) {
			a.answer <- from.Addr()
			r.asked = slices.Delete(r.asked, i, i+1)
			return true
		}
	}
	return false
}

// connectRequest returns a connect request to a UDP tracker (BEP 15), and a function that recognizes its answer.
func connectRequest() (question []byte, is func([]byte) bool) {
	question = binary.BigEndian.AppendUint64(nil, 0x41727101980)
	question = append(question, make([]byte, 8)...) // action 0
	rand.Read(question[12:])
	return question, func(p []byte) bool { return len(p) >= 16 && bytes.Equal(p[:8], question[8:]) }
}

// ping returns a ping query to a DHT node (BEP 5), and a function that recognizes its answer. The query is marked read-only
// (BEP 43), because the sender answers no queries.
func ping() (question []byte, is func([]byte) bool) {
	m := krpc.Message{Kind: krpc.Query, TID: make([]byte, 8), Method: []byte(krpc.Ping), Has: krpc.HasID, ReadOnly: true}
	rand.Read(m.TID)
	rand.Read(m.ID[:])
	return m.Append(nil), func(p []byte) bool {
		var answer krpc.Message
		return answer.Parse(p) == nil && answer.Kind == krpc.Response && bytes.Equal(answer.TID, m.TID)
	}
}
