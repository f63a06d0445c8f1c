package picker

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// A suspicion is kept of a piece that failed its hash, until it passes. Meanwhile the piece is on parole: what it
// lacks is asked of one supplier at a time. If it fails with all its blocks from one, that supplier lied. If it passes,
// comparing its blocks with those of earlier attempts shows which suppliers lied before.
//
// Blocks of a piece that failed are not all fetched again at once, or one false block would cost a piece. The first
// time it is those of the suppliers that sent the fewest, then all but those of the one that sent the most, then all.
type suspicion struct {
	attempts []attempt
	failures int            // attempts that no liar explains
	accused  []int32        // whose blocks were dropped when it failed last, by Supplier.sender
	records  map[any]record // of sole suppliers, by Supplier.Host
}

// An attempt is what the blocks of a piece were that failed its hash.
type attempt struct {
	senders []int32  // by block, as in block.sender
	digests []uint64 // by block
}

// maxAttempts is how many attempts at one piece are remembered.
const maxAttempts = 8

// A record says how suppliers of one host did as sole suppliers of a piece.
type record struct {
	turns  int // how often one of them was made the sole supplier
	lapses int // how often one let the piece wait, or had sent nothing when another took over
}

// Failed records that piece i is complete and does not have its hash. digests are of its blocks. liars are the
// origins that are shown to have sent a false block: one that sent the whole piece. What is suspect of the piece is
// fetched again. The rest stays in the present attempt: Started and Arrived say whether there is one and what it is.
func (pk *Picker) Failed(i int, digests []uint64) (liars []any) {
	p := pk.started[int32(i)]
	a := attempt{digests: digests}
	for k := range p.blocks.len() {
		a.senders = append(a.senders, p.blocks.at(k).sender)
	}
	u := pk.spoiled[p.piece]
	if u == nil {
		u = &suspicion{records: make(map[any]record)}
		pk.spoiled[p.piece] = u
	}
	shares := sharesOf(a.senders)
	if len(shares) == 1 && shares[0].sender >= 0 {
		liars = []any{pk.senders[shares[0].sender]}
		u.accused = nil
		pk.reset(p)
		pk.retire(p)
		return liars
	}
	if len(u.attempts) == maxAttempts {
		u.attempts = u.attempts[1:]
	}
	u.attempts = append(u.attempts, a)
	u.accused = pk.accuse(u, shares, p.blocks.len())
	for k, b := range p.blocks.known { // which are all
		if slices.Contains(u.accused, b.sender) {
			p.drop(k, b)
		} else if !b.kept {
			b.kept = true
			p.kept++
		}
	}
	pk.endTurn(p)
	p.parole = true
	pk.reopen(p)
	pk.retire(p)
	return nil
}

// Exposed records that piece i is complete, and which of its blocks are known to be false. Only these are fetched again. liars
// are the origins that sent them.
func (pk *Picker) Exposed(i int, lie func(block int) bool) (liars []any) {
	p := pk.started[int32(i)]
	for k, b := range p.blocks.known { // which are all
		if !lie(k) {
			continue
		}
		if n := b.sender; n >= 0 && !slices.Contains(liars, pk.senders[n]) {
			liars = append(liars, pk.senders[n])
		}
		p.drop(k, b)
	}
	if p.parole {
		pk.endTurn(p)
	}
	pk.reopen(p)
	pk.retire(p)
	return liars
}

// A share is how many blocks of a piece one sender sent.
type share struct {
	sender int32
	blocks int
}

// sharesOf returns the shares in a piece, the smallest first.
func sharesOf(senders []int32) (shares []share) {
	at := make(map[int32]int)
	for _, n := range senders {
		k, known := at[n]
		if !known {
			k = len(shares)
			at[n] = k
			shares = append(shares, share{sender: n})
		}
		shares[k].blocks++
	}
	slices.SortStableFunc(shares, func(a, b share) int { return cmp.Compare(a.blocks, b.blocks) })
	return shares
}

// accuse chooses whose blocks of a piece that failed are fetched again: those of known liars, or else more with each
// failure.
func (pk *Picker) accuse(u *suspicion, shares []share, blocks int) (accused []int32) {
	for _, sh := range shares {
		if sh.sender >= 0 && pk.liars[sh.sender] {
			accused = append(accused, sh.sender)
		}
	}
	if len(accused) > 0 {
		return accused
	}
	n := 1 // how many shares
	switch u.failures++; u.failures {
	case 1:
		for sum := shares[0].blocks; n < len(shares)-1; n++ {
			if sum += shares[n].blocks; sum > blocks/8 {
				break
			}
		}
	case 2:
		n = max(1, len(shares)-1)
	default:
		n = len(shares)
	}
	for _, sh := range shares[:n] {
		accused = append(accused, sh.sender)
	}
	return accused
}

// Disown drops all blocks whose senders have an origin that is a known liar, wherever a piece is not complete, and
// returns them. From then on, blocks of these are the first that are fetched again of a piece that fails.
func (pk *Picker) Disown(liar func(origin any) bool) (dropped []Block) {
	for n, origin := range pk.senders {
		pk.liars[n] = pk.liars[n] || liar(origin)
	}
	for _, p := range pk.startedInOrder() {
		if p.left == 0 {
			continue // it is being hashed, which shows whether they were false
		}
		before := len(dropped)
		for k, b := range p.blocks.known {
			if n := b.sender; n >= 0 && pk.liars[n] {
				p.drop(k, b)
				dropped = append(dropped, Block{p.piece, int32(k)})
			}
		}
		if len(dropped) > before {
			pk.reopen(p)
			pk.retire(p)
		}
	}
	return dropped
}

// startedInOrder returns the started pieces in an order that does not depend on chance.
func (pk *Picker) startedInOrder() []*startedPiece {
	return slices.SortedFunc(maps.Values(pk.started), func(a, b *startedPiece) int { return cmp.Compare(a.attempt, b.attempt) })
}

// barred reports whether s may not begin to send what a piece on parole lacks, because that is to replace what s sent
// before. If no other supplier can send it, s may.
func (pk *Picker) barred(s *Supplier, p *startedPiece) bool {
	if p.kept == 0 || p.sole != nil {
		return false
	}
	piece, u := p.piece, pk.spoiled[p.piece]
	if s.sender < 0 || !slices.Contains(u.accused, s.sender) {
		return false
	}
	return slices.ContainsFunc(pk.suppliers, func(o *Supplier) bool {
		return o.Ready && !o.snubbed && o.may(piece) && (o.sender < 0 || !slices.Contains(u.accused, o.sender))
	})
}

// clear ends the suspicion against piece i, which has passed. digests are of its true blocks. It returns the origins
// that sent others.
func (pk *Picker) clear(i int, digests []uint64) (liars []any) {
	u := pk.spoiled[int32(i)]
	if u == nil {
		return nil
	}
	delete(pk.spoiled, int32(i))
	for _, a := range u.attempts {
		for k, sender := range a.senders {
			if sender >= 0 && a.digests[k] != digests[k] && !slices.Contains(liars, pk.senders[sender]) {
				liars = append(liars, pk.senders[sender])
			}
		}
	}
	return liars
}

// assign makes s the sole supplier of p, which is on parole.
func (pk *Picker) assign(p *startedPiece, s *Supplier) {
	if p.sole != s {
		p.sole = s
		records := pk.spoiled[p.piece].records
		r := records[s.Host]
		r.turns++
		records[s.Host] = r
	}
}

// endTurn leaves p without a sole supplier. If the one that it had was no use, that is recorded.
func (pk *Picker) endTurn(p *startedPiece) {
	if o := p.sole; o != nil && (o.stuck(p.piece) || p.left == p.lacks()) {
		records := pk.spoiled[p.piece].records
		r := records[o.Host]
		r.lapses++
		records[o.Host] = r
	}
	p.sole = nil
}

// endTurns takes all pieces on parole from s. What it sent of them proves nothing beside the blocks of another, so
// they start again.
func (pk *Picker) endTurns(s *Supplier) {
	for _, p := range pk.started {
		if p.sole == s {
			pk.restart(p)
		}
	}
}

// restart drops the blocks that the sole supplier of a piece on parole sent, and returns it to the heap if none is left,
// unless it is complete and being hashed.
func (pk *Picker) restart(p *startedPiece) {
	if p.left == 0 {
		return
	}
	for k, b := range p.blocks.known {
		if b.here() && !b.kept {
			p.drop(k, b)
		}
	}
	pk.endTurn(p)
	pk.reopen(p)
	pk.retire(p)
}

// due is the first piece on parole that s should have at once, or nil: its sole supplier has sent nothing of it yet,
// and is of a host that lapsed more often than that of s.
func (pk *Picker) due(s *Supplier) (first *startedPiece) {
	if s.snubbed {
		return nil
	}
	pk.work += int64(len(pk.spoiled))
	for i, u := range pk.spoiled {
		p := pk.started[i]
		if p == nil || p.sole == nil || p.sole == s || p.left < p.lacks() || first != nil && first.piece < i {
			continue
		}
		if s.may(i) && u.records[p.sole.Host].lapses > u.records[s.Host].lapses {
			first = p
		}
	}
	return first
}

// neglects reports whether o, the sole supplier of p, is asked for other pieces only, and s would be so much sooner
// that it should have p.
func (pk *Picker) neglects(o, s *Supplier, p *startedPiece, now time.Time) bool {
	return !o.IsAsked(int(p.piece)) && pk.outdoes(s, o, p, len(o.queue)-1, now)
}

// outdoes reports whether s would have all of p sooner, by a margin, than o, which has still to send k+1 blocks and
// those of p that are free.
//
// The margin doubles with each turn that the host of s has had: a fast supplier that chokes all the time must not
// keep a slow one from completing p. It is larger for a supplier of unknown rate, or many of these would pass p
// around.
func (pk *Picker) outdoes(s, o *Supplier, p *startedPiece, k int, now time.Time) bool {
	margin := 2 * math.Exp2(float64(pk.spoiled[p.piece].records[s.Host].turns))
	if s.pace.rate <= 0 {
		margin *= 4
	}
	return float64(o.eta(k+p.free, now)) > margin*float64(s.eta(len(s.queue)+p.lacks()-1, now))
}
