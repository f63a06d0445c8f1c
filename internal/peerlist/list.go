// Package peerlist decides which peers to dial, to admit and to keep. It has the list of known peers from all
// sources, the budget of dials and connections that downloads share, and the choice of peers that make room for
// others.
//
// It is plain data: it knows no connection and no clock, and draws from the random source that it is
// given. Each download has its own List, and a client one Budget, which their locks guard.
package peerlist

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/expiring"
	"github.com/shoal-go/torrent/internal/heaps"
	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	redialAfter  = 60 * time.Second // times the failures
	redialAtMost = 10 * time.Minute
	redialUser   = 2 * time.Second // a peer that the user named, doubling to redialAfter: it may just be starting
	vainUser     = 5               // failures of such a peer that take about redialAfter with the wait for its next dial: 2+4+8+16+32 s
	redialUseful = 5 * time.Second // after a connection that was useful
	maxFailures  = 3               // then only when named again
	claimHold    = 2 * time.Minute // that another source's candidate is not dialled because a peer says that it is there
)

// standing is the state of a candidate.
type standing uint8

const (
	isNew       standing = iota
	isReady              // may be dialled; in its namer's queue
	isDelayed            // may be dialled when due; in List.delayed
	isDialling           // returned by Next
	isConnected          // has a connection
	isGivenUp            // failed too often; kept so that it is noticed when it is named again
	isGone               // no longer in the list
)

// candidate is an address that a peer may listen at.
type candidate struct {
	addr     netip.AddrPort
	from     Source
	by       string           // the last tracker, or network of a peer or node, that named it
	namer    *namer           // in whose turn it is dialled
	failures int              // dials that failed and connections that were useless, in a row
	useful   bool             // a connection to it was useful once
	claimed  bool             // it counts as connected only because a connected peer says that it listens there
	held     bool             // its dial was put off for such a claim, which happens once
	sated    bool             // the last connection ended because both sides have everything they want
	crowd    int              // how many candidates counted as its network when it was named
	yielded  int              // how often it made room for another
	priority uint32           // BEP 40; higher is better
	way      uint8            // by which it was last connected to; 0 is none
	relays   []netip.AddrPort // peers that may introduce us to it (BEP 55) if they are still connected, at most maxRelays, last asked last
	standing standing
	taken    standing  // its standing before Take, while it is dialled because of that; isNew otherwise
	due      time.Time // when it may be dialled
	place    int       // in its queue
}

// A List holds the peers that we could dial, from all sources, each address once. It takes the address of an IPv4
// host in either form, and returns it in 4 bytes.
type List struct {
	// Lone makes the list retry a failed candidate soon, like one that the user named, while there is no other
	// candidate. It is for downloads that can do nothing until a peer is connected.
	Lone bool

	rng     *rand.Rand
	private bool

	all     map[netip.AddrPort]*candidate
	users   int // of these, candidates that the user named
	most    int // that all may have beside them
	peak    int // that it had since its map was made
	namers  map[namedBy]*namer
	delayed heaps.Heap[*candidate] // soonest first
	nReady  int                    // candidates that may be dialled
	nDials  int                    // candidates that are dialling
	given   int                    // candidates that Next returned so far
	turns   int                    // that namers had so far, and how many namers there were
	turnOf  [len(sourceNames)]int  // when namers of each source had the last
	crowds  crowds                 // of the candidates at public addresses

	bans     map[netip.AddrPort]struct{} // port 0 is every port but those that the user named
	liars    map[netip.AddrPort]struct{} // the addresses for which Ban was called
	hosts    map[netip.Addr]struct{}     // banned with every port, whatever the source
	named    map[netip.AddrPort]struct{} // by the user
	self     map[netip.AddrPort]struct{} // addresses that turned out to be our own
	external external
}

// New returns an empty list. For a private torrent (BEP 27) it takes peers from trackers and
// the user alone.
func New(rng *rand.Rand, private bool) *List {
	return &List{
		rng:     rng,
		private: private,
		all:     make(map[netip.AddrPort]*candidate),
		most:    maxCandidates,
		crowds:  make(crowds),
		namers:  make(map[namedBy]*namer),
		delayed: newQueue((*candidate).sooner),
		bans:    make(map[netip.AddrPort]struct{}),
		liars:   make(map[netip.AddrPort]struct{}),
		hosts:   make(map[netip.Addr]struct{}),
		named:   make(map[netip.AddrPort]struct{}),
		self:    make(map[netip.AddrPort]struct{}),
	}
}

// get returns the candidate at an address; nil if there is none.
func (c *List) get(addr netip.AddrPort) *candidate { return c.all[netaddr.Unmap(addr)] }

// is reports whether there is a candidate, of that standing.
func (k *candidate) is(s standing) bool { return k != nil && k.standing == s }

// Add adds a candidate. by is the URL of the tracker that named it, or the Network of the peer or node, or empty. It
// reports whether the address is new: not known before, or given up.
func (c *List) Add(addr netip.AddrPort, from Source, by string, now time.Time) bool {
	addr = netaddr.Unmap(addr)
	if from == FromUser {
		c.named[addr] = struct{}{}
	}
	if !netaddr.Dialable(addr) || c.Banned(addr) || c.private && !from.allowedInPrivate() {
		return false
	}
	if _, ours := c.self[addr]; ours {
		return false
	}
	k := c.all[addr]
	if k == nil {
		k = &candidate{addr: addr, from: from, by: by, priority: c.Priority(addr), due: now, crowd: 1}
		c.all[addr] = k
		if from == FromUser {
			c.users++
		}
		c.nameBy(k, namedBy{from, by})
		if !netaddr.IsLocal(addr.Addr()) {
			c.crowds.add(addr.Addr(), 1)
			k.crowd = c.crowds.size(addr.Addr())
		}
		c.queue(k, now)
		c.peak = max(c.peak, len(c.all))
		if len(c.all)-c.users > c.most {
			c.trim(c.most/16 + 1) // to leave room for new ones
		}
		return c.all[addr] == k
	}
	if by != "" {
		k.by = by
	}
	if from != FromIncoming && (from < k.from || k.from == FromIncoming) {
		if k.from = from; from == FromUser {
			c.users++
		}
		if k.standing == isReady {
			k.namer.ready.Fix(k.place)
		}
	}
	c.nameBy(k, namedBy{from, by})
	if k.claimed && from != FromIncoming {
		c.hold(k, now)
		return false
	}
	if k.standing != isGivenUp {
		return false
	}
	c.queue(k, now)
	return true
}

// Claimed records that a peer that connected to us says that it listens at addr. If no other source has named the
// address, it is not dialled as long as that peer is connected. Otherwise it is dialled later, because another peer
// may be there, or at once if the user named it.
func (c *List) Claimed(addr netip.AddrPort, now time.Time) {
	addr = netaddr.Unmap(addr)
	c.Add(addr, FromIncoming, "", now)
	k := c.all[addr]
	switch {
	case k == nil || k.standing != isReady && k.standing != isDelayed:
	case k.from == FromIncoming:
		k.claimed = true
		c.move(k, isConnected)
	default:
		c.hold(k, now)
	}
}

// hold postpones the dial of a claimed candidate, once.
func (c *List) hold(k *candidate, now time.Time) {
	if k.from != FromUser && !k.held {
		k.held = true
		if until := now.Add(claimHold); k.due.Before(until) {
			k.due = until
		}
	}
	c.queue(k, now)
}

// Disown forgets the address at which a liar said that it listens, if no other source named it.
func (c *List) Disown(addr netip.AddrPort) {
	if k := c.get(addr); k != nil && k.from == FromIncoming {
		c.drop(k)
	}
}

// Next returns the best candidate that is due. It counts as dialling until Dialled says how it went.
func (c *List) Next(now time.Time) (addr netip.AddrPort, from Source, ok bool) {
	if addr, from, ok = c.First(now); ok {
		k := c.all[addr]
		if c.isFair() {
			c.hadTurn(k.namer)
		}
		if c.given++; c.given%reclaimEvery == 0 {
			c.reclaim()
		}
		c.move(k, isDialling)
	}
	return addr, from, ok
}

// First returns what Next would return.
func (c *List) First(now time.Time) (addr netip.AddrPort, from Source, ok bool) {
	for c.delayed.Len() > 0 && !c.delayed.First().due.After(now) {
		c.move(c.delayed.First(), isReady)
	}
	if c.nReady == 0 {
		return addr, from, false
	}
	k := c.best()
	return k.addr, k.from, true
}

// NamedWaits reports whether a candidate that the user named may be dialled, when First was last called.
func (c *List) NamedWaits() bool {
	for addr := range c.named {
		if c.all[addr].is(isReady) {
			return true
		}
	}
	return false
}

// Postpone makes a candidate that First or Next returned wait until a time, because it is not dialled for a reason of our own.
func (c *List) Postpone(addr netip.AddrPort, until time.Time) {
	if k := c.get(addr); k.is(isReady) || k.is(isDialling) {
		k.due = until
		c.move(k, isDelayed)
	}
}

// Due returns when Next has a candidate; the zero time is now. ok is false if none is waiting.
func (c *List) Due() (at time.Time, ok bool) {
	switch {
	case c.nReady > 0:
		return time.Time{}, true
	case c.delayed.Len() > 0:
		return c.delayed.First().due, true
	}
	return time.Time{}, false
}

// Dialled records how dialling went; ok means up to and with the handshake. It reports whether the
// candidate is still wanted: meanwhile it may have been banned, forgotten, or found to be ourselves.
func (c *List) Dialled(addr netip.AddrPort, ok bool, now time.Time) bool {
	k := c.get(addr)
	if !k.is(isDialling) {
		return k != nil
	}
	switch {
	case ok:
		c.move(k, isConnected)
	case k.taken != isNew:
		c.move(k, k.taken)
	default:
		c.failed(k, now)
	}
	return true
}

// SetWay records the way by which addr was connected to: a number of the owner's, which the list does not interpret.
func (c *List) SetWay(addr netip.AddrPort, way uint8) {
	if k := c.get(addr); k != nil {
		k.way = way
	}
}

// Way is the last that was set for addr, or 0.
func (c *List) Way(addr netip.AddrPort) uint8 {
	if k := c.get(addr); k != nil {
		return k.way
	}
	return 0
}

// Left records that the connection to addr ended, and whether it was useful.
func (c *List) Left(addr netip.AddrPort, useful bool, now time.Time) {
	k := c.get(addr)
	if !k.is(isConnected) {
		return
	}
	if !useful {
		c.failed(k, now)
		return
	}
	k.useful, k.sated, k.failures, k.due = true, false, 0, now.Add(redialUseful)
	c.queue(k, now)
}

// Sated records that the connection to addr ended because both sides have everything they want. Until Recall this
// counts as a failure.
func (c *List) Sated(addr netip.AddrPort, now time.Time) {
	if k := c.get(addr); k.is(isConnected) {
		k.sated = true
		c.failed(k, now)
	}
}

// Recall makes the sated candidates due at once, because something is wanted again.
func (c *List) Recall(now time.Time) {
	for _, k := range c.all {
		if k.sated && (k.standing == isDelayed || k.standing == isGivenUp) {
			k.sated, k.failures, k.due = false, 0, now
			c.queue(k, now)
		}
	}
}

// others reports whether another candidate than k is connected, or could be soon.
func (c *List) others(k *candidate) bool {
	for _, other := range c.all {
		if other != k && (other.standing == isReady || other.standing == isDialling || other.standing == isConnected) {
			return true
		}
	}
	return false
}

// failed counts a failure, and gives the candidate up after too many.
func (c *List) failed(k *candidate, now time.Time) {
	k.failures++
	k.due = now.Add(min(time.Duration(k.failures)*redialAfter, redialAtMost))
	lone := c.Lone && !k.sated && !c.others(k)
	if k.from.isTheUsers() || lone {
		k.due = now.Add(min(redialUser<<min(k.failures-1, 16), redialAfter))
	}
	if k.failures >= maxFailures && !k.from.isTheUsers() && !lone {
		c.move(k, isGivenUp)
		return
	}
	c.queue(k, now)
}

// Revive makes candidates that could not be dialled due now, because the cause may have been a missing network.
func (c *List) Revive(now time.Time) {
	for _, k := range c.all {
		if k.failures > 0 && !k.sated && (k.standing == isDelayed || k.standing == isGivenUp) {
			k.failures, k.due = 0, now
			c.queue(k, now)
		}
	}
}

// ExcludeSelf records that addr is our own, as the peer id showed.
func (c *List) ExcludeSelf(addr netip.AddrPort) {
	addr = netaddr.Unmap(addr)
	expiring.Remember(c.self, addr, maxSelf)
	if k := c.all[addr]; k != nil {
		c.drop(k)
	}
}

// InVain reports whether dials of addr have failed, or led to connections that were useless or not wanted, so often that the next
// one comes about redialAfter after the first.
func (c *List) InVain(addr netip.AddrPort) bool {
	k := c.get(addr)
	if k == nil {
		return false
	}
	enough := 1
	if k.from.isTheUsers() || c.Lone {
		enough = vainUser
	}
	return k.failures >= enough
}

// Yielded reports whether a candidate has made room for another.
func (c *List) Yielded(addr netip.AddrPort) bool {
	k := c.get(addr)
	return k != nil && k.yielded > 0
}

// MadeRoom records that the connection to addr ends because another peer is to have its place. Left follows.
func (c *List) MadeRoom(addr netip.AddrPort) {
	if k := c.get(addr); k.is(isConnected) && !k.from.isTheUsers() {
		k.yielded++
	}
}

// Forget drops the candidates that a tracker was the last to name, except the user's own, because another tracker of
// a private torrent has taken over (BEP 27).
func (c *List) Forget(tracker string) {
	for _, k := range c.all {
		if k.by == tracker && k.from != FromUser {
			c.drop(k)
		}
	}
}

// Has reports whether addr is a candidate.
func (c *List) Has(addr netip.AddrPort) bool { return c.get(addr) != nil }

// Known returns how many candidates there are, whatever they are doing.
func (c *List) Known() int { return len(c.all) }

// Dialling returns how many candidates Next returned that Dialled was not yet called for.
func (c *List) Dialling() int { return c.nDials }

// queue puts k in the queue that it is dialled from.
func (c *List) queue(k *candidate, now time.Time) {
	if k.due.After(now) {
		c.move(k, isDelayed)
	} else {
		c.move(k, isReady)
	}
}

// drop removes k, whatever it is doing.
func (c *List) drop(k *candidate) {
	c.move(k, isGone)
	delete(c.all, k.addr)
	if k.from == FromUser {
		c.users--
	}
	c.leave(k)
	if !netaddr.IsLocal(k.addr.Addr()) {
		c.crowds.add(k.addr.Addr(), -1)
	}
}

// move changes what k is doing, and the queues and the count that follow from it.
func (c *List) move(k *candidate, to standing) {
	switch k.standing {
	case isReady:
		k.namer.ready.Remove(k.place)
		c.nReady--
	case isDelayed:
		c.delayed.Remove(k.place)
	case isDialling:
		c.nDials--
	}
	k.standing = to
	if to != isDialling {
		k.taken = isNew
	}
	k.claimed = k.claimed && to == isConnected
	switch to {
	case isReady:
		k.namer.ready.Push(k)
		c.nReady++
	case isDelayed:
		c.delayed.Push(k)
	case isDialling:
		c.nDials++
	}
}
