package torrent

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	chokeRound      = 10 * time.Second
	optimisticRound = 30 * time.Second
	// chokeTurn is how long a peer that gives nothing in return keeps a slot that others wait for:
	// long enough for it to notice, and to answer in kind.
	chokeTurn = 30 * time.Second
	// newcomer is how long after it connected a peer is three times as likely to be drawn.
	newcomer = time.Minute

	// A peer may have been sent so many bytes at first, so many more a second, and so many times
	// what it gave, before it owes us.
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

// chokeState is what the choker knows of one connected peer.
type chokeState struct {
	id             int
	interested     bool      // it wants something from us
	unchoked       bool      // we let it ask
	withheld       bool      // it was seen to have what we want, and not to let us ask
	snubbing       bool      // it lets us ask, and does not answer
	hoarding       bool      // it keeps to itself what it was given
	down, up       float64   // bytes a second of payload, from it and to it
	received, sent int64     // payload bytes since it connected, from it and to it
	joined         time.Time // when it connected
	unchokedAt     time.Time // when it was last unchoked; zero if never
}

// owes tells whether a peer took much, gave little, and withheld what it could give: a free rider.
// Without this, a swarm that waits for its one seed would spend all the upload it has to spare on
// such peers, who would finish as early as the rest. One that never had anything for us never owes. That
// it has nothing now is no excuse: a rider that we feed soon has little but what we have.
func (p *chokeState) owes(now time.Time) bool {
	credit := creditAtFirst + creditRate*now.Sub(p.joined).Seconds() + creditFactor*float64(p.received)
	return p.withheld && p.down == 0 && float64(p.sent) > credit
}

// choker decides whom to upload to (BEP 3). While we leech, slots go to those who give most in
// return; where too few give, to all by turns, free riders left out. While we seed, slots go by turns to
// those who pass on what they get, and to the others what these leave. One more is drawn by lot, so that
// a newcomer can show what it gives. Its owner's lock guards it.
type choker struct {
	rng        *rand.Rand
	roundAt    time.Time // when everybody is judged anew
	slots      int       // as of the last round, the optimistic one not counted
	optimistic int       // the id of the peer drawn by lot, if drawn
	drawn      bool
	drawAt     time.Time // when another is drawn
}

func newChoker(rng *rand.Rand) *choker { return &choker{rng: rng, slots: minUploadSlots} }

// next is when the next round is due.
func (c *choker) next() time.Time { return c.roundAt }

// decide returns the ids of all peers that are to be unchoked now, given our upload rate in bytes a
// second. When a round is due everybody is judged anew. Before that, because a peer came or left or
// its interest changed, free slots are dealt out and nobody who uses one loses it.
func (c *choker) decide(now time.Time, seeding bool, uploadRate float64, peers []chokeState) (unchoke []int) {
	round := !now.Before(c.roundAt)
	if round {
		c.roundAt = now.Add(chokeRound)
		c.slots = uploadSlots(uploadRate)
	}
	var wanting []chokeState
	for _, p := range peers {
		if kept := p.unchoked && !round; p.interested && (seeding || kept || !p.owes(now)) {
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
		if c.isOptimistic(p.chokeState) {
			c.drawn = false // it has earned a slot of its own
		}
		unchoke = append(unchoke, p.id)
	}
	if !c.drawn {
		c.draw(now, last, slices.DeleteFunc(wanting, func(p chokeState) bool {
			return slices.Contains(unchoke, p.id)
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

func (c *choker) isOptimistic(p chokeState) bool { return c.drawn && p.id == c.optimistic }

// contender is a peer that may have a slot.
type contender struct {
	chokeState
	claim int     // the lower the better
	worth float64 // among equal claims, the higher the better
}

// What a contender's claim to a slot rests on.
const (
	claimHolding  = iota // has it, and it is not time for judging
	claimGiving          // sends to us, and we leech
	claimInTurn          // has it, and has not had its turn
	claimWaiting         // for its turn
	claimTurnOver        // has it, and has had its turn
	claimHoarding        // any of the above, but while we seed it keeps what it gets
)

// rank orders those who may have a slot, best first. The optimistic peer is among them only if it
// gives, and those who snub us only if there is nothing we want from them.
func (c *choker) rank(now time.Time, round, seeding bool, wanting []chokeState) []contender {
	ranked := make([]contender, 0, len(wanting))
	for _, p := range wanting {
		k := contender{chokeState: p}
		gives := p.down > 0 && !seeding
		switch {
		case p.snubbing && !seeding, c.isOptimistic(p) && !(round && gives):
			continue
		case !round && p.unchoked:
			k.claim = claimHolding
		case gives:
			k.claim, k.worth = claimGiving, p.down
		case !p.unchoked:
			since := p.joined
			if p.unchokedAt.After(since) {
				since = p.unchokedAt
			}
			k.claim, k.worth = claimWaiting, now.Sub(since).Seconds()
		case p.up == 0 && now.Sub(p.unchokedAt) >= chokeRound:
			k.claim = claimTurnOver // it asks for nothing
		default:
			k.claim, k.worth = claimInTurn, p.up
		}
		ranked = append(ranked, k)
	}
	// Who has had its turn makes room; while seeding, the longest served quarter at a time, so that
	// the rest goes on undisturbed.
	yield := len(ranked)
	if seeding {
		yield = max(1, c.slots/4)
	}
	slices.SortStableFunc(ranked, func(a, b contender) int { return a.unchokedAt.Compare(b.unchokedAt) })
	for i := 0; i < len(ranked) && yield > 0; i++ {
		if k := &ranked[i]; k.claim == claimInTurn && now.Sub(k.unchokedAt) >= chokeTurn {
			k.claim = claimTurnOver
			yield--
		}
	}
	for i := range ranked {
		if k := &ranked[i]; seeding && k.hoarding && k.claim != claimHolding {
			k.claim += claimHoarding
		}
	}
	slices.SortStableFunc(ranked, func(a, b contender) int {
		return cmp.Or(cmp.Compare(a.claim, b.claim), cmp.Compare(b.worth, a.worth))
	})
	return ranked
}

// draw chooses the optimistic peer among those left without a slot: another than the last, if there
// is one.
func (c *choker) draw(now time.Time, last int, left []chokeState) {
	weight := func(p chokeState) int {
		switch {
		case p.id == last && len(left) > 1:
			return 0
		case now.Sub(p.joined) < newcomer:
			return 3
		}
		return 1
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
			c.optimistic, c.drawn, c.drawAt = p.id, true, now.Add(optimisticRound)
			return
		}
	}
}
