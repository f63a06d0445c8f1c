// Package choker decides which peers to unchoke (BEP 3), which of them are free riders, and which pieces to allow and
// to suggest to them (BEP 6).
//
// It is plain data: it knows no connection and no clock, and draws from the random source that it is
// given. Each download has its own Choker, Spread, Suggester and Debts, which its lock guards.
package choker

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// RoundEvery is how often every peer is judged again.
const RoundEvery = 10 * time.Second

const (
	optimisticEvery = 30 * time.Second
	// chokeTurn is how long a peer that gives nothing in return keeps a slot that others wait for:
	// long enough for it to notice, and to upload to us as well.
	chokeTurn  = 30 * time.Second
	drawWeight = 1000 // of a peer, in the lot
	// newcomer is how long after it connected a peer is three times as likely to be drawn.
	newcomer = time.Minute

	// The bytes that a peer may be sent before it owes us: so many at first, so many more each second,
	// and so many times those that it gave.
	creditAtFirst = 2 << 20
	creditRate    = 4 << 10
	creditFactor  = 4

	minUploadSlots = 4
	maxUploadSlots = 32
	// uploadSlotRate is the upload rate, in bytes a second, that opens one slot more than the
	// least; four times the rate opens two, nine times three. So a faster link feeds more peers,
	// and each of them faster.
	uploadSlotRate = 64 << 10
)

// A Peer is what the choker knows of one connected peer.
type Peer struct {
	ID             int
	Interested     bool      // it wants something from us
	Unchoked       bool      // we let it ask
	Withheld       bool      // it once had what we want, and choked us
	Snubbing       bool      // it unchoked us, and does not answer
	Hoarding       bool      // it keeps to itself what it was given
	Down, Up       float64   // bytes a second of payload, from it and to it
	Took           float64   // what Up was on average while it last had a slot
	Received, Sent int64     // payload bytes since it connected, from it and to it
	Joined         time.Time // when it connected
	UnchokedAt     time.Time // when it was last unchoked; zero if never
	Crowd          int       // how many that are interested count as its network; 0 is 1
}

// crowd is how many peers have one turn together: or one network that holds many connections would have most of the slots, and
// use none of them.
func (p *Peer) crowd() int { return max(1, p.Crowd) }

// owes reports whether a peer is a free rider: it took much, gave little, and withheld what it could give.
// Without this, a swarm that waits for its one seed would spend all its spare upload on such peers, and
// they would finish as early as the rest. A peer that never had anything for us never owes. It does not
// matter that it has nothing now: a free rider that we feed soon has little but what we have.
func (p *Peer) owes(now time.Time) bool {
	credit := creditAtFirst + creditRate*now.Sub(p.Joined).Seconds() + creditFactor*float64(p.Received)
	return p.Withheld && p.Down == 0 && float64(p.Sent) > credit
}

const (
	// leastUse is the upload rate, in bytes a second, from which a peer uses its slot, and leastUsed how many have to, and pass on
	// what they get, for hoarders to have shorter turns.
	leastUse  = 4 << 10
	leastUsed = minUploadSlots / 2
	// farLess is how many times more than a peer another must take for the first to take far less.
	farLess = 4
)

// Indulge lets no peer count as hoarding if those that do not hoard leave our upload idle, because together they take less than one that
// does, or did when it had a slot. Otherwise peers that ask for little would have all slots, and the one that passes on nothing because no
// other wants it would wait for the lot.
func Indulge(peers []Peer) {
	used, taken, most := 0, 0., 0.
	for _, p := range peers {
		switch {
		case p.Hoarding:
			most = max(most, p.Took)
			if p.Unchoked {
				most = max(most, p.Up)
			}
		case p.Unchoked:
			taken += p.Up
			if p.Up >= leastUse {
				used++
			}
		}
	}
	for i := range peers {
		peers[i].Hoarding = peers[i].Hoarding && used >= leastUsed && taken >= most
	}
}

// A Choker decides whom to upload to. While we leech, slots go to the peers that give most in return
// (tit for tat); if too few give, to all in turn, except free riders. While we seed, slots go to all in
// turn; a peer that takes far more than those beside it keeps its slot, and one that passes on nothing has a
// shorter turn. One more peer is drawn at random (optimistic unchoke), so that a newcomer can show what it gives.
type Choker struct {
	rng        *rand.Rand
	roundAt    time.Time // when every peer is judged again
	slots      int       // as of the last round, the optimistic one not counted
	optimistic int       // the id of the peer drawn at random, if drawn
	drawn      bool
	drawAt     time.Time // when another is drawn
}

// New returns a choker whose first round is due at once. It draws at random from rng.
func New(rng *rand.Rand) *Choker { return &Choker{rng: rng, slots: minUploadSlots} }

// Next is when the next round is due.
func (c *Choker) Next() time.Time { return c.roundAt }

// Decide returns the ids of all peers that are to be unchoked now, given our upload rate in bytes a
// second. When a round is due every peer is judged again. Before that, because a peer came or left or
// its interest changed, free slots are dealt out and no peer that uses one loses it.
func (c *Choker) Decide(now time.Time, seeding bool, uploadRate float64, peers []Peer) (unchoke []int) {
	round := !now.Before(c.roundAt)
	if round {
		c.roundAt = now.Add(RoundEvery)
		c.slots = uploadSlots(uploadRate)
	}
	var wanting []Peer
	for _, p := range peers {
		if kept := p.Unchoked && !round; p.Interested && (seeding || kept || !p.owes(now)) {
			wanting = append(wanting, p)
		}
	}
	c.rng.Shuffle(len(wanting), func(i, j int) { wanting[i], wanting[j] = wanting[j], wanting[i] })
	last := -1
	if c.drawn {
		last = c.optimistic
		c.drawn = !(round && !now.Before(c.drawAt)) && slices.ContainsFunc(wanting, c.isOptimistic)
	}
	for _, p := range c.rank(now, round, seeding, wanting) {
		if len(unchoke) == c.slots {
			break
		}
		if c.isOptimistic(p.Peer) {
			c.drawn = false // it has earned a slot of its own
		}
		unchoke = append(unchoke, p.ID)
	}
	if !c.drawn {
		c.draw(now, last, slices.DeleteFunc(wanting, func(p Peer) bool {
			return slices.Contains(unchoke, p.ID)
		}))
	}
	if c.drawn {
		unchoke = append(unchoke, c.optimistic)
	}
	return unchoke
}

// uploadSlots is how many peers are unchoked beside the optimistic one, at an upload rate in bytes a
// second.
func uploadSlots(rate float64) int {
	return minUploadSlots + int(min(math.Sqrt(max(0, rate)/uploadSlotRate), maxUploadSlots-minUploadSlots))
}

func (c *Choker) isOptimistic(p Peer) bool { return c.drawn && p.ID == c.optimistic }

// contender is a peer that may have a slot.
type contender struct {
	Peer
	claim int     // lower is better
	worth float64 // among equal claims, higher is better
}

// The claims of a contender to a slot, best first.
const (
	claimHolding  = iota // it has the slot, and no round is due
	claimGiving          // it sends to us, and we leech
	claimInTurn          // it has the slot, and its turn is not over
	claimWaiting         // it waits for its turn
	claimTurnOver        // it has the slot, and its turn is over
)

// rank orders the peers that may have a slot, best first. The optimistic peer is among them only if it
// gives, and those that snub us only if we want nothing from them.
func (c *Choker) rank(now time.Time, round, seeding bool, wanting []Peer) []contender {
	ranked := make([]contender, 0, len(wanting))
	for _, p := range wanting {
		k := contender{Peer: p}
		gives := p.Down > 0 && !seeding
		switch {
		case p.Snubbing && !seeding, c.isOptimistic(p) && !(round && gives):
			continue
		case !round && p.Unchoked:
			k.claim = claimHolding
		case gives:
			k.claim, k.worth = claimGiving, p.Down
		case !p.Unchoked:
			since := p.Joined
			if p.UnchokedAt.After(since) {
				since = p.UnchokedAt
			}
			k.claim, k.worth = claimWaiting, now.Sub(since).Seconds()/float64(p.crowd())
		case p.Up == 0 && now.Sub(p.UnchokedAt) >= RoundEvery:
			k.claim = claimTurnOver // it requests nothing
		default:
			k.claim, k.worth = claimInTurn, p.Up
		}
		ranked = append(ranked, k)
	}
	// Peers whose turn is over make room. While seeding, only a quarter of the slots changes hands in a round, so that the others
	// continue undisturbed, and those that take far less than another make room first. Otherwise peers that ask for little would have as
	// long a turn as one that takes all that we can send, and leave our upload idle in theirs.
	yield, most := len(ranked), 0.
	if seeding {
		yield = max(1, c.slots/4)
		for _, k := range ranked {
			if k.claim == claimTurnOver || k.Unchoked && now.Sub(k.UnchokedAt) < RoundEvery {
				yield-- // its slot changes hands, or did since the last round
			}
			if k.Unchoked {
				most = max(most, k.Up)
			}
		}
	}
	slices.SortStableFunc(ranked, func(a, b contender) int { return a.UnchokedAt.Compare(b.UnchokedAt) })
	makeRoom := func(light bool, turn time.Duration) {
		for i := range ranked {
			if k := &ranked[i]; yield > 0 && k.claim == claimInTurn && (farLess*k.Up < most) == light && now.Sub(k.UnchokedAt) >= turn {
				k.claim = claimTurnOver
				yield--
			}
		}
	}
	makeRoom(true, RoundEvery)
	makeRoom(false, chokeTurn)
	// A peer that passes on nothing makes room when its turn is over, however many others do. It waits no longer than they do:
	// what a peer passes on is what others say, and those may have agreed to say nothing.
	for i := range ranked {
		if k := &ranked[i]; seeding && k.claim == claimInTurn && k.Hoarding && now.Sub(k.UnchokedAt) >= chokeTurn {
			k.claim = claimTurnOver
		}
	}
	slices.SortStableFunc(ranked, func(a, b contender) int {
		return cmp.Or(cmp.Compare(a.claim, b.claim), cmp.Compare(b.worth, a.worth))
	})
	return ranked
}

// draw chooses the optimistic peer among those left without a slot: not the last one again, if there is
// another.
func (c *Choker) draw(now time.Time, last int, left []Peer) {
	weight := func(p Peer) int {
		switch {
		case p.ID == last && len(left) > 1:
			return 0
		case now.Sub(p.Joined) < newcomer:
			return 3 * drawWeight / p.crowd()
		}
		return max(1, drawWeight/p.crowd())
	}
	sum := 0
	for _, p := range left {
		sum += weight(p)
	}
	if sum == 0 {
		return
	}
	lot := c.rng.IntN(sum)
	for _, p := range left {
		if lot -= weight(p); lot < 0 {
			c.optimistic, c.drawn, c.drawAt = p.ID, true, now.Add(optimisticEvery)
			return
		}
	}
}
