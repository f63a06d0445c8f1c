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

// LookUp returns the addresses of a host. With a proxy it is an error, as a proxy tells none.
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

// resolver looks up names. If everything is bound to one address that is Go's own, whose questions are, too. A name
// server on this machine is not asked then, as it would ask others by whichever way it likes.
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

// isHere reports whether an address is of this machine, and what is sent there is not seen by the interface that has Bind.
func (s *Sockets) isHere(a netip.Addr) bool {
	if s.config.Bind.IsLoopback() {
		return false
	}
	own, err := s.Addrs()
	return a.IsLoopback() || err == nil && slices.Contains(own, a)
}

// A Kind is a protocol by which a host can be asked where it is.
type Kind uint8

const (
	Tracker Kind = iota // BEP 15
	DHT                 // BEP 5
)

// LookUpFor returns a function that returns the addresses at which a host answers by a protocol of packets at a port.
// With a proxy it sends a question to the name, which the proxy alone looks up, and sees from where the answer comes.
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

// askTimeout is how long an answer is waited for, or for an association to ask through.
const askTimeout = 15 * time.Second

// An asking is a question that was sent to a name.
type asking struct {
	port   uint16
	is     func(p []byte) bool
	answer chan netip.Addr // of capacity 1
}

// hostPort is a name to send to.
type hostPort string

func (hostPort) Network() string  { return "udp" }
func (a hostPort) String() string { return string(a) }

// ask sends a question to a name until it is answered.
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

// answers reports whether a packet answers a question, which then has been answered.
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

// connectRequest is what an exchange with a UDP tracker begins with (BEP 15), and says which packet answers it.
func connectRequest() (question []byte, is func([]byte) bool) {
	question = binary.BigEndian.AppendUint64(nil, 0x41727101980)
	question = append(question, make([]byte, 8)...) // action 0
	rand.Read(question[12:])
	return question, func(p []byte) bool { return len(p) >= 16 && bytes.Equal(p[:8], question[8:]) }
}

// ping is a query to a DHT node, and says which packet answers it. We do not stay there to be asked in turn.
func ping() (question []byte, is func([]byte) bool) {
	m := krpc.Message{Kind: krpc.Query, TID: make([]byte, 8), Method: []byte(krpc.Ping), Has: krpc.HasID, ReadOnly: true}
	rand.Read(m.TID)
	rand.Read(m.ID[:])
	return m.Append(nil), func(p []byte) bool {
		var answer krpc.Message
		return answer.Parse(p) == nil && answer.Kind == krpc.Response && bytes.Equal(answer.TID, m.TID)
	}
}
