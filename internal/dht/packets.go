package dht

import "net/netip"

// packets are datagrams that wait to be sent, one behind the other in a buffer.
type packets struct {
	buf  []byte
	list []packet
}

type packet struct {
	to  netip.AddrPort
	end int // in the buffer
}

func (p *packets) add(b []byte, to netip.AddrPort) {
	p.buf = append(p.buf, b...)
	p.list = append(p.list, packet{to, len(p.buf)})
}

// each yields the datagrams in their order.
func (p *packets) each(yield func(b []byte, to netip.AddrPort) bool) {
	start := 0
	for _, one := range p.list {
		if !yield(p.buf[start:one.end:one.end], one.to) {
			return
		}
		start = one.end
	}
}

func (p *packets) reset() { p.buf, p.list = p.buf[:0], p.list[:0] }
