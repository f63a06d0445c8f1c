package picker

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/expiring"
)

// A suspicion is the record of a piece that failed its hash. It is kept until the piece passes. Meanwhile the piece is on parole:
// its missing blocks are requested from one supplier at a time, the sole supplier. If the piece fails with all its blocks from
// one supplier, that supplier lied. If it passes, comparing its blocks with those of earlier attempts shows which suppliers lied
// before.
//
// When a piece fails, not all its blocks are fetched again, or each false block would cost a whole piece. After the first failure
// it is the blocks of the suppliers that sent the fewest, after the second all but those of the supplier that sent the most, and
// then all, or up to maxBelieved failures all but those of a supplier with far more credit than the others.
type suspicion struct {
	attempts []attempt
	failures int            // failed attempts without blocks of a known liar
	accused  []int32        // suppliers whose blocks were dropped at the last failure, by Supplier.sender
	turns    int            // how often a sole supplier was chosen
	records  map[any]record // of sole suppliers, by Supplier.Host
}

// An attempt records the blocks of a piece that failed its hash.
type attempt struct {
	senders []int32  // of each block, as in block.sender
	digests []uint64 // of each block
}

// maxAttempts is how many attempts are remembered for a piece.
const maxAttempts = 8

// A record counts the turns of the suppliers of one host as sole supplier of a piece.
type record struct {
	turns  int // how often a supplier of the host was made the sole supplier
	lapses int // how often its turn ended with requests that may never be answered, or without a block sent
	stuck  int // how often it had a turn and was snubbed, or its turn ended while it was choking or not ready
}

// maxRecords is how many records there may be for all pieces. A piece stays on parole until a peer sends it right, and meanwhile strangers
// may come for it from more and more addresses.
const maxRecords = 1 << 15

// note changes the record of a host for a piece that failed its hash.
func (pk *Picker) note(piece int32, host any, change func(*record)) {
	r, known := pk.spoiled[piece].records[host]
	if change(&r); !known {
		if pk.records >= maxRecords {
			pk.forgetRecords()
		}
		pk.records++
	}
	pk.spoiled[piece].records[host] = r
}

// forgetRecords forgets the records of hosts that are gone, or all if these are not half of them.
func (pk *Picker) forgetRecords() {
	here := make(map[any]struct{})
	for _, s := range pk.suppliers {
		here[s.Host] = struct{}{}
	}
	left := 0
	for _, u := range pk.spoiled {
		maps.DeleteFunc(u.records, func(host any, _ record) bool {
			_, is := here[host]
			return !is
		})
		left += len(u.records)
	}
	all := left > maxRecords/2
	for _, u := range pk.spoiled {
		if all {
			clear(u.records)
		}
		u.records = expiring.Compact(u.records)
	}
	if pk.records = left; all {
		pk.records = 0
	}
}

// Failed records that piece i is complete and does not match its hash. digests has a digest of each block. If one supplier sent
// the whole piece, liars has its origin. Blocks under suspicion are dropped, to be fetched again. If no other block is left, the
// piece returns to the heap. Started and Arrived report the result.
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
		liars = []any{pk.senders.all[shares[0].sender].origin}
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
	for k, b := range p.blocks.known { // all blocks, because the piece is complete
		if slices.Contains(u.accused, b.sender) {
			p.drop(k, b)
		}
	}
	p.keep()
	pk.endTurn(p)
	p.parole = true
	pk.reopen(p)
	pk.retire(p)
	return nil
}

// Exposed records that piece i is complete, and that exactly the blocks for which lie reports true are false. Only these are
// fetched again. liars are the origins of the suppliers that sent them.
func (pk *Picker) Exposed(i int, lie func(block int) bool) (liars []any) {
	p := pk.started[int32(i)]
	for k, b := range p.blocks.known { // all blocks, because the piece is complete
		if !lie(k) {
			continue
		}
		if n := b.sender; n >= 0 && !slices.Contains(liars, pk.senders.all[n].origin) {
			liars = append(liars, pk.senders.all[n].origin)
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

// A share is the number of blocks of a piece that one supplier sent.
type share struct {
	sender int32
	blocks int
}

// sharesOf returns the shares of a piece, smallest first, given the sender of each block.
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

// accuse chooses the suppliers whose blocks of a failed piece are fetched again: known liars if there are any, or else more
// suppliers with each failure. See suspicion.
func (pk *Picker) accuse(u *suspicion, shares []share, blocks int) (accused []int32) {
	for _, sh := range shares {
		if sh.sender >= 0 && pk.senders.all[sh.sender].liar {
			accused = append(accused, sh.sender)
		}
	}
	if len(accused) > 0 {
		return accused
	}
	n := 1 // how many of shares are accused
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
	believed := int32(noSender)
	if n == len(shares) && u.failures <= maxBelieved {
		believed = pk.believed(shares)
	}
	for _, sh := range shares[:n] {
		if sh.sender != believed {
			accused = append(accused, sh.sender)
		}
	}
	return accused
}

// maxBelieved is how often a piece fails before the blocks of a supplier with far more credit than the others are also fetched again.
const maxBelieved = maxAttempts - 1

// believed returns the sender whose credit is so much more than that of the others that sent blocks of a piece that it is not accused with
// them, or noSender.
func (pk *Picker) believed(shares []share) (sender int32) {
	sender, most, others := noSender, 0, 0
	for _, sh := range shares {
		if sh.sender < 0 {
			continue
		}
		given := pk.senders.all[sh.sender].given
		if given > most {
			sender, given, most = sh.sender, most, given
		}
		others = max(others, given)
	}
	if most <= fairPart*max(1, others) {
		return noSender
	}
	return sender
}

// Distrust records known liars: liar reports whether an origin is one. When a piece fails later, the blocks of these liars are
// fetched again first.
func (pk *Picker) Distrust(liar func(origin any) bool) {
	for n := range pk.senders.all {
		x := &pk.senders.all[n]
		x.liar = x.liar || liar(x.origin)
	}
}

// Disown distrusts known liars, drops the blocks that they sent, in all pieces that are not complete, and returns these.
func (pk *Picker) Disown(liar func(origin any) bool) (dropped []Block) {
	pk.Distrust(liar)
	lies := func(b *block) bool { return b.sender >= 0 && pk.senders.all[b.sender].liar }
	var spoiled []*startedPiece // few of thousands that may be started
	for _, p := range pk.started {
		if p.left == 0 {
			continue // the piece is being hashed, which shows whether its blocks are false
		}
		for _, b := range p.blocks.known {
			if lies(b) {
				spoiled = append(spoiled, p)
				break
			}
		}
	}
	slices.SortFunc(spoiled, func(a, b *startedPiece) int { return cmp.Compare(a.attempt, b.attempt) })
	for _, p := range spoiled {
		for k, b := range p.blocks.known {
			if lies(b) {
				p.drop(k, b)
				dropped = append(dropped, Block{p.piece, int32(k)})
			}
		}
		pk.reopen(p)
		pk.retire(p)
	}
	return dropped
}

// barred reports whether s must not become the sole supplier of p, because the missing blocks of p replace blocks that s sent. s
// is not barred if no other supplier can send them.
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

// clear removes the suspicion of piece i, which has passed. digests has a digest of each of its true blocks, or is nil if these are
// not known. It returns the origins of the suppliers that sent other blocks.
func (pk *Picker) clear(i int, digests []uint64) (liars []any) {
	u := pk.spoiled[int32(i)]
	if u == nil {
		return nil
	}
	delete(pk.spoiled, int32(i))
	pk.records -= len(u.records)
	if digests == nil {
		return nil
	}
	for _, a := range u.attempts {
		for k, sender := range a.senders {
			if sender >= 0 && a.digests[k] != digests[k] && !slices.Contains(liars, pk.senders.all[sender].origin) {
				liars = append(liars, pk.senders.all[sender].origin)
			}
		}
	}
	return liars
}

// assign makes s the sole supplier of p, a piece on parole.
func (pk *Picker) assign(p *startedPiece, s *Supplier) {
	if p.sole != s {
		p.sole = s
		pk.spoiled[p.piece].turns++
		pk.note(p.piece, s.Host, func(r *record) { r.turns++ })
	}
}

// endTurn removes the sole supplier of p. If requests to it may never be answered, or it has sent nothing, a lapse is recorded.
func (pk *Picker) endTurn(p *startedPiece) {
	if o := p.sole; o != nil && (o.stuck(p.piece) || p.left == p.lacks()) {
		pk.note(p.piece, o.Host, func(r *record) {
			r.lapses++
			if o.stuck(p.piece) && !o.snubbed {
				r.stuck++
			}
		})
	}
	p.sole = nil
}

// stuckAtTurns records that s was snubbed, for all pieces of which it is the sole supplier. It keeps those that no other supplier
// takes over, and may send a block soon.
func (pk *Picker) stuckAtTurns(s *Supplier) {
	pk.work += int64(len(pk.spoiled))
	for i := range pk.spoiled {
		if p := pk.started[i]; p != nil && p.sole == s {
			pk.note(i, s.Host, func(r *record) { r.stuck++ })
		}
	}
}

// endTurns takes all pieces on parole from s. They start again, because blocks of s together with those of another supplier prove
// nothing.
func (pk *Picker) endTurns(s *Supplier) {
	for i := range pk.spoiled { // far fewer than the started pieces
		if p := pk.started[i]; p != nil && p.sole == s {
			pk.restart(p)
		}
	}
}

// restart drops the blocks that the sole supplier of p sent, and returns p to the heap if no block is left. It does nothing if p
// is complete and being hashed.
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

// Strangers who come to spoil pieces could also keep them: each new one would have a turn at a piece on parole, and stall. So a
// supplier has its turn before others if its credit, the blocks that it sent in pieces that passed, is more than fairPart times
// theirs. It loses this precedence at a piece once it was stuck maxStuck times, until others have had otherTurns in vain, and so on: it may
// choke for half of the time, and they may be strangers without end. It has no credit while its rate is less than a fairPart of its best,
// or it could keep all pieces on parole by sending a block now and then.
const (
	fairPart   = 16
	fairTurn   = 4 // the part of what is lacking of a piece that makes a turn a fair one
	maxStuck   = 3
	otherTurns = 8
)

// A ranking is what one choice of blocks has found out about who comes first at pieces on parole, of which there may be thousands.
type ranking struct {
	known bool      // most is
	most  int       // see mostCredit
	first *Supplier // the last one found that outranks another; nil if there is none
}

// creditOf returns the credit of s.
func (pk *Picker) creditOf(s *Supplier) int {
	if s.sender == noSender || fairPart*s.pace.rate < pk.senders.all[s.sender].best {
		return 0
	}
	return pk.senders.all[s.sender].given
}

// mostCredit returns the highest credit of a peer.
func (pk *Picker) mostCredit() (most int) {
	if pk.ranking.known {
		return pk.ranking.most
	}
	pk.work += int64(len(pk.suppliers)) / suppliersPerStep
	for _, s := range pk.suppliers {
		if !s.Runs {
			most = max(most, pk.creditOf(s))
		}
	}
	pk.ranking.known, pk.ranking.most = true, most
	return most
}

// outranked reports whether s must leave p, a piece on parole, to another supplier that can send it.
func (pk *Picker) outranked(s *Supplier, p *startedPiece) bool {
	if !p.parole {
		return false
	}
	if pk.mostCredit() <= fairPart*pk.creditOf(s) {
		return false
	}
	outranks := func(o *Supplier) bool {
		return pk.precedes(o, s, p) && o.Ready && !o.snubbed && !o.Runs && o.may(p.piece) && !pk.barred(o, p)
	}
	if o := pk.ranking.first; o != nil && outranks(o) {
		return true
	}
	pk.work += int64(len(pk.suppliers)) / suppliersPerStep
	at := slices.IndexFunc(pk.suppliers, outranks)
	if at >= 0 {
		pk.ranking.first = pk.suppliers[at]
	}
	return at >= 0
}

// trusts reports whether s has so much more credit than o that it is trusted over o.
func (pk *Picker) trusts(s, o *Supplier) bool { return pk.creditOf(s) > fairPart*pk.creditOf(o) }

// precedes reports whether s has its turn at p, a piece on parole, before o, whose credit is so much less.
func (pk *Picker) precedes(s, o *Supplier, p *startedPiece) bool {
	u := pk.spoiled[p.piece]
	r := u.records[s.Host]
	return pk.trusts(s, o) && r.stuck < maxStuck+(u.turns-r.turns)/otherTurns
}

// deposes reports whether s, which is about to send p in any case, takes it from its sole supplier, because it precedes that one.
func (pk *Picker) deposes(s *Supplier, p *startedPiece) bool {
	return p.sole != nil && p.sole != s && p.left > 0 && pk.precedes(s, p.sole, p)
}

// due returns the first piece on parole that s should take over at once, or nil. The sole supplier of such a piece has sent
// nothing of it yet, and s precedes it, or its host has more lapses than that of s, and neither it nor another precedes s. So a web
// seed, which no peer has to wait for, takes over what strangers have. While s still has free blocks of such a piece it gets no other: a
// choke could cost it all of them.
func (pk *Picker) due(s *Supplier) (first *startedPiece) {
	if s.snubbed || len(pk.spoiled) == 0 {
		return nil
	}
	pk.work += int64(len(pk.spoiled))
	for i, u := range pk.spoiled {
		p := pk.started[i]
		if p == nil || p.sole == nil || !s.may(i) {
			continue
		}
		if p.sole == s && p.open {
			return nil
		}
		if p.sole == s || p.left < p.lacks() || first != nil && first.piece < i {
			continue
		}
		lapsed := u.records[p.sole.Host].lapses > u.records[s.Host].lapses
		if pk.precedes(s, p.sole, p) || lapsed && !pk.precedes(p.sole, s, p) && !pk.outranked(s, p) {
			first = p
		}
	}
	return first
}

// neglects reports whether no request for p is outstanding to o, its sole supplier, and s would have p so much sooner that it
// should take over.
func (pk *Picker) neglects(o, s *Supplier, p *startedPiece, now time.Time) bool {
	return !p.isAsked() && pk.outdoes(s, o, p, len(o.queue)-1, now)
}

// outdoes reports whether s would have sent all of p sooner, by a margin, than o would have sent its first k+1 outstanding blocks
// and the free blocks of p.
//
// The margin doubles with each turn that the host of s has had, unless s precedes o: a fast supplier that chokes again and again must not
// keep a slow one from completing p. The margin is larger if the rate of s is unknown, or many such suppliers would pass p around.
func (pk *Picker) outdoes(s, o *Supplier, p *startedPiece, k int, now time.Time) bool {
	margin := 2.
	if !pk.precedes(s, o, p) {
		margin = math.Ldexp(margin, pk.spoiled[p.piece].records[s.Host].turns)
	}
	if s.pace.rate <= 0 {
		margin *= 4
	}
	return float64(o.eta(k+p.free, now)) > margin*float64(s.eta(len(s.queue)+p.lacks()-1, now))
}
