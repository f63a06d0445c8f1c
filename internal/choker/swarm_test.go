package choker

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/ratelimit"
)

// chokeSwarm is a swarm in which only the chokers are real: a peer that is unchoked and finds a piece that
// it lacks fetches it, the rarest first, and an uploader's link is shared evenly among those that do.
type chokeSwarm struct {
	now    time.Time
	rng    *rand.Rand
	pieces int
	piece  float64 // bytes
	upRate float64 // bytes a second of every peer's uplink
	avail  []int   // how many peers have each piece
	seeds  int     // how many have all
	peers  []*swarmPeer
}

type swarmPeer struct {
	id        int
	freeRider bool
	has       []bool
	fetching  []bool
	count     int
	lacks     map[*swarmPeer]int // how many pieces the other has and this one has not
	choker    *Choker
	spread    Spread
	up        ratelimit.Meter
	links     map[int]*swarmLink // to the peers that it may upload to
	unchoked  []int              // the peers that it uploads to
	finished  time.Time
}

// swarmLink is what one peer sends to another.
type swarmLink struct {
	sent       ratelimit.Meter
	piece      int // that is under way, or -1
	got        float64
	unchoked   bool
	unchokedAt time.Time
	withheld   bool // the other once withheld from this one what it had
}

func newChokeSwarm(seed uint64, pieces int, piece, upRate float64, leechers, freeRiders int) *chokeSwarm {
	s := &chokeSwarm{
		now: epoch, rng: rand.New(rand.NewPCG(seed, 2)),
		pieces: pieces, piece: piece, upRate: upRate, avail: make([]int, pieces),
	}
	for id := range 1 + leechers + freeRiders {
		p := &swarmPeer{
			id: id, freeRider: id > leechers,
			has: make([]bool, pieces), fetching: make([]bool, pieces),
			choker: New(rand.New(rand.NewPCG(seed, uint64(id)))),
			links:  make(map[int]*swarmLink),
			lacks:  make(map[*swarmPeer]int),
		}
		s.peers = append(s.peers, p)
	}
	for i := range pieces {
		s.gain(s.peers[0], i)
	}
	for _, p := range s.peers {
		for _, q := range s.peers {
			if p != q {
				p.links[q.id] = &swarmLink{piece: -1}
			}
		}
	}
	return s
}

func (s *chokeSwarm) gain(p *swarmPeer, i int) {
	p.has[i] = true
	s.avail[i]++
	for _, q := range s.peers {
		q.spread.Seen(p.number(), i)
		if q.has[i] {
			p.lacks[q]--
		} else {
			q.lacks[p]++
		}
	}
	p.lacks[p] = 0
	if p.count++; p.count == s.pieces {
		p.finished = s.now
		s.seeds++
	}
}

func (p *swarmPeer) number() int { return p.id + 1 }

func (p *swarmPeer) wantsFrom(q *swarmPeer) bool { return p.lacks[q] > 0 }

// decide asks p's choker, and does what it says.
func (s *chokeSwarm) decide(p *swarmPeer) {
	var states []Peer
	for _, q := range s.peers {
		if q != p {
			l := p.links[q.id]
			back := q.links[p.id]
			l.withheld = l.withheld || p.wantsFrom(q) && !back.unchoked
			states = append(states, Peer{
				ID:         q.id,
				Interested: q.wantsFrom(p),
				Unchoked:   l.unchoked,
				Withheld:   l.withheld,
				Hoarding:   p.spread.Hoards(q.number(), int64(s.piece)),
				Down:       back.sent.Rate(s.now),
				Up:         l.sent.Rate(s.now),
				Received:   back.sent.Total(),
				Sent:       l.sent.Total(),
				Joined:     epoch,
				UnchokedAt: l.unchokedAt,
			})
		}
	}
	p.unchoked = p.choker.Decide(s.now, !p.finished.IsZero(), p.up.Rate(s.now), states)
	if p.freeRider {
		p.unchoked = nil
	}
	for id, l := range p.links {
		now := slices.Contains(p.unchoked, id)
		if now && !l.unchoked {
			l.unchokedAt = s.now
		}
		if !now && l.piece >= 0 {
			s.peers[id].fetching[l.piece] = false
			l.piece = -1
		}
		l.unchoked = now
	}
	slices.Sort(p.unchoked)
}

// pick is the rarest piece that p has, and q neither has nor is fetching; -1 if there is none.
func (s *chokeSwarm) pick(p, q *swarmPeer) int {
	best, ties := -1, 0
	for i, has := range p.has {
		if !has || q.has[i] || q.fetching[i] {
			continue
		}
		switch {
		case best < 0 || s.avail[i] < s.avail[best]:
			best, ties = i, 1
		case s.avail[i] == s.avail[best]:
			if ties++; s.rng.IntN(ties) == 0 {
				best = i
			}
		}
	}
	return best
}

func (s *chokeSwarm) step(tick time.Duration) {
	s.now = s.now.Add(tick)
	for _, p := range s.peers {
		// A choker is asked when it wishes, and when there may be a slot to deal out.
		idle := len(p.unchoked) <= minUploadSlots || slices.ContainsFunc(p.unchoked, func(id int) bool {
			return p.links[id].piece < 0 && !s.peers[id].wantsFrom(p)
		})
		if !s.now.Before(p.choker.Next()) || idle {
			s.decide(p)
		}
	}
	for _, p := range s.peers {
		var active []int
		for _, id := range p.unchoked {
			l, q := p.links[id], s.peers[id]
			if l.piece < 0 && q.finished.IsZero() {
				if l.piece = s.pick(p, q); l.piece >= 0 {
					q.fetching[l.piece] = true
					if !p.finished.IsZero() {
						p.spread.Give(q.number(), l.piece, s.pieces, uint16(s.avail[l.piece]-s.seeds))
					}
				}
			}
			if l.piece >= 0 {
				active = append(active, id)
			}
		}
		for _, id := range active {
			l, n := p.links[id], s.upRate*tick.Seconds()/float64(len(active))
			l.sent.Add(int64(n), s.now)
			p.up.Add(int64(n), s.now)
			if l.got += n; l.got >= s.piece {
				q := s.peers[id]
				q.fetching[l.piece] = false
				if !q.has[l.piece] {
					s.gain(q, l.piece)
				}
				l.piece, l.got = -1, l.got-s.piece
			}
		}
	}
}

// run goes on until all are done, and returns how many seconds each leecher took.
func (s *chokeSwarm) run(t *testing.T) (honest, freeRiders []float64) {
	for slices.ContainsFunc(s.peers, func(p *swarmPeer) bool { return p.finished.IsZero() }) {
		s.step(100 * time.Millisecond)
		require.Less(t, s.now.Sub(epoch), time.Hour)
	}
	for _, p := range s.peers[1:] {
		if took := p.finished.Sub(epoch).Seconds(); p.freeRider {
			freeRiders = append(freeRiders, took)
		} else {
			honest = append(honest, took)
		}
	}
	return honest, freeRiders
}

// Twenty leechers with links of 1 MiB/s share 200 MiB of one seed. No swarm can do that in less than
// 200 s. Free riders take a part of what the seed gives away and do not pass it on, which costs
// all a little; but they must feel it most.
func TestChokersFeedASwarm(t *testing.T) {
	const seed = 1
	honest, _ := newChokeSwarm(seed, 800, 256<<10, 1<<20, 20, 0).run(t)
	t.Logf("leechers alone: %.0f to %.0f s", slices.Min(honest), slices.Max(honest))
	require.Less(t, slices.Max(honest), 1.15*200)

	honest, riders := newChokeSwarm(seed, 800, 256<<10, 1<<20, 20, 5).run(t)
	t.Logf("leechers %.0f to %.0f s, free riders %.0f to %.0f s",
		slices.Min(honest), slices.Max(honest), slices.Min(riders), slices.Max(riders))
	require.Less(t, slices.Max(honest), 1.25*200)
	require.Greater(t, slices.Min(riders), 1.05*slices.Max(honest))
}
