package torrent

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/blockpool"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/storage"
)

const (
	// maxHeldPiece is the size of the longest piece that is assembled in memory. A longer one goes to storage
	// block by block.
	maxHeldPiece = 4 << 20
	// idleAssembly is how long blocks stay in memory while no other block of their piece comes.
	idleAssembly = 30 * time.Second
)

// assembling holds the assemblies of started pieces, and what they share.
type assembling struct {
	pieces  map[int32]*assembly
	hashing map[int32]*assembly // of pieces that are hashed and stored now
	spent   []*assembly         // for reuse
	holder  *account.Holder     // of what is kept of them beside their blocks; nil before the first second

	// Not guarded by the download's mutex.
	share   *blockpool.Share   // of the client's pool
	writing [16]chan struct{}  // held while a piece is written, by piece: two writes of one never overlap
	checks  chan storage.Check // nil until needed: one for each goroutine that may hash and store pieces
}

// An assembly is the data of a started piece. Its blocks stay in memory until the piece is complete. If the piece is
// too long or memory too short, they go to storage as they come.
//
// The download's mutex guards it, except for blocks in a batch.
type assembly struct {
	attempt uint64   // at the piece, as in picker.Started
	blocks  [][]byte // by index; nil if the block is not here, or is on storage
	direct  bool     // blocks go to storage as they come
	doubted bool     // another program changed a file of the piece once all blocks were here
	writing int      // blocks that are being written
	touched time.Time

	// latest holds, for each block that is being written, the data last handed out for it. If a block was dropped while it
	// was being written and came again, the older write must not win.
	latest map[int32][]byte
}

// A batch is a set of blocks of one piece that are written without the mutex.
type batch struct {
	a      *assembly
	piece  int32
	blocks []heldBlock // that were in memory
	last   heldBlock   // that has just come; its b is nil if none has
}

type heldBlock struct {
	index int32
	b     []byte
}

// assembly returns the assembly of a piece in its present attempt, or nil, and the picker's state of the piece. An
// assembly of an earlier attempt is left for sweep or hold to discard. The caller holds d.mu.
func (d *Download) assembly(piece int32) (*assembly, picker.Started) {
	a, p := d.assembling.pieces[piece], d.picker.Started(int(piece))
	if a == nil || a.attempt != p.Attempt {
		return nil, p
	}
	return a, p
}

// hold takes the data of a block that the picker accepted. The caller passes the batch to write, once it has released
// the mutex, unless the batch is empty. The caller holds d.mu.
func (d *Download) hold(id picker.Block, b []byte, now time.Time) (out batch) {
	a, p := d.assembly(id.Piece)
	if a == nil {
		d.dropAssembly(id.Piece)
		a = d.newAssembly()
		a.attempt, a.direct = p.Attempt, d.t.layout.PieceSize(int(id.Piece)) > maxHeldPiece
		d.assembling.pieces[id.Piece] = a
	}
	a.touched = now
	if !a.direct && d.assembling.share.Hold() {
		if len(a.blocks) == 0 {
			n := d.t.layout.NumBlocks(int(id.Piece))
			a.blocks = slices.Grow(a.blocks, n)[:n]
		}
		if former := a.blocks[id.Index]; former != nil {
			d.assembling.share.Drop(former)
		}
		a.blocks[id.Index] = b
		return batch{}
	}
	out = d.spill(id.Piece, a)
	out.last = heldBlock{id.Index, b}
	a.hand(out.last)
	return out
}

// hand records that a block is handed out to be written.
func (a *assembly) hand(h heldBlock) {
	if a.latest == nil {
		a.latest = make(map[int32][]byte)
	}
	a.latest[h.index] = h.b
	a.writing++
}

// isLatest reports whether no other block was handed out in place of h, and h was not dropped.
func (a *assembly) isLatest(h heldBlock) bool {
	b := a.latest[h.index]
	return len(b) > 0 && &b[0] == &h.b[0]
}

// dropBlock drops the data of a block that the picker has dropped. The caller holds d.mu.
func (d *Download) dropBlock(id picker.Block) {
	d.traffic.wasted += int64(d.t.layout.BlockLen(int(id.Piece), int(id.Index)))
	a := d.assembling.pieces[id.Piece]
	if a == nil {
		return
	}
	delete(a.latest, id.Index)
	if len(a.blocks) > 0 && a.blocks[id.Index] != nil {
		d.assembling.share.Drop(a.blocks[id.Index])
		a.blocks[id.Index] = nil
	}
}

// spill moves all blocks of a from memory to a batch. The caller holds d.mu.
func (d *Download) spill(piece int32, a *assembly) batch {
	out := batch{a: a, piece: piece}
	a.direct = true
	for k, b := range a.blocks {
		if b != nil {
			h := heldBlock{int32(k), b}
			out.blocks = append(out.blocks, h)
			a.hand(h)
		}
	}
	d.assembling.share.Release(len(out.blocks))
	a.blocks = nil
	return out
}

// write writes a batch to storage and returns its buffers. The caller does not hold d.mu.
func (d *Download) write(r batch) {
	var err error
	base := d.t.layout.PieceOffset(int(r.piece))
	turn := d.assembling.writing[int(r.piece)%len(d.assembling.writing)]
	turn <- struct{}{}
	blocks := r.blocks
	if r.last.b != nil {
		blocks = append(blocks, r.last)
	}
	n := len(blocks)
	d.mu.Lock()
	wanted := d.assembling.pieces[r.piece] == r.a // or the piece was started again meanwhile
	blocks = slices.DeleteFunc(blocks, func(h heldBlock) bool {
		stale := !wanted || !r.a.isLatest(h)
		if stale {
			d.client.blockPool.Put(h.b)
		}
		return stale
	})
	d.mu.Unlock()
	for _, h := range blocks {
		if err == nil {
			_, err = d.store.WriteAt(h.b, base+int64(h.index)*blockSize)
		}
	}
	<-turn
	if errors.Is(err, storage.ErrChanged) { // a file of the piece is another program's now, and what it held of the piece is lost
		d.log.Warn("storage", "piece", r.piece, "err", err)
		d.doubt(int(r.piece))
		err = nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range blocks {
		if r.a.isLatest(h) {
			delete(r.a.latest, h.index)
		}
		d.client.blockPool.Put(h.b)
	}
	if err != nil { // and they count as being written for ever, so that the sidecar does not claim them
		d.failStorage(fmt.Errorf("write piece %d: %w", r.piece, err))
		return
	}
	r.a.writing -= n
	d.finishPiece(r.piece)
}

// dropAssembly drops the assembly of a piece. The caller holds d.mu.
func (d *Download) dropAssembly(piece int32) {
	a := d.assembling.pieces[piece]
	if a == nil {
		return
	}
	d.dropBlocks(a)
	delete(d.assembling.pieces, piece)
	if a.writing == 0 {
		d.reuse(a)
	}
}

// dropBlocks drops the blocks of a that are in memory.
func (d *Download) dropBlocks(a *assembly) {
	for _, b := range a.blocks {
		if b != nil {
			d.assembling.share.Drop(b)
		}
	}
}

// maxSpent is how many assemblies are kept for reuse.
const maxSpent = 64

// The caller holds d.mu.
func (d *Download) newAssembly() *assembly {
	if last := len(d.assembling.spent) - 1; last >= 0 {
		a := d.assembling.spent[last]
		d.assembling.spent = d.assembling.spent[:last]
		return a
	}
	return new(assembly)
}

// reuse keeps a for another piece. The caller holds d.mu.
func (d *Download) reuse(a *assembly) {
	clear(a.blocks)
	*a = assembly{blocks: a.blocks[:0]}
	if len(d.assembling.spent) < maxSpent {
		d.assembling.spent = append(d.assembling.spent, a)
	}
}

// sweep discards assemblies of earlier attempts, gives up pieces that are worth less than what is kept for them, and spills those that
// have waited long. The caller holds d.mu.
func (d *Download) sweep(now time.Time) (out []batch) {
	for i, a := range d.assembling.pieces {
		current, p := d.assembly(i)
		switch {
		case current == nil:
			if a.writing == 0 {
				d.dropAssembly(i)
			}
		case a.writing == 0 && d.isSlight(int(i), p):
			d.abandon(i, d.t.layout.PieceSize(int(i))%blockSize)
		case p.Left > 0 && len(a.blocks) > 0 && now.Sub(a.touched) > idleAssembly:
			out = append(out, d.spill(i, a))
		}
	}
	return out
}

// finishPiece starts to hash a piece if all of its blocks are here. The caller holds d.mu.
func (d *Download) finishPiece(piece int32) {
	a, p := d.assembly(piece)
	if a == nil || p.Left > 0 || a.writing > 0 || d.ended() {
		return
	}
	delete(d.assembling.pieces, piece) // it belongs to the hashing goroutine now
	d.assembling.hashing[piece] = a
	d.assembling.share.BeginFlush()
	d.life.tasks.Add(1) // tasks.Go would allocate twice as much
	go d.check(piece, a)
}

// check hashes a complete piece, stores it if it has its hash, and tells the picker.
func (d *Download) check(piece int32, a *assembly) {
	defer d.life.tasks.Done()
	c := <-d.assembling.checks // of this download, so that a disk that is slow makes no other wait
	if c == nil {
		c = d.t.newCheck()
	}
	ok, err := d.hash(piece, a, c)
	if ok && err == nil && !a.direct {
		turn := d.assembling.writing[int(piece)%len(d.assembling.writing)]
		turn <- struct{}{}
		if err = d.store.WriteBlocks(a.blocks, d.t.layout.PieceOffset(int(piece))); err != nil {
			err = fmt.Errorf("write piece %d: %w", piece, err)
		}
		<-turn
	}
	if ok && err == nil {
		err = d.storeVerified(int(piece))
	}
	var digests []uint64
	if err == nil && (!ok || d.suspect(piece)) {
		digests, err = d.digest(piece, a)
	}
	d.assembling.checks <- c
	if errors.Is(err, storage.ErrChanged) { // a file that is not chosen is another program's now; the piece is fetched again
		d.log.Warn("storage", "piece", piece, "err", err)
		d.doubt(int(piece))
		err = nil
	}
	if a.direct && storage.Unwritten(err) && errors.Is(d.store.Changed(int(piece)), storage.ErrChanged) {
		ok, err = false, nil // another program cut the files off
	}
	if errors.Is(err, errReadBack) && d.isLost(int(piece), a, err) {
		ok, err = false, nil
	}
	mayStay := !ok && err == nil // pieceSpoiled decides
	if !mayStay {
		d.dropBlocks(a)
	}
	d.assembling.share.EndFlush()
	if mayStay && a.direct && errors.Is(d.store.Changed(int(piece)), storage.ErrChanged) {
		// Another program wrote to the files, so no peer is to blame. The store accepts them as they are, or no liar would be found later.
		d.doubt(int(piece))
	}
	d.mu.Lock()
	defer d.unlock(time.Now())
	delete(d.assembling.hashing, piece)
	doubted := a.doubted
	if doubted && a.direct && storage.Unwritten(err) {
		err = nil // they were cut off, and the store has accepted the files as they are
	}
	if doubted && mayStay {
		d.dropBlocks(a)
	}
	if doubted || !mayStay {
		d.reuse(a)
	}
	switch {
	case errors.Is(err, errInconsistent):
		d.fail(fmt.Errorf("piece %d: %w", piece, err))
	case err != nil:
		d.failStorage(err)
	case doubted: // what was hashed may not be what storage holds
		d.traffic.wasted += d.t.layout.PieceSize(int(piece))
		d.cancelAll(d.picker.Discard(int(piece)))
		d.pending.freed = true
	case ok:
		d.pieceVerified(int(piece), digests)
	default:
		d.pieceSpoiled(piece, a, digests)
	}
}

// storeVerified tells storage that a piece is verified. The caller does not hold d.mu.
func (d *Download) storeVerified(piece int) error {
	if err := d.store.PieceVerified(piece); err != nil {
		return fmt.Errorf("tell storage of piece %d: %w", piece, err)
	}
	return nil
}

// hash reports whether a piece has the hash that the torrent says.
func (d *Download) hash(piece int32, a *assembly, c storage.Check) (bool, error) {
	c.Reset()
	err := d.eachRun(piece, a, func(b []byte) { c.Write(b) })
	ok := c.Matches(int(piece))
	if c, both := c.(*pieceCheck); both && err == nil {
		switch {
		case c.disagree:
			err = errInconsistent
		case ok && c.unproven:
			err = d.sawRoot(int(piece), c.root)
		}
	}
	return ok, err
}

// digest returns a digest of each block, to be compared with those of other attempts.
func (d *Download) digest(piece int32, a *assembly) ([]uint64, error) {
	var digests []uint64
	err := d.eachRun(piece, a, func(b []byte) {
		for len(b) > 0 {
			n := min(blockSize, len(b))
			if d.t.version == V1 {
				digests = append(digests, maphash.Bytes(d.digestSeed, b[:n]))
			} else { // which can be compared with the hashes of blocks, too
				digests = append(digests, leafDigest(merkle.HashBlock(b[:n])))
			}
			b = b[n:]
		}
	})
	return digests, err
}

var errReadBack = errors.New("read back piece")

// eachRun calls yield with the bytes of a complete piece in order, from memory or storage, in runs that start at a
// block boundary.
func (d *Download) eachRun(piece int32, a *assembly, yield func([]byte)) error {
	if !a.direct {
		for _, b := range a.blocks {
			yield(b)
		}
		return nil
	}
	left, off := d.t.layout.PieceSize(int(piece)), d.t.layout.PieceOffset(int(piece))
	scratch := d.client.readBack.get()
	defer d.client.readBack.put(scratch)
	for left > 0 {
		b := (*scratch)[:min(int64(len(*scratch)), left)]
		if _, err := d.store.ReadAt(b, off); err != nil {
			return fmt.Errorf("%w %d: %w", errReadBack, piece, err)
		}
		yield(b)
		left -= int64(len(b))
		off += int64(len(b))
	}
	return nil
}

// suspect reports whether a piece failed its hash before.
func (d *Download) suspect(piece int32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.picker.Started(int(piece)).Parole
}

// pieceVerified records that a piece that peers sent has its hash and is on storage. The caller holds d.mu.
func (d *Download) pieceVerified(i int, digests []uint64) {
	now := time.Now()
	d.progress.fetched = true
	d.disk.resumable = true
	d.progress.last = now
	d.gotPiece(i, digests)
	for _, p := range d.swarm.peers {
		p.tellHave(i)
		if p.supply.Has(i) {
			d.updateInterest(p)
		}
	}
	if !d.lacking() {
		d.signal()
	}
}

// gotPiece records that piece i is verified and on storage. digests are of its blocks, if it is suspect.
// The caller holds d.mu.
func (d *Download) gotPiece(i int, digests []uint64) {
	if d.picker.Verified().Has(i) {
		return
	}
	if d.t.version != V1 {
		d.t.hashes.ForgetBlocks(i)
	}
	cancel, liars := d.picker.Passed(i, digests)
	d.cancelAll(cancel)
	d.ban(i, liars)
	whole := len(d.selection.choice.done)
	d.selection.choice.piece(i, true)
	d.emit(Event{Kind: PieceVerified, Piece: i})
	for _, f := range d.selection.choice.done[whole:] {
		d.emit(Event{Kind: FileVerified, File: d.t.file(f)})
	}
	d.broadcast()
}

// pieceSpoiled records that a complete piece does not have its hash. Blocks that are not the first suspects are kept.
// The caller holds d.mu.
func (d *Download) pieceSpoiled(piece int32, a *assembly, digests []uint64) {
	i := int(piece)
	d.emit(Event{Kind: PieceFailed, Piece: i})
	d.logLater(func() { d.log.Info("piece failed its hash", "piece", i) })
	if !d.awaitBlocks(i, a, digests, time.Now()) {
		d.pieceFailed(piece, a, d.picker.Failed(i, digests))
	}
}

// pieceFailed acts on a piece that failed its hash: it drops the blocks that the picker wants fetched again, and bans the liars. The
// caller holds d.mu.
func (d *Download) pieceFailed(piece int32, a *assembly, liars []any) {
	i := int(piece)
	if d.picker.Started(i).Attempt == a.attempt {
		a.touched = time.Now()
		d.assembling.pieces[piece] = a
		arrived, again := d.picker.Arrived(i), 0
		for k := range arrived.Len() {
			if !arrived.Has(k) {
				d.dropBlock(picker.Block{Piece: piece, Index: int32(k)})
				again++
			}
		}
		d.logLater(func() { d.log.Debug("fetched again", "piece", i, "blocks", again) })
	} else {
		delete(d.assembling.pieces, piece)
		d.traffic.wasted += d.t.layout.PieceSize(i)
		d.dropBlocks(a)
		d.reuse(a)
	}
	d.ban(i, liars)
	d.pending.freed = true
}
