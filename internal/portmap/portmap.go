// Package portmap asks the routers of this machine to forward the listening port to it. It keeps the mapping as long
// as it is wanted, and deletes it at the end.
//
// A router is asked by PCP (RFC 6887), else by NAT-PMP (RFC 6886), else by UPnP (Internet Gateway
// Device 1 and 2). TCP and UDP share one external port where the router allows it. For IPv6, where
// nothing is translated, PCP opens the router's firewall. A mapping is renewed in time, made again after
// the router has restarted or forgotten it, and follows the machine to another router or address.
//
// The package owns its sockets, which it opens by the functions of its Config alone, and no other state.
// One Mapper is one listening port: Run is called once, from a goroutine of the caller's; Refresh may
// be called from any.
//
// There are packages for parts of this. They do not fit the promises of a client about its sockets and about
// strangers' answers: jackpal/go-nat-pmp and huin/goupnp open sockets of their own; goupnp reads answers without a
// bound and fetches whatever URL comes back, at 33,000 lines; libp2p/go-nat stands on both; none speaks PCP or sees
// that a router has restarted.
package portmap

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Protocol is a protocol for asking a router. They are tried in this order.
type Protocol uint8

const (
	PCP Protocol = iota
	NATPMP
	UPnP
	protocols // how many there are
)

func (p Protocol) String() string {
	return [protocols]string{PCP: "PCP", NATPMP: "NAT-PMP", UPnP: "UPnP"}[p]
}

// A Config says which port to map, and how to open sockets. It must not be changed after New.
type Config struct {
	Port     uint16 // where peers are listened for, and the external port that is asked for first
	TCP, UDP bool   // what to map it for

	// ListenPacket opens the UDP sockets, Dial the TCP connections to routers that speak UPnP. Both are
	// always given IP addresses.
	ListenPacket func(ctx context.Context, network, addr string) (net.PacketConn, error)
	Dial         func(ctx context.Context, network, addr string) (net.Conn, error)

	// Gateways returns the routers to ask. Nil is the function of this package.
	Gateways func() ([]Gateway, error)

	// Report is called whenever the mappings change, with all that are held, and with the reason why there
	// are no others. All calls come from the goroutine of Run. Nil is no report.
	Report func(held []Mapping, err error)

	Farewell time.Duration // how long deleting what is held may take once Run is to end; 0 is 2 s

	Rand io.Reader    // for nonces and ports; nil is that of crypto/rand
	Log  *slog.Logger // nil logs nothing
}

// A Mapping is a mapping that a router holds for this machine.
type Mapping struct {
	Gateway
	By       Protocol
	External netip.Addr // private if there is another router behind this one; zero if the router does not say
	TCP, UDP uint16     // external ports, which lead to Config.Port at Local; 0 is none
}

// sweep is how often the gateways are looked up.
const sweep = time.Minute

// A Mapper keeps one port mapped.
type Mapper struct {
	Config
	wake chan struct{} // of Run: a path has something to report, or Refresh was called

	mu      sync.Mutex
	paths   map[Gateway]*path // until their goroutines end
	look    bool              // the gateways are to be looked up
	refresh bool              // and every path is to check what it holds
}

// New returns a Mapper, which does nothing before Run.
func New(c Config) *Mapper {
	if c.Gateways == nil {
		c.Gateways = Gateways
	}
	if c.Farewell == 0 {
		c.Farewell = 2 * time.Second
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Rand = &lockedReader{r: c.Rand}
	return &Mapper{Config: c, wake: make(chan struct{}, 1), paths: make(map[Gateway]*path)}
}

// A lockedReader is for the goroutines of all paths.
type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(b)
}

// Refresh looks the gateways up and checks the mappings now, because the machine woke or its network changed.
func (m *Mapper) Refresh() {
	m.mu.Lock()
	m.look, m.refresh = true, true
	m.mu.Unlock()
	rouse(m.wake)
}

// rouse wakes the goroutine that receives from wake.
func rouse(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// Run keeps the port mapped until ctx ends. Then it deletes the mappings, which takes at most two
// seconds.
func (m *Mapper) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	ticks := time.NewTicker(sweep)
	defer ticks.Stop()
	held, said := []Mapping(nil), ""
	failed := m.follow(ctx, &running)
	for {
		now, err := m.mappings()
		err = errors.Join(failed, err)
		if text := textOf(err); !slices.Equal(now, held) || text != said {
			held, said = now, text
			if m.Report != nil {
				m.Report(slices.Clone(held), err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			failed = m.follow(ctx, &running)
		case <-m.wake:
			if m.takeLook() {
				failed = m.follow(ctx, &running)
			}
		}
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// takeLook reports whether the gateways are to be looked up, and has every path check what it holds if
// Refresh was called.
func (m *Mapper) takeLook() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refresh {
		for _, p := range m.paths {
			rouse(p.wake)
		}
	}
	look := m.look
	m.look, m.refresh = false, false
	return look
}

// follow starts a path for every present gateway, and ends the others.
func (m *Mapper) follow(ctx context.Context, running *sync.WaitGroup) error {
	if !m.TCP && !m.UDP {
		return nil
	}
	gateways, err := m.Gateways()
	if err != nil {
		m.Log.Warn("port mapping: look up gateways", "err", err)
		return err // what there was may be there still
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for g, p := range m.paths {
		if !slices.Contains(gateways, g) {
			p.leave()
		}
	}
	for _, g := range gateways {
		if m.paths[g] != nil {
			continue // a path that is still leaving is replaced when it has left
		}
		ctx, leave := context.WithCancel(ctx)
		p := newPath(m.Config, g)
		p.leave, p.changed = leave, func() { rouse(m.wake) }
		m.paths[g] = p
		running.Go(func() {
			defer leave()
			p.run(ctx)
			m.mu.Lock()
			defer m.mu.Unlock()
			delete(m.paths, g)
			m.look = true // it may have come back
			rouse(m.wake)
		})
	}
	if len(gateways) == 0 {
		return errNoGateway
	}
	return nil
}

var errNoGateway = errors.New("no router to ask for a port")

// mappings returns what is held, in the order of the gateways' addresses, and what failed.
func (m *Mapper) mappings() (held []Mapping, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, p := range m.paths {
		mapping, err := p.state()
		if mapping != (Mapping{}) {
			held = append(held, mapping)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	slices.SortFunc(held, func(a, b Mapping) int { return a.Local.Compare(b.Local) })
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return held, errors.Join(errs...)
}
