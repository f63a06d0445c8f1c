package tracker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	udpSilence = 15 * time.Second // before the first retransmission; doubled each time (BEP 15)
	// udpRepeats is how many retransmissions there are before an announce fails and is repeated as one over HTTP is. BEP 15 has
	// eight, the last after an hour, so that a tracker that came back would not be asked for an hour, and announces of many torrents to
	// silent trackers would hold much memory meanwhile.
	udpRepeats      = 2
	udpConnectionID = time.Minute // lifetime of a connection id
	lookupTimeout   = 30 * time.Second
	maxHostAddrs    = 8 // of each family, of a tracker's host: a stranger may have named thousands, all other people's
)

// UDP is the client side of the UDP tracker protocol (BEP 15), for all downloads of a client. It may be used from any goroutine.
type UDP struct {
	send   func(p []byte, to netip.AddrPort) error
	lookup func(ctx context.Context, host string, port uint16) ([]netip.Addr, error)

	mu          sync.Mutex
	asked       map[udpQuestion]udpWaiter
	connections map[netip.AddrPort]udpConnection
}

// udpQuestion identifies a request by the address that it was sent to and its transaction id.
type udpQuestion struct {
	addr        netip.AddrPort
	transaction uint32
}

type udpWaiter struct {
	action udpAction
	answer chan<- []byte // of capacity 1; only the goroutine that removes the request from UDP.asked sends
}

type udpConnection struct {
	id    uint64
	until time.Time
}

// NewUDP returns a UDP that sends datagrams with send and looks up hosts with lookup. An error of send that concerns only the
// destination must be a *net.OpError. lookup gets the port of the tracker too. The caller passes received datagrams to Receive.
func NewUDP(
	send func(p []byte, to netip.AddrPort) error,
	lookup func(ctx context.Context, host string, port uint16) ([]netip.Addr, error),
) *UDP {
	return &UDP{
		send:        send,
		lookup:      lookup,
		asked:       make(map[udpQuestion]udpWaiter),
		connections: make(map[netip.AddrPort]udpConnection),
	}
}

var errNotOne = errors.New("a multicast, broadcast or unspecified address")

// resolve returns a few addresses of a tracker's host, without those that are of no single host.
func (u *UDP) resolve(ctx context.Context, tracker *url.URL) ([]netip.AddrPort, error) {
	port, err := strconv.ParseUint(tracker.Port(), 10, 16)
	if err != nil || port == 0 {
		return nil, &refusal{reason: "URL without a valid port", final: true}
	}
	host := tracker.Hostname()
	ips := []netip.Addr{}
	if ip, err := netip.ParseAddr(host); err == nil {
		ips = append(ips, ip)
	} else {
		ctx, cancel := context.WithTimeoutCause(ctx, lookupTimeout, fmt.Errorf("lookup of %s: %w", host, errSilent))
		defer cancel()
		if ips, err = u.lookup(ctx, host, uint16(port)); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return nil, err
		}
	}
	addrs := make([]netip.AddrPort, 0, len(ips))
	var of [netaddr.Families]int
	for _, ip := range ips {
		a := netip.AddrPortFrom(ip.Unmap(), uint16(port))
		if n := &of[netaddr.FamilyOf(a.Addr())]; netaddr.Dialable(a) && *n < maxHostAddrs { // a multicast would go to many
			addrs = append(addrs, a)
			*n++
		}
	}
	switch {
	case len(addrs) == 0 && len(ips) > 0:
		return nil, errNotOne
	case len(addrs) == 0:
		return nil, &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// announce announces to a tracker over one route, at the pace of exchange.
func (u *UDP) announce(ctx context.Context, tracker *url.URL, to route, r request, pace *Pace) (answer, error) {
	p, from, err := u.exchange(ctx, to.addrs, udpAnnounce, appendUDPAnnounce(nil, tracker, r), pace)
	if err != nil {
		return answer{}, err
	}
	a := parseUDPAnswer(p, from.Addr().Is4())
	a.addr, a.local = from, netaddr.IsLocal(from.Addr())
	return a, nil
}

func (u *UDP) scrape(ctx context.Context, addrs []netip.AddrPort, h [20]byte) (Scrape, error) {
	p, _, err := u.exchange(ctx, addrs, udpScrape, h[:], nil)
	if err != nil {
		return Scrape{}, err
	}
	return Scrape{
		Seeds:     udpCount(p[8:]),
		Completed: udpCount(p[12:]),
		Leechers:  udpCount(p[16:]),
	}, nil
}

// exchange sends a request to the addresses in turn until one answers. It waits twice as long after each one that is silent,
// and connects first if it has no connection id for the address. The answer has the given action and at least the length of
// that action's fixed part. If the tracker sent an error, exchange returns a *refusal. It connects
// at a pace, unless that is nil.
func (u *UDP) exchange(ctx context.Context, addrs []netip.AddrPort, action udpAction, request []byte, pace *Pace) (answer []byte, from netip.AddrPort, err error) {
	var (
		// All retransmissions have the same transaction id, so that a late answer to an earlier one is accepted.
		connecting, asking = newTransaction(), newTransaction()
		connectedHere      = false // the connection id was received in this exchange
		unsent             = 0     // addresses in a row that send failed for
	)
	for n, next := 0, 0; n <= udpRepeats; {
		addr := addrs[next%len(addrs)]
		silence := udpSilence << n
		id, connected := u.connection(addr)
		if !connected && pace != nil {
			if err := pace.wait(ctx, addr.Addr()); err != nil {
				return nil, addr, err
			}
		}
		if connected {
			answer, err = u.ask(ctx, addr, udpHeader(id, action, asking, request), action, asking, silence)
		} else {
			answer, err = u.ask(ctx, addr, udpHeader(udpProtocolID, udpConnect, connecting, nil), udpConnect, connecting, silence)
		}
		_, unreachable := errors.AsType[*net.OpError](err)
		_, refused := errors.AsType[*refusal](err)
		switch {
		case ctx.Err() != nil:
			return nil, addr, context.Cause(ctx)
		case err == nil && connected:
			return answer, addr, nil
		case err == nil:
			connectedHere, unsent = true, 0
			u.connect(addr, binary.BigEndian.Uint64(answer[8:]))
		case refused && connected && !connectedHere:
			// The tracker may have forgotten the connection id early.
			u.disconnect(addr)
			connectedHere = true
		case err == errSilent:
			n, next, unsent = n+1, next+1, 0
		case unreachable && unsent+1 < len(addrs):
			next, unsent = next+1, unsent+1
		default:
			return nil, addr, err
		}
	}
	return nil, netip.AddrPort{}, errSilent
}

// ask sends one datagram and waits for its answer. If there is none within silence, it returns errSilent.
func (u *UDP) ask(ctx context.Context, addr netip.AddrPort, p []byte, action udpAction, transaction uint32, silence time.Duration) ([]byte, error) {
	answers := make(chan []byte, 1)
	question := udpQuestion{addr, transaction}
	u.mu.Lock()
	u.asked[question] = udpWaiter{action, answers}
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		delete(u.asked, question)
		u.mu.Unlock()
	}()
	if err := u.send(p, addr); err != nil {
		return nil, err
	}
	timer := time.NewTimer(silence)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
		return nil, errSilent
	case p := <-answers:
		if udpAction(binary.BigEndian.Uint32(p)) == udpError {
			return nil, refuse(p[8:])
		}
		return p, nil
	}
}

// Receive delivers a datagram to the request that it answers. It does not block, and does not keep p. A datagram that answers no
// request is dropped: one with an unknown transaction id, from another address, of another action, or too short for its action.
func (u *UDP) Receive(p []byte, from netip.AddrPort) {
	if len(p) < 8 {
		return
	}
	action := udpAction(binary.BigEndian.Uint32(p))
	question := udpQuestion{from, binary.BigEndian.Uint32(p[4:])}
	u.mu.Lock()
	defer u.mu.Unlock()
	w, ok := u.asked[question]
	if !ok || action > udpError || action != w.action && action != udpError {
		return
	}
	if len(p) < [...]int{udpConnect: 16, udpAnnounce: 20, udpScrape: 20, udpError: 8}[action] {
		return
	}
	delete(u.asked, question)
	w.answer <- slices.Clone(p)
}

// connection returns the connection id for addr, if there is one that has not expired.
func (u *UDP) connection(addr netip.AddrPort) (id uint64, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c, ok := u.connections[addr]
	return c.id, ok && time.Now().Before(c.until)
}

func (u *UDP) connect(addr netip.AddrPort, id uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	for a, c := range u.connections {
		if !now.Before(c.until) {
			delete(u.connections, a)
		}
	}
	u.connections[addr] = udpConnection{id, now.Add(udpConnectionID)}
}

func (u *UDP) disconnect(addr netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.connections, addr)
}

// Forget removes all connection ids. Call it when our address has changed: trackers bind an id to the address.
func (u *UDP) Forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(u.connections)
}
