package dht

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"
)

// How long a query is under way when it is taken to be slow, late and unanswered. A lookup asks one more
// node for a slow one, and may end without a late one.
const (
	slowAfter = 1 * time.Second
	lateAfter = 4 * time.Second
	failAfter = 15 * time.Second
)

type stage uint8

const (
	underWay stage = iota
	slow
	late
	failed
)

var stageAfter = [...]time.Duration{slow: slowAfter, late: lateAfter, failed: failAfter}

// query is one of ours that is under way. An answer to it repeats its random transaction id, and comes
// from the address that it went to.
type query struct {
	tid    uint32
	to     netip.AddrPort
	id     ID // of the node that is asked, if it is known
	known  bool
	family family
	router bool // the node is asked for others, and is not to be in the table
	sent   time.Time
	stage  stage
	over   bool // answered, or failed

	walk  *walk // the lookup that asks, if one does
	store bool  // it asks to store what was looked up for
}

// queries are those that are under way. All wait equally long, so they are kept in the order in which
// they were sent.
type queries struct {
	rng   *rand.Rand
	byTID map[uint32]*query
	order []*query
	at    [failed + 1]int // by stage: how many of order have passed it, or were over by then
}

func newQueries(rng *rand.Rand) queries {
	return queries{rng: rng, byTID: make(map[uint32]*query)}
}

// add takes a query, which is sent now, and draws its transaction id.
func (qs *queries) add(now time.Time, q *query) []byte {
	for q.tid = qs.rng.Uint32(); qs.byTID[q.tid] != nil; {
		q.tid = qs.rng.Uint32()
	}
	q.sent = now
	qs.byTID[q.tid] = q
	qs.order = append(qs.order, q)
	return binary.BigEndian.AppendUint32(nil, q.tid)
}

// take is the query that is answered with a transaction id from an address, which is over then; or nil.
func (qs *queries) take(tid []byte, from netip.AddrPort) *query {
	if len(tid) != 4 {
		return nil
	}
	q := qs.byTID[binary.BigEndian.Uint32(tid)]
	if q == nil || q.to != from {
		return nil
	}
	q.over = true
	delete(qs.byTID, q.tid)
	return q
}

// to reports whether a query to the address is under way.
func (qs *queries) to(a netip.AddrPort) bool {
	for _, q := range qs.byTID {
		if q.to == a {
			return true
		}
	}
	return false
}

// due is a query that has come to its next stage, or nil if none has.
func (qs *queries) due(now time.Time) *query {
	for s := failed; s > underWay; s-- {
		for qs.at[s] < len(qs.order) {
			q := qs.order[qs.at[s]]
			if !q.over && now.Sub(q.sent) < stageAfter[s] {
				break
			}
			qs.at[s]++
			if q.over || q.stage >= s {
				continue
			}
			q.stage++ // a stage at a time, though more have passed
			if q.stage < s {
				qs.at[s]--
			}
			if q.stage == failed {
				q.over = true
				delete(qs.byTID, q.tid)
			}
			return q
		}
	}
	qs.trim()
	return nil
}

// trim forgets the queries that have passed all stages.
func (qs *queries) trim() {
	n := min(qs.at[slow], qs.at[late], qs.at[failed])
	if n < 32 && n < len(qs.order) || n == 0 {
		return
	}
	rest := copy(qs.order, qs.order[n:])
	clear(qs.order[rest:])
	qs.order = qs.order[:rest]
	for s := slow; s <= failed; s++ {
		qs.at[s] -= n
	}
}

// next is when the next query comes to a stage, or the zero time.
func (qs *queries) next() (next time.Time) {
	for s := slow; s <= failed; s++ {
		for i := qs.at[s]; i < len(qs.order); i++ {
			if q := qs.order[i]; !q.over && q.stage < s {
				if at := q.sent.Add(stageAfter[s]); next.IsZero() || at.Before(next) {
					next = at
				}
				break
			}
			qs.at[s] = i + 1
		}
	}
	return next
}
