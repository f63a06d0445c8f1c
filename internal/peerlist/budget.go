package peerlist

import (
	"iter"
	"math"
	"net/netip"
	"time"
)

// budgetRound is how often a download looks at the budget, to dial more or to give connections back.
const budgetRound = time.Second

// keptFor is how long a connection that was given up for a download is kept for the dials of downloads that have none.
const keptFor = 10 * time.Second

// A Budget divides the connections of a client among its downloads: each may have an equal share, and what the others leave of
// theirs. A download above its share gives connections back when one below its share asks. The zero value is ready to use.
type Budget struct {
	dials     dials
	targets   targets
	connected int       // of all downloads
	refused   time.Time // when a download below its share was last refused a connection
	starved   time.Time // when a download without a connection was last refused a dial
	since     time.Time // since when that has happened again and again
	gaveUp    time.Time // when a peer last made room for a download that starves
	keptUntil time.Time // peers that dial us leave one connection for dials until then
	networks  networks
}

// A Claim is the claim of one download to connections of a shared budget.
type Claim struct {
	By      any // identifies the download among those that wait for their turn to dial, at all or a certain host
	Has     int // its connections
	Sharing int // how many downloads share the budget
	Most    int // bound on the connections of all of them together; 0 is no bound
}

// share returns how many connections each of the downloads may have.
func (c Claim) share() int { return max(1, c.Most/max(1, c.Sharing)) }

// InUse returns how many connections there are, and how many are being made.
func (b *Budget) InUse() (connected, dialling int) { return b.connected, b.dials.halfOpen }

// reserve returns how many connections are kept for downloads below their share: a tenth of the budget, but at least one. Otherwise
// peers that come back at once would take again what a download gave back for another.
func (c Claim) reserve() int { return max(1, c.Most/10) }

// room reports whether a download may have another connection if the budget has left more. The reserve is for downloads below
// their share.
func (b *Budget) room(c Claim, left int, now time.Time) bool {
	if c.Most <= 0 {
		return true
	}
	if c.Has >= c.share() {
		return left > c.reserve()
	}
	if left <= 0 {
		b.refused = now
	}
	return left > 0
}

// left returns how many more connections all downloads together may have, counting dials under way as connections.
func (b *Budget) left(c Claim) int { return c.Most - b.connected - b.dials.halfOpen }

// bound has no more dials half open than there are connections left for them.
func (b *Budget) bound(c Claim) {
	b.dials.less = 0
	if c.Most > 0 {
		b.dials.less = max(0, maxHalfOpen-max(0, c.Most-b.connected))
	}
}

// AllTaken reports whether a download has its share of the connections, so that it gets another only in the place of one of
// these.
func (b *Budget) AllTaken(c Claim) bool {
	return c.Most > 0 && b.left(c) <= c.reserve() && c.Has >= c.share()
}

// Excess returns how many of its connections a download has to give up now, in favour of another.
func (b *Budget) Excess(c Claim, now time.Time) int {
	if c.Most <= 0 || c.Has <= c.share() || now.Sub(b.refused) > budgetRound {
		return 0
	}
	return max(1, (c.Has-c.share())/4)
}

// Starves reports whether there are more downloads than connections, all connections are in use, and a download without any was
// recently refused one.
func (b *Budget) Starves(c Claim, now time.Time) bool {
	return c.Most > 0 && c.Sharing > c.Most && b.connected >= c.Most && now.Sub(b.refused) <= budgetRound
}

// Idlest returns the id of the peer of those of a download that makes room for a download that starves, or 0: the least useful
// one that does not earn its place, or has had it for TurnoverEvery, since to earn one costs little. If one is refused dials, and
// for a while no peer has made room, a new peer may: peers that come without end would all be new.
//
// While a download is refused dials, peers that dial us leave it a connection for a while. Otherwise those that dial other downloads without
// a connection, of which there may be many, would always be first.
func (b *Budget) Idlest(now time.Time, peers []Worth) (id int) {
	dials := now.Sub(b.starved) <= waitsFor
	anyNew := dials && now.Sub(b.since) >= keptFor && now.Sub(b.gaveUp) >= keptFor
	id = first(worst(now, peers, 1, func(p Worth) bool {
		return !p.Keep && !p.isNew(now) && (!p.earns(now) || now.Sub(p.Joined) >= TurnoverEvery)
	})).ID
	if id == 0 && anyNew {
		id = first(worst(now, peers, 1, func(p Worth) bool { return !p.Keep && !p.earns(now) })).ID
	}
	if id != 0 {
		b.gaveUp = now
		if dials {
			b.keptUntil = now.Add(keptFor)
		}
	}
	return id
}

// TargetAt returns when an address that a source named may be dialled, now or later, with regard to other dials of the same host,
// and to the connections of its network. Downloads that have to wait for the same host take turns, with one dial each. An address that
// the user named may always be dialled. A download without a connection may know no peer of another network, so that it waits for the
// host alone.
func (b *Budget) TargetAt(c Claim, addr netip.Addr, from Source, now time.Time) time.Time {
	if from == FromUser {
		return now
	}
	if c.Has > 0 && b.excludes(c, addr.Unmap(), b.left(c), now) {
		return now.Add(wantedFor)
	}
	return b.targets.dialAt(c.By, addr.Unmap(), now)
}

// excludes reports whether there is no room for a peer because its network has more than its share of the connections, of which
// few are left, or more are wanted.
func (b *Budget) excludes(c Claim, addr netip.Addr, left int, now time.Time) bool {
	return b.networks.crowding(c, addr, 1) && (left <= c.reserve() || b.networks.areWanted(now))
}

// Dial reports whether a download may dial an address now, and counts the dial if so. The caller must then call EndDial.
// Downloads that are refused because too many dials are under way take turns, with one dial each. So do those below their share
// to which dials alone leave no connection.
func (b *Budget) Dial(c Claim, addr netip.Addr, now time.Time) bool {
	b.bound(c)
	if !b.room(c, b.left(c), now) && (c.Has >= c.share() || b.connected >= c.Most) {
		b.networks.want(c, addr.Unmap(), now)
		if c.Has == 0 {
			if now.Sub(b.starved) > waitsFor {
				b.since = now
			}
			b.starved = now
		}
		b.dials.waiting.served(c.By)
		return false
	}
	if n, _ := b.dials.left(c.By, now); n == 0 {
		b.dials.waiting.wait(c.By, now.Add(waitsFor))
		return false
	}
	b.dials.waiting.served(c.By)
	b.targets.served(c.By, addr.Unmap())
	b.begin(addr, now)
	b.dials.halfOpen++
	return true
}

// Redial is called by a dial under way before it makes a second connection in place of its first. It counts that
// connection towards the rate of dials, or returns how long to wait before asking again.
func (b *Budget) Redial(addr netip.Addr, now time.Time) (wait time.Duration) {
	if wait = b.dials.pause(now); wait == 0 {
		b.begin(addr, now)
	}
	return wait
}

func (b *Budget) begin(addr netip.Addr, now time.Time) {
	b.targets.begin(addr.Unmap(), now)
	b.dials.begin(now)
}

// Forget forgets a download that has ended.
func (b *Budget) Forget(by any) {
	b.dials.waiting.served(by)
	b.targets.forget(by)
}

// Turn yields the downloads whose turn it is to dial now.
func (b *Budget) Turn(now time.Time) iter.Seq[any] { return b.dials.turn(now) }

// EndDial counts a dial that is over. If it led to a connection, Join is called before.
func (b *Budget) EndDial() { b.dials.end() }

// DialAt returns when a download may dial a candidate that is due at the given time, as far as that is known.
func (b *Budget) DialAt(c Claim, due, now time.Time) time.Time {
	if due.Before(now) {
		due = now
	}
	b.bound(c)
	n, wait := b.dials.left(c.By, now)
	if n == 0 && wait == 0 || !b.room(c, b.left(c), now) {
		wait = budgetRound // too many dials or connections, or it is the turn of another download
	}
	if again := now.Add(wait); due.Before(again) {
		return again
	}
	return due
}

// Accept reports whether a download may take an incoming connection of a peer, and counts it if so. Dials under way do not count,
// because most candidates may not exist.
func (b *Budget) Accept(c Claim, peer netip.Addr, now time.Time) bool {
	left := c.Most - b.connected
	if b.excludes(c, peer, left, now) {
		return false
	}
	if now.Before(b.keptUntil) {
		left--
	}
	if !b.room(c, left, now) {
		b.networks.want(c, peer, now)
		return false
	}
	b.join(peer)
	return true
}

// Free returns how many incoming connections a download may take: those that its share lacks, or what the others leave of theirs.
func (b *Budget) Free(c Claim) int {
	left := c.Most - b.connected
	switch lacks := c.share() - c.Has; {
	case c.Most <= 0:
		return math.MaxInt
	case lacks > 0:
		return min(lacks, left)
	}
	return left - c.reserve()
}

// Refuses reports whether Accept would refuse an incoming connection also in the place of another one, because of its network.
func (b *Budget) Refuses(c Claim, peer netip.Addr, now time.Time) bool {
	return b.excludes(c, peer, c.Most-b.connected+1, now)
}

// Join reports whether a download may take a connection that it dialled, and counts it if so. Incoming connections may have taken
// the last place since Dial.
func (b *Budget) Join(c Claim, peer netip.Addr, now time.Time) bool {
	if c.Most > 0 && b.connected >= c.Most {
		if c.Has < c.share() {
			b.refused = now
		}
		return false
	}
	b.keptUntil = time.Time{}
	b.join(peer)
	return true
}

// Replace counts a connection to a peer that is connected twice. The other one's end is counted at once.
func (b *Budget) Replace(addr netip.Addr) { b.join(addr) }

func (b *Budget) join(addr netip.Addr) {
	b.connected++
	b.networks.count(addr, 1)
}

// Left counts a connection to a peer that has ended.
func (b *Budget) Left(addr netip.Addr) {
	b.connected--
	b.networks.count(addr, -1)
}
