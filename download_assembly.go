package torrent

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/blockpool"
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

// assembling is the started pieces, and what they are put together with.
type assembling struct {
	pieces map[int32]*assembly
	spent  []*assembly // for reuse

	// Not guarded by the download's mutex.
	blocks  *blockpool.Share   // of the client's pool
	writing [16]chan struct{}  // held while a piece is written, by piece: two writes of one never overlap
	checks  chan storage.Check // nil until needed: one for each goroutine that may hash pieces
}

// An assembly is the data of a started piece. Its blocks stay in memory until the piece is complete. If the piece is
// too long or memory too short, they go to storage as they come.
//
// The download's mutex guards it, except for blocks in a batch.
type assembly struct {
	attempt uint64   // at the piece, as in picker.Started
	blocks  [][]byte // by index; nil if the block is not here, or is on storage
	direct  bool     // blocks go to storage as they come
	writing int      // blocks that are being written
	touched time.Time
}

// A batch is blocks of one piece that are to be written without the mutex.
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

// assembly returns the assembly of a piece in its present attempt, or nil, and what the picker knows of the piece. An
// assembly of an earlier attempt is left for sweep or hold to discard.
func (d *Download) assembly(piece int32) (*assembly, picker.Started) {
	a, p := d.assembling.pieces[piece], d.picker.Started(int(piece))
	if a == nil || a.attempt != p.Attempt {
		return nil, p
	}
	return a, p
}

// hold takes the data of a block that the picker accepted. The caller passes the batch to write, once it has released
// the mutex, unless the batch is empty.
func (d *Download) hold(id picker.Block, b []byte, now time.Time) (out batch) {
	a, p := d.assembly(id.Piece)
	if a == nil {
		d.discard(id.Piece)
		a = d.newAssembly()
		a.attempt, a.direct = p.Attempt, d.t.layout.PieceSize(int(id.Piece)) > maxHeldPiece
		d.assembling.pieces[id.Piece] = a
	}
	a.touched = now
	if !a.direct && d.assembling.blocks.Hold() {
		if len(a.blocks) == 0 {
			n := d.t.layout.NumBlocks(int(id.Piece))
			a.blocks = slices.Grow(a.blocks, n)[:n]
		}
		a.blocks[id.Index] = b
		return batch{}
	}
	out = d.spill(id.Piece, a)
	out.last = heldBlock{id.Index, b}
	a.writing++
	return out
}

// spill moves all blocks of a from memory to a batch.
func (d *Download) spill(piece int32, a *assembly) batch {
	out := batch{a: a, piece: piece}
	a.direct = true
	for k, b := range a.blocks {
		if b != nil {
			out.blocks = append(out.blocks, heldBlock{int32(k), b})
		}
	}
	d.assembling.blocks.Release(len(out.blocks))
	a.writing += len(out.blocks)
	a.blocks = nil
	return out
}

// write writes a batch to storage and returns its buffers. The mutex is not held.
func (d *Download) write(r batch) {
	var err error
	base := d.t.layout.PieceOffset(int(r.piece))
	turn := d.assembling.writing[int(r.piece)%len(d.assembling.writing)]
	turn <- struct{}{}
	d.mu.Lock()
	wanted := d.assembling.pieces[r.piece] == r.a // or the piece was started again meanwhile
	d.mu.Unlock()
	blocks := r.blocks
	if r.last.b != nil {
		blocks = append(blocks, r.last)
	}
	for _, h := range blocks {
		if err == nil && wanted {
			_, err = d.store.WriteAt(h.b, base+int64(h.index)*blockSize)
		}
		d.client.blocks.Put(h.b)
	}
	<-turn
	d.mu.Lock()
	defer d.mu.Unlock()
	r.a.writing -= len(blocks)
	if err != nil {
		d.failStorage(fmt.Errorf("write piece %d: %w", r.piece, err))
		return
	}
	d.finishPiece(r.piece)
}

// discard drops the assembly of a piece.
func (d *Download) discard(piece int32) {
	a := d.assembling.pieces[piece]
	if a == nil {
		return
	}
	for _, b := range a.blocks {
		if b != nil {
			d.assembling.blocks.Drop(b)
		}
	}
	delete(d.assembling.pieces, piece)
	if a.writing == 0 {
		d.reuse(a)
	}
}

// maxSpent is how many assemblies are kept for reuse.
const maxSpent = 64

func (d *Download) newAssembly() *assembly {
	if last := len(d.assembling.spent) - 1; last >= 0 {
		a := d.assembling.spent[last]
		d.assembling.spent = d.assembling.spent[:last]
		return a
	}
	return new(assembly)
}

// reuse keeps a for another piece.
func (d *Download) reuse(a *assembly) {
	clear(a.blocks)
	*a = assembly{blocks: a.blocks[:0]}
	if len(d.assembling.spent) < maxSpent {
		d.assembling.spent = append(d.assembling.spent, a)
	}
}

// sweep discards assemblies of earlier attempts, and spills those that have waited long.
func (d *Download) sweep(now time.Time) (out []batch) {
	for i, a := range d.assembling.pieces {
		current, p := d.assembly(i)
		switch {
		case current == nil:
			if a.writing == 0 {
				d.discard(i)
			}
		case p.Left > 0 && len(a.blocks) > 0 && now.Sub(a.touched) > idleAssembly:
			out = append(out, d.spill(i, a))
		}
	}
	return out
}

// hashRun is how much of a piece is read back at a time.
const hashRun = 256 << 10

// finishPiece starts to hash a piece if all of its blocks are here.
func (d *Download) finishPiece(piece int32) {
	a, p := d.assembly(piece)
	if a == nil || p.Left > 0 || a.writing > 0 || d.ended() {
		return
	}
	delete(d.assembling.pieces, piece) // it belongs to the hashing goroutine now
	d.assembling.blocks.BeginFlush()
	d.life.tasks.Add(1) // tasks.Go would allocate twice as much
	go d.check(piece, a)
}

// check hashes a complete piece, stores it if it has its hash, and tells the picker.
func (d *Download) check(piece int32, a *assembly) {
	defer d.life.tasks.Done()
	scratch := <-d.client.hashing
	ok, err := d.hash(piece, a, &scratch)
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
		digests, err = d.digest(piece, a, &scratch)
	}
	d.client.hashing <- scratch
	for _, b := range a.blocks {
		d.assembling.blocks.Drop(b)
	}
	d.assembling.blocks.EndFlush()
	d.mu.Lock()
	defer d.unlock(time.Now())
	d.reuse(a)
	switch {
	case errors.Is(err, errInconsistent):
		d.fail(fmt.Errorf("piece %d: %w", piece, err))
	case err != nil:
		d.failStorage(err)
	case ok:
		d.pieceVerified(int(piece), digests)
	default:
		d.pieceSpoiled(int(piece), digests)
	}
}

// storeVerified tells a storage that wants to know of it that a piece is whole. The mutex is not held.
func (d *Download) storeVerified(piece int) error {
	s, ok := d.store.(interface{ PieceVerified(int) error })
	if !ok {
		return nil
	}
	if err := s.PieceVerified(piece); err != nil {
		return fmt.Errorf("tell storage of piece %d: %w", piece, err)
	}
	return nil
}

// hash reports whether a piece has the hash that the torrent says.
func (d *Download) hash(piece int32, a *assembly, scratch *[]byte) (bool, error) {
	c := <-d.assembling.checks
	if c == nil {
		c = d.t.newCheck()
	}
	c.Reset()
	err := d.eachRun(piece, a, scratch, func(b []byte) { c.Write(b) })
	ok := c.Matches(int(piece))
	if c, both := c.(*pieceCheck); both && c.disagree && err == nil {
		err = errInconsistent
	}
	d.assembling.checks <- c
	return ok, err
}

// digest returns a digest of each block, to be compared with those of other attempts.
func (d *Download) digest(piece int32, a *assembly, scratch *[]byte) ([]uint64, error) {
	var digests []uint64
	err := d.eachRun(piece, a, scratch, func(b []byte) {
		for len(b) > 0 {
			n := min(blockSize, len(b))
			digests = append(digests, maphash.Bytes(d.digestSeed, b[:n]))
			b = b[n:]
		}
	})
	return digests, err
}

// eachRun calls yield with the bytes of a complete piece in order, from memory or read back from storage, in runs that
// start at a block. scratch is a buffer of hashRun bytes, made when it is needed.
func (d *Download) eachRun(piece int32, a *assembly, scratch *[]byte, yield func([]byte)) error {
	if !a.direct {
		for _, b := range a.blocks {
			yield(b)
		}
		return nil
	}
	left, off := d.t.layout.PieceSize(int(piece)), d.t.layout.PieceOffset(int(piece))
	if *scratch == nil {
		*scratch = make([]byte, hashRun)
	}
	for left > 0 {
		b := (*scratch)[:min(hashRun, left)]
		if _, err := d.store.ReadAt(b, off); err != nil {
			return fmt.Errorf("read piece %d back: %w", piece, err)
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

// pieceVerified records that a piece which peers sent has its hash and is on storage.
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
func (d *Download) gotPiece(i int, digests []uint64) {
	if d.picker.Verified().Has(i) {
		return
	}
	cancel, liars := d.picker.Passed(i, digests)
	d.cancelAll(cancel)
	d.ban(liars)
	whole := len(d.selection.choice.done)
	d.selection.choice.piece(i, true)
	d.emit(Event{Kind: PieceVerified, Piece: i})
	for _, f := range d.selection.choice.done[whole:] {
		d.emit(Event{Kind: FileVerified, File: d.t.file(f)})
	}
	d.broadcast()
}

// pieceSpoiled records that a complete piece does not have its hash.
func (d *Download) pieceSpoiled(i int, digests []uint64) {
	d.traffic.wasted += d.t.layout.PieceSize(i)
	d.emit(Event{Kind: PieceFailed, Piece: i})
	d.logLater(func() { d.log.Info("piece failed its hash", "piece", i) })
	d.ban(d.picker.Failed(i, digests))
	d.pending.freed = true
}
