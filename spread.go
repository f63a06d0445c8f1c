package torrent

const (
	// In place of the number of a peer, which begins with 1.
	toNobody  = 0
	toSeveral = -1
	// hoardPieces is how many pieces a peer may at least have for itself before it hoards.
	hoardPieces = 4
)

// A spread follows what becomes of the pieces that a seed gives away first. The seed cannot see what its
// peers give each other; but who is given a piece that nobody else has, and shares, is soon seen to have
// passed it on: others have it, who did not get it here. A free rider's pieces stay where they are, and
// the swarm waits for the seed to send them again. The download's mutex guards it.
type spread struct {
	to    []int32         // by piece: the number of the one peer that was given it when nobody had it
	gifts map[int32]*gift // by the peer's number
}

// gift is what one peer was given when nobody else had it.
type gift struct{ given, passed int } // pieces, and how many of them others have come by since

// give notes that a peer asks for piece i, of pieces, which as many others have as avail says.
func (s *spread) give(peer, i, pieces int, avail uint16) {
	if s.to == nil {
		s.to = make([]int32, pieces)
		s.gifts = make(map[int32]*gift)
	}
	switch to := s.to[i]; {
	case to == toNobody && avail == 0:
		s.to[i] = int32(peer)
		if s.gifts[int32(peer)] == nil {
			s.gifts[int32(peer)] = new(gift)
		}
		s.gifts[int32(peer)].given++
	case to != int32(peer):
		s.to[i] = toSeveral // whom others have it from will not be known
	}
}

// seen notes that a peer has piece i.
func (s *spread) seen(peer, i int) {
	if s.to == nil || s.to[i] == int32(peer) {
		return
	}
	if g := s.gifts[s.to[i]]; g != nil {
		g.passed++
	}
	s.to[i] = toSeveral
}

// forget takes note that a peer has left.
func (s *spread) forget(peer int) { delete(s.gifts, int32(peer)) }

// hoards tells whether a peer keeps what it was given: a free rider, or one that nobody can connect to.
func (s *spread) hoards(peer int, pieceLength int64) bool {
	g := s.gifts[int32(peer)]
	return g != nil && int64(g.given-creditFactor*g.passed)*pieceLength > max(creditAtFirst, hoardPieces*pieceLength)
}

// takeBack tells whether piece i was given to a hoarder alone, and is from now on nobody's to pass on.
func (s *spread) takeBack(i int, pieceLength int64) bool {
	if s.to == nil || s.to[i] == toNobody || !s.hoards(int(s.to[i]), pieceLength) {
		return false
	}
	s.to[i] = toSeveral
	return true
}
