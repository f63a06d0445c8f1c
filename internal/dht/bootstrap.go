package dht

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
)

const (
	minBackOff   = time.Second
	maxBackOff   = 5 * time.Minute
	resolveAgain = time.Minute
	lookPatience = 5 * time.Second // for names of nodes, before routers are asked beside them
	maxHostAddrs = 4               // of a name, in each family
	maxHosts     = 64              // named in the course of time, the last ones
	maxFirst     = 128             // named by the configuration
	maxSilent    = 8               // queries unanswered in a row, after which we take ourselves to be cut off
)

// bootstrap is how a half finds its first nodes, and those near itself. It begins with the nodes that the
// user, torrents and peers named; then, while there are fewer than three, with the well-known routers. It
// goes on until there are eight, since the first few may be of no use.
type bootstrap struct {
	search  *search       // the lookup of our own id that is under way, or nil
	next    time.Time     // when to try again
	wait    time.Duration // how long after the last failure, 0 if there was none
	had     int           // how many nodes we knew before the last attempt
	tried   bool          // at least once
	routers bool          // without them it came to nothing
	again   bool          // we have another id, which those near to it are to hear of
}

// soon makes the next attempt due at once.
func (b *bootstrap) soon(now time.Time) { b.next, b.wait = now, 0 }

// hostName is the named address of a node that we were told of.
type hostName struct {
	name    string // host:port
	router  bool
	first   bool // it is of the configuration, and does not give way
	addrs   []netip.AddrPort
	literal bool      // name is an address, and not looked up
	pending bool      // it is being looked up
	asked   time.Time // when it was last looked up
}

// connected reports whether nodes answer us.
func (h *half) connected() bool { return h.unanswered < maxSilent }

// alone reports whether we know so few nodes that routers may be asked.
func (h *half) alone() bool { return h.table.size < minNodes || !h.connected() }

// configureHosts records the nodes and routers of the configuration.
func (c *core) configureHosts() {
	for _, name := range c.cfg.Nodes[:min(len(c.cfg.Nodes), maxFirst)] {
		c.newHost(name)
	}
	for _, name := range c.cfg.Routers[:min(len(c.cfg.Routers), maxHosts)] {
		if h := c.newHost(name); h != nil {
			h.router = true
		}
	}
	for _, h := range c.hosts {
		h.first = true
	}
}

// addHost records a node by its name. If there are too many, the earliest are dropped, because they have been tried.
func (c *core) addHost(name string) {
	if c.newHost(name) == nil {
		return
	}
	oldest, named := -1, 0
	for i, h := range c.hosts {
		if h.first {
			continue
		}
		if named++; oldest < 0 {
			oldest = i
		}
	}
	if named > maxHosts {
		c.hosts = slices.Delete(c.hosts, oldest, oldest+1)
	}
}

// newHost records a node by its name, and returns it; nil if it is known.
func (c *core) newHost(name string) *hostName {
	if slices.ContainsFunc(c.hosts, func(h *hostName) bool { return h.name == name }) {
		return nil
	}
	h := &hostName{name: name}
	if a, err := netip.ParseAddrPort(name); err == nil {
		h.literal, h.addrs = true, []netip.AddrPort{netip.AddrPortFrom(a.Addr().Unmap(), a.Port())}
	}
	c.hosts = append(c.hosts, h)
	return h
}

// isRouter reports whether a well-known router is at the address. Routers are asked for nodes only.
func (c *core) isRouter(a netip.AddrPort) bool {
	for _, h := range c.hosts {
		if h.router && slices.Contains(h.addrs, a) {
			return true
		}
	}
	return false
}

// wantsNodes reports whether the half has to look for nodes near itself.
func (c *core) wantsNodes(h *half) bool {
	return h.boot.search == nil && (h.boot.again || h.table.size < bucketSize || !h.connected())
}

// bootstrap makes an attempt if one is due.
func (c *core) bootstrap(now time.Time, h *half) {
	b := &h.boot
	if !c.wantsNodes(h) || now.Before(b.next) {
		return
	}
	blind := slices.Clone(h.greeted)
	h.greeted = h.greeted[:0]
	pending := false
	if h.table.size < bucketSize || !h.connected() {
		pending = c.hostAddrs(now, h, false, &blind)
	}
	if h.alone() && (b.routers || len(blind) == 0 && !pending) {
		pending = c.hostAddrs(now, h, true, &blind) || pending
	}
	if len(blind) == 0 && h.table.size == 0 {
		b.tried = b.tried || !pending
		b.backOff(now, c.rng)
		return
	}
	c.rng.Shuffle(len(blind), func(i, j int) { blind[i], blind[j] = blind[j], blind[i] })
	s := &search{target: h.table.self, method: krpc.FindNode, both: true}
	s.ended = func(now time.Time) { c.bootstrapped(now, h) }
	b.search, b.again, b.had = s, false, h.table.size
	c.start(s, h)
	w := s.walks[h.family]
	c.seed(h, w)
	w.lookup.blind = blind[:min(len(blind), maxBlind)]
}

// bootstrapped follows an attempt.
func (c *core) bootstrapped(now time.Time, h *half) {
	b := &h.boot
	b.search, b.tried = nil, true
	isRouter := func(h *hostName) bool { return h.router }
	switch {
	case h.table.size >= bucketSize && h.connected():
		b.soon(now)
		b.routers = false
	case h.alone() && !b.routers && slices.ContainsFunc(c.hosts, isRouter):
		b.routers = true
		b.next = now
	default:
		if h.table.size > b.had {
			b.wait = 0
		}
		b.backOff(now, c.rng)
	}
}

// backOff puts the next attempt off, for twice as long as the last time.
func (b *bootstrap) backOff(now time.Time, rng *rand.Rand) {
	b.wait = min(max(2*b.wait, minBackOff), maxBackOff)
	b.next = now.Add(b.wait*3/4 + time.Duration(rng.Int64N(int64(b.wait/2))))
}

// hostAddrs appends the addresses of named nodes, or of routers, to blind, and has names looked up that
// were not recently. It reports whether any is being looked up, and not for long.
func (c *core) hostAddrs(now time.Time, h *half, routers bool, blind *[]netip.AddrPort) (pending bool) {
	for _, host := range c.hosts {
		if host.router != routers {
			continue
		}
		if !host.literal && !host.pending && (host.asked.IsZero() || now.Sub(host.asked) >= resolveAgain) {
			host.pending, host.asked = true, now
			at := len(c.lookUp)
			if routers {
				at = 0 // there are few, and who named them is known
			}
			c.lookUp = slices.Insert(c.lookUp, at, host.name)
		}
		pending = pending || host.pending && now.Sub(host.asked) < lookPatience
		for _, a := range host.addrs {
			if f, ok := familyOf(a); ok && f == h.family && c.allowed(a) {
				*blind = append(*blind, a)
			}
		}
	}
	return pending
}

// firstOfEach returns the first addresses of each family, so that one name does not stand for many nodes.
func firstOfEach(addrs []netip.AddrPort) (few []netip.AddrPort) {
	var of [families]int
	for _, a := range addrs {
		if f, ok := familyOf(a); ok && of[f] < maxHostAddrs {
			of[f]++
			few = append(few, a)
		}
	}
	return few
}

// resolved takes the addresses of a name that was to be looked up, none if there are none.
func (c *core) resolved(now time.Time, name string, addrs []netip.AddrPort) {
	for _, host := range c.hosts {
		if host.name == name {
			host.pending = false
			if len(addrs) > 0 {
				host.addrs = firstOfEach(addrs)
			}
		}
	}
	for _, h := range c.fams {
		if h != nil && c.wantsNodes(h) {
			h.boot.next = now
		}
	}
}
