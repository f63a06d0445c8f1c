package utp

import "time"

// A tally counts events, of which it forgets so many a second.
type tally struct {
	n  float64
	at time.Duration // when that was so
}

// lately returns how many are remembered now.
func (t *tally) lately(perSecond float64, now time.Duration) float64 {
	t.n, t.at = max(t.n-(now-t.at).Seconds()*perSecond, 0), now
	return t.n
}
