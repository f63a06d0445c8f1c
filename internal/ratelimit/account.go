package ratelimit

import (
	"time"

	"github.com/shoal-go/torrent/internal/expiring"
)

// An Account bounds the work that one peer may cause. Whoever works for it charges the account and waits for as long as
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

// maxClosed is how many accounts that were closed are remembered.
const maxClosed = 1024

// Accounts remember what was left in accounts that were closed, so that it is no use to close one and open another. The zero
// value is ready.
type Accounts[K comparable] struct {
	closed expiring.Map[K, Account]
}

// Open returns an account with what was left in the last one, or fresh.
func (all *Accounts[K]) Open(who K, fresh Account) Account {
	if left, known := all.closed.Get(who); known {
		return left
	}
	return fresh
}

// Close records what is left. Of several accounts the one with the least counts.
func (all *Accounts[K]) Close(who K, a Account, now time.Time) {
	full := func(a Account) bool { return a.leftAt(now) >= a.most }
	if other, known := all.closed.Get(who); full(a) || known && other.leftAt(now) < a.leftAt(now) {
		return
	}
	if !all.closed.Put(who, a, maxClosed, full) {
		*all = Accounts[K]{}
		all.closed.Put(who, a, maxClosed, full)
	}
}
