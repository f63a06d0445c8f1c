// Package account bounds what strangers can make a client hold in memory: messages that they do not read or send only
// in part, data that is of no use before the rest of it has come, and records of their requests.
//
// A client owns one Account. Every peer, and everything else that strangers fill, is a Holder in it. The owner of a
// Holder reports how much it holds. Both may be used from any goroutine and under any lock but those that a holder's
// giveWay takes.
package account

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	// Limit bounds what all holders hold beyond what is free, in bytes.
	Limit = 32 << 20
	// Free is how many bytes each holder may hold regardless of the others: more than a peer needs that reads and sends
	// whole messages. If there are so many holders that this would be more than freeOfAll for all of them, it is less, down to
	// leastFree: a block, and some messages.
	Free      = 64 << 10
	freeOfAll = 64 << 20
	leastFree = 24 << 10
)

// A Kind is a kind of memory that is held. One goroutine at a time reports how much of it there is.
type Kind uint8

const (
	Outgoing Kind = iota // messages that wait for the peer to read them
	Payload              // blocks that wait for the same
	Incoming             // data that has come and is incomplete or unread
	Requests             // records of requests
	Drafts               // metadata that is not known to be true
	Started              // the state of started pieces
	numKinds
)

// An Account is what all holders of a client hold together. If that is too much, the holder that holds the most beyond what it gave
// gives way.
type Account struct {
	limit int64
	free  atomic.Int64 // what each holder may hold regardless of the others

	mu      sync.Mutex
	held    int64     // the charges of all holders, never more than limit
	holders []*Holder // except those that give way
}

// New returns an empty account of limit bytes; 0 is Limit.
func New(limit int64) *Account {
	a := &Account{limit: cmp.Or(limit, Limit)}
	a.free.Store(Free)
	return a
}

// shareFree follows a change of the holders. The caller holds a.mu.
func (a *Account) shareFree() {
	a.free.Store(min(Free, max(leastFree, freeOfAll/int64(max(1, len(a.holders))))))
}

// Held returns how many bytes the holders hold beyond what is free, and the bound on them.
func (a *Account) Held() (held, limit int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held, a.limit
}

// A Holder is a peer, or another object, that strangers make us hold memory for.
type Holder struct {
	account *Account
	giveWay func()
	gave    atomic.Int64
	over    atomic.Bool // it gives way or has left
	charge  int64       // bytes counted in the account, whose mutex guards it

	mu      sync.Mutex // taken before the account's
	kinds   [numKinds]int64
	sum     int64 // of kinds
	settled int64 // the charge that was settled last
}

// Join adds a holder. giveWay is called, at most once and from any goroutine, when the holder has to release everything.
// It must neither block nor call the account.
func (a *Account) Join(giveWay func()) *Holder {
	h := &Holder{account: a, giveWay: giveWay}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holders = append(a.holders, h)
	a.shareFree()
	return h
}

// Gave records that n bytes of use came of the holder.
func (h *Holder) Gave(n int64) { h.gave.Add(n) }

// Held returns how many bytes the holder holds, what is free included.
func (h *Holder) Held() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sum
}

// Set says that the holder holds n bytes of a kind. It reports false if the holder has to let go of everything and end,
// for which giveWay is not called.
func (h *Holder) Set(k Kind, n int) bool {
	h.set(k, n, false)
	return !h.over.Load()
}

// Grow is Set for one that can do with less. If there is no room for n bytes, and the one to give way is the holder itself, or
// gave as much as it holds, it reports false, and what was said before stays.
func (h *Holder) Grow(k Kind, n int) bool { return h.set(k, n, true) }

func (h *Holder) set(k Kind, n int, yields bool) bool {
	h.mu.Lock()
	sum, ok := h.sum+int64(n)-h.kinds[k], true
	var victims []*Holder
	if charge := max(0, sum-h.account.free.Load()); charge != h.settled {
		if victims, ok = h.account.settle(h, charge, yields); ok {
			h.settled = charge
		}
	}
	if ok {
		h.kinds[k], h.sum = int64(n), sum
	}
	h.mu.Unlock()
	for _, v := range victims {
		v.giveWay()
	}
	return ok
}

// settle makes the charge of h what it is now, and returns those that give way for it. It is not ok if h yields to all
// others that are worth what they hold. The caller holds h.mu.
func (a *Account) settle(h *Holder, charge int64, yields bool) (victims []*Holder, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !h.over.Load() && a.held+charge-h.charge > a.limit {
		holds := func(o *Holder) int64 {
			if o == h {
				return charge
			}
			return o.charge
		}
		worst := slices.MaxFunc(a.holders, func(x, y *Holder) int { return cmp.Compare(burden(x, holds(x)), burden(y, holds(y))) })
		if yields && (worst == h || worst.gave.Load() >= worst.charge) {
			return victims, false
		}
		a.end(worst)
		if worst != h {
			victims = append(victims, worst)
		}
	}
	if !h.over.Load() {
		a.held += charge - h.charge
		h.charge = charge
	}
	return victims, true
}

// pardon is the part of what a holder holds, one in so many, that weighs whatever it gave. Otherwise those that gave much could fill
// the account, and drive out all that have given nothing yet, though these hold little or nothing.
const pardon = 16

// burden is what weighs of n bytes that a holder holds.
func burden(h *Holder, n int64) int64 { return max(pardon*(n-h.gave.Load()), n) }

// end takes a holder out of the account. The caller holds a.mu.
func (a *Account) end(h *Holder) {
	a.held -= h.charge
	h.charge = 0
	h.over.Store(true)
	a.holders = slices.DeleteFunc(a.holders, func(o *Holder) bool { return o == h })
	a.shareFree()
}

// Leave takes the holder out of the account, once it holds nothing any more.
func (h *Holder) Leave() {
	h.account.mu.Lock()
	defer h.account.mu.Unlock()
	if !h.over.Load() {
		h.account.end(h)
	}
}
