package torrent

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

// source is where a peer's address came from. The lower, the more is it trusted.
type source uint8

const (
	sourceUser     source = iota // Options.Peers
	sourceTracker                // BEP 3, 7, 15, 23
	sourceLSD                    // BEP 14
	sourceMagnet                 // x.pe
	sourceIncoming               // it connected to us, and said where it listens
	sourceFinder                 // Options.FindPeers
	sourcePEX                    // BEP 11
)

var sourceNames = [...]string{"user", "tracker", "lsd", "magnet", "incoming", "finder", "pex"}

func (s source) String() string { return sourceNames[s] }

// allowedInPrivate tells whether peers of a private torrent may come from there: from its trackers,
// as BEP 27 says, and from its user, who may have named some in a magnet link or by a function.
func (s source) allowedInPrivate() bool {
	return s == sourceUser || s == sourceTracker || s == sourceMagnet || s == sourceFinder
}

// standing is what a candidate is doing.
type standing uint8

const (
	isNew       standing = iota
	isReady              // may be dialled; in candidates.ready
	isDelayed            // may be dialled when due; in candidates.delayed
	isDialling           // handed out by next
	isConnected          // has a connection
	isGivenUp            // failed too often; kept so that being named anew is noticed
	isGone               // no longer in the list
)

// candidate is an address that a peer may listen at.
type candidate struct {
	addr     netip.AddrPort
	from     source
	tracker  string // the last to name it
	failures int    // dials that failed and connections that were of no use, in a row
	useful   bool   // a connection to it was of use once
	sated    bool   // the last connection ended because both sides have all that they want
	priority uint32 // BEP 40; higher is better
	standing standing
	due      time.Time // when it may be dialled
	place    int       // in its queue
}

// candidates are the peers that we could dial, from all sources, each address once. It takes the
// address of an IPv4 host in either form, and returns it in 4 bytes. Its owner's lock guards it.
type candidates struct {
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

// newCandidates returns an empty list. For a private torrent (BEP 27) it takes peers from trackers and
// the user alone.
func newCandidates(rng *rand.Rand, private bool) *candidates {
	return &candidates{
		rng:     rng,
		private: private,
		all:     make(map[netip.AddrPort]*candidate),
		ready:   queue{less: (*candidate).better},
		delayed: queue{less: (*candidate).sooner},
		bans:    make(map[netip.AddrPort]struct{}),
		self:    make(map[netip.AddrPort]struct{}),
	}
}

// add names a candidate. tracker is the URL of the tracker that did, or empty. It tells whether the
// address is news: not known before, or given up.
func (c *candidates) add(addr netip.AddrPort, from source, tracker string, now time.Time) bool {
	addr = netaddr.Unmap(addr)
	if !netaddr.Dialable(addr) || c.banned(addr) || c.private && !from.allowedInPrivate() {
		return false
	}
	if _, ours := c.self[addr]; ours {
		return false
	}
	k := c.all[addr]
	if k == nil {
		k = &candidate{addr: addr, from: from, tracker: tracker, priority: c.priority(addr), due: now}
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

// next hands out the best candidate that is due. It counts as dialling until dialled says how it went.
func (c *candidates) next(now time.Time) (addr netip.AddrPort, from source, ok bool) {
	if addr, ok = c.first(now); ok {
		k := c.all[addr]
		c.move(k, isDialling)
		from = k.from
	}
	return addr, from, ok
}

// first is the address that next would hand out.
func (c *candidates) first(now time.Time) (addr netip.AddrPort, ok bool) {
	for len(c.delayed.list) > 0 && !c.delayed.list[0].due.After(now) {
		c.move(c.delayed.list[0], isReady)
	}
	if len(c.ready.list) == 0 {
		return addr, false
	}
	return c.ready.list[0].addr, true
}

// due is when next has a candidate; the zero time is now. It is not ok if none is waiting.
func (c *candidates) due() (at time.Time, ok bool) {
	switch {
	case len(c.ready.list) > 0:
		return time.Time{}, true
	case len(c.delayed.list) > 0:
		return c.delayed.list[0].due, true
	}
	return time.Time{}, false
}

// dialled tells how dialling went; ok means up to and with the handshake. It returns whether the
// candidate is still wanted: meanwhile it may have been banned, forgotten, or found to be ourselves.
func (c *candidates) dialled(addr netip.AddrPort, ok bool, now time.Time) bool {
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

// connected tells that the peer which listens at addr has connected to us: it need not be dialled.
func (c *candidates) connected(addr netip.AddrPort) {
	if k := c.all[netaddr.Unmap(addr)]; k != nil {
		c.move(k, isConnected)
	}
}

// left tells that the connection to addr ended, and whether it was of use.
func (c *candidates) left(addr netip.AddrPort, useful bool, now time.Time) {
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

// sated tells that the connection to addr ended because both sides have all that they want. Until
// recall that counts as a failure.
func (c *candidates) sated(addr netip.AddrPort, now time.Time) {
	if k := c.all[netaddr.Unmap(addr)]; k != nil && k.standing == isConnected {
		k.sated = true
		c.failed(k, now)
	}
}

// recall has those dialled at once that were left because nothing was wanted: something is.
func (c *candidates) recall(now time.Time) {
	for _, k := range c.all {
		if k.sated && (k.standing == isDelayed || k.standing == isGivenUp) {
			k.sated, k.failures, k.due = false, 0, now
			c.queue(k, now)
		}
	}
}

// failed counts a failure, and gives the candidate up after too many.
func (c *candidates) failed(k *candidate, now time.Time) {
	k.failures++
	k.due = now.Add(min(time.Duration(k.failures)*redialAfter, redialAtMost))
	if k.from == sourceUser {
		k.due = now.Add(min(redialUser<<min(k.failures-1, 16), redialAfter))
	}
	if k.failures >= maxFailures && k.from != sourceUser {
		c.move(k, isGivenUp)
		return
	}
	c.queue(k, now)
}

// ban refuses an address for good: every port of a public one, only the one port of a loopback or
// private one, which many peers may share.
func (c *candidates) ban(addr netip.AddrPort) {
	addr = netaddr.Unmap(addr)
	c.bans[banKey(addr)] = struct{}{}
	for a, k := range c.all {
		if c.banned(a) {
			c.drop(k)
		}
	}
}

// banned tells whether addr may neither be dialled nor accepted.
func (c *candidates) banned(addr netip.AddrPort) bool {
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

// noteSelf tells that whoever answers at addr is us, as the peer id showed.
func (c *candidates) noteSelf(addr netip.AddrPort) {
	addr = netaddr.Unmap(addr)
	c.self[addr] = struct{}{}
	if k := c.all[addr]; k != nil {
		c.drop(k)
	}
}

// setExternal tells how the world sees us: our address, with the port that we listen at. It decides the
// canonical priority of all candidates of that address family.
func (c *candidates) setExternal(addr netip.AddrPort) {
	addr = netaddr.Unmap(addr)
	if e := &c.external[netaddr.FamilyOf(addr.Addr())]; *e != addr {
		*e = addr
		for _, k := range c.all {
			if netaddr.FamilyOf(k.addr.Addr()) == netaddr.FamilyOf(addr.Addr()) {
				k.priority = c.priority(k.addr)
			}
		}
		heap.Init(&c.ready)
	}
}

// priority is the canonical one where we know how the peer would see us, else drawn by lot.
func (c *candidates) priority(addr netip.AddrPort) uint32 {
	if e := c.external[netaddr.FamilyOf(addr.Addr())]; e.IsValid() {
		return netaddr.Priority(e, addr)
	}
	return c.rng.Uint32()
}

// forget drops the candidates that tracker was the last to name, but for the user's own: another
// tracker of a private torrent has taken over (BEP 27).
func (c *candidates) forget(tracker string) {
	for _, k := range c.all {
		if k.tracker == tracker && k.from != sourceUser {
			c.drop(k)
		}
	}
}

// has tells whether addr is a candidate.
func (c *candidates) has(addr netip.AddrPort) bool { return c.all[netaddr.Unmap(addr)] != nil }

// known is how many candidates there are, whatever they are doing.
func (c *candidates) known() int { return len(c.all) }

// dialling is how many next handed out and dialled has not told about.
func (c *candidates) dialling() int { return c.nDials }

// bannedCount is how many addresses are banned.
func (c *candidates) bannedCount() int { return len(c.bans) }

// trim drops the least promising sixteenth, so that the next few to come find room.
func (c *candidates) trim() {
	var idle []*candidate
	for _, k := range c.all {
		if k.from != sourceUser && k.standing != isDialling && k.standing != isConnected {
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
func (c *candidates) queue(k *candidate, now time.Time) {
	if k.due.After(now) {
		c.move(k, isDelayed)
	} else {
		c.move(k, isReady)
	}
}

// drop forgets k, whatever it is doing.
func (c *candidates) drop(k *candidate) {
	c.move(k, isGone)
	delete(c.all, k.addr)
}

// move changes what k is doing, and the queues and the count that follow from it.
func (c *candidates) move(k *candidate, to standing) {
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
