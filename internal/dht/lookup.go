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
	maxOfSite     = 8   // nodes of one site that are asked, without those that do not answer
	siteDepth     = 2   // of which so many count as of the nearest
	maxSiblingTry = 2   // of which so many are asked, while none answers
	initialCredit = 2   // nodes named by one answering node that are asked while none of them answers
	maxCredit     = 16
)

// lookup finds the nodes nearest to a target, of one family. It trusts no node's word:
//
//   - It sorts candidates itself, and asks the nearest. It accepts one node of each network.
//   - A node that names others that do not answer is soon not followed further, unless others name the same.
//   - It is done when the 12 nearest have answered, counting only ids that follow from their addresses (BEP 42);
//     and beside them up to 8 nearer ones whose ids do not, since many honest nodes have no such id.
//     So a node that chooses its id at will may join the nearest, but not displace them.
//   - Of these 12, two at most are of one site, unless too few nodes of other sites are known. The holder of a network of
//     IPv6 has addresses in it from which any id follows, as near to a target as it likes.
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
	n := newCandidate(c)
	siblings := 0
	for i := range l.nodes {
		other := &l.nodes[i]
		if other.network != n.network {
			continue
		}
		if other.Contact == c {
			if namer >= 0 && len(other.namers) > 0 && len(other.namers) < maxNamed && !slices.Contains(other.namers, uint8(namer)) {
				other.namers = append(other.namers, uint8(namer))
			}
			return
		}
		siblings++
	}
	if namer >= 0 {
		n.namers = []uint8{uint8(namer)}
	}
	at := l.insert(n)
	switch {
	case siblings >= maxSiblings:
		at = l.worstSibling(n.network)
	case len(l.nodes) > maxCandidates:
		at = l.worst(at)
	default:
		return
	}
	l.nodes = slices.Delete(l.nodes, at, at+1)
}

func newCandidate(c krpc.Contact) candidate {
	return candidate{Contact: c, network: networkOf(c.Addr), site: siteOf(c.Addr), verified: verifiedID(c.ID, c.Addr.Addr())}
}

// worstSibling returns the fresh candidate of a network to be dropped: one whose id does not follow from its address if there is
// one, and of these the farthest. So naming other nodes of a node's network does not keep that one out.
func (l *lookup) worstSibling(network netip.AddrPort) int {
	worst := -1
	for i := range l.nodes {
		n := &l.nodes[i]
		if n.network == network && n.state == candidateFresh && (worst < 0 || !n.verified || l.nodes[worst].verified) {
			worst = i
		}
	}
	return worst
}

// worst returns the fresh candidate to be dropped if there are too many: one that would not be asked, else the farthest. It
// is of the kind that has more than half of the places, so that neither verified ones nor others push all of the other
// kind out. If none of that kind is fresh, it is the newest candidate.
func (l *lookup) worst(newest int) int {
	verified := 0
	for i := range l.nodes {
		if l.nodes[i].verified {
			verified++
		}
	}
	most := 2*verified > len(l.nodes)
	last := -1
	for i := len(l.nodes) - 1; i >= 0; i-- {
		n := &l.nodes[i]
		if n.state != candidateFresh || n.verified != most {
			continue
		}
		if !l.believed(n) || l.kind(i) == crowdedKind {
			return i
		}
		if last < 0 {
			last = i
		}
	}
	if last < 0 {
		return newest
	}
	return last
}

// Kinds of candidates.
const (
	otherKind    = iota // their ids do not follow from their addresses
	verifiedKind        // their ids do
	crowdedKind         // their ids do, but enough nodes of their site are nearer or were asked
	kinds
)

func (l *lookup) kind(i int) int {
	n := &l.nodes[i]
	if !n.verified {
		return otherKind
	}
	if n.site == 0 {
		return verifiedKind
	}
	asked, nearer := 0, 0
	for j := range l.nodes {
		if other := &l.nodes[j]; other.site == n.site && other.verified && other.counts() {
			if asked++; j < i {
				nearer++
			}
		}
	}
	if nearer >= siteDepth || n.state == candidateFresh && asked >= maxOfSite {
		return crowdedKind
	}
	return verifiedKind
}

// counts reports whether a candidate answered, or may do so soon.
func (n *candidate) counts() bool {
	return n.state == candidateAsked || n.state == candidateSlow || n.state == candidateAnswered
}

// insert returns the index of a candidate that it inserts.
func (l *lookup) insert(n candidate) int {
	at, _ := slices.BinarySearchFunc(l.nodes, n.ID, func(c candidate, id ID) int {
		if krpc.Nearer(l.target, c.ID, id) {
			return -1
		}
		return 1
	})
	l.nodes = slices.Insert(l.nodes, at, n)
	return at
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

// frontier walks the candidates as far as they matter. It returns the one that is to be asked next, or -1, and how many are under
// way before the end: the nearest, but verified ones and others by turns. If none is left but such as are of crowded sites, and
// too few have answered, it is one of those; and then, if still fewer have, one whose namers have no credit left.
func (l *lookup) frontier() (next, waiting int) {
	var answered, under [kinds]int
	fresh, doubted := [kinds]int{-1, -1, -1}, -1
	for i := range l.nodes {
		if answered[verifiedKind] >= lookupDepth {
			break
		}
		n, kind := &l.nodes[i], l.kind(i)
		if answered[otherKind] >= bucketSize && kind == otherKind {
			continue
		}
		switch n.state {
		case candidateAnswered:
			answered[kind]++
		case candidateAsked, candidateSlow:
			under[kind]++
		case candidateFresh:
			believed := l.believed(n)
			switch {
			case fresh[kind] >= 0 || !believed && doubted >= 0 || !l.free(n):
			case believed:
				fresh[kind] = i
			default:
				doubted = i
			}
		}
	}
	found := answered[verifiedKind] + answered[crowdedKind]
	waiting = under[otherKind] + under[verifiedKind]
	if found < lookupDepth {
		waiting += under[crowdedKind]
	}
	if l.askedOthers >= maxOthers && answered[verifiedKind] >= bucketSize {
		fresh[otherKind] = -1
	}
	switch {
	case fresh[verifiedKind] >= 0 && (fresh[otherKind] < 0 || under[verifiedKind] <= under[otherKind]):
		return fresh[verifiedKind], waiting
	case fresh[otherKind] >= 0:
		return fresh[otherKind], waiting
	case fresh[crowdedKind] >= 0 && under[verifiedKind] == 0 && found+under[crowdedKind] < lookupDepth:
		return fresh[crowdedKind], waiting
	case waiting == 0 && answered[otherKind]+found < bucketSize:
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
		n = &l.nodes[l.insert(newCandidate(c))]
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
		n = &l.nodes[l.insert(newCandidate(c))]
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

// nearest are the nodes to store at: of those that gave a token, the 12 nearest whose ids follow from their addresses, those of
// crowded sites only if others are too few, and the 8 nearest whatever their ids, since other clients look there. The nearest
// comes first.
func (l *lookup) nearest() (nodes []*candidate) {
	room := [kinds]int{verifiedKind: lookupDepth, crowdedKind: lookupDepth}
	for i := range l.nodes {
		if l.nodes[i].permits() && l.kind(i) == verifiedKind {
			room[crowdedKind]--
		}
	}
	all := 0
	for i := range l.nodes {
		n := &l.nodes[i]
		if !n.permits() {
			continue
		}
		kind := l.kind(i)
		if all++; all <= bucketSize || room[kind] > 0 {
			nodes = append(nodes, n)
		}
		room[kind]--
	}
	return nodes
}

// permits reports whether a node permits to store there.
func (n *candidate) permits() bool { return n.state == candidateAnswered && n.token != nil }
