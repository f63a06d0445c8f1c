package tracker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/udpmux"
)

// trackerRig is a simulated network with our host and the trackers that it announces to. Use it in a synctest bubble.
type trackerRig struct {
	t      *testing.T
	net    *simnet.Network
	me     *simnet.Host
	me6    *simnet.Host
	names  map[string][]netip.Addr // the lookup of a name that is missing never ends
	config Config

	mu      sync.Mutex
	mux     *udpmux.Mux
	noIPv6  bool
	hungry  bool // the download is hungry until peers are found
	fed     bool
	found   map[string][]netip.AddrPort
	foundAt time.Duration // when the first peers were found
	dropped []string
}

var (
	rigHash  = [20]byte([]byte("\x00 %+&=\xff~info.hash--/"))
	rigPeer  = netip.MustParseAddrPort("10.9.9.9:6881")
	rigPeer6 = netip.MustParseAddrPort("[fd00::99]:6881")
)

func newTrackerRig(t *testing.T, tiers ...[]string) *trackerRig {
	n := simnet.New()
	t.Cleanup(n.Close)
	r := &trackerRig{
		t: t, net: n, names: map[string][]netip.Addr{}, found: map[string][]netip.AddrPort{},
		me:  n.NewHost("10.0.0.1", 0, 0, 10*time.Millisecond),
		me6: n.NewHost("fd00::1", 0, 0, 10*time.Millisecond),
	}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, port, _ := net.SplitHostPort(addr)
		ips, err := r.lookup(ctx, host)
		if err != nil {
			return nil, err
		}
		for _, ip := range ips {
			if network == "tcp" || (network == "tcp4") == ip.Is4() {
				return r.host(ip).Dial(ctx, network, net.JoinHostPort(ip.String(), port))
			}
		}
		return nil, &net.AddrError{Err: "no suitable address", Addr: host}
	}
	client := NewHTTPClient(HTTPConfig{})
	for f := range netaddr.Families {
		transport := client.Transport.(*dualTransport).by[f]
		transport.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
		transport.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) { return dial(ctx, f.Network("tcp"), addr) }
	}
	t.Cleanup(client.CloseIdleConnections)
	r.config = Config{
		Tiers: tiers, InfoHash: rigHash, PeerID: [20]byte([]byte("-SH0001-abcdefghijkl")), Key: 0xabc123,
		HTTP:     client,
		UDP:      NewUDP(r.send, r.lookupFor),
		Pace:     NewPace(),
		Account:  account.New(0),
		Port:     func() uint16 { return 6881 },
		Progress: func() Progress { return Progress{Uploaded: 1, Downloaded: 2, Left: 3} },
		Hungry: func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.hungry && !r.fed
		},
		Found: func(url string, peers []netip.AddrPort) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if !r.fed {
				r.foundAt = r.net.Now()
			}
			r.fed = true
			r.found[url] = append(r.found[url], peers...)
		},
		Dropped: func(url string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.dropped = append(r.dropped, url)
		},
		Rand: rand.New(rand.NewPCG(1, 2)),
		Log:  slog.New(slog.DiscardHandler),
	}
	r.mux = udpmux.New(udpmux.Config{Listen: func(_ context.Context, network, addr string) (net.PacketConn, error) {
		switch {
		case network == "udp4":
			return r.me.ListenPacket(network, addr)
		case r.noIPv6:
			return nil, &net.OpError{Op: "listen", Net: network, Err: os.NewSyscallError("socket", syscall.EAFNOSUPPORT)}
		}
		return r.me6.ListenPacket(network, addr)
	}})
	r.mux.Handle(udpmux.Tracker, r.config.UDP.Receive, nil)
	t.Cleanup(func() { r.mux.Close() })
	return r
}

// send sends a datagram. It opens the sockets first, if they are not open yet.
func (r *trackerRig) send(p []byte, to netip.AddrPort) error {
	if err := r.mux.Open(r.t.Context(), 0); err != nil {
		return err
	}
	_, err := r.mux.Send(p, 0, to)
	return err
}

func (r *trackerRig) host(ip netip.Addr) *simnet.Host {
	if ip.Is4() {
		return r.me
	}
	return r.me6
}

func (r *trackerRig) lookupFor(ctx context.Context, host string, _ uint16) ([]netip.Addr, error) {
	return r.lookup(ctx, host)
}

func (r *trackerRig) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	r.mu.Lock()
	ips, ok := r.names[host]
	r.mu.Unlock()
	switch {
	case !ok:
		<-ctx.Done()
		return nil, ctx.Err()
	case len(ips) == 0:
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return ips, nil
}

// foundBy returns the peers that were found so far, by the URL of their tracker.
func (r *trackerRig) foundBy() map[string][]netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.found)
}

func (r *trackerRig) droppedURLs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.dropped)
}

// start creates an Announcer and runs it until the test ends or end is called.
func (r *trackerRig) start() (t *Announcer, end func()) { return r.run(New(r.config)) }

// run is start for an existing Announcer.
func (r *trackerRig) run(t *Announcer) (_ *Announcer, end func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	var running sync.WaitGroup
	running.Go(func() { t.Run(ctx) })
	end = func() { cancel(); running.Wait() }
	r.t.Cleanup(end)
	return t, end
}

// serve starts an HTTP server at port 80 of ip.
func (r *trackerRig) serve(ip string, answer http.HandlerFunc) {
	l, err := r.net.NewHost(ip, 0, 0, 40*time.Millisecond).Listen("tcp", ":80")
	if err != nil {
		r.t.Fatal(err)
	}
	s := &http.Server{Handler: answer}
	go s.Serve(l)
	r.t.Cleanup(func() { s.Close() })
}

// serveUDP opens a UDP socket at port 80 of ip. It calls receive with each datagram, and with a function that sends an answer.
func (r *trackerRig) serveUDP(ip string, receive func(p []byte, reply func([]byte))) *simnet.Host {
	h := r.net.NewHost(ip, 0, 0, 40*time.Millisecond)
	c, err := h.ListenPacket("udp", ":80")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	go func() {
		p := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(p)
			if err != nil {
				return
			}
			receive(slices.Clone(p[:n]), func(p []byte) { c.WriteTo(p, from) })
		}
	}()
	return h
}

// said records the events of the announces that a tracker received; "" is an announce without an event.
type said struct {
	mu     sync.Mutex
	events []string
	at     []time.Time
}

func (s *said) add(event string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, event)
	s.at = append(s.at, time.Now())
}

// take returns the events since its last call, separated by spaces. An announce without an event is `-`.
func (s *said) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := slices.Clone(s.events)
	for i, e := range events {
		if e == "" {
			events[i] = "-"
		}
	}
	s.events, s.at = nil, nil
	return strings.Join(events, " ")
}

// honest answers announces over HTTP with body.
func honest(s *said, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.add(r.URL.Query().Get("event"))
		fmt.Fprint(w, body)
	}
}

// onePeer is an answer with rigPeer.
const onePeer = "d8:completei5e10:incompletei7e8:intervali1800e5:peers6:\x0a\x09\x09\x09\x1a\xe1e"

// honestUDP answers connect, announce and scrape requests (BEP 15), and checks the connection id.
func honestUDP(s *said, peers []byte) func([]byte, func([]byte)) {
	return func(p []byte, reply func([]byte)) {
		be := binary.BigEndian
		if len(p) < 16 {
			return
		}
		action, transaction := be.Uint32(p[8:]), be.Uint32(p[12:])
		head := be.AppendUint32(be.AppendUint32(nil, action), transaction)
		switch {
		case action == 0 && be.Uint64(p) == 0x41727101980:
			s.add("connect")
			reply(be.AppendUint64(head, 0xc0ffee))
		case be.Uint64(p) != 0xc0ffee:
			reply(append(be.AppendUint32(be.AppendUint32(nil, 3), transaction), "unknown connection"...))
		case action == 1 && len(p) >= 98:
			s.add(event(be.Uint32(p[80:])).String())
			for _, n := range []uint32{1800, 7, 5} {
				head = be.AppendUint32(head, n)
			}
			reply(append(head, peers...))
		case action == 2:
			s.add("scrape")
			for _, n := range []uint32{5, 70, 7} {
				head = be.AppendUint32(head, n)
			}
			reply(head)
		}
	}
}

var compactPeer = []byte("\x0a\x09\x09\x09\x1a\xe1")

// serveHTTPScrape starts an HTTP server at port 80 of ip that answers scrapes only.
func (r *trackerRig) serveHTTPScrape(ip, body string) {
	r.serve(ip, func(w http.ResponseWriter, req *http.Request) {
		if !strings.HasPrefix(req.URL.Path[strings.LastIndex(req.URL.Path, "/"):], "/scrape") || req.URL.Query().Get("info_hash") != string(rigHash[:]) {
			http.NotFound(w, req)
			return
		}
		fmt.Fprint(w, body)
	})
}

// scrape is Announcer.Scrape with the errors joined.
func scrape(ctx context.Context, t *Announcer) (Scrape, error) {
	s, errs, ok := t.Scrape(ctx)
	if ok {
		return s, nil
	}
	all := []error{errors.New("none answered"), ctx.Err()}
	for _, err := range errs {
		all = append(all, err)
	}
	return s, errors.Join(all...)
}
