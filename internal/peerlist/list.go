// Package peerlist decides whom to dial, whom to admit and whom to keep: the peers that are known, from
// all sources; the budget of dials and connections that downloads share; and the peers that make room
// for others.
//
// It is plain data: it knows no connection and no clock, and draws from the random source that it is
// given. Each download has its own List, and a client one Budget, which their locks guard.
package peerlist

import (
	"cmp"
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	maxCandidates = 3000
	redialAfter   = 60 * time.Second // times the failures
	redialAtMost  = 10 * time.Minute
	redialUser    = 2 * time.Second // a peer that the user named, doubling to redialAfter: it may just be starting
	redialUseful  = 5 * time.Second // after a connection that was of use
	maxFailures   = 3               // then only when named anew
)

// Source is where a peer's address came from. Lower ones are trusted more.
type Source uint8

const (
	FromUser     Source = iota // Options.Peers
	FromTracker                // BEP 3, 7, 15, 23
	FromLSD                    // BEP 14
	FromMagnet                 // x.pe
	FromIncoming               // it connected to us, and said where it listens
	FromFinder                 // Options.FindPeers
	FromPEX                    // BEP 11
)

var sourceNames = [...]string{"user", "tracker", "lsd", "magnet", "incoming", "finder", "pex"}

func (s Source) String() string { return sourceNames[s] }

// allowedInPrivate reports whether peers of a private torrent may come from there: from its trackers,
// as BEP 27 says, and from its user, who may have named some in a magnet link or by a function.
func (s Source) allowedInPrivate() bool {
	return s == FromUser || s == FromTracker || s == FromMagnet || s == FromFinder
}

// standing is what a candidate is doing.
type standing uint8

const (
	isNew       standing = iota
	isReady              // may be dialled; in List.ready
	isDelayed            // may be dialled when due; in List.delayed
	isDialling           // handed out by Next
	isConnected          // has a connection
	isGivenUp            // failed too often; kept so that being named anew is noticed
	isGone               // no longer in the list
)

// candidate is an address that a peer may listen at.
type candidate struct {
	addr     netip.AddrPort
	from     Source
	tracker  string // the last to name it
	failures int    // dials that failed and connections that were of no use, in a row
	useful   bool   // a connection to it was of use once
	sated    bool   // the last connection ended because both sides have all that they want
	priority uint32 // BEP 40; higher is better
	standing standing
	due      time.Time // when it may be dialled
	place    int       // in its queue
}

// A List is the peers that we could dial, from all sources, each address once. It takes the address of
// an IPv4 host in either form, and returns it in 4 bytes.
type List struct {
	rng     *rand.Rand
	private bool

	all     map[netip.AddrPort]*candidate
	ready   queue // best first
	delayed queue // soonest first
	nDials  int   // candidates that are dialling

	bans     map[netip.AddrPort]struct{}      // port 0 is every port
	self     map[netip.AddrPort]struct{}      // addresses that turned out to be our own
	external [netaddr.Families]netip.AddrPort // how the world sees us, over IPv4 and IPv6; invalid if unknown
}

// New returns an empty list. For a private torrent (BEP 27) it takes peers from trackers and
// the user alone.
func New(rng *rand.Rand, private bool) *List {
	return &List{
		rng:     rng,
		private: private,
		all:     make(map[netip.AddrPort]*candidate),
		ready:   queue{less: (*candidate).better},
		delayed: queue{less: (*candidate).sooner},
		bans:    make(map[netip.AddrPort]struct{}),
		self:    make(map[netip.AddrPort]struct{}),
	}
}

// Add names a candidate. tracker is the URL of the tracker that did, or empty. It reports whether the
// address is news: not known before, or given up.
func (c *List) Add(addr netip.AddrPort, from Source, tracker string, now time.Time) bool {
	addr = netaddr.Unmap(addr)
	if !netaddr.Dialable(addr) || c.Banned(addr) || c.private && !from.allowedInPrivate() {
		return false
	}
	if _, ours := c.self[addr]; ours {
		return false
	}
	k := c.all[addr]
	if k == nil {
		k = &candidate{addr: addr, from: from, tracker: tracker, priority: c.Priority(addr), due: now}
		c.all[addr] = k
		c.queue(k, now)
		if len(c.all) > maxCandidates {
			c.trim()
		}
		return c.all[addr] == k
	}
	if tracker != "" {
		k.tracker = tracker
	}
	if from < k.from {
		k.from = from
		if k.standing == isReady {
			heap.Fix(&c.ready, k.place)
		}
	}
	if k.standing != isGivenUp {
		return false
	}
	c.queue(k, now)
	return true
}

// Next hands out the best candidate that is due. It counts as dialling until Dialled says how it went.
func (c *List) Next(now time.Time) (addr netip.AddrPort, from Source, ok bool) {
	if addr, ok = c.First(now); ok {
		k := c.all[addr]
		c.move(k, isDialling)
		from = k.from
	}
	return addr, from, ok
}

// First is the address that Next would hand out.
func (c *List) First(now time.Time) (addr netip.AddrPort, ok bool) {
	for len(c.delayed.list) > 0 && !c.delayed.list[0].due.After(now) {
		c.move(c.delayed.list[0], isReady)
	}
	if len(c.ready.list) == 0 {
		return addr, false
	}
	return c.ready.list[0].addr, true
}

// Due is when Next has a candidate; the zero time is now. It is not ok if none is waiting.
func (c *List) Due() (at time.Time, ok bool) {
	switch {
	case len(c.ready.list) > 0:
		return time.Time{}, true
	case len(c.delayed.list) > 0:
		return c.delayed.list[0].due, true
	}
	return time.Time{}, false
}

// Dialled records how dialling went; ok means up to and with the handshake. It reports whether the
// candidate is still wanted: meanwhile it may have been banned, forgotten, or found to be ourselves.
func (c *List) Dialled(addr netip.AddrPort, ok bool, now time.Time) bool {
	k := c.all[netaddr.Unmap(addr)]
	if k == nil || k.standing != isDialling {
		return k != nil
	}
	if ok {
		c.move(k, isConnected)
	} else {
		c.failed(k, now)
	}
	return true
}

// Connected records that the peer which listens at addr has connected to us: it need not be dialled.
func (c *List) Connected(addr netip.AddrPort) {
	if k := c.all[netaddr.Unmap(addr)]; k != nil {
		c.move(k, isConnected)
	}
}

// Left records that the connection to addr ended, and whether it was of use.
func (c *List) Left(addr netip.AddrPort, useful bool, now time.Time) {
	k := c.all[netaddr.Unmap(addr)]
	if k == nil || k.standing != isConnected {
		return
	}
	if !useful {
		c.failed(k, now)
		return
	}
	k.useful, k.sated, k.failures, k.due = true, false, 0, now.Add(redialUseful)
	c.queue(k, now)
}

// Sated records that the connection to addr ended because both sides have all that they want. Until
// Recall that counts as a failure.
func (c *List) Sated(addr netip.AddrPort, now time.Time) {
	if k := c.all[netaddr.Unmap(addr)]; k != nil && k.standing == isConnected {
		k.sated = true
		c.failed(k, now)
	}
}

// Recall has those dialled at once that were left because nothing was wanted: something is.
func (c *List) Recall(now time.Time) {
	for _, k := range c.all {
		if k.sated && (k.standing == isDelayed || k.standing == isGivenUp) {
			k.sated, k.failures, k.due = false, 0, now
			c.queue(k, now)
		}
	}
}

// failed counts a failure, and gives the candidate up after too many.
func (c *List) failed(k *candidate, now time.Time) {
	k.failures++
	k.due = now.Add(min(time.Duration(k.failures)*redialAfter, redialAtMost))
	if k.from == FromUser {
		k.due = now.Add(min(redialUser<<min(k.failures-1, 16), redialAfter))
	}
	if k.failures >= maxFailures && k.from != FromUser {
		c.move(k, isGivenUp)
		return
	}
	c.queue(k, now)
}

// Ban refuses an address for good: every port of a public one, only the one port of a loopback or
// private one, which many peers may share.
func (c *List) Ban(addr netip.AddrPort) {
	addr = netaddr.Unmap(addr)
	c.bans[banKey(addr)] = struct{}{}
	for a, k := range c.all {
		if c.Banned(a) {
			c.drop(k)
		}
	}
}

// Banned reports whether addr may neither be dialled nor accepted.
func (c *List) Banned(addr netip.AddrPort) bool {
	_, ok := c.bans[banKey(netaddr.Unmap(addr))]
	return ok
}

// banKey is what a ban of an unmapped address rests on.
func banKey(addr netip.AddrPort) netip.AddrPort {
	if netaddr.IsLocal(addr.Addr()) {
		return addr
	}
	return netip.AddrPortFrom(addr.Addr(), 0)
}

// ExcludeSelf records that it is ourselves who listen at addr, as the peer id showed.
func (c *List) ExcludeSelf(addr netip.AddrPort) {
	addr = netaddr.Unmap(addr)
	c.self[addr] = struct{}{}
	if k := c.all[addr]; k != nil {
		c.drop(k)
	}
}

// SetExternal sets how the world sees us: our address, with the port that we listen at. It decides the
// canonical priority of all candidates of that address family.
func (c *List) SetExternal(addr netip.AddrPort) {
	addr = netaddr.Unmap(addr)
	if e := &c.external[netaddr.FamilyOf(addr.Addr())]; *e != addr {
		*e = addr
		for _, k := range c.all {
			if netaddr.FamilyOf(k.addr.Addr()) == netaddr.FamilyOf(addr.Addr()) {
				k.priority = c.Priority(k.addr)
			}
		}
		heap.Init(&c.ready)
	}
}

// External is how the world sees us over a family of addresses; invalid if unknown.
func (c *List) External(f netaddr.Family) netip.AddrPort { return c.external[f] }

// Priority is the canonical one where we know how the peer would see us, else drawn by lot.
func (c *List) Priority(addr netip.AddrPort) uint32 {
	if e := c.external[netaddr.FamilyOf(addr.Addr())]; e.IsValid() {
		return netaddr.Priority(e, addr)
	}
	return c.rng.Uint32()
}

// Forget drops the candidates that tracker was the last to name, but for the user's own: another
// tracker of a private torrent has taken over (BEP 27).
func (c *List) Forget(tracker string) {
	for _, k := range c.all {
		if k.tracker == tracker && k.from != FromUser {
			c.drop(k)
		}
	}
}

// Has reports whether addr is a candidate.
func (c *List) Has(addr netip.AddrPort) bool { return c.all[netaddr.Unmap(addr)] != nil }

// Known is how many candidates there are, whatever they are doing.
func (c *List) Known() int { return len(c.all) }

// Dialling is how many Next handed out and Dialled has not reported on.
func (c *List) Dialling() int { return c.nDials }

// Bans is how many addresses are banned.
func (c *List) Bans() int { return len(c.bans) }

// trim drops the least promising sixteenth, so that the next few to come find room.
func (c *List) trim() {
	var idle []*candidate
	for _, k := range c.all {
		if k.from != FromUser && k.standing != isDialling && k.standing != isConnected {
			idle = append(idle, k)
		}
	}
	slices.SortFunc(idle, func(a, b *candidate) int { return a.promise(b) })
	for _, k := range idle[:min(len(idle), maxCandidates/16)] {
		c.drop(k)
	}
}

// promise compares how much is to be hoped of two candidates: negative if less of k.
func (k *candidate) promise(l *candidate) int {
	return cmp.Or(
		compareBool(k.standing != isGivenUp, l.standing != isGivenUp),
		cmp.Compare(l.failures, k.failures),
		compareBool(k.useful, l.useful),
		cmp.Compare(l.from, k.from),
		cmp.Compare(k.priority, l.priority),
		k.addr.Compare(l.addr),
	)
}

func (k *candidate) better(l *candidate) bool { return k.promise(l) > 0 }

func (k *candidate) sooner(l *candidate) bool {
	return cmp.Or(k.due.Compare(l.due), k.addr.Compare(l.addr)) < 0
}

// queue puts k where it is dialled from when it is due.
func (c *List) queue(k *candidate, now time.Time) {
	if k.due.After(now) {
		c.move(k, isDelayed)
	} else {
		c.move(k, isReady)
	}
}

// drop forgets k, whatever it is doing.
func (c *List) drop(k *candidate) {
	c.move(k, isGone)
	delete(c.all, k.addr)
}

// move changes what k is doing, and the queues and the count that follow from it.
func (c *List) move(k *candidate, to standing) {
	switch k.standing {
	case isReady:
		heap.Remove(&c.ready, k.place)
	case isDelayed:
		heap.Remove(&c.delayed, k.place)
	case isDialling:
		c.nDials--
	}
	k.standing = to
	switch to {
	case isReady:
		heap.Push(&c.ready, k)
	case isDelayed:
		heap.Push(&c.delayed, k)
	case isDialling:
		c.nDials++
	}
}

// queue is a heap of candidates that know their places.
type queue struct {
	list []*candidate
	less func(k, l *candidate) bool
}

func (q *queue) Len() int           { return len(q.list) }
func (q *queue) Less(i, j int) bool { return q.less(q.list[i], q.list[j]) }

func (q *queue) Swap(i, j int) {
	q.list[i], q.list[j] = q.list[j], q.list[i]
	q.list[i].place, q.list[j].place = i, j
}

func (q *queue) Push(x any) {
	k := x.(*candidate)
	k.place = len(q.list)
	q.list = append(q.list, k)
}

func (q *queue) Pop() any {
	n := len(q.list) - 1
	k := q.list[n]
	q.list[n] = nil
	q.list = q.list[:n]
	return k
}
