package simpeer

import (
	"encoding/binary"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/wire"
)

// Noise is something that a peer should not send.
type Noise struct {
	name  string
	fatal bool // a receiver closes the connection
	make  func(*session) []byte
}

// Noises returns every noise there is.
func Noises() []Noise {
	return []Noise{
		{"a have out of range", true, func(s *session) []byte {
			return wire.AppendHave(nil, uint32(s.peer.content.NumPieces()))
		}},
		{"a have far out of range", true, func(s *session) []byte { return wire.AppendHave(nil, 1<<32-1) }},
		{"a bitfield that is too long", true, func(s *session) []byte {
			return wire.AppendBitfield(nil, make([]byte, (s.peer.content.NumPieces()+7)/8+1))
		}},
		{"a bitfield that is too short", true, func(s *session) []byte {
			return wire.AppendBitfield(nil, make([]byte, (s.peer.content.NumPieces()+7)/8-1))
		}},
		{"a length of 2 GiB", true, func(s *session) []byte { return []byte{0x80, 0, 0, 0, 9} }},
		{"a choke with a body", true, func(s *session) []byte { return []byte{0, 0, 0, 2, 0, 0} }},
		{"a have without its number", true, func(s *session) []byte { return []byte{0, 0, 0, 1, 4} }},
		{"a block of a megabyte", true, func(s *session) []byte {
			return wire.AppendPieceHeader(nil, 0, 0, 1<<20)
		}},
		{"a request out of range", true, func(s *session) []byte {
			return wire.AppendRequest(nil, uint32(s.peer.content.NumPieces()), 0, layout.BlockSize)
		}},
		{"a request of a megabyte", true, func(s *session) []byte { return wire.AppendRequest(nil, 0, 0, 1<<20) }},
		{"an unknown message", false, func(s *session) []byte { return []byte{0, 0, 0, 3, 99, 1, 2} }},
		{"a long unknown message", false, func(s *session) []byte {
			return append(binary.BigEndian.AppendUint32(nil, 5001), append([]byte{77}, make([]byte, 5000)...)...)
		}},
		{"a port", false, func(s *session) []byte { return wire.AppendPort(nil, 6881) }},
		{"keep-alives", false, func(s *session) []byte { return make([]byte, 400) }},
		{"a late bitfield", false, func(s *session) []byte {
			return wire.AppendBitfield(nil, s.peer.Have.AppendTo(nil))
		}},
		{"a have again", false, func(s *session) []byte {
			for i := range s.peer.Have.All() {
				return wire.AppendHave(nil, uint32(i))
			}
			return nil
		}},
		{"unchoke again", false, func(s *session) []byte {
			s.choking = false
			return wire.AppendSimple(wire.AppendSimple(nil, wire.Unchoke), wire.Unchoke)
		}},
		{"a cancel of nothing", false, func(s *session) []byte { return wire.AppendCancel(nil, 0, 0, layout.BlockSize) }},
		{"an unasked block", false, func(s *session) []byte {
			return append(wire.AppendPieceHeader(nil, uint32(s.peer.rng.IntN(s.peer.content.NumPieces())), 0, 100), make([]byte, 100)...)
		}},
		{"an unasked true block", false, func(s *session) []byte {
			piece := s.peer.rng.IntN(s.peer.content.NumPieces())
			b := s.peer.content.Block(uint32(piece), 0, uint32(min(layout.BlockSize, s.peer.content.PieceSize(piece))))
			return append(wire.AppendPieceHeader(nil, uint32(piece), 0, uint32(len(b))), b...)
		}},
		{"a hash request that is too short", true, func(s *session) []byte { return []byte{0, 0, 0, 3, byte(wire.AskHashes), 1, 2} }},
		{"a hash request of no file", false, func(s *session) []byte {
			return wire.AppendHashRequest(nil, wire.HashRequest{Root: [32]byte{1}, Length: 2})
		}},
		{"a hash request far out of range", false, func(s *session) []byte {
			r := wire.HashRequest{Base: 1 << 31, Index: 1 << 31, Length: 1 << 31, Proofs: 1 << 31}
			for i, tree := range s.peer.content.trees {
				if tree != nil {
					r.Root = s.peer.content.Root(i)
				}
			}
			return wire.AppendHashRequest(nil, r)
		}},
		{"hashes unasked", false, func(s *session) []byte {
			return wire.AppendHashes(nil, wire.HashRequest{Root: [32]byte{1}, Length: 2}, make([]byte, 2*merkle.Size))
		}},
	}
}

// SpareBits is a bitfield whose spare bits are set, an Opening that closes the connection (BEP 3).
func SpareBits(c *Content) []byte {
	n := (c.NumPieces() + 7) / 8
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xff
	}
	return wire.AppendBitfield(nil, b)
}
