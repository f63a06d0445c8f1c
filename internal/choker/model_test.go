package choker

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// modelChoker is a plain, slow model of the Choker: one queue after another is let in until all slots are
// taken. It does not predict what the Choker draws at random: it is given the choice, and accepts it where the
// rules leave it open.
type modelChoker struct {
	roundAt time.Time
	slots   int
	lucky   int // the id of the peer drawn at random; 0 is none
	until   time.Time
	ties    fairness // of places in the list, where equals wait for fewer slots than they are
}

// fairness compares what chance gave with what it should give.
type fairness struct{ got, want, variance float64 }

func (f *fairness) add(got, want, variance float64) {
	f.got += got
	f.want += want
	f.variance += variance
}

func (f *fairness) check(t *testing.T, what string) {
	t.Helper()
	require.Greater(t, f.variance, 100., "%s: too rare to tell", what)
	require.InDelta(t, f.want, f.got, 4*math.Sqrt(f.variance), what)
}

// rides reports whether p took more than it may without giving. All in whole bytes, which the times allow.
func (m *modelChoker) rides(p Peer, now time.Time) bool {
	free := int64(creditAtFirst) + int64(now.Sub(p.Joined))*creditRate/int64(time.Second)
	return p.Withheld && p.Down == 0 && p.Sent-creditFactor*p.Received > free
}

// queuer is a peer in a queue, where more is better.
type queuer struct {
	Peer
	more float64
}

// decide returns the peers that have a slot of their own, and those of which one must be drawn; or the one
// that was drawn already.
func (m *modelChoker) decide(
	now time.Time, seeding bool, rate float64, peers []Peer, chosen []int,
) (own []int, lots []Peer) {
	round := !now.Before(m.roundAt)
	if round {
		m.roundAt = now.Add(RoundEvery)
		m.slots = minUploadSlots
		for more := 1; minUploadSlots+more <= maxUploadSlots && float64(more*more*uploadSlotRate) <= rate; more++ {
			m.slots++
		}
	}

	// A peer that wants nothing is out, and so is a free rider, unless we seed or it may finish its round.
	var wanting []Peer
	for _, p := range peers {
		out := m.rides(p, now) && !seeding && (round || !p.Unchoked)
		if p.Interested && !out {
			wanting = append(wanting, p)
		}
	}
	last := m.lucky
	if round && !now.Before(m.until) || !slices.ContainsFunc(wanting, func(p Peer) bool { return p.ID == last }) {
		m.lucky = 0
	}

	// Each peer is in one queue.
	var holding, giving, inTurn, waiting, over []queuer
	for _, p := range wanting {
		gives := p.Down > 0 && !seeding
		served := now.Sub(p.UnchokedAt)
		waits := min(served, now.Sub(p.Joined))
		switch {
		case p.Snubbing && !seeding: // it has no slot of its own
		case p.ID == m.lucky && (!round || !gives): // it needs none, and has not earned one
		case p.Unchoked && !round:
			holding = append(holding, queuer{p, 0})
		case gives:
			giving = append(giving, queuer{p, p.Down})
		case !p.Unchoked:
			waiting = append(waiting, queuer{p, float64(waits)})
		case p.Up == 0 && served >= RoundEvery:
			over = append(over, queuer{p, 0})
		default:
			inTurn = append(inTurn, queuer{p, p.Up})
		}
	}

	// Peers whose turn was long enough step back; while we seed only a quarter of the slots at a time, less those that come free
	// or came free since the last round. Then those that take far less than another step back first, and sooner; else the longest
	// served. Among equals the lot decides. If it can have fallen on those that lost their slots, and would have kept them
	// otherwise, then it has.
	yield := max(1, m.slots/4) - len(over)
	heavy := -1.
	for _, p := range inTurn {
		heavy = max(heavy, p.Up)
		if now.Sub(p.UnchokedAt) < RoundEvery {
			yield--
		}
	}
	light := func(p *queuer) bool { return seeding && p.Up < heavy/4 }
	for ; yield > 0 || !seeding; yield-- {
		var first *queuer
		for i := range inTurn {
			p := &inTurn[i]
			turn := chokeTurn
			if light(p) {
				turn = RoundEvery
			}
			if now.Sub(p.UnchokedAt) >= turn && (first == nil || cmp.Or(
				one(light(first))-one(light(p)),
				p.UnchokedAt.Compare(first.UnchokedAt),
				one(slices.Contains(chosen, p.ID))-one(slices.Contains(chosen, first.ID)),
				one(p.Hoarding)-one(first.Hoarding),
				cmp.Compare(first.more, p.more)) < 0) {
				first = p
			}
		}
		if first == nil {
			break
		}
		stepsBack := *first
		over = append(over, stepsBack)
		inTurn = slices.DeleteFunc(inTurn, func(p queuer) bool { return p.ID == stepsBack.ID })
	}

	// One that hoards has no more than a turn.
	late := func(p queuer) bool { return seeding && p.Hoarding && now.Sub(p.UnchokedAt) >= chokeTurn }
	for _, p := range inTurn {
		if late(p) {
			over = append(over, p)
		}
	}
	inTurn = slices.DeleteFunc(inTurn, late)

	own = m.admit(own, holding, chosen)
	for _, queue := range [][]queuer{giving, inTurn, waiting, over} {
		own = m.admit(own, queue, chosen)
	}
	if slices.Contains(own, m.lucky) {
		m.lucky = 0 // it has earned a slot
	}

	for _, p := range wanting {
		switch {
		case p.ID == m.lucky:
			return own, []Peer{p}
		case m.lucky == 0 && !slices.Contains(own, p.ID):
			lots = append(lots, p)
		}
	}
	if len(lots) > 1 { // no peer is drawn twice in a row while there are others
		lots = slices.DeleteFunc(lots, func(p Peer) bool { return p.ID == last })
	}
	return own, lots
}

// admit lets those of a queue in that have more, while there are slots. Among equals those that were chosen.
func (m *modelChoker) admit(own []int, queue []queuer, chosen []int) []int {
	for len(queue) > 0 && len(own) < m.slots {
		best := slices.MaxFunc(queue, func(a, b queuer) int { return cmp.Compare(a.more, b.more) }).more
		var equals, lucky []queuer
		var places float64
		same, room := true, m.slots-len(own)
		for _, p := range queue {
			if p.more == best {
				if slices.Contains(chosen, p.ID) {
					lucky = append(lucky, p)
					places += float64(len(equals))
				}
				equals = append(equals, p)
				same = same && p.UnchokedAt.Equal(equals[0].UnchokedAt) && !p.Unchoked
			}
		}
		for _, p := range equals {
			if !slices.Contains(chosen, p.ID) {
				lucky = append(lucky, p)
			}
		}
		if n := len(equals); same && n > room {
			k := float64(room) // the sum of k of n places has this mean and variance
			m.ties.add(places, k*float64(n-1)/2, k*float64(n-room)*float64(n+1)/12)
		}
		for _, p := range lucky[:min(len(lucky), room)] {
			own = append(own, p.ID)
		}
		queue = slices.DeleteFunc(slices.Clone(queue), func(p queuer) bool { return p.more == best })
	}
	return own
}

// chokeHistory is a swarm where anything may happen.
type chokeHistory struct {
	rng     *rand.Rand
	now     time.Time
	seeding bool
	rate    float64
	most    int // peers
	ids     int
	peers   []Peer
}

// pass lets some time pass, often until just when something is due.
func (h *chokeHistory) pass(due ...time.Time) {
	const tick = 125 * time.Millisecond // in which credit grows by whole bytes
	switch at := due[h.rng.IntN(len(due))]; {
	case h.rng.IntN(3) == 0:
		h.now = h.now.Add(time.Duration(h.rng.IntN(40)) * tick)
	case h.rng.IntN(8) == 0:
		h.now = h.now.Add(time.Duration(h.rng.IntN(500)) * tick)
	case at.Add(-tick).After(h.now) && h.rng.IntN(4) == 0:
		h.now = at.Add(-tick)
	case at.After(h.now):
		h.now = at
	}
}

// happen changes a few things.
func (h *chokeHistory) happen() {
	chance := func(n int) bool { return h.rng.IntN(n) == 0 }
	if chance(30) {
		h.seeding = !h.seeding
	}
	if chance(3) {
		n := float64(h.rng.IntN(6))
		h.rate = []float64{-1, 0, n * n * uploadSlotRate, n*n*uploadSlotRate - 1, 1e6, 1e8}[h.rng.IntN(6)]
	}
	h.peers = slices.DeleteFunc(h.peers, func(Peer) bool { return chance(40) })
	for len(h.peers) < h.most && !chance(3) {
		h.ids++
		joined := h.now.Add(-newcomer * time.Duration(h.rng.IntN(3)) / 2)
		p := Peer{ID: h.ids, Interested: !chance(5), Joined: joined}
		h.peers = slices.Insert(h.peers, h.rng.IntN(len(h.peers)+1), p)
	}
	for i := range h.peers {
		p := &h.peers[i]
		if chance(6) {
			p.Interested = !chance(6)
		}
		if chance(8) {
			p.Down = float64(max(0, h.rng.IntN(8)-3))
		}
		if chance(4) {
			p.Up = []float64{0, 1, 3, 4, 17, 64}[h.rng.IntN(6)]
		}
		if chance(15) {
			p.Snubbing = chance(3)
			p.Withheld = chance(2)
			p.Hoarding = chance(2)
		}
		if chance(4) {
			p.Received = h.rng.Int64N(1 << 20)
			credit := creditAtFirst + creditRate*h.now.Sub(p.Joined).Seconds() + creditFactor*float64(p.Received)
			p.Sent = max(0, int64(credit)+[]int64{-1 << 20, 0, 1, 1 << 20}[h.rng.IntN(4)])
		}
	}
}

// obey unchokes the chosen, and no other.
func (h *chokeHistory) obey(chosen []int) {
	for i := range h.peers {
		p := &h.peers[i]
		was := p.Unchoked
		if p.Unchoked = slices.Contains(chosen, p.ID); p.Unchoked && !was {
			p.UnchokedAt = h.now
		}
	}
}

// In all histories the choker chooses as its model does, and where both leave it to chance, chance is fair.
func TestChokerAgreesWithModel(t *testing.T) {
	var ties, newcomers, places fairness
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 8))
		c := New(rand.New(rand.NewPCG(seed, 9)))
		h := &chokeHistory{rng: rng, now: epoch, seeding: rng.IntN(2) == 0, most: []int{3, 7, 14, 45}[rng.IntN(4)]}
		m := &modelChoker{}
		for rounds := 0; rounds < 50; {
			h.pass(c.Next(), m.until)
			h.happen()
			where := fmt.Sprintf("seed %d, round %d, at %v", seed, rounds, h.now.Sub(epoch))
			if !h.now.Before(m.roundAt) {
				rounds++
			}

			got := c.Decide(h.now, h.seeding, h.rate, slices.Clone(h.peers))
			chosen := slices.Sorted(slices.Values(got))
			before := m.lucky
			var gotOwn []int
			for _, id := range chosen {
				if !c.drawn || id != c.optimistic {
					gotOwn = append(gotOwn, id)
				}
			}
			own, lots := m.decide(h.now, h.seeding, h.rate, h.peers, gotOwn)
			slices.Sort(own)
			if !slices.Equal(own, gotOwn) {
				require.Equal(t, own, gotOwn, where)
			}
			if c.Next() != m.roundAt || c.drawn != (len(lots) > 0) || len(chosen) != len(own)+one(c.drawn) {
				require.Fail(t, "not as in the model", "%s: next %v, want %v; chosen %v, own %v, lots %v",
					where, c.Next(), m.roundAt, chosen, own, lots)
			}
			if kept := m.lucky != 0; c.drawn {
				i := slices.IndexFunc(lots, func(p Peer) bool { return p.ID == c.optimistic })
				require.GreaterOrEqual(t, i, 0, "%s: %d is drawn after %d, not of %v", where, c.optimistic, before, lots)
				if !kept {
					m.lucky, m.until = c.optimistic, h.now.Add(optimisticEvery)
					h.judge(lots, i, &newcomers, &places)
				}
			}
			h.obey(chosen)
		}
		ties.add(m.ties.got, m.ties.want, m.ties.variance)
	}
	ties.check(t, "among equals a place in the list does not matter")
	newcomers.check(t, "a newcomer is three times as likely to be drawn")
	places.check(t, "for the lot a place in the list does not matter")
}

// judge records which of those that could be drawn was.
func (h *chokeHistory) judge(lots []Peer, drawn int, newcomers, places *fairness) {
	var sum, fresh, mean, square float64
	for i, p := range lots {
		weight := 1.
		if h.now.Sub(p.Joined) < newcomer {
			weight = 3
			fresh += weight
		}
		sum += weight
		mean += weight * float64(i)
		square += weight * float64(i*i)
	}
	share := fresh / sum
	newcomers.add(float64(one(h.now.Sub(lots[drawn].Joined) < newcomer)), share, share*(1-share))
	mean /= sum
	places.add(float64(drawn), mean, square/sum-mean*mean)
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
