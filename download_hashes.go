package torrent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/hashfetch"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/piecehash"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/wire"
)

// hashing is the state by which a download of version 2 (BEP 52) fetches hashes that the torrent lacks, and serves them
// to others.
type hashing struct {
	fetch   *hashfetch.Fetcher
	waiting bool                // no block is requested before the hashes of its piece are known and applied to data that is here
	lacking int                 // no file before this one is chosen and lacks its layer
	seen    map[int]merkle.Hash // roots of pieces that were there at the start (in a hybrid also right) and whose hashes are not known yet
	came    map[int]*pieceRoots // by file: of a hybrid, roots of pieces that came while only their SHA-1 sums are known

	recognising bool                 // a task takes pieces that were there at the start and have turned out right
	right       bits.Set             // such pieces that wait for it; empty if none do
	suspects    map[int]suspectPiece // that failed their hash and wait for the hashes of their blocks

	reading chan struct{} // held while a piece is read to serve the hashes of its blocks
	last    pieceTree     // of the piece last read for that
}

// pieceTree is the tree of the blocks of a piece, or nil.
type pieceTree struct {
	piece int
	tree  *merkle.Tree
}

// A suspectPiece is one that failed its hash. Its assembly stays among the others meanwhile.
type suspectPiece struct {
	a       *assembly
	digests []uint64
	since   time.Time
}

// pieceRoots are the roots of pieces of a file whose layer is unknown: the layer, once all are here.
type pieceRoots struct {
	layer []byte
	here  bits.Set
}

// blocksPatience is how long a piece that failed its hash waits for the hashes of its blocks. Without them, the peers that sent
// false blocks are found as in version 1.
const blocksPatience = 3 * hashfetch.AskAgain

// leafDigest returns the digest of a block that has the given hash.
func leafDigest(leaf merkle.Hash) uint64 { return binary.LittleEndian.Uint64(leaf[:]) }

// awaitBlocks requests the hashes of the blocks of a piece that failed its own hash, and reports whether there is a peer to ask.
// The caller holds d.mu.
func (d *Download) awaitBlocks(piece int, a *assembly, digests []uint64, now time.Time) bool {
	n := d.t.layout.NumBlocks(piece)
	if n < 2 || !d.hashesCanBeAsked() {
		return false
	}
	if _, known := d.t.hashes.Hash(piece); !known {
		return false
	}
	a.touched = now
	d.assembling.pieces[int32(piece)] = a
	d.hashing.suspects[piece] = suspectPiece{a, digests, now}
	file, index := d.t.hashes.FileOf(piece)
	d.hashing.fetch.Want(hashfetch.Target{File: file, Piece: piece}, d.t.hashes.Root(file), d.t.hashes.Height(file), 0, index<<d.t.hashes.Level(), n)
	d.askHashes(now)
	return true
}

// hashesCanBeAsked reports whether a peer speaks version 2. The caller holds d.mu.
func (d *Download) hashesCanBeAsked() bool {
	return d.t.version != V1 && slices.ContainsFunc(d.swarm.peers, func(p *peer) bool { return p.conn.v2 && p.closing == nil })
}

// exposes reports whether false blocks of a failed piece can be found by their own hashes. The caller holds d.mu.
func (d *Download) exposes() bool {
	if d.t.version == V2 {
		return true
	}
	if !d.hashesCanBeAsked() {
		return false
	}
	_, missing := d.t.hashes.FirstMissing(0, func(int) bool { return true })
	return !missing
}

// exposeBlocks compares the blocks of a piece that failed its hash with their own hashes. Only false blocks are fetched again,
// and their senders are banned. Blocks that come from then on are checked at once. The caller holds d.mu.
func (d *Download) exposeBlocks(piece int, leaves []byte) {
	d.t.hashes.LearnBlocks(piece, leaves)
	s, waits := d.hashing.suspects[piece]
	if !waits {
		return
	}
	delete(d.hashing.suspects, piece)
	if d.picker.Started(piece).Attempt != s.a.attempt {
		d.pieceFailed(int32(piece), s.a, nil)
		return
	}
	lie := func(k int) bool { return s.digests[k] != leafDigest(merkle.Hash(leaves[k*merkle.Size:])) }
	for k := range s.digests {
		if lie(k) {
			d.pieceFailed(int32(piece), s.a, d.picker.Exposed(piece, lie))
			return
		}
	}
	d.pieceFailed(int32(piece), s.a, d.picker.Failed(piece, s.digests))
}

// giveUpBlocks deals with pieces that have waited too long for the hashes of their blocks. The caller holds d.mu.
func (d *Download) giveUpBlocks(now time.Time) {
	for piece, s := range d.hashing.suspects {
		if now.Sub(s.since) >= blocksPatience {
			delete(d.hashing.suspects, piece)
			var liars []any
			if d.picker.Started(piece).Attempt == s.a.attempt {
				liars = d.picker.Failed(piece, s.digests)
			}
			d.pieceFailed(int32(piece), s.a, liars)
		}
	}
}

// isFalse reports whether a block is known to have a wrong hash.
func (d *Download) isFalse(id picker.Block, b []byte) bool {
	if d.t.version == V1 {
		return false
	}
	want, known := d.t.hashes.Block(int(id.Piece), int(id.Index))
	return known && merkle.HashBlock(b) != want
}

// wantLayers has peers asked for the piece layers that are missing. The caller holds d.mu.
func (d *Download) wantLayers() {
	d.hashing.fetch = hashfetch.New()
	d.hashing.reading = make(chan struct{}, 1)
	d.hashing.suspects = make(map[int]suspectPiece)
	d.hashing.came = make(map[int]*pieceRoots)
	if d.t.version == V1 {
		return
	}
	for _, i := range d.t.hashes.Missing() {
		first, end := d.t.layout.PiecesOf(i)
		t := hashfetch.Target{File: i, Piece: -1}
		d.hashing.fetch.Want(t, d.t.hashes.Root(i), d.t.hashes.Height(i), d.t.hashes.Level(), 0, end-first)
	}
}

// awaitLayers decides whether block requests have to wait for hashes: they do while a wanted file of version 2 alone lacks
// its layer. Pieces of hybrids have a SHA-1 sum. Files that need not be waited for may be many, and are looked at once a choice.
// The caller holds d.mu.
func (d *Download) awaitLayers() {
	h := &d.hashing
	h.waiting = h.recognising
	if d.t.version != V2 {
		return
	}
	var lacks bool
	h.lacking, lacks = d.t.hashes.FirstMissing(h.lacking, func(i int) bool { return d.selection.choice.priority[i] != Skip })
	h.waiting = h.waiting || lacks
}

// askHashes asks a peer for hashes that are missing. The caller holds p.d.mu.
func (p *peer) askHashes(now time.Time) {
	if !p.conn.v2 || p.closing != nil || !p.d.hashing.fetch.Wanting() {
		return
	}
	for _, r := range p.d.hashing.fetch.Next(p.hashesAsked, now) {
		p.send(func(b []byte) []byte { return wire.AppendHashRequest(b, onWireHashes(r)) })
	}
}

// askHashes asks all peers, those that are late with answers after the others. The caller holds d.mu.
func (d *Download) askHashes(now time.Time) {
	if !d.hashing.fetch.Wanting() {
		return
	}
	late := make(map[*peer]int)
	for _, p := range d.swarm.peers {
		late[p] = p.hashesAsked.Late(now)
	}
	for _, p := range slices.SortedStableFunc(slices.Values(d.swarm.peers), func(p, q *peer) int { return late[p] - late[q] }) {
		p.askHashes(now)
	}
}

func onWireHashes(r hashfetch.Request) wire.HashRequest {
	return wire.HashRequest{Root: r.Root, Base: uint32(r.Base), Index: uint32(r.Index), Length: uint32(r.Length), Proofs: uint32(r.Proofs)}
}

func fromWireHashes(r wire.HashRequest) hashfetch.Request {
	return hashfetch.Request{Root: r.Root, Request: merkle.Request{Base: int(r.Base), Index: int(r.Index), Length: int(r.Length), Proofs: int(r.Proofs)}}
}

// hashesSteps is the work, in steps of the picker, of a step to choose which hashes to request.
const hashesSteps = 4

// receiveHashes takes hashes that a peer sent, or its refusal to send them. The caller holds p.d.mu.
func (p *peer) receiveHashes(m wire.Message, now time.Time) error {
	d := p.d
	defer func(before int64) { p.charge(hashesSteps*(d.hashing.fetch.Work()-before), now) }(d.hashing.fetch.Work())
	r, hashes := wire.ParseHashRequest(m.Payload)
	if m.ID == wire.HashReject {
		err := d.hashing.fetch.Rejected(p.hashesAsked, fromWireHashes(r), now)
		d.askHashes(now)
		return err
	}
	found, whole, err := d.hashing.fetch.Received(p.hashesAsked, fromWireHashes(r), hashes)
	if errors.Is(err, hashfetch.ErrLied) {
		d.ban(0, []any{p.supply.Origin})
	}
	if err != nil {
		return err
	}
	d.progress.last = now
	if whole {
		d.learned(found)
	}
	p.askHashes(now)
	return nil
}

// learned takes a layer that is known now and proven. It may have millions of hashes. The caller holds d.mu.
func (d *Download) learned(found hashfetch.Found) {
	if found.Piece >= 0 {
		d.exposeBlocks(found.Piece, found.Layer)
		return
	}
	right := &d.hashing.right
	for _, i := range d.t.hashes.LearnProven(found.File, found.Layer) {
		first, end := d.t.layout.PiecesOf(i)
		came := d.hashing.came[i]
		delete(d.hashing.came, i)
		if came == nil && len(d.hashing.seen) == 0 {
			continue
		}
		for piece := first; piece < end; piece++ {
			sum, seen := d.hashing.seen[piece]
			delete(d.hashing.seen, piece)
			want, _ := d.t.hashes.Hash(piece)
			switch {
			case came != nil && came.here.Has(piece-first) && merkle.Hash(came.layer[(piece-first)*merkle.Size:]) != want,
				seen && sum != want && d.picker.Verified().Has(piece):
				d.fail(fmt.Errorf("piece %d: %w", piece, errInconsistent))
				return
			case seen && sum == want:
				if right.Len() == 0 {
					*right = bits.New(d.t.NumPieces())
				}
				right.Add(piece)
			}
		}
	}
	d.disk.resumable = true
	if right.Len() > 0 && !d.hashing.recognising {
		d.hashing.recognising = true
		d.life.tasks.Go(d.recogniseRight)
	}
	d.awaitLayers()
	d.pending.freed = true
	d.signal()
}

// sawRoot takes the root of a piece that has its SHA-1 sum, in a file of a hybrid whose layer is unknown. The roots of all pieces
// of the file make up its layer, which then need not come from a peer.
func (d *Download) sawRoot(piece int, root merkle.Hash) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if want, known := d.t.hashes.Hash(piece); known {
		if want != root {
			return errInconsistent
		}
		return nil
	}
	file, index := d.t.hashes.FileOf(piece)
	r := d.hashing.came[file]
	if r == nil {
		first, end := d.t.layout.PiecesOf(file)
		r = &pieceRoots{make([]byte, (end-first)*merkle.Size), bits.New(end - first)}
		for k := range end - first {
			if sum, seen := d.hashing.seen[first+k]; seen && d.picker.Verified().Has(first+k) {
				r.add(k, sum)
			}
		}
		d.hashing.came[file] = r
	}
	r.add(index, root)
	if !r.here.Full() {
		return nil
	}
	delete(d.hashing.came, file)
	d.mu.Unlock() // it hashes the whole layer
	right := d.t.hashes.Learn(file, r.layer) != nil || d.t.hashes.Known(file)
	d.mu.Lock()
	if !right {
		return errInconsistent
	}
	d.disk.resumable = true
	return nil
}

func (r *pieceRoots) add(index int, root merkle.Hash) {
	copy(r.layer[index*merkle.Size:], root[:])
	r.here.Add(index)
}

// recogniseRight recognises the pieces that wait for it, each time all of them, until none do. Files may be very many, and to hash a few
// pieces takes a pass over all.
func (d *Download) recogniseRight() {
	for {
		d.mu.Lock()
		which := d.hashing.right
		if which.Len() == 0 {
			d.hashing.recognising = false
			d.awaitLayers()
			d.pending.freed = true
			d.unlock(time.Now())
			d.signal()
			return
		}
		d.hashing.right = bits.Set{}
		for i := range which.All() {
			if !d.untouched(i) {
				which.Remove(i)
			}
		}
		d.mu.Unlock()
		d.recognise(which)
	}
}

// recognise marks pieces as verified that were there at the start and whose roots were right. They are hashed again: since then their
// files may have been changed, forgotten as another program's, or moved away from.
func (d *Download) recognise(which bits.Set) {
	err := d.verifyAtStart(d.t.content(), which, func(i int, ok bool) {
		if !ok || d.store.Changed(i) != nil {
			return // it is fetched, as if it had not been there
		}
		err := d.storeVerified(i)
		now := time.Now()
		d.mu.Lock()
		defer d.unlock(now)
		switch {
		case errors.Is(err, storage.ErrChanged):
		case err != nil:
			d.failStorage(err)
		case d.untouched(i):
			d.foundOnDisk(i)
		}
	})
	if err != nil {
		d.endByStorage(fmt.Errorf("check what is there: %w", err))
	}
}

// recogniseFiles hashes what storage has of files of version 2 whose layers are missing. A file that is whole proves its layer by
// its root. The roots found in other files are compared once their layers are known.
func (d *Download) recogniseFiles(content storage.Content, todo func(piece int) bool) error {
	which := d.store.Present(d.life.ctx)
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
	if err := d.verifyAtStart(content, which, func(int, bool) {}); err != nil {
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

// rootRecorder is a storage.Check that records the roots of the pieces that it checks.
type rootRecorder struct {
	*merkle.Hasher
	pieces *piecehash.Pieces
	take   func(piece int, root merkle.Hash)
}

func (r *rootRecorder) Matches(piece int) bool {
	r.take(piece, r.Sum(r.pieces.HeightOf(piece)))
	return false
}
