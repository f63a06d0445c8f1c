package dht

import (
	"net/netip"
	"slices"

	"github.com/shoal-go/torrent/internal/krpc"
	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	lookupWidth   = 5   // nodes that are asked at a time, those that are slow aside
	maxCandidates = 100 // nodes that a lookup knows of at a time, and asks in all
	maxAsked      = 60  // nodes that it asks if enough have answered
	maxNamed      = 8   // nodes that are taken from one answer
	lookupDepth   = 12  // nearest nodes that are to answer: a third of 12 may lie, and 8 are left
	maxOthers     = 24  // nodes that are asked though their ids do not follow from their addresses, if enough do
	maxSiblings   = 3   // candidates of one network
	maxOfSite     = 8   // verified candidates of one site, without those that failed
	siteDepth     = 4   // nodes of one site that count as of the nearest
	maxSiblingTry = 2   // of which so many are asked, while none answers
	initialCredit = 2   // nodes named by one answering node that are asked while none of them answers
	maxCredit     = 16
)

// lookup finds the nodes nearest to a target, of one family. It trusts no node's word:
//
//   - It sorts candidates itself, and asks the nearest. Of a network it hears one node.
//   - A node that names others that do not answer is soon not followed further, unless others name the same.
//   - It is done when the 12 nearest have answered, counting only ids that follow from their addresses (BEP 42);
//     and beside them up to 8 nearer ones whose ids do not, since many honest nodes have no such id.
//     So a node that chooses its id at will may join the nearest, but not displace them.
//   - Of these 12, four at most are of one site. Who holds a large network of IPv6 has addresses in it from which
//     any id follows, as near to a target as that one likes.
type lookup struct {
	target ID
	self   ID
	blind  []netip.AddrPort // nodes whose id is not known, to begin with
	nodes  []candidate      // nearest first
	credit []uint8          // by the number of a node that answered: how many that it names may be asked
	asked  int

	askedOthers int // nodes whose ids do not follow from their addresses
}

type candidate struct {
	krpc.Contact
	network  netip.AddrPort
	site     site
	state    candidateState
	verified bool    // its id follows from its address
	namers   []uint8 // numbers of the nodes that named it; none if our own table did
	token    []byte  // permits to store there
	seq      *int64  // of the item that it holds, if it said so
}

type candidateState uint8

const (
	candidateFresh  candidateState = iota // not asked
	candidateAsked                        // under way
	candidateSlow                         // under way for more than a second
	candidateLate                         // given up on, though it may answer yet
	candidateFailed                       // did not answer, or not as who it is
	candidateAnswered
)

// add offers a candidate that our own table knows.
func (l *lookup) add(c krpc.Contact) { l.offer(c, -1) }

// named takes the nodes that an answer names: the 8 nearest, in whatever order they stand. A negative
// namer is one that is not to be held to account.
func (l *lookup) named(namer int, from netip.AddrPort, nodes []krpc.Contact) {
	slices.SortFunc(nodes, func(a, b krpc.Contact) int {
		if krpc.Nearer(l.target, a.ID, b.ID) {
			return -1
		}
		return 1
	})
	for _, c := range nodes[:min(len(nodes), maxNamed)] {
		if mayName(from, c.Addr) {
			l.offer(c, namer)
		}
	}
}

func (l *lookup) offer(c krpc.Contact, namer int) {
	if c.ID == l.self {
		return
	}
	network := networkOf(c.Addr)
	siblings, worst := 0, -1 // of those that are fresh
	for i := range l.nodes {
		n := &l.nodes[i]
		if n.network != network {
			continue
		}
		if n.Contact == c {
			if namer >= 0 && len(n.namers) > 0 && len(n.namers) < maxNamed && !slices.Contains(n.namers, uint8(namer)) {
				n.namers = append(n.namers, uint8(namer))
			}
			return
		}
		siblings++
		if n.state == candidateFresh && (worst < 0 || !n.verified && l.nodes[worst].verified || n.verified == l.nodes[worst].verified) {
			worst = i
		}
	}
	n := newCandidate(c)
	if siblings >= maxSiblings {
		// Naming other nodes of a node's network does not keep out a node that has the better id, or is nearer.
		if worst < 0 || l.nodes[worst].verified && !n.verified ||
			l.nodes[worst].verified == n.verified && !krpc.Nearer(l.target, c.ID, l.nodes[worst].ID) {
			return
		}
		l.nodes = slices.Delete(l.nodes, worst, worst+1)
	}
	if !l.makeRoomAt(&n) {
		return
	}
	if namer >= 0 {
		n.namers = []uint8{uint8(namer)}
	}
	if len(l.nodes) < maxCandidates || l.drop(&n) {
		l.insert(n)
	}
}

func newCandidate(c krpc.Contact) candidate {
	return candidate{Contact: c, network: networkOf(c.Addr), site: siteOf(c.Addr), verified: verifiedID(c.ID, c.Addr.Addr())}
}

// makeRoomAt reports whether the site of a verified candidate has room for it, perhaps at the cost of one that those that named it have
// no credit for, or else of the farthest one. So one node that names many of a site does not keep out those that others name.
func (l *lookup) makeRoomAt(n *candidate) bool {
	if n.site == 0 || !n.verified {
		return true
	}
	var used [1 << 8]uint8 // of the credit of each namer
	here, worst, doubted := 0, -1, false
	for i := range l.nodes {
		other := &l.nodes[i]
		if other.site != n.site || !other.verified || other.state == candidateFailed {
			continue
		}
		if here++; other.state != candidateFresh {
			continue
		}
		by := slices.IndexFunc(other.namers, func(namer uint8) bool { return used[namer] < l.credit[namer] })
		if by >= 0 {
			used[other.namers[by]]++
		}
		if d := by < 0 && len(other.namers) > 0; d || !doubted {
			worst, doubted = i, d
		}
	}
	if here < maxOfSite {
		return true
	}
	if worst < 0 || !doubted && !krpc.Nearer(l.target, n.ID, l.nodes[worst].ID) {
		return false
	}
	l.nodes = slices.Delete(l.nodes, worst, worst+1)
	return true
}

// sites are those of the nearest nodes, nearest first.
type sites []site

// full reports whether as many nodes of a verified candidate's site are nearer as count.
func (s sites) full(n *candidate) bool {
	if n.site == 0 || !n.verified {
		return false
	}
	count := 0
	for _, other := range s {
		if other == n.site {
			count++
		}
	}
	return count >= siteDepth
}

// drop makes room for a candidate: at the cost of one that would not be asked, else of the farthest one. It
// is of the kind that has more than half of the places, so that neither verified ones nor others push
// all of the other kind out.
func (l *lookup) drop(n *candidate) bool {
	verified := 0
	for i := range l.nodes {
		if l.nodes[i].verified {
			verified++
		}
	}
	kind := 2*verified > len(l.nodes)
	last := -1
	for i := len(l.nodes) - 1; i >= 0; i-- {
		if l.nodes[i].state != candidateFresh || l.nodes[i].verified != kind {
			continue
		}
		if !l.believed(&l.nodes[i]) {
			last = i
			break
		}
		if last < 0 {
			last = i
		}
	}
	if last < 0 || n.verified == kind && l.believed(&l.nodes[last]) && !krpc.Nearer(l.target, n.ID, l.nodes[last].ID) {
		return false
	}
	l.nodes = slices.Delete(l.nodes, last, last+1)
	return true
}

func (l *lookup) insert(n candidate) *candidate {
	at, _ := slices.BinarySearchFunc(l.nodes, n.ID, func(c candidate, id ID) int {
		if krpc.Nearer(l.target, c.ID, id) {
			return -1
		}
		return 1
	})
	l.nodes = slices.Insert(l.nodes, at, n)
	return &l.nodes[at]
}

// believed reports whether any of the nodes that named a candidate has credit left.
func (l *lookup) believed(n *candidate) bool {
	if len(n.namers) == 0 {
		return true
	}
	for _, namer := range n.namers {
		if l.credit[namer] > 0 {
			return true
		}
	}
	return false
}

// next returns the node to ask now, which counts as asked from then on, and whether its id is known. ok is false if
// there is none.
func (l *lookup) next() (c krpc.Contact, known, ok bool) {
	if l.spent() {
		return c, false, false
	}
	i, _ := l.frontier()
	if i < 0 {
		if len(l.blind) == 0 || l.enough() {
			return c, false, false
		}
		c.Addr, l.blind = l.blind[0], l.blind[1:]
		l.asked++
		return c, false, true
	}
	n := &l.nodes[i]
	n.state = candidateAsked
	if !n.verified {
		l.askedOthers++
	}
	for _, namer := range n.namers {
		l.credit[namer] -= min(l.credit[namer], 1)
	}
	l.asked++
	return n.Contact, true, true
}

// frontier walks the candidates as far as they matter. It returns the one that is to be asked next, or -1, and
// how many are under way before the end: the nearest, but verified ones and others by turns. If none is
// left but such as are not believed in, or of whose sites enough are nearer, and too few have answered, it is one of those.
func (l *lookup) frontier() (next, waiting int) {
	var answered, under [2]int // others, verified
	fresh, doubted := [2]int{-1, -1}, -1
	var space [maxCandidates]site
	near := sites(space[:0])
	for i := range l.nodes {
		n, kind := &l.nodes[i], 0
		if n.verified {
			kind = 1
		}
		if answered[1] >= lookupDepth {
			break
		}
		if answered[0] >= bucketSize && kind == 0 {
			continue
		}
		full := near.full(n)
		switch n.state {
		case candidateAnswered, candidateAsked, candidateSlow:
			if kind == 1 {
				near = append(near, n.site)
			}
			switch {
			case full:
			case n.state == candidateAnswered:
				answered[kind]++
			default:
				under[kind]++
			}
		case candidateFresh:
			believed := l.believed(n) && !full
			switch {
			case fresh[kind] >= 0 || !believed && doubted >= 0 || !l.free(n):
			case believed:
				fresh[kind] = i
			default:
				doubted = i
			}
		}
	}
	waiting = under[0] + under[1]
	if l.askedOthers >= maxOthers && answered[1] >= bucketSize {
		fresh[0] = -1
	}
	switch {
	case fresh[1] >= 0 && (fresh[0] < 0 || under[1] <= under[0]):
		return fresh[1], waiting
	case fresh[0] >= 0:
		return fresh[0], waiting
	case waiting == 0 && answered[0]+answered[1] < bucketSize:
		return doubted, waiting
	}
	return -1, waiting
}

// free reports whether a candidate may be asked in view of the others of its network: none of them has
// answered or is under way without being slow, not many failed, and none of them has the better id.
func (l *lookup) free(n *candidate) bool {
	tried := 0
	for i := range l.nodes {
		other := &l.nodes[i]
		if other == n || other.network != n.network {
			continue
		}
		switch other.state {
		case candidateAnswered, candidateAsked:
			return false
		case candidateFresh:
			if other.verified && !n.verified {
				return false
			}
		default:
			if tried++; tried >= maxSiblingTry || hostOf(other.Addr) == hostOf(n.Addr) {
				return false
			}
		}
	}
	return true
}

// enough reports whether as many have answered as a lookup is to find.
func (l *lookup) enough() bool {
	answered := 0
	for i := range l.nodes {
		if l.nodes[i].state == candidateAnswered {
			answered++
		}
	}
	return answered >= bucketSize
}

// spent reports whether as many were asked as a lookup may ask.
func (l *lookup) spent() bool {
	return l.asked >= maxCandidates || l.asked >= maxAsked && l.enough()
}

// done reports whether the lookup has found what it can. underWay are the queries of it that may be
// answered yet; it waits for the late ones if few have answered.
func (l *lookup) done(underWay int) bool {
	next, waiting := l.frontier()
	spent := l.spent()
	switch {
	case next >= 0 && !spent:
		return false
	case l.enough():
		return waiting == 0
	}
	return underWay == 0 && (len(l.blind) == 0 || spent)
}

// find is the candidate that was asked at an address, or nil.
func (l *lookup) find(addr netip.AddrPort) *candidate {
	for i := range l.nodes {
		if n := &l.nodes[i]; n.Addr == addr && n.state != candidateFresh {
			return n
		}
	}
	return nil
}

// answered records that a node that was asked answered with an id, and returns it with its number; or nil
// if it is not believed.
func (l *lookup) answered(c krpc.Contact, known bool) (n *candidate, number int) {
	n = l.find(c.Addr)
	switch {
	case c.ID == l.self:
		return nil, 0
	case !known:
		if n != nil {
			return nil, 0
		}
		n = l.insert(newCandidate(c))
	case n == nil:
		return nil, 0
	case n.ID != c.ID:
		// It has another id than it was said to have. Its answer counts if its own id follows from its address: then
		// the node that named it is at fault.
		n.state = candidateFailed
		if !verifiedID(c.ID, c.Addr.Addr()) || netaddr.IsLocal(c.Addr.Addr()) {
			return nil, 0
		}
		l.nodes = slices.DeleteFunc(l.nodes, func(o candidate) bool { return o.Addr == c.Addr && o.state == candidateFailed })
		n = l.insert(newCandidate(c))
	default:
		for _, namer := range n.namers {
			l.credit[namer] = min(l.credit[namer]+2, maxCredit)
		}
	}
	n.state = candidateAnswered
	l.credit = append(l.credit, initialCredit)
	return n, len(l.credit) - 1
}

// mark records that a node that was asked is slow, late or has failed.
func (l *lookup) mark(addr netip.AddrPort, state candidateState) {
	if n := l.find(addr); n != nil && n.state != candidateAnswered {
		n.state = state
	}
}

// nearest are the nodes to store at: of those that gave a token, the 12 nearest whose ids follow from their
// addresses, at most four of them of one site, and the 8 nearest whatever their ids, since other clients look there. The nearest comes first.
func (l *lookup) nearest() (nodes []*candidate) {
	all, verified := 0, 0
	var near sites
	for i := range l.nodes {
		n := &l.nodes[i]
		if n.state != candidateAnswered || n.token == nil {
			continue
		}
		counts := n.verified && !near.full(n)
		if counts {
			verified++
			near = append(near, n.site)
		}
		if all++; all <= bucketSize || counts && verified <= lookupDepth {
			nodes = append(nodes, n)
		}
	}
	return nodes
}
