package torrent

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
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
	udpProtocolID   = 0x41727101980 // of a connect request (BEP 15)
	udpSilence      = 15 * time.Second
	udpRepeats      = 8
	udpConnectionID = time.Minute // how long one is good for
	lookupTimeout   = 30 * time.Second
)

// udpAction says what a datagram is (BEP 15).
type udpAction uint32

const (
	udpConnect udpAction = iota
	udpAnnounce
	udpScrape
	udpError
)

// udpTransport speaks to all UDP trackers of all downloads of a client, through one socket for each
// family of addresses, which is opened when it is first needed. It may be used from any goroutine.
type udpTransport struct {
	listen func(network, addr string) (net.PacketConn, error)
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	reading sync.WaitGroup

	mu          sync.Mutex
	closed      bool
	sockets     [netaddr.Families]net.PacketConn
	asked       map[udpQuestion]udpWaiter
	connections map[netip.AddrPort]udpConnection
}

// udpQuestion is what makes an answer ours: who was asked, and the number that only they were told.
type udpQuestion struct {
	addr        netip.AddrPort
	transaction uint32
}

type udpWaiter struct {
	action udpAction
	answer chan<- []byte // of capacity 1; whoever takes the question out of the map sends
}

type udpConnection struct {
	id    uint64
	until time.Time
}

func newUDPTransport(
	listen func(network, addr string) (net.PacketConn, error),
	lookup func(ctx context.Context, host string) ([]netip.Addr, error),
) *udpTransport {
	return &udpTransport{
		listen: listen, lookup: lookup,
		asked:       make(map[udpQuestion]udpWaiter),
		connections: make(map[netip.AddrPort]udpConnection),
	}
}

// Close closes the sockets. What is under way gets no answer any more, so contexts should end first.
func (u *udpTransport) Close() {
	u.mu.Lock()
	u.closed = true
	for _, s := range u.sockets {
		if s != nil {
			s.Close()
		}
	}
	u.mu.Unlock()
	u.reading.Wait()
}

// resolve gives the addresses of a tracker's host.
func (u *udpTransport) resolve(ctx context.Context, tracker *url.URL) ([]netip.AddrPort, error) {
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
		if ips, err = u.lookup(ctx, host); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return nil, err
		}
	}
	addrs := make([]netip.AddrPort, 0, len(ips))
	for _, ip := range ips {
		addrs = append(addrs, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// announce tells a tracker over one route.
func (u *udpTransport) announce(ctx context.Context, tracker *url.URL, to route, r announceRequest) (announceAnswer, error) {
	p, from, err := u.exchange(ctx, to.addrs, udpAnnounce, appendUDPAnnounce(nil, tracker, r))
	if err != nil {
		return announceAnswer{}, err
	}
	a := parseUDPAnswer(p, from.Addr().Is4())
	a.addr = from
	return a, nil
}

func (u *udpTransport) scrape(ctx context.Context, addrs []netip.AddrPort, h Hash) (Scrape, error) {
	p, _, err := u.exchange(ctx, addrs, udpScrape, h[:])
	if err != nil {
		return Scrape{}, err
	}
	return Scrape{
		Seeds:     udpCount(p[8:]),
		Completed: udpCount(p[12:]),
		Leechers:  udpCount(p[16:]),
	}, nil
}

// exchange asks the addresses in turn until one answers, each time waiting twice as long, and connecting
// first where that is needed. The answer is of the action asked for and at least as long as
// that action's fixed part. The error is a *refusal if a tracker sent one.
func (u *udpTransport) exchange(ctx context.Context, addrs []netip.AddrPort, action udpAction, request []byte) (answer []byte, from netip.AddrPort, err error) {
	var (
		// One number for all repetitions, so that a late answer to an earlier one counts too.
		connecting, asking = newTransaction(), newTransaction()
		connectedHere      = false // on a connection that was made in this exchange
		unsent             = 0     // addresses in a row that could not be sent to
	)
	for n, turn := 0, 0; n <= udpRepeats; {
		addr := addrs[turn%len(addrs)]
		silence := udpSilence << n
		id, connected := u.connection(addr)
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
			// The tracker may have forgotten the connection before its time.
			u.disconnect(addr)
			connectedHere = true
		case err == errSilent:
			n, turn, unsent = n+1, turn+1, 0
		case unreachable && unsent+1 < len(addrs):
			turn, unsent = turn+1, unsent+1
		default:
			return nil, addr, err
		}
	}
	return nil, netip.AddrPort{}, errSilent
}

// ask sends one datagram and waits for its answer. The error is errSilent after silence.
func (u *udpTransport) ask(ctx context.Context, addr netip.AddrPort, p []byte, action udpAction, transaction uint32, silence time.Duration) ([]byte, error) {
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
	if err := u.send(addr, p); err != nil {
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
			return nil, &refusal{reason: printable(string(p[8:]))}
		}
		return p, nil
	}
}

// send writes through the socket of addr's family. The error is a *net.OpError or ErrClosed.
func (u *udpTransport) send(addr netip.AddrPort, p []byte) error {
	socket, err := u.socket(netaddr.FamilyOf(addr.Addr()))
	if err == nil {
		_, err = socket.WriteTo(p, net.UDPAddrFromAddrPort(addr))
	}
	return err
}

// socket is the one for a family of addresses, opened if there is none.
func (u *udpTransport) socket(f netaddr.Family) (net.PacketConn, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, ErrClosed
	}
	if u.sockets[f] == nil {
		s, err := u.listen(f.Network("udp"), ":0")
		if err != nil {
			return nil, err
		}
		u.sockets[f] = s
		u.reading.Go(func() { u.read(f, s) })
	}
	return u.sockets[f], nil
}

// read hands out the answers that come through s until it is closed, or broken, in which case the
// next to send opens another.
func (u *udpTransport) read(f netaddr.Family, s net.PacketConn) {
	defer s.Close()
	p := make([]byte, 1<<16)
	// Some systems report here that an earlier datagram could not be delivered.
	for failures := 0; failures < 100; {
		n, from, err := s.ReadFrom(p)
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			failures++
			continue
		}
		failures = 0
		u.receive(netaddr.Of(from), p[:n])
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sockets[f] = nil
}

// receive gives a datagram to whoever asked for it. What answers no question, comes from another
// than was asked, is of another action or too short for it is dropped, and the question stays open.
func (u *udpTransport) receive(from netip.AddrPort, p []byte) {
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

// connection is the id to use with addr, if there is one that is still good.
func (u *udpTransport) connection(addr netip.AddrPort) (id uint64, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c, ok := u.connections[addr]
	return c.id, ok && time.Now().Before(c.until)
}

func (u *udpTransport) connect(addr netip.AddrPort, id uint64) {
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

func (u *udpTransport) disconnect(addr netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.connections, addr)
}

// newTransaction is a number that nobody who does not see our datagrams can guess.
func newTransaction() uint32 {
	var b [4]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint32(b[:])
}

// udpHeader is a request: the 16 bytes that all begin with, then body.
func udpHeader(id uint64, action udpAction, transaction uint32, body []byte) []byte {
	p := make([]byte, 0, 16+len(body))
	p = binary.BigEndian.AppendUint64(p, id)
	p = binary.BigEndian.AppendUint32(p, uint32(action))
	p = binary.BigEndian.AppendUint32(p, transaction)
	return append(p, body...)
}

// appendUDPAnnounce appends what follows the header of an announce, with the path and query of the
// tracker's URL behind it (BEP 41). The address field stays 0: the tracker sees a better one than
// we could guess.
func appendUDPAnnounce(p []byte, tracker *url.URL, r announceRequest) []byte {
	p = append(p, r.infoHash[:]...)
	p = append(p, r.peerID[:]...)
	p = binary.BigEndian.AppendUint64(p, uint64(r.downloaded))
	p = binary.BigEndian.AppendUint64(p, uint64(r.left))
	p = binary.BigEndian.AppendUint64(p, uint64(r.uploaded))
	p = binary.BigEndian.AppendUint32(p, uint32(r.event))
	p = binary.BigEndian.AppendUint32(p, 0)
	p = binary.BigEndian.AppendUint32(p, r.key)
	p = binary.BigEndian.AppendUint32(p, uint32(r.numWant))
	p = binary.BigEndian.AppendUint16(p, r.port)

	const urlData = 2 // each such option holds up to 255 bytes
	data := tracker.EscapedPath()
	if tracker.RawQuery != "" {
		data += "?" + tracker.RawQuery
	}
	// A datagram over 1280 bytes may be lost on its way every time.
	for data = data[:min(len(data), 1000)]; len(data) > 0; {
		n := min(len(data), 255)
		p = append(p, urlData, byte(n))
		p = append(p, data[:n]...)
		data = data[n:]
	}
	return p
}

// parseUDPAnswer reads the answer to an announce, of at least 20 bytes. The family of addresses that it came
// over decides the form of the peers.
func parseUDPAnswer(p []byte, v4 bool) announceAnswer {
	a := announceAnswer{
		interval: max(time.Duration(udpCount(p[8:]))*time.Second, 1),
		swarm:    Scrape{Leechers: udpCount(p[12:]), Seeds: udpCount(p[16:])},
	}
	size := 16
	if v4 {
		size = 4
	}
	a.peers = compactPeers(nil, p[20:], size)
	return a
}

// udpCount is a number of four bytes, and at most the largest int32.
func udpCount(p []byte) int {
	return int(min(binary.BigEndian.Uint32(p), math.MaxInt32))
}
