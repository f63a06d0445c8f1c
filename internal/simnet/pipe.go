package simnet

import (
	"sync"
	"syscall"
)

// pipe is one way of a connection:
//
//	Write → sender's uplink → latency → receiver's downlink → arrived → Read
//
// At most window bytes are under way between Write and Read; a Write of more waits.
type pipe struct {
	net      *Network
	from, to *Host
	first    *flow // where Write puts segments
	segment  int   // bytes of a full segment
	window   int
	under    int   // bytes written and not yet read
	sent     int64 // bytes delivered to arrived

	arrived  []segment
	eof      bool  // arrived ends with the end of the stream
	readErr  error // what Read says once arrived is empty
	writeErr error // what Write says
	fin      bool  // nothing may be written any more
	canRead  *sync.Cond
	canWrite *sync.Cond
	deaf     bool // the reading end is closed; what arrives is dropped
	fault    Fault
	reset    func()   // resets the connection
	free     [][]byte // buffers of full segments that were read, to be used again
}

// pipe makes one way of a connection. The caller holds n.mu.
func (n *Network) pipe(from, to *Host) *pipe {
	p := &pipe{net: n, from: from, to: to, canRead: sync.NewCond(&n.mu), canWrite: sync.NewCond(&n.mu)}
	latency := delay(from, to)
	down := &flow{link: to.down, next: p.arrive}
	fly := func(s segment) { n.After(latency, func() { down.send(s) }) }
	if latency == 0 {
		fly = down.send
	}
	p.first = &flow{link: from.up, next: fly}
	slowest := slower(from.up.rate, to.down.rate)
	// A segment takes about 15 ms on the slowest link, so that latency stays true where it matters
	// and a fast link is simulated in few steps.
	p.segment = 64 << 10
	if slowest > 0 {
		p.segment = min(max(int(slowest/64), 1460), 64<<10)
	}
	// TCP tunes its buffers to about twice what is on its way in a round trip.
	p.window = from.Buffer
	if p.window == 0 {
		p.window = 4 << 20
		if slowest > 0 {
			p.window = min(max(int(2*slowest*(2*latency).Seconds()), 64<<10), 4<<20)
		}
	}
	return p
}

// slower is the lower of two rates, of which 0 is no limit.
func slower(a, b float64) float64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// push takes as much of b as the window has room for. The caller holds p.net.mu.
func (p *pipe) push(b []byte) int {
	n := min(len(b), p.window-p.under)
	b = b[:n]
	p.under += n
	for len(b) > 0 {
		// Small messages written one by one travel together while they wait for the link.
		if q := p.first.queue; len(q) > 0 {
			last := &q[len(q)-1]
			if room := min(p.segment-len(last.b), len(b)); room > 0 {
				last.b = append(last.b, b[:room]...)
				b = b[room:]
				continue
			}
		}
		k := min(len(b), p.segment)
		var s []byte
		switch i := len(p.free) - 1; {
		case k < 1024: // a message or two, not bulk
		case i >= 0:
			s, p.free = p.free[i], p.free[:i]
		default:
			s = make([]byte, 0, p.segment)
		}
		p.first.send(segment{b: append(s, b[:k]...)})
		b = b[k:]
	}
	return n
}

// arrive takes a segment at the end of its way. The caller holds p.net.mu.
func (p *pipe) arrive(s segment) {
	if p.from.cut || p.to.cut || p.readErr != nil || p.eof {
		return
	}
	if s.fin {
		p.eof = true
		p.canRead.Broadcast()
		return
	}
	if p.deaf {
		p.under -= len(s.b)
		p.canWrite.Broadcast()
		return
	}
	end := p.fault.end()
	if end > 0 {
		s.b = s.b[:min(int64(len(s.b)), max(0, end-p.sent))]
	}
	p.sent += int64(len(s.b))
	if len(s.b) > 0 {
		p.arrived = append(p.arrived, s)
		p.canRead.Broadcast()
	}
	if end == 0 || p.sent < end {
		return
	}
	switch end {
	case p.fault.FinAfter:
		p.eof = true
	case p.fault.ResetAfter:
		p.failRead(syscall.ECONNRESET)
		p.reset()
	}
}

// pull moves what has arrived to b. The caller holds p.net.mu.
func (p *pipe) pull(b []byte) int {
	total := 0
	for len(b) > 0 && len(p.arrived) > 0 {
		s := &p.arrived[0]
		n := copy(b, s.b[s.read:])
		b, total = b[n:], total+n
		if s.read += n; s.read < len(s.b) {
			break
		}
		if cap(s.b) == p.segment {
			p.free = append(p.free, s.b[:0])
		}
		p.arrived[0] = segment{}
		p.arrived = p.arrived[1:]
	}
	p.under -= total
	if p.under <= p.window*2/3 {
		p.canWrite.Broadcast()
	}
	return total
}

// failRead breaks the pipe for its reader, which still gets what has arrived. The caller holds p.net.mu.
func (p *pipe) failRead(err error) {
	if p.readErr == nil {
		p.readErr = err
	}
	p.canRead.Broadcast()
}

// failWrite breaks the pipe for its writer. The caller holds p.net.mu.
func (p *pipe) failWrite(err error) {
	if p.writeErr == nil {
		p.writeErr = err
	}
	p.canWrite.Broadcast()
}
