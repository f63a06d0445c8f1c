// Package simproxy has a SOCKS 5 proxy for tests in a simulated network, by TCP and UDP (RFC 1928), which knows names
// that nothing else does. Its methods may be called from any goroutine.
package simproxy

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/shoal-go/torrent/internal/simnet"
)

// A Proxy runs on a host, at port 1080.
type Proxy struct {
	Names map[string]netip.Addr
	NoUDP bool // as most proxies are

	host *simnet.Host

	mu    sync.Mutex
	l     net.Listener
	open  map[io.Closer]struct{}
	asked []string // what was connected or sent to, once each
}

// New returns a proxy that Start starts.
func New(h *simnet.Host) *Proxy {
	return &Proxy{host: h, Names: map[string]netip.Addr{}, open: map[io.Closer]struct{}{}}
}

// Start has the proxy accept clients.
func (p *Proxy) Start() error {
	l, err := p.host.Listen("tcp", ":1080")
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.l = l
	p.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return nil
}

// Stop ends the proxy and all that goes through it.
func (p *Proxy) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.l != nil {
		p.l.Close()
	}
	for c := range p.open {
		c.Close()
	}
}

// Asked is what clients had it connect to ("tcp host:port") or send to ("udp host:port"), each once.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

func (p *Proxy) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.asked, what) {
		p.asked = append(p.asked, what)
	}
}

func (p *Proxy) keep(c io.Closer) (done func()) {
	p.mu.Lock()
	p.open[c] = struct{}{}
	p.mu.Unlock()
	return func() {
		c.Close()
		p.mu.Lock()
		delete(p.open, c)
		p.mu.Unlock()
	}
}

func (p *Proxy) serve(c net.Conn) {
	defer p.keep(c)()
	b := make([]byte, 300)
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return
	}
	if _, err := io.ReadFull(c, b[:b[1]]); err != nil {
		return
	}
	c.Write([]byte{5, 0})
	if _, err := io.ReadFull(c, b[:3]); err != nil {
		return
	}
	command := b[1]
	to, ok := p.target(c)
	switch {
	case command == 3 && p.NoUDP:
		c.Write([]byte{5, 7, 0, 1, 0, 0, 0, 0, 0, 0})
	case command == 3:
		p.associate(c)
	case ok:
		p.connect(c, to)
	default:
		c.Write([]byte{5, 4, 0, 1, 0, 0, 0, 0, 0, 0})
	}
}

// target reads an address, and looks its name up.
func (p *Proxy) target(r io.Reader) (to netip.AddrPort, ok bool) {
	b := make([]byte, 256)
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return to, false
	}
	var ip netip.Addr
	switch kind := b[0]; kind {
	case 1, 4:
		n := int(kind) * 4
		if _, err := io.ReadFull(r, b[:n]); err != nil {
			return to, false
		}
		ip, _ = netip.AddrFromSlice(b[:n])
	case 3:
		io.ReadFull(r, b[:1])
		n := int(b[0])
		if _, err := io.ReadFull(r, b[:n]); err != nil {
			return to, false
		}
		ip = p.Names[string(b[:n])]
	}
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return to, false
	}
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b)), ip.IsValid()
}

func (p *Proxy) connect(c net.Conn, to netip.AddrPort) {
	p.note("tcp " + to.String())
	far, err := p.host.Dial(context.Background(), "tcp", to.String())
	if err != nil {
		c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	defer p.keep(far)()
	c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	both := make(chan struct{}, 2)
	pass := func(to, from net.Conn) {
		io.Copy(to, from)
		to.Close()
		from.Close()
		both <- struct{}{}
	}
	go pass(c, far)
	go pass(far, c)
	<-both
	<-both
}

// associate passes on packets until the connection ends.
func (p *Proxy) associate(c net.Conn) {
	inside, err := p.host.ListenPacket("udp4", ":0")
	if err != nil {
		return
	}
	defer p.keep(inside)()
	outside, err := p.host.ListenPacket("udp4", ":0")
	if err != nil {
		return
	}
	defer p.keep(outside)()
	var mu sync.Mutex
	var client net.Addr
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := inside.ReadFrom(b)
			if err != nil {
				return
			}
			mu.Lock()
			client = from
			mu.Unlock()
			r := &reader{b[3:n]}
			to, ok := p.target(r)
			if ok {
				p.note("udp " + to.String())
				outside.WriteTo(r.b, net.UDPAddrFromAddrPort(to))
			}
		}
	}()
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := outside.ReadFrom(b)
			if err != nil {
				return
			}
			mu.Lock()
			to := client
			mu.Unlock()
			a := from.(*net.UDPAddr).AddrPort()
			h := append([]byte{0, 0, 0, 1}, a.Addr().Unmap().AsSlice()...)
			h = binary.BigEndian.AppendUint16(h, a.Port())
			if to != nil {
				inside.WriteTo(append(h, b[:n]...), to)
			}
		}
	}()
	answer := append([]byte{5, 0, 0, 1}, p.host.IP().AsSlice()...)
	c.Write(binary.BigEndian.AppendUint16(answer, inside.LocalAddr().(*net.UDPAddr).AddrPort().Port()))
	io.Copy(io.Discard, c)
}

type reader struct{ b []byte }

func (r *reader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}
