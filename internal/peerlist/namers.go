package peerlist

import (
	"cmp"
	"slices"

	"github.com/shoal-go/torrent/internal/heaps"
)

// fairEvery is how often the next candidate is not the most promising of all, but that of the namer whose turn it is: first the
// sources of a kind take turns, such as all nodes of the DHT, of which an attacker may have hundreds, and then the namers among them.
const fairEvery = 4

const (
	// reclaimEvery is after how many dials namers reclaim candidates, and maxShared how many of a namer are remembered for that: a
	// tracker names as many in an answer.
	reclaimEvery = 16
	maxShared    = 200
)

// namedBy identifies the source that named a candidate.
type namedBy struct {
	from Source
	by   string // the URL of a tracker, or the Network of a peer; empty for others
}

// A namer is a source that names candidates. Candidates that look better before they are dialled may all be dead or
// made up. Each namer has its turn, so that thousands of such candidates do not keep us from those that others name.
type namer struct {
	namedBy
	size  int                    // number of its candidates
	ready heaps.Heap[*candidate] // those that may be dialled, best first
	turn  int                    // when it had its last

	shared []*candidate // that it named, and that belong to others
}

// nameBy records that a namer names a candidate. Of several namers, the candidate belongs to the one that has the
// fewest, or did when that was last looked at (reclaim).
func (c *List) nameBy(k *candidate, by namedBy) {
	if k.namer != nil && k.namer.namedBy == by {
		return
	}
	n := c.namers[by]
	if n == nil {
		n = &namer{namedBy: by, ready: newQueue((*candidate).better)}
		c.namers[by] = n
		c.turns++
		n.turn = c.turns // it comes after those that wait
	}
	if k.namer == nil {
		k.namer = n
		n.size++
		return
	}
	if n.size+1 >= k.namer.size {
		n.share(k)
		c.forgetEmpty(n)
		return
	}
	c.give(k, n)
}

// share records that a candidate which the namer named belongs to another. The last maxShared are remembered.
func (n *namer) share(k *candidate) {
	if slices.Contains(n.shared, k) {
		return
	}
	if len(n.shared) == maxShared {
		n.shared = slices.Delete(n.shared, 0, 1)
	}
	n.shared = append(n.shared, k)
}

// reclaim gives candidates to those of their namers that have fewer by now. Otherwise one that names a candidate before it names
// many others would keep us from that.
func (c *List) reclaim() {
	var sharing []*namer
	for _, n := range c.namers {
		if len(n.shared) > 0 {
			sharing = append(sharing, n)
		}
	}
	slices.SortFunc(sharing, func(a, b *namer) int { return cmp.Compare(a.turn, b.turn) })
	for _, n := range sharing {
		for _, k := range n.shared {
			if k.standing != isGone && n.size+1 < k.namer.size {
				c.give(k, n)
			}
		}
		n.shared = slices.DeleteFunc(n.shared, func(k *candidate) bool { return k.standing == isGone || k.namer == n })
		c.forgetEmpty(n)
	}
}

// give gives a candidate to another of its namers.
func (c *List) give(k *candidate, n *namer) {
	k.namer.share(k)
	waits := k.standing
	if waits == isReady {
		c.move(k, isNew)
	}
	c.leave(k)
	k.namer = n
	n.size++
	if waits == isReady {
		c.move(k, isReady)
	}
}

// leave takes a candidate from its namer.
func (c *List) leave(k *candidate) {
	k.namer.size--
	c.forgetEmpty(k.namer)
}

// forgetEmpty forgets a namer that has no candidates any more. One that named candidates which belong to others stays only if there
// are no more namers than the list may have candidates.
func (c *List) forgetEmpty(n *namer) {
	if n.size == 0 && (len(n.shared) == 0 || len(c.namers) > c.most) {
		delete(c.namers, n.namedBy)
	}
}

// hadTurn records that a namer had its turn, and all of its kind. Candidates that are dialled because they are the most promising
// take no turn: otherwise peers that name those without end, beside others whose turn it then always is, would have all of their
// kind wait.
func (c *List) hadTurn(n *namer) {
	c.turns++
	n.turn, c.turnOf[n.from] = c.turns, c.turns
}

// before reports whether the turn of n comes before that of another namer.
func (c *List) before(n, other *namer) bool {
	if a, b := c.turnOf[n.from], c.turnOf[other.from]; a != b {
		return a < b
	}
	return n.turn < other.turn
}

// isFair reports whether the next candidate is that of the namer whose turn it is.
func (c *List) isFair() bool { return c.given%fairEvery == fairEvery-1 }

// best returns the candidate to dial next. There must be one.
func (c *List) best() (best *candidate) {
	fair := c.isFair()
	for _, n := range c.namers {
		if n.ready.Len() == 0 {
			continue
		}
		k := n.ready.First()
		if best == nil || fair && c.before(n, best.namer) || !fair && k.better(best) {
			best = k
		}
	}
	return best
}

// trim drops n candidates. It always takes the least promising candidate of the namer that has the most.
func (c *List) trim(n int) {
	c.reclaim()
	idle := make(map[*namer][]*candidate)
	for _, k := range c.all {
		if k.from != FromUser && k.standing != isDialling && k.standing != isConnected {
			idle[k.namer] = append(idle[k.namer], k)
		}
	}
	lists := heaps.New(func(a, b []*candidate) bool { // that to drop from first
		if len(a) != len(b) {
			return len(a) > len(b)
		}
		return a[len(a)-1].promise(b[len(b)-1]) < 0
	}, func([]*candidate, int) {})
	for _, list := range idle {
		slices.SortFunc(list, func(a, b *candidate) int { return b.promise(a) })
		lists.Push(list)
	}
	for range n {
		if lists.Len() == 0 {
			return
		}
		list := lists.Pop()
		last := len(list) - 1
		c.drop(list[last])
		if last > 0 {
			lists.Push(list[:last])
		}
	}
}
