package ratelimit

import "time"

// An Account bounds the work that one peer has us do. Whoever works for it charges the account and waits for as long as
// it is overdrawn. It fills at a steady rate, and by what the peer earns.
type Account struct {
	rate, most float64 // a second, and at once
	left       float64
	at         time.Time // when left was what it is
}

// NewAccount returns a full account of so much work a second, and so much at once.
func NewAccount(rate, most float64, now time.Time) Account {
	return Account{rate: rate, most: most, left: most, at: now}
}

// Pace makes the account fill at another rate a second from now on.
func (a *Account) Pace(rate float64, now time.Time) { a.left, a.at, a.rate = a.leftAt(now), now, rate }

// Charge takes n from the account, and returns how long to wait before more is done: until nothing is owed.
func (a *Account) Charge(n int64, now time.Time) (wait time.Duration) {
	a.left = a.leftAt(now) - float64(n)
	a.at = now
	if a.left >= 0 {
		return 0
	}
	return time.Duration(-a.left / a.rate * float64(time.Second))
}

// Earn adds n to the account.
func (a *Account) Earn(n int64) { a.left = min(a.most, a.left+float64(n)) }

// Owed returns by how much the account is overdrawn.
func (a *Account) Owed(now time.Time) int64 {
	return int64(max(0, -a.leftAt(now)))
}

// leftAt is what is in the account.
func (a *Account) leftAt(now time.Time) float64 {
	return min(a.most, a.left+a.rate*now.Sub(a.at).Seconds())
}

// maxClosed is how many accounts that were closed are remembered, and sweepOver how many at least before those that are full
// again are looked for.
const (
	maxClosed = 1024
	sweepOver = 32
)

// Accounts remember what was left in accounts that were closed, so that it is no use to close one and open another. The zero
// value is ready.
type Accounts[K comparable] struct {
	closed  map[K]Account
	sweepAt int // how many there are when it is time to forget the full ones
}

// Open returns an account with what was left in the last one, or fresh.
func (all *Accounts[K]) Open(who K, fresh Account) Account {
	if left, known := all.closed[who]; known {
		return left
	}
	return fresh
}

// Close records what is left. Of several accounts the one with the least counts.
func (all *Accounts[K]) Close(who K, a Account, now time.Time) {
	if other, known := all.closed[who]; known && other.leftAt(now) < a.leftAt(now) {
		return
	}
	if len(all.closed) >= max(sweepOver, min(all.sweepAt, maxClosed)) {
		all.sweep(now)
	}
	if all.closed == nil || len(all.closed) >= maxClosed {
		all.closed = make(map[K]Account)
	}
	if a.leftAt(now) < a.most {
		all.closed[who] = a
	}
}

// sweep forgets the accounts that are full again. It makes a new map, because one keeps the memory of all that it ever held.
func (all *Accounts[K]) sweep(now time.Time) {
	left := make(map[K]Account)
	for who, a := range all.closed {
		if a.leftAt(now) < a.most {
			left[who] = a
		}
	}
	all.closed, all.sweepAt = left, 2*len(left)
}
