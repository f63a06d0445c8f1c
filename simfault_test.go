package torrent

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/wire"
)

// simScript is how a simPeer behaves. The zero value is honest: it unchokes whoever is interested
// and answers everything in order.
type simScript struct {
	// Ways to be that are no fault.
	fast  bool // speaks BEP 6
	eager bool // unchokes without being asked
	takes bool // downloads what it lacks

	// Lies.
	corrupt   int  // each so-many-th block is false
	shortens  int  // each so-many-th block has the wrong length
	claimsAll bool // says that it has everything, whatever it has

	// Answers that do not come, or not as they should.
	never         simAbsence
	flap          time.Duration // chokes and unchokes in turn
	dropsSilently bool          // does not reject what it drops, though it speaks BEP 6
	sendsLate     bool          // sends what was asked for in spite of its choke
	twice         bool          // sends every block twice
	rejects       int           // one in so many requests is rejected (BEP 6)
	drip          time.Duration // between two bytes of a block
	stallAfter    int           // blocks; stops in the middle of the next
	resetAfter    int           // blocks on each connection
	leaveAfter    time.Duration // closes each connection so long after it began

	// Bytes that should not be.
	handshake  func(hello []byte) []byte // what it sends instead
	opening    func(*simTruth) []byte  // what it sends instead of its bitfield
	noise      []simNoise                // sent in turn
	noiseEvery time.Duration
	floods     bool // asks for blocks without end
}

// simAbsence is what a peer never does.
type simAbsence uint8

const (
	shakesHands  simAbsence = 1 << iota // takes the connection, and that is all
	unchokes                            // lets nobody ask
	answers                             // lets others ask, and that is all
	readsNothing                        // beyond the handshake
)

// simNoise is something that a peer should not send.
type simNoise struct {
	name  string
	fatal bool // whoever receives it closes the connection
	make  func(*simSession) []byte
}

// simNoises are the ways to send what should not be sent.
var simNoises = []simNoise{
	{"a have out of range", true, func(s *simSession) []byte {
		return wire.AppendHave(nil, uint32(s.peer.content.NumPieces()))
	}},
	{"a have far out of range", true, func(s *simSession) []byte { return wire.AppendHave(nil, 1<<32-1) }},
	{"a bitfield that is too long", true, func(s *simSession) []byte {
		return wire.AppendBitfield(nil, make([]byte, (s.peer.content.NumPieces()+7)/8+1))
	}},
	{"a bitfield that is too short", true, func(s *simSession) []byte {
		return wire.AppendBitfield(nil, make([]byte, (s.peer.content.NumPieces()+7)/8-1))
	}},
	{"a length of 2 GiB", true, func(s *simSession) []byte { return []byte{0x80, 0, 0, 0, 9} }},
	{"a choke with a body", true, func(s *simSession) []byte { return []byte{0, 0, 0, 2, 0, 0} }},
	{"a have without its number", true, func(s *simSession) []byte { return []byte{0, 0, 0, 1, 4} }},
	{"a block of a megabyte", true, func(s *simSession) []byte {
		return wire.AppendPieceHeader(nil, 0, 0, 1<<20)
	}},
	{"a request out of range", true, func(s *simSession) []byte {
		return wire.AppendRequest(nil, uint32(s.peer.content.NumPieces()), 0, blockSize)
	}},
	{"a request of a megabyte", true, func(s *simSession) []byte { return wire.AppendRequest(nil, 0, 0, 1<<20) }},
	{"an unknown message", false, func(s *simSession) []byte { return []byte{0, 0, 0, 3, 99, 1, 2} }},
	{"a long unknown message", false, func(s *simSession) []byte {
		return append(binary.BigEndian.AppendUint32(nil, 5001), append([]byte{77}, make([]byte, 5000)...)...)
	}},
	{"a port", false, func(s *simSession) []byte { return wire.AppendPort(nil, 6881) }},
	{"keep-alives", false, func(s *simSession) []byte { return make([]byte, 400) }},
	{"a late bitfield", false, func(s *simSession) []byte {
		return wire.AppendBitfield(nil, s.peer.have.AppendTo(nil))
	}},
	{"a have again", false, func(s *simSession) []byte {
		for i := range s.peer.have.All() {
			return wire.AppendHave(nil, uint32(i))
		}
		return nil
	}},
	{"unchoke again", false, func(s *simSession) []byte {
		s.choking = false
		return wire.AppendSimple(wire.AppendSimple(nil, wire.Unchoke), wire.Unchoke)
	}},
	{"a cancel of nothing", false, func(s *simSession) []byte { return wire.AppendCancel(nil, 0, 0, blockSize) }},
	{"an unasked block", false, func(s *simSession) []byte {
		return append(wire.AppendPieceHeader(nil, uint32(s.peer.rng.IntN(s.peer.content.NumPieces())), 0, 100), make([]byte, 100)...)
	}},
	{"an unasked true block", false, func(s *simSession) []byte {
		piece := s.peer.rng.IntN(s.peer.content.NumPieces())
		b := s.peer.content.block(uint32(piece), 0, uint32(min(blockSize, s.peer.content.PieceSize(piece))))
		return append(wire.AppendPieceHeader(nil, uint32(piece), 0, uint32(len(b))), b...)
	}},
}

// spareBits is a bitfield that speaks of more pieces than there are, where it has room for them.
func spareBits(c *simTruth) []byte {
	n := (c.NumPieces() + 7) / 8
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xff
	}
	return wire.AppendBitfield(nil, b)
}

// gainsEach makes the peer begin with nothing and come to have what it has piece by piece.
func (p *simPeer) gainsEach(every time.Duration) {
	p.mu.Lock()
	stash := p.have
	p.have = bits.New(stash.Len())
	p.mu.Unlock()
	p.running.Go(func() {
		for i := range stash.All() {
			if !p.wait(every) {
				return
			}
			p.gains(i)
		}
	})
}

// comes makes the peer arrive after a while, and if stays is not 0 leave again and again for a
// while, to come back with another port.
func (p *simPeer) comes(after, stays, away time.Duration) {
	p.running.Go(func() {
		for p.wait(after) && p.arrive() == nil && stays > 0 && p.wait(stays) {
			p.depart()
			after = away
			p.mu.Lock()
			p.port++
			p.mu.Unlock()
		}
	})
}

// calls makes the peer keep n connections to somebody, dialling anew some time after one ended.
func (p *simPeer) calls(n int, to netip.AddrPort, again time.Duration) {
	for range n {
		p.running.Go(func() {
			for p.dial(to); p.wait(again); {
				p.dial(to)
			}
		})
	}
}
