package torrent

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/choker"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/wire"
)

const (
	silenceTimeout = 180 * time.Second // without a message the connection is dropped
	keepAliveAfter = 90 * time.Second
	writeTimeout   = 120 * time.Second // for the other end to make room
	uselessTimeout = 600 * time.Second // neither side is interested
	// maxUnasked is how many blocks that nobody asked for are forgiven.
	maxUnasked = 16
)

// A peer is one connection to another client of the swarm: its framed TCP connection and the state
// machine of BEP 3. One goroutine reads and acts, one writes; when either ends, so does the other.
// Unless said otherwise, fields are guarded by the download's mutex.
type peer struct {
	d      *Download
	conn   *connection // read by the reader, written by the writer, closed by anybody
	rd     *wire.Reader
	out    outbox // has its own mutex
	number int    // of the connection within the download
	from   peerlist.Source
	joined time.Time

	fast     bool // both sides speak BEP 6; fixed
	extended bool // both sides speak BEP 10; fixed
	ext      extensions

	// Download state
	supply        picker.Supplier // what the picker knows of it; choking: it chokes us
	saidWhat      bool            // its bitfield, have-all or have-none has come
	amInterested  bool
	down          ratelimit.Meter
	unaskedBlocks int
	useful        bool      // it sent a block that was wanted
	idleSince     time.Time // neither side was interested since; zero if one is

	// Upload state
	peerInterested bool
	amChoking      bool
	unchokedAt     time.Time
	before         choker.Debt      // from earlier connections
	withheld       bool             // it was seen to have what we want, and not to let us ask
	allowed        map[uint32]int64 // pieces it may ask for in spite of a choke (BEP 6), and how many bytes of each; its /24's
	denied         int              // requests that it had no right to make, less those answered since
	up             ratelimit.Meter
	suggested      []int // pieces that it was suggested and has not got (BEP 6)

	closing error         // why it ends, once it does
	ended   chan struct{} // closed when it is to end
}

// run lives as long as the connection.
func (p *peer) run() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.stop(p.write())
	}()
	p.stop(p.read())
	p.conn.Close()
	<-done
	p.d.removePeer(p)
}

// stop has the connection end, for the given reason unless there was one before.
func (p *peer) stop(why error) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	p.stopLocked(why)
}

func (p *peer) stopLocked(why error) {
	if p.closing == nil {
		p.closing = why
		p.supply.Ready = false
		close(p.ended)
		go p.conn.Close() // which a connection of the user's own may take its time for
		p.d.swarm.live--
		p.d.client.leftPeer()
	}
}

// read acts on what comes until the connection ends, and returns why it did.
func (p *peer) read() error {
	var deadline time.Time
	for {
		now := time.Now()
		if left := deadline.Sub(now); left < silenceTimeout-5*time.Second {
			deadline = now.Add(silenceTimeout)
			p.conn.SetReadDeadline(deadline)
		}
		m, err := p.rd.Next()
		if err != nil {
			return err
		}
		if m.ID == wire.Piece {
			err = p.receive(m)
		} else {
			err = p.act(m, time.Now())
		}
		if err != nil {
			return err
		}
	}
}

// receive reads the payload of a block and deals with it.
func (p *peer) receive(m wire.Message) error {
	d := p.d
	id, ok := d.blockAt(m)
	if !ok {
		// Nothing that we ask for looks like that.
		if err := p.countUnasked(int(m.Length)); err != nil {
			return err
		}
		return p.rd.SkipBlock()
	}
	d.assembling.blocks.Await()
	b := d.client.blocks.Get()[:m.Length]
	if err := p.rd.ReadBlock(b); err != nil {
		d.client.blocks.Put(b)
		return err
	}
	now := time.Now()
	d.mu.Lock()
	out, err := p.accept(id, b, now)
	d.unlock(now)
	if out.a != nil {
		d.write(out)
	}
	return err
}

// blockAt is the block that a piece message carries, if it is one as we would ask for it.
func (d *Download) blockAt(m wire.Message) (picker.Block, bool) {
	if uint64(m.Index) >= uint64(d.t.NumPieces()) || m.Begin%blockSize != 0 ||
		int64(m.Begin) >= d.t.layout.PieceSize(int(m.Index)) {
		return picker.Block{}, false
	}
	id := picker.Block{Piece: int32(m.Index), Index: int32(m.Begin / blockSize)}
	return id, int(m.Length) == d.t.layout.BlockLen(int(id.Piece), int(id.Index))
}

// countUnasked forgives a few blocks that nobody asked for.
func (p *peer) countUnasked(n int) error {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	return p.unaskedLocked(n)
}

func (p *peer) unaskedLocked(n int) error {
	p.d.traffic.wasted += int64(n)
	p.d.traffic.downloaded += int64(n)
	p.unaskedBlocks++
	if p.fast || p.unaskedBlocks > maxUnasked {
		return errors.New("sends blocks that nobody asked for")
	}
	return nil
}

// accept takes a block that was received.
func (p *peer) accept(id picker.Block, b []byte, now time.Time) (out batch, err error) {
	d := p.d
	n := len(b)
	v, out := d.take(&p.supply, id, b, now)
	if v == picker.Unrequested {
		return batch{}, p.unaskedLocked(n)
	}
	p.useful = p.useful || v == picker.Accepted
	p.down.Add(int64(n), now)
	d.refill(&p.supply, now)
	return out, nil
}

// request asks the peer for blocks.
func (p *peer) request(blocks []picker.Block) {
	d := p.d
	d.pending.requests = d.pending.requests[:0]
	for _, id := range blocks {
		d.pending.requests = append(d.pending.requests, d.onWire(id))
	}
	if !p.out.request(d.pending.requests) {
		p.stopLocked(errNotReading)
	}
}

// withdraw tells the peer that it need not send a block, if it has heard of the request at all.
func (p *peer) withdraw(id picker.Block) {
	r := p.d.onWire(id)
	if !p.out.withdraw(func(q request) bool { return q == r }) {
		p.send(func(b []byte) []byte { return wire.AppendCancel(b, r.piece, r.begin, r.length) })
	}
}

// act deals with every message but a block.
func (p *peer) act(m wire.Message, now time.Time) error {
	switch m.ID {
	case wire.KeepAlive:
		return nil
	case wire.Port:
		if !p.d.discovery.private {
			p.d.client.heardOfNode(netip.AddrPortFrom(p.conn.addr.Addr(), uint16(m.Index)))
		}
		return nil
	case wire.Request:
		return p.requested(request{m.Index, m.Begin, m.Length})
	case wire.Cancel:
		if r := (request{m.Index, m.Begin, m.Length}); p.out.remove(r) && p.fast {
			p.reject(r)
		}
		return nil
	case wire.Extended:
		return p.actExtended(m, now)
	case wire.Suggest, wire.HaveAll, wire.HaveNone, wire.Reject, wire.AllowedFast:
		if !p.fast {
			return fmt.Errorf("%v without the Fast extension", m.ID)
		}
	}
	d := p.d
	d.mu.Lock()
	defer d.unlock(now)
	switch m.ID {
	case wire.Choke:
		p.choked()
	case wire.Unchoke:
		p.supply.Choking = false
		d.refill(&p.supply, now)
	case wire.Interested, wire.NotInterested:
		p.peerInterested = m.ID == wire.Interested
		d.pending.rechoke = true
	case wire.Have:
		if uint64(m.Index) >= uint64(d.t.NumPieces()) {
			return fmt.Errorf("has piece %d of %d", m.Index, d.t.NumPieces())
		}
		if d.picker.Have(&p.supply, int(m.Index)) {
			d.gained(p, now)
			d.uploading.spread.Seen(p.number, int(m.Index))
			d.tookSuggestion(p, int(m.Index), now)
		}
	case wire.Bitfield:
		has, err := bits.Parse(m.Payload, d.t.NumPieces())
		if err != nil {
			return err
		}
		p.says(has, now)
	case wire.HaveAll:
		if p.saidWhat && p.supply.HasAll() {
			return nil
		}
		p.says(bits.Full(d.t.NumPieces()), now)
	case wire.HaveNone:
		if p.saidWhat {
			return errors.New("takes back what it has")
		}
		p.says(bits.New(d.t.NumPieces()), now)
	case wire.Reject:
		return p.rejected(m)
	case wire.AllowedFast:
		if uint64(m.Index) < uint64(d.t.NumPieces()) {
			p.supply.AllowFast(int(m.Index))
			d.refill(&p.supply, now)
		}
	case wire.Suggest:
		if uint64(m.Index) < uint64(d.t.NumPieces()) {
			p.supply.Suggest(int(m.Index))
		}
	}
	return nil
}

// says takes note of all that the peer has. What it says later only adds to that: aria2 sends a whole
// bitfield where that is shorter than many haves.
func (p *peer) says(has bits.Set, now time.Time) {
	if !p.saidWhat {
		p.saidWhat = true
		p.d.picker.Bitfield(&p.supply, has)
		p.d.gained(p, now)
		return
	}
	news := false
	for i := range has.All() {
		news = p.d.picker.Have(&p.supply, i) || news
	}
	if news {
		p.d.gained(p, now)
	}
}

// gained follows on news of what the peer has.
func (d *Download) gained(p *peer, now time.Time) {
	d.updateInterest(p)
	d.refill(&p.supply, now)
	if d.sharing() && p.isSeed() {
		p.stopLocked(errBothSeeds)
	}
}

var errBothSeeds = errors.New("both sides have everything")

// isSeed tells whether the peer has everything.
func (p *peer) isSeed() bool { return p.supply.HasAll() }

// onWire names a block as messages do.
func (d *Download) onWire(id picker.Block) request {
	return request{uint32(id.Piece), uint32(id.Index) * blockSize, uint32(d.t.layout.BlockLen(int(id.Piece), int(id.Index)))}
}

// choked takes back what the peer was asked for and will not send now. With the Fast extension that is
// only what it has not heard of yet: a choke rejects nothing by itself then (BEP 6), though others may
// take over what is outstanding.
func (p *peer) choked() {
	p.supply.Choking = true
	unsent := make(map[picker.Block]bool)
	p.out.withdraw(func(r request) bool {
		stays := p.supply.AllowedFast(int(r.piece))
		if !stays {
			unsent[picker.Block{Piece: int32(r.piece), Index: int32(r.begin / blockSize)}] = true
		}
		return !stays
	})
	freed := p.d.picker.Release(&p.supply, func(id picker.Block) bool { return !p.fast || unsent[id] })
	p.d.traffic.gate.Refund(freed)
	p.d.pending.freed = true
}

// rejected takes a block back that the peer will not send (BEP 6).
func (p *peer) rejected(m wire.Message) error {
	id, ok := p.d.blockAt(wire.Message{Index: m.Index, Begin: m.Begin, Length: m.Length})
	if !ok {
		return errors.New("rejects what was never asked")
	}
	asked, freed := p.d.picker.Rejected(&p.supply, id)
	if !asked {
		return errors.New("rejects what was never asked")
	}
	if freed {
		p.d.traffic.gate.Refund(1)
		p.d.pending.freed = true
		p.d.updateInterest(p)
	}
	return nil
}

var errNotReading = errors.New("does not read what it is sent")

// send queues a message; a peer that lets too much wait is dropped. The mutex is held.
func (p *peer) send(encode func([]byte) []byte) {
	if !p.out.add(encode) {
		p.stopLocked(errNotReading)
	}
}

func (p *peer) sendSimple(id wire.ID) {
	p.send(func(b []byte) []byte { return wire.AppendSimple(b, id) })
}

// greet queues what is said first on a new connection: what we have, and what we can do.
func (p *peer) greet() {
	have := p.d.picker.Verified()
	p.send(func(b []byte) []byte {
		switch {
		case p.fast && have.Full():
			return wire.AppendSimple(b, wire.HaveAll)
		case p.fast && have.Count() == 0:
			return wire.AppendSimple(b, wire.HaveNone)
		case have.Count() == 0:
			return b
		}
		return wire.AppendBitfield(b, have.AppendTo(nil))
	})
	if p.extended {
		p.sendExtHandshake()
	}
	if p.fast {
		p.sendAllowedFast()
	}
	if port := p.d.client.dhtPort(); port != 0 && p.conn.theirs.DHT() && !p.d.discovery.private {
		p.send(func(b []byte) []byte { return wire.AppendPort(b, port) })
	}
}

// choke and unchoke tell the peer whether it may ask.
func (p *peer) choke() {
	p.amChoking = true
	p.d.uploading.suggester.giveUp(p.suggested)
	p.suggested = p.suggested[:0]
	p.sendSimple(wire.Choke)
	p.out.refuse(p.fast, func(r request) bool {
		_, stays := p.allowed[r.piece]
		return stays
	})
}

func (p *peer) unchoke(now time.Time) {
	p.amChoking = false
	p.denied = 0
	p.unchokedAt = now
	p.d.suggest(p, now) // before the unchoke, which has it ask
	p.sendSimple(wire.Unchoke)
}
