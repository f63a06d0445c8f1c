package torrent

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/choker"
	"github.com/shoal-go/torrent/internal/hashfetch"
	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/wire"
)

const (
	silenceTimeout = 180 * time.Second // without a message the connection is dropped
	keepAliveAfter = 90 * time.Second
	nudgeAfter     = time.Second       // likewise, of the first keep-alive of a connection by uTP
	writeTimeout   = 120 * time.Second // for the other end to make room
	uselessTimeout = 600 * time.Second // neither side is interested
)

// A peer is one connection to another client of the swarm, and its state (BEP 3). One goroutine reads and acts on
// messages, another writes. When either ends, so does the other. It is a supplier of blocks.
//
// The download's mutex guards the fields, unless they are fixed or their comment says otherwise.
type peer struct {
	d      *Download
	conn   *connection // read by one goroutine, written by the other, closed by any
	rd     *wire.Reader
	out    outbox.Outbox   // has its own mutex
	holder *account.Holder // has its own mutex
	number int             // of the connection within the download
	from   peerlist.Source
	joined time.Time
	idler  bool   // it made the connection, and had the grace of a newcomer before; fixed
	lot    uint32 // drawn for it; fixed

	networkLot uint64 // drawn for its network; fixed

	earned   int64     // bytes exchanged by earnedAt, by which it had earned its place
	earnedAt time.Time // when its place was last earned; zero if never

	fast     bool // both sides speak BEP 6; fixed
	extended bool // both sides speak BEP 10; fixed
	ext      extensions

	// Download state
	supply            picker.Supplier // what the picker knows of it
	saidPieces        bool            // its bitfield, have-all or have-none has come
	amInterested      bool
	down              ratelimit.Meter
	unrequestedBlocks int
	useful            bool      // it sent a block that was wanted
	idleSince         time.Time // neither side was interested since then; zero if one is

	// Upload state
	peerInterested bool
	amChoking      bool
	unchokedAt     time.Time
	upBefore       int64            // bytes that it was sent before that
	took           float64          // bytes a second of its last turn
	before         choker.Debt      // from earlier connections
	withheld       bool             // it had what we want, and choked us
	allowed        map[uint32]int64 // bytes of each allowed-fast piece that its /24 may still ask for (BEP 6)
	denied         int              // requests that it was not allowed to make, minus those answered since
	up             ratelimit.Meter
	suggested      []int // pieces that were suggested to it and that it has not got (BEP 6)
	shortBlocks    int   // that earned what they cost; used by the writing goroutine only

	// Hashes of version 2
	hashesAsked   *hashfetch.Peer // hash requests to it
	hashesServed  int64           // bytes of hashes that it was sent
	hashesReading atomic.Int32    // its hash requests that wait for a piece to be read; needs no mutex

	work   ratelimit.Account // bounds the work that its messages may cause; like rest, used by the reading goroutine only
	rest   time.Duration     // pause before another message is read
	credit atomic.Int64      // not in its account yet: what blocks sent to it have earned, less work done in rounds; needs no mutex

	closing error         // why it ends; nil until it does
	ended   chan struct{} // closed when it is to end
}

// run serves the connection until it ends.
func (p *peer) run() {
	done := make(chan struct{})
	greeting := p.out.Backlog() // before the peer can request anything
	go func() {
		defer close(done)
		p.stop(p.write(greeting))
	}()
	p.stop(p.read())
	p.conn.Close()
	<-done
	p.d.removePeer(p)
}

// stop ends the connection. Only the first reason counts.
func (p *peer) stop(why error) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	p.d.quits(p)
	p.stopLocked(why)
}

// stopLocked is like stop. The caller holds p.d.mu.
func (p *peer) stopLocked(why error) {
	if p.closing == nil {
		p.closing = why
		p.supply.Ready = false
		close(p.ended)
		p.d.life.tasks.Go(func() { p.conn.Close() }) // a connection of the user's own may take its time
		p.d.swarm.live--
		p.d.swarm.places.PeerLeft(p.conn.addr.Addr(), time.Now())
		p.d.client.leftPeer(p.conn.addr.Addr())
	}
}

// charge charges a holder with the memory of a Reader. A buffer that has no room in the account stays small.
func charge(rd *wire.Reader, h *account.Holder) {
	rd.Charge(func(n int) bool { return h.Set(account.Incoming, n) }, func(n int) bool { return h.Grow(account.Incoming, n) })
}

// read acts on messages until the connection ends, and returns why it ended.
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
			err = p.receiveBlock(m)
		} else {
			err = p.act(m, time.Now())
		}
		if err == nil && !pause(p.rest, p.ended) {
			err = p.closing
		}
		if err != nil {
			return err
		}
		p.rest = 0
	}
}

// The work that a peer's messages may cause, in steps of the picker, which take some nanoseconds each. The bitfield of a torrent
// of a million pieces takes two million.
const (
	workRate    = 250_000   // steps a second that a peer may cause, or its share of workOfAll if that is less
	workOfAll   = 5_000_000 // steps a second that all peers of a client may cause, which take a fraction of a core
	workAtOnce  = 5_000_000 // steps at once, which take some tens of milliseconds
	messageWork = 4         // of any message
	answerWork  = 100       // of one that is answered
	requestWork = 400       // of a request, and of a cancel that withdraws one
	blockWork   = 1_000     // earned by a block from the peer, and by 16 KiB of blocks to it
	// leastRest is the shortest wait before the next message is read. Waits after each message would cost more than most
	// messages.
	leastRest = 10 * time.Millisecond
)

// charge charges the peer with work that its messages cause. If that is too much, its next message is read later. It is called by
// the reading goroutine.
func (p *peer) charge(work int64, now time.Time) {
	p.work.Pace(p.d.client.workRate(), now)
	p.work.Earn(p.credit.Swap(0))
	p.rest = p.work.Charge(work, now)
}

// earns returns the work that the answer to a request earns the peer. It is proportional to the length of the block, but a short
// block at the end of a piece earns no less than its request cost: a torrent with pieces of a few KiB has only such blocks. An
// honest peer requests each of them about once, so that at most as many as there are pieces earn this. It is called by the
// writing goroutine.
func (p *peer) earns(r outbox.Request) int64 {
	const cost = messageWork + requestWork
	work := int64(r.Length) / (blockSize / blockWork)
	t := p.d.t
	if work >= cost || p.shortBlocks == t.NumPieces() || r.Begin%blockSize != 0 ||
		int64(r.Begin)+int64(r.Length) != t.layout.PieceSize(int(r.Piece)) {
		return work
	}
	p.shortBlocks++
	return cost
}

// chargeSince charges the peer with what the picker has worked since its Work was before. The caller holds p.d.mu.
func (p *peer) chargeSince(before int64, now time.Time) { p.charge(p.d.picker.Work()-before, now) }

// pause waits, unless the time is too short to be worth it, as it may be until a peer may cause more work. It reports false if ended is
// closed meanwhile.
func pause(rest time.Duration, ended <-chan struct{}) bool {
	if rest < leastRest {
		return true
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ended:
		return false
	}
}

// act acts on a message, unless it carries a block.
func (p *peer) act(m wire.Message, now time.Time) error {
	p.charge(messageWork, now)
	switch m.ID {
	case wire.KeepAlive:
		return nil
	case wire.Port:
		if !p.d.discovery.private {
			p.d.client.heardOfNode(netip.AddrPortFrom(p.conn.addr.Addr(), uint16(m.Index)))
		}
		return nil
	case wire.Request:
		return p.requested(outbox.Request{Piece: m.Index, Begin: m.Begin, Length: m.Length}, now)
	case wire.Cancel:
		if r := (outbox.Request{Piece: m.Index, Begin: m.Begin, Length: m.Length}); p.out.Remove(r) {
			p.charge(requestWork, now)
			if p.fast {
				p.reject(r)
			}
		}
		return nil
	case wire.Extended:
		return p.actExtended(m, now)
	case wire.AskHashes:
		return p.hashesRequested(m, now)
	case wire.Suggest, wire.HaveAll, wire.HaveNone, wire.Reject, wire.AllowedFast:
		if !p.fast {
			return fmt.Errorf("%v without the Fast extension", m.ID)
		}
	}
	p.d.mu.Lock()
	defer p.d.unlock(now)
	return p.actLocked(m, now)
}

// actLocked acts on a message that changes what either side may request. The caller holds p.d.mu.
func (p *peer) actLocked(m wire.Message, now time.Time) error {
	d := p.d
	defer p.chargeSince(d.picker.Work(), now)
	pieces := d.t.NumPieces()
	isPiece := uint64(m.Index) < uint64(pieces)
	switch m.ID {
	case wire.Choke:
		if !p.supply.Choking {
			p.choked()
		}
	case wire.Unchoke:
		if p.supply.Choking {
			p.supply.Choking = false
			d.refill(&p.supply, now)
		}
	case wire.Interested, wire.NotInterested:
		if is := m.ID == wire.Interested; is != p.peerInterested {
			p.peerInterested = is
			d.pending.rechoke = true
		}
	case wire.Have:
		if !isPiece {
			return fmt.Errorf("have of piece %d, where there are %d", m.Index, pieces)
		}
		p.has(int(m.Index), now)
	case wire.Bitfield:
		has, err := bits.Parse(m.Payload, pieces)
		if err != nil {
			return err
		}
		p.hasPieces(has, now)
	case wire.HaveAll:
		if !p.saidPieces {
			p.hasPieces(bits.Full(pieces), now)
		} else if d.picker.HaveAll(&p.supply) {
			d.gained(p, true, now)
		}
	case wire.HaveNone:
		if p.saidPieces {
			return errors.New("have none after a bitfield")
		}
		p.hasPieces(bits.New(pieces), now)
	case wire.Reject:
		return p.rejected(m, now)
	case wire.AllowedFast:
		if isPiece && !p.supply.AllowedFast(int(m.Index)) {
			p.supply.AllowFast(int(m.Index))
			d.refill(&p.supply, now)
		}
	case wire.Hashes, wire.HashReject:
		return p.receiveHashes(m, now)
	case wire.Suggest:
		if isPiece {
			p.supply.Suggest(int(m.Index))
		}
	}
	return nil
}

var errNotReading = errors.New("does not read what it is sent")

// send puts a message into the outbox. If too much waits there, the peer is dropped. The caller holds p.d.mu.
func (p *peer) send(encode func([]byte) []byte) {
	if !p.out.Add(encode) {
		p.stopLocked(errNotReading)
	}
}

// The caller holds p.d.mu.
func (p *peer) sendSimple(id wire.ID) {
	p.send(func(b []byte) []byte { return wire.AppendSimple(b, id) })
}

// greet sends the first messages of a connection: our pieces and our extensions. The caller holds p.d.mu.
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
	p.d.askHashes(time.Now())
	if p.fast {
		p.sendAllowedFast()
	}
	if port := p.d.client.dhtPort(); port != 0 && p.conn.theirs.DHT() && !p.d.discovery.private {
		p.send(func(b []byte) []byte { return wire.AppendPort(b, port) })
	}
}

// choke tells the peer that its requests are not answered any more. The caller holds p.d.mu.
func (p *peer) choke(now time.Time) {
	p.amChoking, p.took = true, p.turnRate(now)
	p.d.uploading.suggester.GiveUp(p.suggested)
	p.suggested = p.suggested[:0]
	p.sendSimple(wire.Choke)
	p.out.Refuse(p.fast, func(r outbox.Request) bool {
		_, stays := p.allowed[r.Piece]
		return stays
	})
}

// unchoke tells the peer that its requests are answered. The caller holds p.d.mu.
func (p *peer) unchoke(now time.Time) {
	p.amChoking = false
	p.denied = 0
	p.unchokedAt, p.upBefore = now, p.up.Total()
	p.d.suggest(p, now) // before the peer can ask
	p.sendSimple(wire.Unchoke)
}
