package torrent

import (
	"fmt"
	"hash/maphash"
	"time"
)

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
