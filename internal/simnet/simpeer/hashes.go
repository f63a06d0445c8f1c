package simpeer

import (
	"bytes"
	"time"

	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/wire"
)

const (
	// maxHashesRequested is how many hashes of a layer one request may ask for, in libtorrent's eyes.
	maxHashesRequested = 512
	// maxHashesAsked is how often one that asks for hashes does so on a connection, and hashesEvery is how often in time.
	maxHashesAsked = 20
	hashesEvery    = 700 * time.Millisecond
)

// hearHashes acts on a message of version 2 (BEP 52). The caller holds s.peer.mu.
func (s *session) hearHashes(m wire.Message) {
	r, hashes := wire.ParseHashRequest(m.Payload)
	if m.ID == wire.AskHashes {
		s.hashesRequested(r)
		return
	}
	p := s.peer
	if !s.askedHashes[r] && len(p.Noise) > 0 {
		return
	}
	if !s.askedHashes[r] {
		p.blameLocked("%v that was never asked for", m.ID)
		return
	}
	delete(s.askedHashes, r)
	if m.ID == wire.Hashes && !merkle.Prove(r.Root, p.content.height(p.content.files[r.Root]), inTree(r), hashes) {
		p.blameLocked("false hashes: %+v", r)
	}
}

func inTree(r wire.HashRequest) merkle.Request {
	return merkle.Request{Base: int(r.Base), Index: int(r.Index), Length: int(r.Length), Proofs: int(r.Proofs)}
}

// hashesRequested answers a hash request. Those of blocks it has if it has their piece. The caller holds s.peer.mu.
func (s *session) hashesRequested(r wire.HashRequest) {
	p := s.peer
	c, q := p.content, inTree(r)
	file, known := c.files[r.Root]
	if !known || q.Length > maxHashesRequested || !q.Sound(c.height(file)) {
		p.blameLocked("a hash request that cannot be answered: %+v", r)
		return
	}
	first, end := c.PiecesOf(file)
	piece := first + q.Index<<q.Base>>c.level()
	switch {
	case p.Never&AnswersHashes != 0:
	case p.RefusesHashes, q.Base < c.level() && (piece >= end || !p.Have.Has(piece)):
		s.say(wire.AppendHashReject(nil, r))
	default:
		hashes := c.trees[file].Append(nil, q)
		if p.hashes++; p.CorruptHashes > 0 && p.hashes%p.CorruptHashes == 0 {
			hashes[p.rng.IntN(len(hashes))] ^= 0x5a
		}
		s.say(wire.AppendHashes(nil, r, hashes))
	}
}

// trueHashes reports whether the payload of hashes is what the content has.
func (c *Content) trueHashes(payload []byte) bool {
	if len(payload) < 48 {
		return false
	}
	r, hashes := wire.ParseHashRequest(payload)
	file, known := c.files[r.Root]
	return known && inTree(r).Sound(c.height(file)) && bytes.Equal(hashes, c.trees[file].Append(nil, inTree(r)))
}

// askForHashes asks for the hashes of the blocks of a piece that the other end has, or for a part of the piece layer around it.
// The caller holds s.peer.mu.
func (s *session) askForHashes() {
	p := s.peer
	c := p.content
	if s.hashesLeft == 0 || s.theirs.Count() == 0 {
		return
	}
	piece := p.rng.IntN(c.NumPieces())
	file := c.FileAt(c.PieceOffset(piece))
	first, _ := c.PiecesOf(file)
	q := merkle.Request{Base: 0, Index: (piece - first) << c.level(), Length: 1 << min(c.level(), c.height(file))}
	if p.rng.IntN(2) == 0 && c.height(file) > c.level() {
		q = merkle.Request{Base: c.level(), Index: (piece - first) &^ 1, Length: 2}
	}
	q.Proofs = c.height(file) - 1 - q.Base
	r := wire.HashRequest{Root: c.Root(file), Base: uint32(q.Base), Index: uint32(q.Index), Length: uint32(q.Length), Proofs: uint32(q.Proofs)}
	if !s.theirs.Has(piece) || !q.Sound(c.height(file)) || s.askedHashes[r] {
		return
	}
	s.hashesLeft--
	s.askedHashes[r] = true
	s.say(wire.AppendHashRequest(nil, r))
}
