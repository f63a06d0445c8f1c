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

// Charge takes n from the account, and returns how long to wait before more is done: until nothing is owed.
func (a *Account) Charge(n int64, now time.Time) (wait time.Duration) {
	a.left = min(a.most, a.left+a.rate*now.Sub(a.at).Seconds()) - float64(n)
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
	return int64(max(0, -(a.left + a.rate*now.Sub(a.at).Seconds())))
}
