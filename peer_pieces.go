package torrent

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/choker"
	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/wire"
)

var errBothSeeds = errors.New("both sides have everything")

// isSeed reports whether the peer has everything. The caller holds p.d.mu.
func (p *peer) isSeed() bool { return p.supply.HasAll() }

// has records that the peer has a piece. The caller holds p.d.mu.
func (p *peer) has(i int, now time.Time) {
	d := p.d
	if d.picker.Have(&p.supply, i) {
		d.gained(p, d.picker.Needed().Has(i), now)
		d.uploading.spread.Seen(p.number, i)
		d.tookSuggestion(p, i, now)
	}
}

// hasPieces records a bitfield, have-all or have-none. Only the first message replaces what is known. Later ones add
// to it: aria2 sends a bitfield in place of many haves if that is shorter. The caller holds p.d.mu.
func (p *peer) hasPieces(has bits.Set, now time.Time) {
	if !p.saidPieces {
		p.saidPieces = true
		p.d.picker.Bitfield(&p.supply, has)
		p.d.gained(p, true, now)
		return
	}
	if p.d.picker.Haves(&p.supply, has) {
		p.d.gained(p, true, now)
	}
}

// gained acts on news that a peer has more pieces than was known. needed reports whether one of them may be needed. The
// caller holds d.mu.
func (d *Download) gained(p *peer, needed bool, now time.Time) {
	if needed {
		d.updateInterest(p)
		d.refill(&p.supply, now)
	}
	if d.sharing() && d.sated() && p.isSeed() {
		p.stopLocked(errBothSeeds)
	}
}

// updateInterest tells a peer whether we are interested, if that has changed. The caller holds d.mu.
func (d *Download) updateInterest(p *peer) {
	if is := d.picker.Interesting(&p.supply); is != p.amInterested {
		p.amInterested = is
		p.supply.Ready = is && p.closing == nil
		if is {
			p.sendSimple(wire.Interested)
		} else {
			p.sendSimple(wire.NotInterested)
		}
	}
}

// tellHave tells the peer that we have a piece. If the peer has the piece, too, the message waits for another one.
// The caller holds p.d.mu.
func (p *peer) tellHave(i int) {
	encode := func(b []byte) []byte { return wire.AppendHave(b, uint32(i)) }
	if !p.supply.Has(i) {
		p.send(encode)
	} else if !p.out.AddLazily(encode) {
		p.stopLocked(errNotReading)
	}
}

// tellDontHave tells the peer that we no longer have a piece, if it understands that (BEP 54). The caller holds p.d.mu.
func (p *peer) tellDontHave(i int) {
	if number := p.ext.number[extDontHave]; number != 0 {
		p.send(func(b []byte) []byte { return wire.AppendDontHave(b, number, uint32(i)) })
	}
}

// maxUnrequested is how many blocks that were never requested are forgiven.
const maxUnrequested = 16

// receiveBlock reads the payload of a piece message and takes the block.
func (p *peer) receiveBlock(m wire.Message) error {
	d := p.d
	id, ok := d.blockAt(m)
	if !ok { // nothing that we request looks like that
		d.mu.Lock()
		err := p.unrequested(int(m.Length))
		d.mu.Unlock()
		if err != nil {
			return err
		}
		return p.rd.SkipBlock()
	}
	d.assembling.share.Await(d.life.ctx)
	b := d.client.blockPool.Get()[:m.Length]
	if err := p.rd.ReadBlock(b); err != nil {
		d.client.blockPool.Put(b)
		return err
	}
	lie := d.isFalse(id, b)
	now := time.Now()
	d.mu.Lock()
	if lie {
		err := p.sentFalseBlock(id, len(b))
		d.unlock(now)
		d.client.blockPool.Put(b)
		return err
	}
	out, err := p.handIn(id, b, now)
	d.unlock(now)
	if out.a != nil {
		d.write(out)
	}
	return err
}

// blockAt returns the block that a piece message carries or a reject names. ok is false if it is not a block that we
// would request.
func (d *Download) blockAt(m wire.Message) (id picker.Block, ok bool) {
	if uint64(m.Index) >= uint64(d.t.NumPieces()) || m.Begin%blockSize != 0 ||
		int64(m.Begin) >= d.t.layout.PieceSize(int(m.Index)) {
		return picker.Block{}, false
	}
	id = picker.Block{Piece: int32(m.Index), Index: int32(m.Begin / blockSize)}
	return id, int(m.Length) == d.t.layout.BlockLen(int(id.Piece), int(id.Index))
}

// handIn takes a block that was read. out is to be written once the mutex is released. The caller holds p.d.mu.
func (p *peer) handIn(id picker.Block, b []byte, now time.Time) (out batch, err error) {
	d := p.d
	n := len(b)
	if p.closing == errBanned {
		d.client.blockPool.Put(b)
		return batch{}, p.closing
	}
	v, out := d.takeBlock(&p.supply, id, b, now)
	if v == picker.Unrequested {
		return batch{}, p.unrequested(n)
	}
	if v == picker.Accepted {
		p.useful = true
		p.holder.Gave(int64(n))
	}
	p.work.Earn(blockWork)
	p.down.Add(int64(n), now)
	before := d.picker.Work()
	d.refill(&p.supply, now)
	if p.supply.HasLost() { // the work to find others than those that it lost is charged to it, as in refillInRound
		p.chargeSince(before, now)
	}
	return out, nil
}

// unrequested counts n bytes of a block that was never requested. A few such blocks are forgiven, but not with the
// Fast extension, which answers every request (BEP 6). The caller holds p.d.mu.
func (p *peer) unrequested(n int) error {
	p.d.traffic.wasted += int64(n)
	p.d.traffic.downloaded += int64(n)
	p.unrequestedBlocks++
	switch {
	case p.fast:
		return errors.New("sent an unrequested block")
	case p.unrequestedBlocks > maxUnrequested:
		return errors.New("too many unrequested blocks")
	}
	return nil
}

// sentFalseBlock bans the peer for a block of n bytes that is known to be false. The caller holds p.d.mu.
func (p *peer) sentFalseBlock(id picker.Block, n int) error {
	p.d.traffic.wasted += int64(n)
	p.d.traffic.downloaded += int64(n)
	p.d.ban(int(id.Piece), []any{p.supply.Origin})
	return errBanned
}

// request asks the peer for blocks. It is part of supplier.
func (p *peer) request(blocks []picker.Block) {
	d := p.d
	d.pending.requests = d.pending.requests[:0]
	for _, id := range blocks {
		d.pending.requests = append(d.pending.requests, d.onWire(id))
	}
	if !p.out.Request(d.pending.requests) {
		p.stopLocked(errNotReading)
	}
}

// withdraw takes a request back, by a cancel if it was sent already. It is part of supplier.
func (p *peer) withdraw(id picker.Block) {
	r := p.d.onWire(id)
	if p.out.Withdraw(func(q outbox.Request) bool { return q == r }) {
		p.supply.Unsent(id)
	} else {
		p.send(func(b []byte) []byte { return wire.AppendCancel(b, r.Piece, r.Begin, r.Length) })
	}
}

// onWire names a block as messages do.
func (d *Download) onWire(id picker.Block) outbox.Request {
	return outbox.Request{
		Piece:  uint32(id.Piece),
		Begin:  uint32(id.Index) * blockSize,
		Length: uint32(d.t.layout.BlockLen(int(id.Piece), int(id.Index))),
	}
}

// choked releases the blocks that the peer will not send now. With the Fast extension these are only the ones whose
// requests are still in the outbox, because a choke rejects nothing then (BEP 6); others may take over the rest.
// The caller holds p.d.mu.
func (p *peer) choked() {
	p.d.picker.Choke(&p.supply)
	unsent := make(map[picker.Block]bool)
	p.out.Withdraw(func(r outbox.Request) bool {
		stays := p.supply.AllowedFast(int(r.Piece))
		if !stays && p.fast {
			unsent[picker.Block{Piece: int32(r.Piece), Index: int32(r.Begin / blockSize)}] = true
		}
		return !stays
	})
	freed := p.d.picker.Release(&p.supply, func(id picker.Block) bool { return !p.fast || unsent[id] })
	for id := range unsent {
		p.supply.Unsent(id)
	}
	p.d.traffic.gate.Refund(freed)
	p.d.pending.released = p.d.pending.released || freed > 0
}

// rejected releases a block that the peer refuses to send (BEP 6). The caller holds p.d.mu.
func (p *peer) rejected(m wire.Message, now time.Time) error {
	id, ok := p.d.blockAt(m)
	if !ok {
		return errRejectUnrequested
	}
	asked, freed := p.d.picker.Rejected(&p.supply, id, now)
	if !asked {
		return errRejectUnrequested
	}
	if freed {
		p.d.traffic.gate.Refund(1)
		p.d.pending.released = true
		p.d.updateInterest(p)
		p.d.refill(&p.supply, now)
	}
	return nil
}

var errRejectUnrequested = errors.New("rejected an unrequested block")

const (
	// fastSetSize is how many allowed-fast pieces a peer gets (BEP 6).
	fastSetSize = 5
	// allowedTimes is how often each of their bytes may be requested from one network. Some requests may have been
	// cancelled.
	allowedTimes = 2
	// maxFastSets is for how many networks their requests of allowed-fast pieces are remembered.
	maxFastSets = 1000
	// fastSetBelow is how many pieces a peer may have and still use its allowed-fast ones.
	fastSetBelow = fastSetSize
)

// sendAllowedFast lets a peer that has few pieces request some of ours while it is choked, so that it soon has something
// to share. All peers of a /24, now and later, share one allowance of bytes, so that a peer gains nothing by connecting
// again and again, from one address or many. The caller holds p.d.mu.
func (p *peer) sendAllowedFast() {
	d := p.d
	ip := p.conn.addr.Addr()
	if d.picker.Verified().Count() == 0 || !ip.Is4() {
		return
	}
	network, _ := ip.Prefix(24)
	if _, known := d.uploading.fastSets[network]; !known {
		if d.uploading.fastSets == nil || len(d.uploading.fastSets) >= maxFastSets {
			d.uploading.fastSets = make(map[netip.Prefix]map[uint32]int64)
		}
		d.uploading.fastSets[network] = make(map[uint32]int64)
		for _, i := range choker.AllowedFast(ip, d.t.infoHash, d.t.NumPieces(), fastSetSize) {
			d.uploading.fastSets[network][i] = allowedTimes * d.t.layout.PieceSize(int(i))
		}
	}
	p.allowed = d.uploading.fastSets[network]
	for _, i := range slices.Sorted(maps.Keys(p.allowed)) {
		if d.picker.Verified().Has(int(i)) && p.allowed[i] >= d.t.layout.PieceSize(int(i)) {
			p.send(func(b []byte) []byte { return wire.AppendAllowedFast(b, i) })
		}
	}
}

// takeAllowedFast reports whether a request is answered while the peer is choked. That ends once the peer has enough
// pieces to trade with, and for each piece once it was sent often enough. The caller holds p.d.mu.
func (p *peer) takeAllowedFast(r outbox.Request) bool {
	if p.supply.HasAll() || p.supply.Count() > fastSetBelow {
		p.allowed = nil
	}
	if p.allowed[r.Piece] < int64(r.Length) {
		return false
	}
	p.allowed[r.Piece] -= int64(r.Length)
	return true
}

// suggestAtOnce is how many suggested pieces may be outstanding for a peer.
const suggestAtOnce = 4

// suggest suggests pieces that are worth sending to a peer that may request them. The caller holds d.mu.
func (d *Download) suggest(p *peer, now time.Time) {
	if !p.fast || !d.picker.Verified().Full() || len(d.swarm.peers) < 2 {
		return
	}
	for len(p.suggested) < suggestAtOnce {
		i := d.uploading.suggester.Pick(d.t.NumPieces(), d.picker.Availability, &d.uploading.spread, d.t.layout.PieceLength(), now)
		if i < 0 {
			return
		}
		p.suggested = append(p.suggested, i)
		p.send(func(b []byte) []byte { return wire.AppendSuggest(b, uint32(i)) })
	}
}

// tookSuggestion records that a peer has piece i now, in case it was suggested to it. The caller holds d.mu.
func (d *Download) tookSuggestion(p *peer, i int, now time.Time) {
	if k := slices.Index(p.suggested, i); k >= 0 {
		p.suggested = slices.Delete(p.suggested, k, k+1)
		if !p.amChoking {
			d.suggest(p, now)
		}
	}
}
