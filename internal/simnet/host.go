package simnet

import (
	"fmt"
	"net/netip"
	"time"
)

// Host is a machine with one address. Several may share an address, as behind a router. The fields are set
// before the first connection of the host.
type Host struct {
	Delay  time.Duration // one way, between this host and the middle of the network
	Plan   func() Fault  // gives the fault of each new connection of this host; nil is none
	Tap    Tapper        // listens in on each new connection of this host; nil is none
	Buffer int           // bytes under way in a connection that this host sends on; 0 chooses as TCP would

	// Fail is asked before each call of the host and its sockets, and an error of it becomes that of the call. A call that
	// fails does nothing, but that what is closed is closed. nil is none.
	Fail func(call string) error

	net      *Network
	ip       netip.Addr
	up, down *link
	port     uint16 // the ephemeral port that was given out last
	guarded  bool   // see Firewall
	cut      bool   // nothing reaches it or leaves it, and no other host is told
}

// NewHost adds a machine. Rates are in bytes a second, 0 for no limit; delay is one way.
func (n *Network) NewHost(ip string, up, down float64, delay time.Duration) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &Host{net: n, ip: netip.MustParseAddr(ip), Delay: delay, port: 32767}
	h.up, h.down = &link{net: n, rate: up}, &link{net: n, rate: down}
	n.known[h.ip] = true
	return h
}

// Network is the network that the host is on.
func (h *Host) Network() *Network { return h.net }

// IP is the host's address.
func (h *Host) IP() netip.Addr { return h.ip }

// Addr is the host's address with a port.
func (h *Host) Addr(port uint16) netip.AddrPort { return netip.AddrPortFrom(h.ip, port) }

// Firewall lets in only what answers from now on, as a router does that translates addresses: no connection, and
// datagrams only from addresses to which the same socket has sent one.
func (h *Host) Firewall() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.guarded = true
}

// Unplug takes the host off the network, until Plug. Other hosts are not told: what they send is lost, and nothing
// comes any more.
func (h *Host) Unplug() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.cut = true
}

// Plug brings an unplugged host back. What was sent meanwhile stays lost.
func (h *Host) Plug() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.cut = false
}

// Open is how many connection ends and how many listeners, UDP sockets included, the host has open.
func (h *Host) Open() (conns, listeners int) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for c := range h.net.conns {
		if c.host == h {
			conns++
		}
	}
	for _, l := range h.net.listeners {
		if l.host == h {
			listeners++
		}
	}
	for _, p := range h.net.packets {
		if p.host == h {
			listeners++
		}
	}
	return conns, listeners
}

// Sent is how many bytes have passed the uplink.
func (h *Host) Sent() int64 { return h.up.passed() }

// Received is how many bytes have passed the downlink.
func (h *Host) Received() int64 { return h.down.passed() }

// Uplink is the rate of the uplink in bytes a second, 0 for no limit.
func (h *Host) Uplink() float64 { return h.up.rate }

// Downlink is the rate of the downlink in bytes a second, 0 for no limit.
func (h *Host) Downlink() float64 { return h.down.rate }

// UnderWay is how many bytes other hosts have written to connections with the host and the host has not read.
func (h *Host) UnderWay() (n int64) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for c := range h.net.conns {
		if c.host == h {
			n += int64(c.in.under)
		}
	}
	return n
}

// Clearing is how long the uplinks of other hosts need for what is under way to the host, and for more bytes
// on each connection. The uplinks must have limits.
func (h *Host) Clearing(more int) (d time.Duration) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for c := range h.net.conns {
		if c.host == h {
			d = max(d, time.Duration(float64(c.in.under+more)/c.in.from.up.rate*float64(time.Second)))
		}
	}
	return d
}

// ephemeral is a port that nothing on the address uses. The caller holds h.net.mu.
func (h *Host) ephemeral() uint16 {
	for {
		h.port = max(h.port+1, 32768)
		if h.net.listeners[h.Addr(h.port)] == nil && h.net.packets[h.Addr(h.port)] == nil {
			return h.port
		}
	}
}

// fail is the error with which a call fails, or nil.
func (h *Host) fail(call string) error {
	if h.Fail == nil {
		return nil
	}
	return h.Fail(call)
}

// String is the address.
func (h *Host) String() string { return fmt.Sprint(h.ip) }
