package torrent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/picker"
)

// turn does everything that is due and returns the time of the next turn; zero if that waits for a wake.
func (d *Download) turn(now time.Time) (next time.Time) {
	d.mu.Lock()
	if at := d.stallsAt(); !at.IsZero() && !now.Before(at) {
		d.fail(fmt.Errorf("%w for %v", ErrStalled, d.o.StallTimeout))
	}
	var spilled []batch
	if !now.Before(d.nextTick) {
		d.nextTick = now.Add(tick)
		spilled = d.everySecond(now)
	}
	if d.reading.moved && !now.Before(d.followAt()) {
		d.followReaders(now)
	}
	if len(d.swarm.peers) > 0 && !now.Before(d.uploading.choker.Next()) {
		d.pending.rechoke, d.pending.roundAt = true, time.Time{}
	}
	d.traffic.turning = true
	d.pending.freed = d.pending.freed || d.traffic.throttled // what a limit held back may pass now
	d.traffic.throttled = false
	if !d.ended() && !d.paused {
		d.discovery.dialDue(d.swarm.live, d.maxPeers(), now)
	}
	if !d.disk.nextSave.After(now) {
		d.disk.nextSave = now.Add(resumeEvery)
		if d.disk.resumable && !d.disk.saving {
			d.disk.saving = true
			d.life.tasks.Go(d.save)
		}
	}
	if !d.ended() {
		d.readAgain(now)
	}
	d.pending.woken = true
	d.followUp(now)
	d.pending.woken = d.pending.released || d.pending.rechoke // due says when
	d.traffic.turning = false
	next = d.due(now)
	d.unlock(now)
	for _, r := range spilled {
		d.life.tasks.Go(func() { d.write(r) })
	}
	return next
}

// due is when the next turn is to be taken. The caller holds d.mu.
func (d *Download) due(now time.Time) (next time.Time) {
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	if len(d.swarm.peers) > 0 {
		sooner(d.uploading.choker.Next())
	}
	if len(d.swarm.peers) > 0 || len(d.assembling.pieces) > 0 {
		sooner(d.nextTick)
	}
	if d.pending.woken {
		sooner(d.pending.roundAt)
	}
	if d.reading.moved {
		sooner(d.followAt())
	}
	if d.traffic.throttled {
		sooner(now.Add(d.traffic.gate.Pause()))
	}
	if d.disk.resumable {
		sooner(d.disk.nextSave)
	}
	if at := d.disk.unread.due; !at.IsZero() {
		sooner(at)
	}
	if t, ok := d.discovery.dialAt(d.swarm.live, d.maxPeers(), now); ok && !d.paused {
		sooner(t)
	}
	if d.progress.complete && d.o.SeedUntil != nil {
		sooner(d.nextTick)
	}
	if at := d.stallsAt(); !at.IsZero() {
		sooner(at)
	}
	return next
}

// stallsAt is when the download fails unless something arrives; zero if that is never. The caller holds d.mu.
func (d *Download) stallsAt() time.Time {
	if d.o.StallTimeout <= 0 || d.picker.Needed().Count() == 0 || d.paused {
		return time.Time{}
	}
	return d.progress.last.Add(d.o.StallTimeout)
}

// everySecond updates what changes with time: rates, snubs, useless peers, peer exchange. The caller holds d.mu.
func (d *Download) everySecond(now time.Time) (spilled []batch) {
	for _, p := range d.swarm.peers {
		if d.snub(&p.supply, now) {
			d.logLater(func() { d.log.Debug("snubbed", "peer", p.conn.addr) })
		}
		if !p.holder.Set(account.Requests, p.supply.Memory()) {
			p.stopLocked(errHoldsMost)
		}
		if d.picker.Regain(&p.supply, now) {
			d.gained(p, true, now)
		}
		p.sendPEX(now)
		d.earn(p, now)
		if p.amInterested || p.peerInterested {
			p.idleSince = time.Time{}
		} else if p.idleSince.IsZero() {
			p.idleSince = now
		} else if now.Sub(p.idleSince) > uselessTimeout {
			p.stopLocked(errUseless)
		}
	}
	d.picker.Tidy()
	d.askHashes(now)
	d.chargeStarted(now)
	d.giveUpBlocks(now)
	d.easeScarcity(now)
	d.turnOver(now)
	d.shareOut(now)
	d.feelHunger(now)
	d.rendezvous(now)
	if len(d.reading.readers) > 0 {
		d.followReaders(now) // by the rate of now
	}
	d.client.blockPool.Trim(now)
	d.pending.freed = true // what could not be stolen a second ago may be worth it now
	return d.sweep(now)
}

// chargeStarted charges the client's account with the memory kept for started pieces, and gives up some of them if it is too
// much. The caller holds d.mu.
func (d *Download) chargeStarted(now time.Time) {
	a := &d.assembling
	if a.holder == nil {
		a.holder = d.client.account.Join(func() {}) // there is nothing to call: Set reports that it must give way
	}
	if a.holder.Set(account.Started, d.picker.Memory()) {
		return
	}
	a.holder.Leave()
	a.holder = nil
	d.abandonIdle(d.picker.Memory()/2, now)
}

// abandonIdle drops started pieces that have received no block for a while and have no request under way, those with the
// fewest blocks first, until at most so many bytes are kept for all started pieces. The caller holds d.mu.
func (d *Download) abandonIdle(most int, now time.Time) {
	here := make(map[int32]int)
	for i, a := range d.assembling.pieces {
		current, p := d.assembly(i)
		if current != nil && p.Left > 0 && p.Left == p.Free && a.writing == 0 && now.Sub(a.touched) > idleAssembly {
			here[i] = d.t.layout.NumBlocks(int(i)) - p.Left
		}
	}
	order := slices.SortedFunc(maps.Keys(here), func(i, j int32) int { return cmp.Or(cmp.Compare(here[i], here[j]), cmp.Compare(i, j)) })
	for k, i := range order {
		if k%64 == 0 && d.picker.Memory() <= most {
			return
		}
		d.abandon(i, int64(here[i])*blockSize)
	}
}

// abandon drops a started piece of which so many bytes are here. The caller holds d.mu.
func (d *Download) abandon(i int32, bytes int64) {
	d.cancelAll(d.picker.Abandon(int(i)))
	d.dropAssembly(i)
	d.traffic.wasted += bytes
	d.pending.freed = true
}

// slight is how many bytes of a piece are worth less than what is kept for it.
const slight = 2 << 10

// isSlight reports whether nothing of a started piece is here but a short block at its end, and nothing of it is requested. Otherwise a
// stranger that sends only these blocks, for some bytes each, would have thousands of pieces kept. The caller holds d.mu.
func (d *Download) isSlight(i int, p picker.Started) bool {
	last := d.t.layout.NumBlocks(i) - 1
	if p.Parole || last == 0 || p.Left != last || p.Free != last || d.t.layout.BlockLen(i, last) > slight {
		return false
	}
	arrived := d.picker.Arrived(i)
	return arrived.Has(last)
}

// seedUntil ends sharing if the user's function returns true. It is called once a second.
func (d *Download) seedUntil() {
	if d.o.SeedUntil == nil {
		return
	}
	d.mu.Lock()
	due := d.progress.complete && !time.Now().Before(d.nextTick)
	d.mu.Unlock()
	if due && d.o.SeedUntil(d.Stats()) {
		d.life.stop(errDone)
	}
}

// pending records what updates made under the mutex have left to be done before it is released.
type pending struct {
	freed    bool             // blocks are free that idle suppliers may be asked for
	released bool             // blocks became free because of what a peer said, or left: that is followed up in the next round
	disown   bool             // then the blocks of liars are dropped, all at once: thousands of pieces may be started, and liars without end
	roomy    bool             // some supplier is Roomy
	rechoke  bool             // a choke round is due
	roundAt  time.Time        // when what peers say is next followed up
	woken    bool             // turn was woken for that
	logs     []func()         // calls that write to the log
	scratch  []picker.Block   // reused by ask
	requests []outbox.Request // reused by ask, too
}

// followUp does what follows from updates made under the mutex: it asks suppliers that have room for blocks, and
// holds a choke round.
//
// Messages of peers are followed up at once if the last time is a while ago, otherwise in a later round: the cost grows
// with the number of peers, and each peer can send such messages as often as it likes. The caller holds d.mu.
func (d *Download) followUp(now time.Time) {
	if d.pending.released || d.pending.rechoke {
		if now.Before(d.pending.roundAt) {
			if !d.pending.woken {
				d.pending.woken = true
				d.signal()
			}
		} else {
			d.pending.freed = d.pending.freed || d.pending.released
			if d.pending.disown {
				d.disown()
			}
			if d.pending.rechoke {
				d.chokeRound(now)
			}
			d.pending.released, d.pending.disown, d.pending.rechoke = false, false, false
			d.pending.roundAt = now.Add(d.client.roundEvery())
		}
	}
	for rounds := 0; (d.pending.freed || d.pending.roomy) && rounds < 4; rounds++ {
		all := d.pending.freed
		d.pending.freed, d.pending.roomy = false, false
		suppliers := d.picker.Suppliers()
		if len(suppliers) == 0 {
			break
		}
		first := 0
		if all {
			for piece := range d.reading.awaited {
				d.rush(piece, now)
			}
			first = d.rng.IntN(len(suppliers))
		}
		for k := range suppliers {
			if s := suppliers[(first+k)%len(suppliers)]; all || s.Roomy {
				s.Roomy = false
				d.refillInRound(s, now)
			}
		}
	}
}

// roundEvery is how often messages of peers may cause work for all other peers of a download. If the client has many peers, it is
// less often, at intervals of roundEach for each of them: rounds of all its downloads together then look at one peer in that time,
// which takes a fraction of it, however many downloads there are.
const (
	roundEvery = 50 * time.Millisecond
	roundEach  = 100 * time.Microsecond
)

// unlock releases the mutex, after followUp. Then it writes to the log. The caller holds d.mu.
func (d *Download) unlock(now time.Time) {
	d.followUp(now)
	logs := d.pending.logs
	d.pending.logs = nil
	d.mu.Unlock()
	for _, write := range logs {
		write()
	}
}

// logLater has write called once the mutex is released: a log handler may be slow, or call Stats.
// The caller holds d.mu.
func (d *Download) logLater(write func()) { d.pending.logs = append(d.pending.logs, write) }

// A waker makes one goroutine look for work again. wake holds a token from a signal until the goroutine takes it.
// Signalling never blocks.
type waker struct{ wake chan struct{} }

func newWaker() waker { return waker{make(chan struct{}, 1)} }

func (w waker) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
