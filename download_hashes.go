package torrent

import (
	"errors"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/hashfetch"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/piecehash"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/wire"
)

// hashing is how a download of version 2 (BEP 52) gets hashes that the torrent does not have, and gives them to others.
type hashing struct {
	fetch   *hashfetch.Fetcher
	waiting bool                // nothing is requested before the hashes are known that it would be checked by
	seen    map[int]merkle.Hash // roots of pieces that were there at the start, while what they must be is unknown

	reading chan struct{} // held by what reads a piece to serve the hashes of its blocks
}

// wantLayers has peers asked for the piece layers that are missing. The caller holds d.mu, or is open.
func (d *Download) wantLayers() {
	d.hashing.fetch = hashfetch.New()
	d.hashing.reading = make(chan struct{}, 1)
	if d.t.version == V1 {
		return
	}
	for _, i := range d.t.hashes.Missing() {
		first, end := d.t.layout.PiecesOf(i)
		t := hashfetch.Target{File: i, Piece: -1}
		d.hashing.fetch.Want(t, d.t.hashes.Root(i), d.t.hashes.Height(i), d.t.hashes.Level(), 0, end-first)
	}
}

// awaitLayers decides whether requests have to wait for hashes: those of a file of version 2 alone that is wanted. Pieces of
// hybrids have a SHA-1 sum. The caller holds d.mu.
func (d *Download) awaitLayers() {
	d.hashing.waiting = false
	if d.t.version != V2 {
		return
	}
	for _, i := range d.t.hashes.Missing() {
		if d.selection.choice.priority[i] != Skip {
			d.hashing.waiting = true
			return
		}
	}
}

// askHashes asks a peer for hashes that are missing. The caller holds d.mu.
func (p *peer) askHashes(now time.Time) {
	if !p.conn.v2 || p.closing != nil || !p.d.hashing.fetch.Wanting() {
		return
	}
	for _, r := range p.d.hashing.fetch.Next(p.hashes, now) {
		p.send(func(b []byte) []byte { return wire.AppendHashRequest(b, onWireHashes(r)) })
	}
}

func onWireHashes(r hashfetch.Request) wire.HashRequest {
	return wire.HashRequest{Root: r.Root, Base: uint32(r.Base), Index: uint32(r.Index), Length: uint32(r.Length), Proofs: uint32(r.Proofs)}
}

func fromWireHashes(r wire.HashRequest) hashfetch.Request {
	return hashfetch.Request{Root: r.Root, Request: merkle.Request{Base: int(r.Base), Index: int(r.Index), Length: int(r.Length), Proofs: int(r.Proofs)}}
}

// receiveHashes takes hashes that a peer sent, or that it sends none. The caller holds d.mu.
func (p *peer) receiveHashes(m wire.Message, now time.Time) error {
	d := p.d
	r, hashes := wire.ParseHashRequest(m.Payload)
	if m.ID == wire.HashReject {
		return d.hashing.fetch.Rejected(p.hashes, fromWireHashes(r), now)
	}
	found, whole, err := d.hashing.fetch.Received(p.hashes, fromWireHashes(r), hashes)
	if errors.Is(err, hashfetch.ErrLied) {
		d.ban(0, []any{p.conn.addr})
	}
	if err != nil {
		return err
	}
	d.progress.last = now
	if whole {
		d.learned(found, now)
	}
	p.askHashes(now)
	return nil
}

// learned takes a layer that is known now. The caller holds d.mu.
func (d *Download) learned(found hashfetch.Found, now time.Time) {
	var right []int // pieces that were there at the start
	for _, i := range d.t.hashes.Learn(found.File, found.Layer) {
		first, end := d.t.layout.PiecesOf(i)
		for piece := first; piece < end; piece++ {
			sum, seen := d.hashing.seen[piece]
			delete(d.hashing.seen, piece)
			if want, _ := d.t.hashes.Hash(piece); seen && sum == want {
				right = append(right, piece)
			}
		}
	}
	if len(right) > 0 {
		d.life.tasks.Go(func() { d.recognise(right) })
	}
	d.awaitLayers()
	d.pending.freed = true
	d.signal()
}

// recognise takes pieces that were there at the start, and whose roots are right.
func (d *Download) recognise(pieces []int) {
	for _, i := range pieces {
		if d.store.Changed(i) != nil {
			continue // it is fetched, as if it had not been there
		}
		err := d.storeVerified(i)
		d.mu.Lock()
		if err != nil {
			d.failStorage(err)
		} else if d.untouched(i) {
			d.found(i)
		}
		d.unlock(time.Now())
	}
	d.signal()
}

// recogniseFiles hashes what storage has of files of version 2 whose layers are missing. A file that is whole proves its layer by
// its root; what is seen of others is compared once their layers are known.
func (d *Download) recogniseFiles(content storage.Content, todo func(piece int) bool) error {
	which := d.store.Present()
	for i := range which.All() {
		if file, _ := d.t.hashes.FileOf(i); d.t.hashes.Known(file) || !todo(i) {
			which.Remove(i)
		}
	}
	seen := make(map[int]merkle.Hash)
	var mu sync.Mutex
	content.NewCheck = func() storage.Check {
		return &rootRecorder{Hasher: merkle.NewHasher(), pieces: d.t.hashes, take: func(piece int, root merkle.Hash) {
			mu.Lock()
			defer mu.Unlock()
			seen[piece] = root
		}}
	}
	if err := storage.Verify(d.life.ctx, content, d.store, which, func(int, bool) {}); err != nil {
		return err
	}
	for _, i := range d.t.hashes.Missing() {
		var layer []byte
		first, end := d.t.layout.PiecesOf(i)
		for piece := first; piece < end; piece++ {
			root, ok := seen[piece]
			if !ok {
				layer = nil
				break
			}
			layer = append(layer, root[:]...)
		}
		if layer != nil {
			d.t.hashes.Learn(i, layer)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for piece := range seen {
		if file, _ := d.t.hashes.FileOf(piece); d.t.hashes.Known(file) {
			delete(seen, piece)
		}
	}
	d.hashing.seen = seen
	return nil
}

// rootRecorder is a storage.Check that hands on the roots of the pieces that it is shown.
type rootRecorder struct {
	*merkle.Hasher
	pieces *piecehash.Pieces
	take   func(piece int, root merkle.Hash)
}

func (r *rootRecorder) Matches(piece int) bool {
	r.take(piece, r.Sum(r.pieces.HeightOf(piece)))
	return false
}
