package utp

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// FuzzEndpoint plays what a stranger may send to a connection, while the caller reads, writes and time passes.
func FuzzEndpoint(f *testing.F) {
	f.Add([]byte("\x00\x00\x01\x00\x00\x00\x10\x04\x02\x03\x05\x06"))
	r := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		b := make([]byte, 200)
		for i := range b {
			b[i] = byte(r.IntN(12))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newSimulation(1)
		link := &simLink{s: s}
		n := &node{s: s, out: link, capacity: 20_000}
		n.peer = &node{s: s, out: link}
		n.begin()
		n.e.answer(&packet{header: header{kind: typeSyn, id: 7, seq: 65530}}, 65530, n.now())
		n.act = func() {}
		next := func() (x byte) {
			if len(b) > 0 {
				x, b = b[0], b[1:]
			}
			return x
		}
		for len(b) > 0 {
			switch op := next(); op {
			case 0, 1, 2, 3, 4: // a packet, whose numbers are not far off
				p := packet{header: header{
					kind: packetType(op), id: n.e.recvID, stamp: binary.BigEndian.Uint32([]byte{next(), 0, 0, next()}), diff: uint32(next()) << 10,
					window: uint32(next()) << 12, seq: n.e.in.ack + uint16(int8(next())), ack: n.e.out.nxt - 1 + uint16(int8(next())),
				}}
				p.payload = zeros[:int(next())*10]
				if size := int(next()); size > 0 && size <= len(b) {
					p.ext = extensions{extensionSelective, append([]byte{0, byte(size)}, b[:size]...)}
					b = b[size:]
				}
				n.e.receive(&p, n.now())
			case 5:
				n.e.write(zeros[:int(next())*40], n.now())
			case 6:
				n.e.read(make([]byte, int(next())*40), n.now())
			case 7:
				n.e.closeWrite()
			case 8:
				n.e.close(n.now())
			case 9:
				s.now += time.Duration(next()) * time.Millisecond
				n.e.tick(n.now())
			case 10:
				s.now += time.Duration(next()) * time.Second
				n.e.tick(n.now())
			default:
				var p packet // as it comes
				size := min(headerSize+int(next()), len(b))
				if p.parse(b[:size]) {
					n.e.receive(&p, n.now())
				}
				b = b[size:]
			}
			n.e.transmit(n.now(), n)
			if err := check(n); err != nil {
				t.Fatal(err)
			}
			s.events.Clear()
		}
		n.e.abort(nil)
		n.e.read(make([]byte, 1<<20), n.now())
		if n.memory.lent != 0 {
			t.Fatalf("%d blocks lost", n.memory.lent)
		}
	})
}
