package peerlist

import "github.com/shoal-go/torrent/internal/expiring"

const (
	maxCandidates = 3000 // of a list, beside those that the user named
	// maxInAll is how many candidates the lists of a client have if that is no less than minCandidates for each. A source names one in 6
	// bytes, and we keep some 500 of it.
	maxInAll      = 50_000
	minCandidates = 150

	maxSelf = 1000 // addresses that a list remembers as our own: any peer may send us our own peer id
)

// Share returns how many candidates each of the lists of a client may have.
func Share(lists int) int {
	return max(minCandidates, min(maxCandidates, maxInAll/max(1, lists)))
}

// Bound sets how many candidates the list may have beside those that the user named, which may be many and dead. It drops the least
// promising of the others above that, except those in use.
func (c *List) Bound(most int) {
	if most == c.most {
		return
	}
	c.most = most
	if n := len(c.all) - c.users - most; n > 0 {
		c.trim(n)
	}
	if len(c.all) <= c.peak/2 {
		c.reclaim() // so that no namer keeps candidates that are gone
		c.all, c.crowds, c.namers = expiring.Compact(c.all), expiring.Compact(c.crowds), expiring.Compact(c.namers)
		c.peak = len(c.all)
	}
}
