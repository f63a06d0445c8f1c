package torrent

import (
	"errors"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/wire"
)

const (
	// maxHashesWaiting is how many bytes may wait for a peer before its hash requests are rejected.
	maxHashesWaiting = 1 << 20
	// maxHashesReading is how many requests of one peer may wait for pieces to be read.
	maxHashesReading = 8
	// maxBlocksHashed is the length in blocks of the longest piece that is read to serve the hashes of its blocks.
	maxBlocksHashed = wire.MaxHashes
	// hashWork is the work of hashing two hashes into one.
	hashWork = 10
	// hashReadRate is how many blocks a second all strangers may have a client read for their hashes, and hashReadsAtOnce how many
	// at once: the longest piece. Each peer is charged with it, too, but there may be any number of them. Peers that know only of
	// false pieces ask for these hashes, so it is seldom that an honest one is refused, and then it finds the liar without them.
	hashReadRate    = 512
	hashReadsAtOnce = maxBlocksHashed
)

// A ration bounds what all strangers together have a client do.
type ration struct {
	mu      sync.Mutex
	account ratelimit.Account
}

// may reports whether so much may be done, and counts it.
func (r *ration) may(n int, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.account.Owed(now) > 0 {
		return false
	}
	r.account.Charge(int64(n), now)
	return true
}

var errHashReads = errors.New("too much is read for the hashes of blocks")

// maxHashesServed is how many bytes of hashes one peer is sent: a few times all of them.
func (d *Download) maxHashesServed() int64 {
	return 1<<20 + 4*merkle.Size*(2*int64(d.t.NumPieces())+d.t.Length()/merkle.BlockSize)
}

// hashesRequested answers a hash request (BEP 52). Hashes of piece layers are in memory. For the hashes of its blocks a piece is
// read again, one piece at a time.
func (p *peer) hashesRequested(m wire.Message, now time.Time) error {
	d := p.d
	if d.t.version == V1 {
		return nil
	}
	p.charge(answerWork, now)
	r, _ := wire.ParseHashRequest(m.Payload)
	file, known := d.t.hashes.File(r.Root)
	q := fromWireHashes(r).Request
	if !known || q.Length > wire.MaxHashes || !q.Sound(d.t.hashes.Height(file)) || !p.mayServeHashes(file, q, now) {
		return p.rejectHashes(r)
	}
	switch {
	case q.Base == d.t.hashes.Level() && d.t.hashes.Layered(file):
		if tree := d.t.hashes.Tree(file); tree != nil {
			return p.sendHashes(r, tree.Append(nil, q))
		}
	case q.Base == 0:
		first, end := d.t.layout.PiecesOf(file)
		piece := first + q.Index>>d.t.hashes.Level()
		proven := !d.t.hashes.Layered(file) || d.t.hashes.Known(file)
		if piece < end && proven && q.Length <= 1<<d.t.hashes.HeightOf(piece) && d.t.layout.NumBlocks(piece) <= maxBlocksHashed && d.hasAll(piece, piece+1) {
			if p.hashesReading.Add(1) <= maxHashesReading {
				p.chargeBlockHashes(piece, now)
				d.life.tasks.Go(func() { p.serveBlockHashes(r, file, piece, q) })
				return nil
			}
			p.hashesReading.Add(-1)
		}
	}
	return p.rejectHashes(r)
}

// chargeBlockHashes charges the peer with the work to read and hash a piece, unless it is the piece last read.
func (p *peer) chargeBlockHashes(piece int, now time.Time) {
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hashing.last.tree == nil || d.hashing.last.piece != piece {
		p.charge(blockWork*int64(d.t.layout.NumBlocks(piece)), now)
	}
}

// serveBlockHashes answers a request for the hashes of blocks when it is its turn.
func (p *peer) serveBlockHashes(r wire.HashRequest, file, piece int, q merkle.Request) {
	defer p.hashesReading.Add(-1)
	select {
	case p.d.hashing.reading <- struct{}{}:
	case <-p.ended:
		return
	}
	hashes, err := p.d.blockHashes(file, piece, q)
	<-p.d.hashing.reading
	if err == nil {
		err = p.sendHashes(r, hashes)
	} else {
		err = p.rejectHashes(r)
	}
	if err != nil {
		p.stop(err)
	}
}

// hashesWork returns the work of answering a request about a file: to copy the hashes, and to hash a run of each tree that the
// proof passes through.
func (d *Download) hashesWork(file int, q merkle.Request) int64 {
	work := int64(q.Length)
	prove := func(part, of int) {
		if run := min(of, merkle.Run); part < run {
			work += hashWork * int64(run)
		}
	}
	first, end := d.t.layout.PiecesOf(file)
	if level := d.t.hashes.Level(); q.Base < level { // blocks of a piece, and the piece
		prove(q.Length, 1<<min(level, d.t.hashes.Height(file)))
		prove(1, end-first)
	} else {
		prove(q.Length, end-first)
	}
	return work
}

// mayServeHashes reports whether the peer may be sent the hashes that it requests, and counts and charges them.
func (p *peer) mayServeHashes(file int, q merkle.Request, now time.Time) bool {
	d := p.d
	p.charge(d.hashesWork(file, q), now)
	d.mu.Lock()
	defer d.mu.Unlock()
	n := int64(q.Length) * merkle.Size
	if p.hashesServed+n > d.maxHashesServed() || p.out.Backlog() > maxHashesWaiting {
		return false
	}
	p.hashesServed += n
	return true
}

func (p *peer) sendHashes(r wire.HashRequest, hashes []byte) error {
	if !p.out.AddAnswer(wire.AppendHashes(nil, r, hashes)) {
		return errNotReading
	}
	return nil
}

func (p *peer) rejectHashes(r wire.HashRequest) error {
	if !p.out.Add(func(b []byte) []byte { return wire.AppendHashReject(b, r) }) {
		return errNotReading
	}
	return nil
}

// blockHashes reads a piece from storage and returns the requested hashes of its blocks. Above the piece, the proof comes from
// the file's piece layer.
func (d *Download) blockHashes(file, piece int, q merkle.Request) ([]byte, error) {
	if err := d.store.Changed(piece); err != nil {
		return nil, err
	}
	blocks, err := d.blockTree(piece)
	if err != nil {
		return nil, err
	}
	level := d.t.hashes.Level()
	_, index := d.t.hashes.FileOf(piece)
	within := q
	within.Index -= index << level
	hashes := blocks.Append(nil, within)
	if tree := d.t.hashes.Tree(file); tree != nil {
		hashes = tree.AppendProof(hashes, merkle.Request{Base: level, Index: index, Length: 1, Proofs: q.Base + q.Proofs - level})
	}
	return hashes, nil
}

// blockTree returns the tree of the blocks of a piece. The last one is kept, because a peer requests the hashes of a long piece
// in several messages. The caller holds d.hashing.reading.
func (d *Download) blockTree(piece int) (*merkle.Tree, error) {
	d.mu.Lock()
	last := d.hashing.last
	d.mu.Unlock()
	if last.tree != nil && last.piece == piece {
		return last.tree, nil
	}
	if !d.client.hashReads.may(d.t.layout.NumBlocks(piece), time.Now()) {
		return nil, errHashReads
	}
	var leaves []byte
	b := make([]byte, merkle.BlockSize)
	off, end := d.t.layout.PieceOffset(piece), d.t.layout.PieceEnd(piece)
	for ; off < end; off += merkle.BlockSize {
		b := b[:min(merkle.BlockSize, end-off)]
		if _, err := d.store.ReadAt(b, off); err != nil {
			return nil, err
		}
		leaf := merkle.HashBlock(b)
		leaves = append(leaves, leaf[:]...)
	}
	height := d.t.hashes.HeightOf(piece)
	tree := merkle.NewTree(leaves, 0, height)
	if want, known := d.t.hashes.Hash(piece); !known || tree.Node(height, 0) != want {
		return nil, errors.New("the piece is not as it was verified")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hashing.last = pieceTree{piece, tree}
	return tree, nil
}
