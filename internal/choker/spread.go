package choker

const (
	// In place of the number of a peer, which begins at 1.
	unassigned = 0
	toSeveral  = -1
	// hoardPieces is how many pieces a peer may keep to itself before it counts as a hoarder.
	hoardPieces = 4
)

// A Spread tracks whether peers pass on the pieces that a seed gives them first. The seed cannot see what its peers
// give each other. But a peer that is given a piece that no other has, and shares it, is soon seen to have passed it
// on: others have it, which did not get it here. A free rider's pieces stay where they are, and the swarm waits for
// the seed to send them again. The zero value is ready.
type Spread struct {
	to    []int32         // by piece: the number of the one peer that was given it when no other had it
	gifts map[int32]*gift // by the peer's number
}

// gift is what one peer was given when no other had it.
type gift struct{ given, passed int } // pieces, and how many of them others have got since

// Give records that a peer asks for piece i, of so many pieces. avail is how many others have it.
func (s *Spread) Give(peer, i, pieces int, avail uint16) {
	if s.to == nil {
		s.to = make([]int32, pieces)
		s.gifts = make(map[int32]*gift)
	}
	switch to := s.to[i]; {
	case to == unassigned && avail == 0:
		s.to[i] = int32(peer)
		if s.gifts[int32(peer)] == nil {
			s.gifts[int32(peer)] = new(gift)
		}
		s.gifts[int32(peer)].given++
	case to != int32(peer):
		s.to[i] = toSeveral // it will not be known which of them passed it on
	}
}

// Seen records that a peer has piece i.
func (s *Spread) Seen(peer, i int) {
	if s.to == nil || s.to[i] == int32(peer) {
		return
	}
	if g := s.gifts[s.to[i]]; g != nil {
		g.passed++
	}
	s.to[i] = toSeveral
}

// Forget records that a peer has left.
func (s *Spread) Forget(peer int) { delete(s.gifts, int32(peer)) }

// Hoards reports whether a peer keeps what it was given: a free rider, or a peer that no other can connect to.
func (s *Spread) Hoards(peer int, pieceLength int64) bool {
	g := s.gifts[int32(peer)]
	return g != nil && int64(g.given-creditFactor*g.passed)*pieceLength > max(creditAtFirst, hoardPieces*pieceLength)
}

// reclaim reports whether piece i was given to a hoarder alone. From then on it no longer counts as given
// to that peer.
func (s *Spread) reclaim(i int, pieceLength int64) bool {
	if s.to == nil || s.to[i] == unassigned || !s.Hoards(int(s.to[i]), pieceLength) {
		return false
	}
	s.to[i] = toSeveral
	return true
}
