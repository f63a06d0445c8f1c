package simpeer

import (
	"bytes"
	"slices"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/wire"
)

// maxAsked is how many blocks a peer may be asked for at once if it does not say (reqq, BEP 10).
const maxAsked = 250

// read acts on what the other end sends until the connection is over.
func (s *session) read() error {
	p := s.peer
	r := wire.NewReader(s.conn, 1<<20)
	block := make([]byte, wire.MaxBlock)
	for {
		m, err := r.Next()
		if err != nil {
			return err
		}
		if m.ID == wire.Piece {
			if err := r.ReadBlock(block[:m.Length]); err != nil {
				return err
			}
		}
		p.mu.Lock()
		s.hear(m, block)
		s.heard++
		s.ask()
		p.mu.Unlock()
	}
}

// hear acts on one message. The caller holds s.peer.mu.
func (s *session) hear(m wire.Message, block []byte) {
	p := s.peer
	switch m.ID {
	case wire.Interested, wire.NotInterested:
		if s.interested == (m.ID == wire.Interested) {
			p.blameLocked("said twice: %v", m.ID)
		}
		s.interested = m.ID == wire.Interested
		if s.interested && s.choking && p.Flap == 0 && p.Never&Unchokes == 0 {
			s.choking = false
			s.say(wire.AppendSimple(nil, wire.Unchoke))
		}
	case wire.Request:
		s.request(request{m.Index, m.Begin, m.Length})
	case wire.Cancel:
		q := request{m.Index, m.Begin, m.Length}
		s.cancelled[q] = true
		if i := slices.Index(s.queue, q); i >= 0 {
			s.queue = slices.Delete(s.queue, i, i+1)
			s.late = max(0, s.late-1)
			if s.fast && !p.DropsSilently {
				s.say(wire.AppendReject(nil, m.Index, m.Begin, m.Length))
			}
		}
	case wire.Have:
		if int64(m.Index) >= int64(p.content.NumPieces()) {
			p.blameLocked("have of piece %d of %d", m.Index, p.content.NumPieces())
			return
		}
		s.theirs.Add(int(m.Index))
	case wire.Bitfield:
		if s.heard > 0 {
			p.blameLocked("a bitfield as message %d", s.heard)
		}
		has, err := bits.Parse(m.Payload, p.content.NumPieces())
		if err != nil {
			p.blameLocked("%v", err)
			return
		}
		s.theirs = has
	case wire.HaveAll:
		s.theirs = bits.Full(p.content.NumPieces())
		if !s.fast || s.heard > 0 {
			p.blameLocked("have all as message %d, fast is %t", s.heard, s.fast)
		}
	case wire.HaveNone, wire.Suggest, wire.AllowedFast, wire.Reject:
		if !s.fast {
			p.blameLocked("%v without BEP 6", m.ID)
		}
		if m.ID == wire.Reject && !s.choked && slices.Contains(s.asked, request{m.Index, m.Begin, m.Length}) {
			s.say(wire.AppendRequest(nil, m.Index, m.Begin, m.Length)) // again
		}
	case wire.Choke:
		s.choked, s.asked, s.remaining = true, nil, nil
	case wire.Unchoke:
		s.choked = false
	case wire.Piece:
		s.take(m, block[:m.Length])
	case wire.AskHashes, wire.Hashes, wire.HashReject:
		if !s.v2 && (m.ID != wire.HashReject || len(p.Noise) == 0) { // some noise is a hash request
			p.blameLocked("%v without version 2", m.ID)
			return
		}
		s.hearHashes(m)
	}
}

// request queues a block that was asked for. The caller holds s.peer.mu.
func (s *session) request(q request) {
	p := s.peer
	c := p.content
	if c.Block(q.index, q.begin, q.length) == nil || q.begin%layout.BlockSize != 0 ||
		int64(q.length) != min(layout.BlockSize, c.PieceSize(int(q.index))-int64(q.begin)) {
		p.blameLocked("request of %d bytes at %d of piece %d", q.length, q.begin, q.index)
		return
	}
	if !p.ClaimsAll && p.Opening == nil && len(p.Noise) == 0 && !p.Have.Has(int(q.index)) {
		p.blameLocked("request of piece %d, which it never said it had", q.index)
	}
	switch {
	case p.Never&Answers != 0:
	case s.choking:
		// They may not have read the choke yet. Only with BEP 6 does the request need an answer.
		if s.fast && !p.DropsSilently {
			s.say(wire.AppendReject(nil, q.index, q.begin, q.length))
		}
	case p.Scatters && s.fast && q.begin > 0, p.Rejects > 0 && s.fast && p.rng.IntN(p.Rejects) == 0:
		s.say(wire.AppendReject(nil, q.index, q.begin, q.length))
	default:
		// Where a cancel crossed its block, or a block is sent unasked, the other end may have taken the block
		// for the answer to another request.
		if slices.Contains(s.queue, q) && !s.cancelled[q] && p.Flap == 0 && len(p.Noise) == 0 {
			p.blameLocked("asked twice for %v", q)
		}
		if len(s.queue) >= maxAsked && p.Flap == 0 {
			p.blameLocked("more than %d blocks asked for at once", maxAsked)
		}
		s.queue = append(s.queue, q)
		s.wake.Broadcast()
	}
}

// ask keeps requests under way if the script takes from others. The caller holds s.peer.mu.
func (s *session) ask() {
	p := s.peer
	if !p.Takes {
		return
	}
	if !s.wanting && s.theirs.Count() > 0 {
		s.wanting = true
		s.say(wire.AppendSimple(nil, wire.Interested))
	}
	for !s.choked && len(s.asked) < 16 {
		if len(s.remaining) == 0 {
			for i := range s.theirs.All() {
				if !p.Have.Has(i) && !s.taking(i) {
					s.remaining = append(s.remaining, i)
				}
			}
			if len(s.remaining) == 0 {
				return
			}
			p.rng.Shuffle(len(s.remaining), func(i, j int) {
				s.remaining[i], s.remaining[j] = s.remaining[j], s.remaining[i]
			})
		}
		last := len(s.remaining) - 1
		piece := s.remaining[last]
		s.remaining = s.remaining[:last]
		for begin, size := int64(0), p.content.PieceSize(piece); begin < size; begin += layout.BlockSize {
			q := request{uint32(piece), uint32(begin), uint32(min(layout.BlockSize, size-begin))}
			s.asked = append(s.asked, q)
			s.say(wire.AppendRequest(nil, q.index, q.begin, q.length))
		}
	}
}

// taking reports whether blocks of a piece are under way to us. The caller holds s.peer.mu.
func (s *session) taking(piece int) bool {
	return slices.ContainsFunc(s.asked, func(q request) bool { return int(q.index) == piece })
}

// take checks a block that the other end sent. The caller holds s.peer.mu.
func (s *session) take(m wire.Message, b []byte) {
	p := s.peer
	q := request{m.Index, m.Begin, m.Length}
	i := slices.Index(s.asked, q)
	switch {
	case !bytes.Equal(b, p.content.Block(m.Index, m.Begin, m.Length)):
		p.blameLocked("a false block of piece %d at %d", m.Index, m.Begin)
	case i < 0 && (s.choked || p.Floods):
	case i < 0:
		p.blameLocked("a block of piece %d at %d that was never asked for", m.Index, m.Begin)
	default:
		p.taken += int64(len(b))
		s.asked = slices.Delete(s.asked, i, i+1)
		if !s.taking(int(m.Index)) {
			p.gain(int(m.Index))
		}
	}
}

// Gain gives the peer one more piece, which it announces to every connection.
func (p *Peer) Gain(piece int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gain(piece)
}

// gain is Gain under the mutex. The caller holds p.mu.
func (p *Peer) gain(piece int) {
	if !p.Have.Add(piece) {
		return
	}
	for _, s := range p.sessions {
		s.say(wire.AppendHave(nil, uint32(piece)))
	}
}
