package simpeer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/shoal-go/torrent/internal/wire"
)

// head is the head of a message.
type head struct {
	id                   wire.ID
	index, begin, length uint32 // as far as the message has them; length of a piece is its payload's, index of a don't-have is its piece
}

// donthaveSize is the size of a message that takes a have back (BEP 54): its id, the extension's, and the piece. No other
// extension that is spoken here has messages that short.
const donthaveSize = 6

func (m head) String() string {
	switch m.id {
	case wire.Request, wire.Cancel, wire.Reject, wire.Piece:
		return fmt.Sprintf("%v of %d+%d of piece %d", m.id, m.begin, m.length, m.index)
	case wire.Have, wire.Suggest, wire.AllowedFast:
		return fmt.Sprintf("%v %d", m.id, m.index)
	}
	return m.id.String()
}

// frames cuts one way of a connection into messages. It is a parser of its own, so that the library's parser
// does not judge itself.
type frames struct {
	hear func(head)             // a message, or the head of a piece
	data func(b []byte)         // a part of the payload of a piece
	bits func(at int, b []byte) // payload of a bitfield from byte at on; nil ignores it
	sums func(b []byte)         // a part of the payload of hashes, in order; nil ignores it
	deaf func()                 // called when it turns out that nothing can be understood; nil is not called
	end  func()                 // a piece, or hashes, have come whole
	head [4 + 13]byte           // of the current message
	have int                    // bytes of head
	skip int                    // bytes of the current message still to come
	size int                    // of its payload
	came int                    // bytes of the handshake that came
	mute bool                   // nothing can be understood
	this wire.ID                // of the current message

	hidden bool   // by encryption, as far as the handshake
	before []byte // what came since the beginning, while hidden
}

// protocol is what a connection that is not encrypted begins with.
const protocol = "\x13BitTorrent protocol"

func (f *frames) feed(b []byte) {
	for len(b) > 0 && !f.mute {
		switch {
		case f.hidden:
			f.before = append(f.before, b...)
			b = f.reveal()
		case f.came < wire.HandshakeSize:
			n := min(len(b), wire.HandshakeSize-f.came)
			if k := min(f.came, len(protocol)); k < len(protocol) {
				f.hidden = !strings.HasPrefix(protocol[k:], string(b[:min(n, len(protocol)-k)]))
				if f.hidden {
					f.before = append([]byte(protocol[:k]), b...)
					b = f.reveal()
					continue
				}
			}
			f.came, b = f.came+n, b[n:]
		case f.skip > 0:
			n := min(len(b), f.skip)
			if f.this == wire.Piece && f.data != nil {
				f.data(b[:n])
			} else if f.this == wire.Bitfield && f.bits != nil {
				f.bits(f.size-f.skip, b[:n])
			} else if f.this == wire.Hashes && f.sums != nil {
				f.sums(b[:n])
			}
			f.skip, b = f.skip-n, b[n:]
			f.finish()
		default:
			size := 0
			if f.have >= 4 {
				size = int(binary.BigEndian.Uint32(f.head[:]))
			}
			want := 4 + min(size, 13)
			if f.have >= 5 && f.head[4] == byte(wire.Piece) {
				want = 4 + min(size, 9)
			}
			if f.have == 4 && size > 0 {
				want = 5
			}
			n := copy(f.head[f.have:want], b)
			f.have, b = f.have+n, b[n:]
			if f.have == want {
				f.heard(want)
			}
		}
	}
}

// reveal finds where an encrypted handshake is over and plain text begins. Two ends that only prefer
// encryption hide no more than the handshake. The end that was called goes on with the handshake of BEP 3, the
// end that called with its extension handshake (BEP 10) or the bitfield before that. It returns what has come
// of the plain text.
func (f *frames) reveal() []byte {
	rest := f.before
	if at := bytes.Index(rest, []byte(protocol)); at >= 0 {
		rest = rest[at:]
	} else if at := extended.FindIndex(rest); at != nil {
		begin := at[0]
		for k := range min(begin-4, 1<<10) { // bytes of a bitfield; have all has none
			head := rest[begin-k-5:]
			if size := binary.BigEndian.Uint32(head); size == uint32(k+1) && (head[4] == byte(wire.Bitfield) || k == 0 && head[4] == byte(wire.HaveAll)) {
				begin -= k + 5
				break
			}
		}
		rest, f.came = rest[begin:], wire.HandshakeSize
	} else {
		if f.mute = len(rest) > 4<<10; f.mute && f.deaf != nil {
			f.deaf()
		}
		return nil
	}
	f.hidden, f.before = false, nil
	return rest
}

// extended matches the beginning of an extension handshake (BEP 10).
var extended = regexp.MustCompile(`(?s)\x00\x00..\x14\x00d1:`)

// heard acts when as many bytes of the head have come as were wanted.
func (f *frames) heard(have int) {
	size := int(binary.BigEndian.Uint32(f.head[:]))
	switch {
	case have == 4 && size > 0, have == 5 && size > 1:
		return // more to come
	case size == 0:
		f.have = 0
		return
	}
	m := head{id: wire.ID(f.head[4])}
	f.this = m.id
	number := func(at int) uint32 {
		if have < at+4 {
			return 0
		}
		return binary.BigEndian.Uint32(f.head[at:])
	}
	m.index, m.begin, m.length = number(5), number(9), number(13)
	switch {
	case m.id == wire.Piece:
		m.length = uint32(max(0, size-9))
	case m.id == wire.Extended && size == donthaveSize:
		m.index = number(6)
	case m.id == wire.Extended:
		m.index = math.MaxUint32
	}
	f.skip, f.size = size+4-have, size-1
	if f.this == wire.Bitfield && f.bits != nil {
		f.bits(0, f.head[5:have])
	}
	f.hear(m)
	if f.this == wire.Hashes && f.sums != nil {
		f.sums(f.head[5:have])
	}
	f.finish()
}

// finish ends the message if nothing of it is still to come.
func (f *frames) finish() {
	if f.skip > 0 {
		return
	}
	f.have = 0
	if (f.this == wire.Piece || f.this == wire.Hashes) && f.end != nil {
		f.end()
	}
}
