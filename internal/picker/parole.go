package picker

import (
	"cmp"
	"maps"
	"slices"

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
		p.waits = p.waits && p.left < p.lacks()
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
