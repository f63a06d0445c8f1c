package picker

import "slices"

// leastSenders is how many senders are remembered before the first search for those that can be forgotten.
const leastSenders = 128

// senders holds the origins of the suppliers that sent a block, so that blocks can name them by number. Those are forgotten whom
// no block names that may still prove false, and their numbers are used again.
type senders struct {
	all    []sender
	unused []int32 // numbers that name no origin
	enough int     // how many numbers there may be before the next search; 0 is leastSenders
}

type sender struct {
	origin any     // nil if the number is unused
	liar   bool    // is a known liar
	given  int     // blocks in pieces that passed
	best   float64 // highest recent rate, in bytes a second; see clock
}

// find returns the number of an origin, or noSender.
func (x *senders) find(origin any) int32 {
	return int32(slices.IndexFunc(x.all, func(s sender) bool { return s.origin == origin }))
}

// senderOf returns the number of the origin of s, and gives it one if it has none.
func (pk *Picker) senderOf(s *Supplier) int32 {
	if s.sender != noSender {
		return s.sender
	}
	if s.sender = pk.senders.find(s.Origin); s.sender >= 0 {
		return s.sender
	}
	x := &pk.senders
	if len(x.unused) == 0 && len(x.all) >= max(x.enough, leastSenders) {
		pk.forgetSenders()
	}
	if last := len(x.unused) - 1; last >= 0 {
		s.sender, x.unused = x.unused[last], x.unused[:last]
		x.all[s.sender].origin = s.Origin
		return s.sender
	}
	s.sender = int32(len(x.all))
	x.all = append(x.all, sender{origin: s.Origin})
	return s.sender
}

// forgetSenders frees the numbers that no supplier, started piece or suspicion refers to. The next search comes once there are
// twice as many as are left, so that it costs little for each.
func (pk *Picker) forgetSenders() {
	x := &pk.senders
	used := make([]bool, len(x.all))
	use := func(n int32) {
		if n >= 0 {
			used[n] = true
		}
	}
	for _, s := range pk.suppliers {
		use(s.sender)
	}
	for _, p := range pk.started {
		if p.sole != nil {
			use(p.sole.sender) // it may have left
		}
		for _, b := range p.blocks.known {
			use(b.sender)
		}
	}
	for _, u := range pk.spoiled {
		for _, n := range u.accused {
			use(n)
		}
		for _, a := range u.attempts {
			for _, n := range a.senders {
				use(n)
			}
		}
	}
	for n, is := range used {
		if !is {
			x.all[n] = sender{}
			x.unused = append(x.unused, int32(n))
		}
	}
	x.enough = 2 * (len(used) - len(x.unused))
}

// credit counts the blocks of p, which has passed, as given by their senders.
func (x *senders) credit(p *startedPiece) {
	for _, b := range p.blocks.known {
		if b.sender >= 0 {
			x.all[b.sender].given++
		}
	}
}

// fadeOver is over how many blocks about the best rate of a sender is forgotten.
const fadeOver = 256

// clock records at which rate the sender has just sent a block. Its best rate fades with each block, or one that is slower for good,
// maybe because our own rate is limited now, would always seem to have slowed down.
func (x *sender) clock(rate float64) { x.best = max(x.best*(1-1./fadeOver), rate) }
