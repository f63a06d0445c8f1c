package torrent

import "time"

// The client's budget of connections is dealt among its downloads: each may have an equal share, and what
// the others leave of theirs. Who has more gives it back when somebody with less asks. The connections
// of a download that has begun to dial count from then on.

// A budget is what of a client's connections is in use. The client's mutex guards it.
type budget struct {
	dials   dialBudget
	peers   int       // connections of all downloads
	refused time.Time // when a download with less than its share of them was last refused one
}

// share is what of the budget every download may have. The caller holds mu.
func (c *Client) share() int { return max(1, c.MaxPeers/max(1, len(c.registry.serving))) }

// room tells whether who has so many connections may have one more. The last tenth of the budget is
// for those below their share. The caller holds mu.
func (c *Client) room(has int, now time.Time) bool {
	if c.MaxPeers <= 0 {
		return true
	}
	left, below := c.MaxPeers-c.budget.peers-c.budget.dials.halfOpen, has < c.share()
	if left <= 0 && below {
		c.budget.refused = now
	}
	return left > 0 && (below || left > c.MaxPeers/10)
}

// excess is how many of so many connections are to make room for those of another download now.
func (c *Client) excess(has int, now time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.MaxPeers <= 0 || has <= c.share() || now.Sub(c.budget.refused) > tick {
		return 0
	}
	return max(1, (has-c.share())/4)
}

// mayDial tells whether who has so many connections may make one more now, and counts it if so.
func (c *Client) mayDial(has int, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, _ := c.budget.dials.allowance(now); n == 0 || !c.room(has, now) {
		return false
	}
	c.budget.dials.begin(now)
	return true
}

// endDial follows mayDial, and joinedPeer if a connection came of it.
func (c *Client) endDial() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.dials.end()
}

// dialAt is when the next of cand is to be dialled by who has so many connections, if that is known.
func (c *Client) dialAt(cand *candidates, has int, now time.Time) (at time.Time, ok bool) {
	at, ok = cand.due()
	if at.Before(now) {
		at = now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n, wait := c.budget.dials.allowance(now)
	if n == 0 && wait == 0 || !c.room(has, now) {
		wait = tick // too many are half open, or connected
	}
	if again := now.Add(wait); at.Before(again) {
		at = again
	}
	return at, ok
}

// mayJoin tells whether who has so many connections may take one that another made, and counts it if so.
func (c *Client) mayJoin(has int, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.room(has, now) {
		return false
	}
	c.budget.peers++
	return true
}

// joinedPeer counts a connection that mayDial had allowed; leftPeer ends any.
func (c *Client) joinedPeer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.peers++
}

func (c *Client) leftPeer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.peers--
}
