package torrent

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	lsdEvery  = 5 * time.Minute // between announces of a torrent
	lsdLeast  = time.Minute     // between announces of a torrent, even if somebody new was heard
	lsdBurst  = 5               // announces in a row; in the long run there is one a minute
	lsdAtOnce = 20              // torrents in one announce
	lsdPacket = 1400            // bytes of an announce; no more are looked at
	lsdHeard  = 50              // announces a second that are looked at, and as many more in a burst
)

// lsdGroup is where clients of one address family announce.
type lsdGroup struct {
	network string
	addr    netip.AddrPort
}

func lsdGroups() []lsdGroup {
	return []lsdGroup{
		{"udp4", netip.MustParseAddrPort("239.192.152.143:6771")},
		{"udp6", netip.MustParseAddrPort("[ff15::efc0:988f]:6771")},
	}
}

// localDiscovery finds peers in the local network, and is found there (BEP 14). Somebody new who announces is
// answered with an announce of our own, so that neither side waits for the other's next.
type localDiscovery struct {
	port    func() uint16
	cookie  string // tells our own announces, which come back to us
	log     *slog.Logger
	sockets []lsdSocket
	waker   // of run, to think the schedule over
	heard   *rate.Limiter
	said    *rate.Limiter

	mu     sync.Mutex
	swarms map[Hash]*localSwarm
}

type lsdSocket struct {
	net.PacketConn
	group netip.AddrPort
}

// localSwarm is a torrent that peers are looked for.
type localSwarm struct {
	found     []*func(netip.AddrPort) bool // who looks; empty is kept until it may be announced again
	announced time.Time
	due       time.Time // the next announce
}

// newLocalDiscovery joins the groups that can be joined. It returns nil if there are none.
func newLocalDiscovery(listen func(network string, group netip.AddrPort) (net.PacketConn, error), port func() uint16, cookie uint64, log *slog.Logger) *localDiscovery {
	l := &localDiscovery{
		port:   port,
		cookie: strconv.FormatUint(cookie, 16),
		log:    log,
		waker:  newWaker(),
		heard:  rate.NewLimiter(lsdHeard, lsdHeard),
		said:   rate.NewLimiter(rate.Every(lsdLeast), lsdBurst),
		swarms: make(map[Hash]*localSwarm),
	}
	for _, g := range lsdGroups() {
		conn, err := listen(g.network, g.addr)
		if err != nil {
			log.Warn("local discovery", "group", g.addr, "err", err)
			continue
		}
		l.sockets = append(l.sockets, lsdSocket{conn, g.addr})
	}
	if l.sockets == nil {
		return nil
	}
	return l
}

// run announces and listens until ctx ends.
func (l *localDiscovery) run(ctx context.Context) {
	var listening sync.WaitGroup
	defer listening.Wait()
	for _, s := range l.sockets {
		defer s.Close()
		listening.Go(func() { l.listen(ctx, s) })
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-l.wake:
		}
		now := time.Now()
		hashes, next := l.due(now)
		if len(hashes) > 0 {
			l.announce(hashes)
		}
		if timer.Stop(); !next.IsZero() {
			timer.Reset(next.Sub(now))
		}
	}
}

// join looks for peers of a torrent until leave is called. found takes the address of one that was
// heard of, and tells whether it is news.
func (l *localDiscovery) join(hash Hash, found func(netip.AddrPort) bool) (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.swarms[hash]
	if s == nil {
		s = &localSwarm{due: time.Now()}
		l.swarms[hash] = s
	} else if len(s.found) == 0 {
		s.due = s.announced.Add(lsdLeast)
	}
	s.found = append(s.found, &found)
	l.signal()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		s.found = slices.DeleteFunc(s.found, func(f *func(netip.AddrPort) bool) bool { return f == &found })
	}
}

// due takes the torrents to be announced now, and says when to look again; zero is after a signal.
func (l *localDiscovery) due(now time.Time) (hashes []Hash, next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var order []Hash
	for h, s := range l.swarms {
		if len(s.found) > 0 {
			order = append(order, h)
		} else if now.Sub(s.announced) >= lsdLeast {
			delete(l.swarms, h)
		}
	}
	if len(order) == 0 || l.port() == 0 {
		return nil, time.Time{}
	}
	slices.SortFunc(order, func(a, b Hash) int { return l.swarms[a].due.Compare(l.swarms[b].due) })
	if first := l.swarms[order[0]].due; first.After(now) {
		return nil, first
	}
	if turn := l.said.ReserveN(now, 1); turn.DelayFrom(now) > 0 {
		next = now.Add(turn.DelayFrom(now))
		turn.CancelAt(now)
		return nil, next
	}
	for _, h := range order[:min(len(order), lsdAtOnce)] {
		if s := l.swarms[h]; !s.due.After(now) {
			s.announced, s.due = now, now.Add(lsdEvery)
			hashes = append(hashes, h)
		}
	}
	return hashes, now // for the rest
}

// announce tells all groups of torrents.
func (l *localDiscovery) announce(hashes []Hash) {
	for _, s := range l.sockets {
		_, err := s.WriteTo(appendLSD(nil, s.group, l.port(), hashes, l.cookie), net.UDPAddrFromAddrPort(s.group))
		l.log.Debug("announced locally", "group", s.group, "torrents", len(hashes), "err", err)
	}
}

// listen takes what others announce until the socket is closed.
func (l *localDiscovery) listen(ctx context.Context, s lsdSocket) {
	b := make([]byte, lsdPacket)
	for {
		n, from, err := s.ReadFrom(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			l.log.Debug("local discovery", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(tick):
			}
			continue
		}
		if udp, ok := from.(*net.UDPAddr); ok && l.heard.Allow() {
			l.hear(b[:n], udp.AddrPort().Addr())
		}
	}
}

// hear takes an announce of somebody else.
func (l *localDiscovery) hear(p []byte, from netip.Addr) {
	port, hashes, cookie, ok := parseLSD(p)
	if !ok || cookie == l.cookie {
		return
	}
	addr := netip.AddrPortFrom(from.Unmap(), port)
	for _, h := range hashes {
		var told []*func(netip.AddrPort) bool
		l.mu.Lock()
		s := l.swarms[h]
		if s != nil {
			told = slices.Clone(s.found)
		}
		l.mu.Unlock()
		news := false
		for _, found := range told {
			news = (*found)(addr) || news
		}
		if news {
			l.log.Debug("heard locally", "hash", h, "peer", addr)
			l.mu.Lock()
			if soon := s.announced.Add(lsdLeast); soon.Before(s.due) {
				s.due = soon
			}
			l.mu.Unlock()
			l.signal()
		}
	}
}

// appendLSD appends an announce to b.
func appendLSD(b []byte, group netip.AddrPort, port uint16, hashes []Hash, cookie string) []byte {
	b = fmt.Appendf(b, "BT-SEARCH * HTTP/1.1\r\nHost: %s\r\nPort: %d\r\n", group, port)
	for _, h := range hashes {
		b = fmt.Appendf(b, "Infohash: %s\r\n", h)
	}
	return fmt.Appendf(b, "cookie: %s\r\n\r\n\r\n", cookie)
}

// parseLSD reads an announce. Headers that are unknown, and info hashes that are malformed, are left out.
func parseLSD(p []byte) (port uint16, hashes []Hash, cookie string, ok bool) {
	start, rest, _ := bytes.Cut(p, []byte("\n"))
	if !bytes.HasPrefix(start, []byte("BT-SEARCH * HTTP/1.")) {
		return 0, nil, "", false
	}
	for line := range bytes.Lines(rest) {
		key, value, isHeader := bytes.Cut(line, []byte(":"))
		if !isHeader {
			break
		}
		value = bytes.TrimSpace(value)
		switch string(bytes.ToLower(bytes.TrimSpace(key))) {
		case "port":
			n, err := strconv.ParseUint(string(value), 10, 16)
			if err != nil {
				return 0, nil, "", false
			}
			port = uint16(n)
		case "infohash":
			var h Hash
			if hex.DecodedLen(len(value)) != len(h) {
				continue
			}
			if _, err := hex.Decode(h[:], value); err == nil && !slices.Contains(hashes, h) {
				hashes = append(hashes, h)
			}
		case "cookie":
			cookie = string(value)
		}
	}
	return port, hashes, cookie, port != 0 && len(hashes) > 0
}

// listenMulticast opens a socket that hears what is sent to a group in the local network, over the
// interface that the system chooses. Other programs may listen at the same port, and hear what we say.
func listenMulticast(network string, group netip.AddrPort) (net.PacketConn, error) {
	conn, err := net.ListenMulticastUDP(network, nil, net.UDPAddrFromAddrPort(group))
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var failed error
		err = raw.Control(func(fd uintptr) { failed = setMulticastLoop(fd, group.Addr().Is6()) })
		err = errors.Join(err, failed)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("multicast to this machine: %w", err)
	}
	return conn, nil
}
