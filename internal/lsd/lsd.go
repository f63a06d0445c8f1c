// Package lsd finds peers in the local network by multicast, and is found there (BEP 14).
//
// A client has one Discovery for all its torrents, which owns a socket for each group that it could join.
// Run is its goroutine, with one more for each socket. Join and what it returns may be called from any
// goroutine, and each torrent's callback is called from those of the sockets, without a lock held.
package lsd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	announceEvery = 5 * time.Minute // of a torrent
	announceLeast = time.Minute     // between announces of a torrent, even if a new peer was heard
	announceBurst = 5               // announces in a row; in the long run there is one a minute
	announceBatch = 20              // torrents in one announce
	maxPacket     = 1400            // bytes of an announce that are read
	maxHeard      = 50              // announces a second that are parsed, and as many more in a burst
	errorPause    = time.Second     // after a socket failed to read
	joinLeast     = time.Minute     // until groups are tried again if none could be joined; it doubles with each failure
	joinMost      = time.Hour
)

// group is where clients of one address family announce.
type group struct {
	network string
	addr    netip.AddrPort
}

func groups() []group {
	return []group{
		{"udp4", netip.MustParseAddrPort("239.192.152.143:6771")},
		{"udp6", netip.MustParseAddrPort("[ff15::efc0:988f]:6771")},
	}
}

// Config is what a Discovery needs.
type Config struct {
	// Listen opens a socket that hears what is sent to a group; ListenMulticast does so.
	Listen func(network string, group netip.AddrPort) (net.PacketConn, error)
	Port   func() uint16 // where we accept peers; while it is 0 nothing is announced
	Cookie uint64        // marks our own announces, which come back to us
	Log    *slog.Logger  // never nil
}

// A Discovery announces the torrents that joined, and hears the announces of others. A new peer that
// announces is answered with an announce of our own, so that neither side waits for the other's next.
type Discovery struct {
	config  Config
	port    func() uint16
	cookie  string
	log     *slog.Logger
	sockets []socket      // before Run, the caller's of New; then Run's
	woken   chan struct{} // of capacity 1; full when Run is to look at the schedule again
	moved   chan struct{} // of capacity 1; full when Run is to join the groups again
	heard   *rate.Limiter
	said    *rate.Limiter
	joined  atomic.Bool // there are sockets

	mu     sync.Mutex
	swarms map[[20]byte]*swarm
	second time.Time          // when of was halved last
	of     map[netip.Addr]int // announces parsed recently, by sender: the count is halved each second
}

type socket struct {
	net.PacketConn
	group netip.AddrPort
}

// swarm is a torrent that peers are looked for.
type swarm struct {
	found     []*func(netip.AddrPort) bool // of all that look; empty is kept until it may be announced again
	announced time.Time
	due       time.Time // the next announce
}

// New joins the groups that can be joined.
func New(c Config) *Discovery {
	l := &Discovery{
		config: c,
		port:   c.Port,
		cookie: strconv.FormatUint(c.Cookie, 16),
		log:    c.Log,
		woken:  make(chan struct{}, 1),
		moved:  make(chan struct{}, 1),
		heard:  rate.NewLimiter(maxHeard, maxHeard),
		said:   rate.NewLimiter(rate.Every(announceLeast), announceBurst),
		swarms: make(map[[20]byte]*swarm),
		of:     make(map[netip.Addr]int),
	}
	l.join()
	return l
}

// join joins the groups that can be joined.
func (l *Discovery) join() {
	for _, g := range groups() {
		conn, err := l.config.Listen(g.network, g.addr)
		if err != nil {
			l.log.Warn("local discovery", "group", g.addr, "err", err)
			continue
		}
		l.sockets = append(l.sockets, socket{conn, g.addr})
	}
	l.joined.Store(len(l.sockets) > 0)
}

// Joined reports whether any group could be joined. It may be called from any goroutine.
func (l *Discovery) Joined() bool { return l.joined.Load() }

// leave closes the sockets.
func (l *Discovery) leave() {
	for _, s := range l.sockets {
		s.Close()
	}
	l.sockets = nil
}

// Rejoin joins the groups again, and announces all torrents there, because the machine has other networks than before. It
// never waits.
func (l *Discovery) Rejoin() {
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

// dueNow has every torrent announced as soon as may be.
func (l *Discovery) dueNow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.swarms {
		if soon := s.announced.Add(announceLeast); len(s.found) > 0 && soon.Before(s.due) {
			s.due = soon
		}
	}
}

// Run announces and listens until ctx ends.
func (l *Discovery) Run(ctx context.Context) {
	var listening sync.WaitGroup
	defer listening.Wait()
	defer func() { l.leave() }()
	listen := func() {
		for _, s := range l.sockets {
			listening.Go(func() { l.listen(ctx, s) })
		}
	}
	listen()
	again, wait := time.NewTimer(joinLeast), joinLeast // runs while no group is joined
	defer again.Stop()
	tryLater := func() {
		if l.Joined() {
			again.Stop()
			return
		}
		again.Reset(wait)
		wait = min(2*wait, joinMost)
	}
	joinAgain := func() {
		l.leave()
		l.join()
		listen()
		l.dueNow()
		tryLater()
	}
	tryLater()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-l.woken:
		case <-l.moved:
			wait = joinLeast
			joinAgain()
		case <-again.C:
			joinAgain()
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

// wake has Run look at the schedule again.
func (l *Discovery) wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// Join looks for peers of a torrent until leave is called. found takes the address of a peer that was
// heard, and reports whether it was unknown so far.
func (l *Discovery) Join(hash [20]byte, found func(netip.AddrPort) bool) (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.swarms[hash]
	if s == nil {
		s = &swarm{due: time.Now()}
		l.swarms[hash] = s
	} else if len(s.found) == 0 {
		s.due = s.announced.Add(announceLeast)
	}
	s.found = append(s.found, &found)
	l.wake()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		s.found = slices.DeleteFunc(s.found, func(f *func(netip.AddrPort) bool) bool { return f == &found })
	}
}

// due takes the torrents to be announced now, and says when to look again; a zero time is not before
// it is woken.
func (l *Discovery) due(now time.Time) (hashes [][20]byte, next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for h, s := range l.swarms {
		if len(s.found) == 0 {
			if now.Sub(s.announced) >= announceLeast {
				delete(l.swarms, h)
			}
		} else if next.IsZero() || s.due.Before(next) {
			next = s.due
		}
	}
	if next.IsZero() || l.port() == 0 {
		return nil, time.Time{}
	}
	if next.After(now) {
		return nil, next
	}
	if turn := l.said.ReserveN(now, 1); turn.DelayFrom(now) > 0 {
		next = now.Add(turn.DelayFrom(now))
		turn.CancelAt(now)
		return nil, next
	}
	var order [][20]byte
	for h, s := range l.swarms {
		if len(s.found) > 0 && !s.due.After(now) {
			order = append(order, h)
		}
	}
	slices.SortFunc(order, func(a, b [20]byte) int {
		return cmp.Or(l.swarms[a].due.Compare(l.swarms[b].due), bytes.Compare(a[:], b[:]))
	})
	for _, h := range order[:min(len(order), announceBatch)] {
		s := l.swarms[h]
		s.announced, s.due = now, now.Add(announceEvery)
		hashes = append(hashes, h)
	}
	return hashes, now // for the rest
}

// announce tells all groups of torrents.
func (l *Discovery) announce(hashes [][20]byte) {
	for _, s := range l.sockets {
		_, err := s.WriteTo(appendPacket(nil, s.group, l.port(), hashes, l.cookie), net.UDPAddrFromAddrPort(s.group))
		l.log.Debug("announced locally", "group", s.group, "torrents", len(hashes), "err", err)
	}
}

// listen takes what others announce until the socket is closed.
func (l *Discovery) listen(ctx context.Context, s socket) {
	b := make([]byte, maxPacket)
	for {
		n, from, err := s.ReadFrom(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			l.log.Debug("local discovery", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(errorPause):
			}
			continue
		}
		if a := netaddr.Of(from); a.IsValid() && l.mayHear(a.Addr(), time.Now()) {
			l.hear(b[:n], a.Addr())
		}
	}
}

// mayHear reports whether an announce may be parsed, and counts it if so. A sender leaves as many in a burst to others as it had
// itself recently, so that one that announces seldom is heard beside many that flood.
func (l *Discovery) mayHear(from netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seconds := now.Sub(l.second) / time.Second; seconds > 0 {
		l.second = now
		for a := range l.of {
			if l.of[a] >>= seconds; l.of[a] == 0 {
				delete(l.of, a)
			}
		}
	}
	if l.heard.TokensAt(now) < float64(1+l.of[from]) || !l.heard.AllowN(now, 1) {
		return false
	}
	l.of[from]++
	return true
}

// hear takes an announce of another client.
func (l *Discovery) hear(p []byte, from netip.Addr) {
	port, hashes, cookie, ok := parsePacket(p)
	if !ok || cookie == l.cookie {
		return
	}
	addr := netip.AddrPortFrom(from, port)
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
			l.log.Debug("heard locally", "hash", hex.EncodeToString(h[:]), "peer", addr)
			l.answer(s)
		}
	}
}

// answer has a swarm announced as soon as may be.
func (l *Discovery) answer(s *swarm) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if soon := s.announced.Add(announceLeast); soon.Before(s.due) {
		s.due = soon
	}
	l.wake()
}
