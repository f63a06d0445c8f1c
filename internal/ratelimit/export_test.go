package ratelimit

const (
	Recheck   = recheck
	MaxUnused = maxUnused
)

// Closed is how many accounts are remembered.
func Closed[K comparable](all *Accounts[K]) int { return all.closed.Len() }
