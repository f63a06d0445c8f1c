package utp

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	histories = flag.Uint64("histories", 1000, "how many random histories to draw")
	from      = flag.Uint64("from", 1, "the first of them")
	history   = flag.Uint64("history", 0, "the one history to draw again")
)

// party is the caller of one end: it writes a stream that its number and a position tell, and reads what
// the other writes.
type party struct {
	n       *node
	name    string
	seed    byte
	total   int // to write
	written int
	read    int
	expect  *party
	failed  string
	left    bool // it has closed its end
	slow    time.Duration
	readAt  time.Duration
	largest int // bytes of one write or read
	scratch []byte
}

func (p *party) buffer(n int) []byte {
	if cap(p.scratch) < n {
		p.scratch = make([]byte, n)
	}
	return p.scratch[:n]
}

func (p *party) octet(i int) byte { return byte(i)*7 + byte(i>>8)*13 + byte(i>>16) + p.seed }

func (p *party) act() {
	e, r := p.n.e, p.n.s.rand
	if p.left || p.failed != "" {
		return
	}
	for p.written < p.total {
		b := p.buffer(min(1+r.IntN(p.largest), p.total-p.written))
		for i := range b {
			b[i] = p.octet(p.written + i)
		}
		n := e.write(b, p.n.now())
		p.written += n
		if n < len(b) {
			break
		}
	}
	if p.written == p.total && e.state == connected {
		e.closeWrite()
	}
	if p.n.s.now >= p.readAt {
		p.readAt = p.n.s.now + time.Duration(r.Int64N(int64(p.slow)+1))
		b := p.buffer(1 + r.IntN(p.largest) + p.expect.total/100)
		for {
			n := e.read(b, p.n.now())
			for i := range n {
				if b[i] != p.expect.octet(p.read+i) {
					p.failed = fmt.Sprintf("octet %d is false", p.read+i)
					return
				}
			}
			p.read += n
			if n == 0 || p.slow > 0 {
				break
			}
		}
		if e.eof() && e.finished && !p.left {
			p.left = true
			e.close(p.n.now())
		}
		if p.slow > 0 && !p.left {
			p.n.s.after(p.readAt-p.n.s.now+1, p.n.step)
		}
	}
	if e.state == closed && e.err != nil {
		p.failed = "closed: " + e.err.Error()
	}
}

var reset = "closed: " + errReset.Error()

// gaveUp reports whether a party that has closed its end waited in vain for the other to hear of it.
func (p *party) gaveUp() bool {
	return p.left && p.n.gaveUp && p.n.now()-p.n.e.loss.progress >= lingerFor
}

// drawLink draws a path one way.
func drawLink(s *simulation) *simLink {
	r := s.rand
	l := &simLink{s: s, delay: time.Duration(r.Int64N(int64(100 * time.Millisecond))), fragments: true}
	if r.IntN(2) == 0 {
		l.rate = float64(int(20e3) << r.IntN(10))
		l.buffer = 3000 << r.IntN(10)
	}
	if r.IntN(3) == 0 {
		l.loss = r.Float64() * 0.15
	}
	if r.IntN(3) == 0 {
		l.reorder, l.reorderBy = r.Float64()*0.3, time.Duration(r.Int64N(int64(50*time.Millisecond)))
	}
	if r.IntN(3) == 0 {
		l.duplicate = r.Float64() * 0.2
	}
	if r.IntN(4) == 0 {
		l.jitter = time.Duration(1 + r.Int64N(int64(20*time.Millisecond)))
	}
	if r.IntN(3) == 0 {
		l.mtu = 600 + r.IntN(900)
	}
	return l
}

// change changes a path, as when a host moves to another network.
func (l *simLink) change() {
	n := drawLink(l.s)
	l.delay, l.mtu, l.loss, l.rate, l.buffer, l.jitter = n.delay, n.mtu, n.loss, n.rate, n.buffer, n.jitter
}

func runHistory(seed uint64) error {
	s := newSimulation(seed)
	r := s.rand
	there, back := drawLink(s), drawLink(s)
	a, b := s.connect(there, back)
	var parties [2]*party
	for i, n := range []*node{a, b} {
		p := &party{n: n, name: string(rune('a' + i)), seed: byte(r.Uint32()), largest: 1 << r.IntN(17)}
		if r.IntN(4) > 0 {
			p.total = r.IntN(1 << (8 + r.IntN(12)))
		}
		if r.IntN(3) == 0 {
			p.slow = 100*time.Microsecond + time.Duration(r.Int64N(int64(20*time.Millisecond)))
		}
		n.offset = time.Duration(r.Int64N(int64(time.Hour)))
		if r.IntN(4) == 0 {
			n.offset += (1<<32 - 1) * time.Microsecond * time.Duration(1+r.IntN(2)) // its stamps go round soon
			n.offset -= n.offset % (1 << 32 * time.Microsecond)
			n.offset -= time.Duration(r.Int64N(int64(3 * time.Second)))
		}
		n.skew = (r.Float64() - 0.5) * 0.0004
		if r.IntN(3) == 0 {
			n.capacity = 1 + r.IntN(100_000)
		}
		n.act = p.act
		parties[i] = p
	}
	parties[0].expect, parties[1].expect = parties[1], parties[0]
	a.ipv6 = r.IntN(2) == 0
	b.ipv6 = a.ipv6
	if r.IntN(3) == 0 {
		a.local, b.local = true, r.IntN(4) > 0
		for _, n := range []*node{a, b} {
			if r.IntN(2) == 0 {
				n.device = 1500 + r.IntN(20_000)
			}
			if r.IntN(4) == 0 {
				n.out.mtu = 1500 + r.IntN(20_000)
			}
		}
	}
	a.dial()
	if r.IntN(3) == 0 {
		s.after(time.Duration(r.Int64N(int64(2*time.Second))), func() { there.change(); back.change() })
	}
	if r.IntN(8) == 0 { // nothing passes for a while
		from, lasts := time.Duration(r.Int64N(int64(2*time.Second))), time.Duration(r.Int64N(int64(20*time.Second)))
		s.after(from, func() {
			old := there.loss
			there.loss = 1
			s.after(lasts, func() { there.loss = old })
		})
	}
	s.after(0, a.step)

	for limit := time.Hour; s.events.Len() > 0 && s.now < limit; {
		s.run(s.events.First().at)
		for _, p := range parties {
			if p.n.e != nil && p.n.e.err == errTimedOut && p.n.e.rtt.smoothed == 0 && p.read == 0 {
				return nil // all that began it was lost, which may happen
			}
			if p.failed == reset && p.expect.gaveUp() {
				return nil // all that it sent for a minute was lost, which may happen too
			}
			if p.failed != "" {
				return fmt.Errorf("%s at %v: %s (%s)", p.name, s.now, p.failed, p)
			}
			if err := check(p.n); err != nil {
				return fmt.Errorf("%s at %v: %w (%s)", p.name, s.now, err, p)
			}
		}
	}
	for _, p := range parties {
		switch {
		case p.n.e == nil:
			return fmt.Errorf("%s never heard of it", p.name)
		case p.read != p.expect.total:
			return fmt.Errorf("%s at %v: read %d of %d (%s)", p.name, s.now, p.read, p.expect.total, p)
		case p.n.e.state != closed:
			return fmt.Errorf("%s at %v: has not ended (%s)", p.name, s.now, p)
		case p.n.memory.lent != 0:
			return fmt.Errorf("%s: %d blocks lost", p.name, p.n.memory.lent)
		}
	}
	return nil
}

func (p *party) String() string {
	return fmt.Sprintf("%s: %s; %s: %s", p.name, p.describe(), p.expect.name, p.expect.describe())
}

func (p *party) describe() string {
	e := p.n.e
	if e == nil {
		return "no connection"
	}
	return fmt.Sprintf("state %d, wrote %d of %d, read %d of %d, una %d nxt %d end %d, underway %d, waiting %d, missing %d, window %d, theirs %d, ack %d, ahead %d, ready %d, capacity %d, timers %+v, acks %+v, mtu %+v",
		e.state, p.written, p.total, p.read, p.expect.total, e.out.una, e.out.nxt, e.out.end, e.out.underway, e.out.waiting, e.out.missing,
		e.cong.allowed(), e.window, e.in.ack, e.in.ahead, e.in.ready, e.in.capacity, e.timers, e.acks, e.mtu)
}

// check holds what an endpoint knows in sums to what it is the sum of.
func check(n *node) error {
	e := n.e
	if e == nil {
		return nil
	}
	flight, waits, lost := 0, 0, 0
	for seq := e.out.una; seq != e.out.end; seq++ {
		p := e.out.at(seq)
		switch p.status {
		case underway:
			flight += p.payload()
		case waiting:
			waits += p.payload()
		case missing:
			lost++
		}
		if (p.status == waiting) != !before(seq, e.out.nxt) {
			return fmt.Errorf("packet %d is %d", seq, p.status)
		}
	}
	early := 0
	for _, s := range e.in.ring {
		early += s.to - s.from
	}
	ready := 0
	for _, s := range e.in.queue[e.in.first:] {
		ready += s.to - s.from
	}
	switch {
	case flight != e.out.underway, waits != e.out.waiting, lost != e.out.missing:
		return fmt.Errorf("%d, %d and %d are under way, waiting and missing, not %d, %d and %d", flight, waits, lost, e.out.underway, e.out.waiting, e.out.missing)
	case early != e.in.early, ready != e.in.ready:
		return fmt.Errorf("%d and %d are early and ready, not %d and %d", early, ready, e.in.early, e.in.ready)
	case e.in.ready > e.in.capacity+1<<16:
		return fmt.Errorf("%d bytes lie in room for %d", e.in.ready, e.in.capacity)
	}
	return nil
}

// Whatever happens on the way, every byte arrives once and in order, and both ends end.
func TestHistories(t *testing.T) {
	if *history != 0 {
		require.NoError(t, runHistory(*history))
		return
	}
	if RaceEnabled {
		*histories = min(*histories, 100) // slow, and there is but one goroutine
	}
	for seed := *from; seed < *from+*histories; seed++ {
		if err := runHistory(seed); err != nil {
			t.Fatalf("-history %d: %v", seed, err)
		}
	}
}
