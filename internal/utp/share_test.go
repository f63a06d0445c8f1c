package utp

import (
	"fmt"
	"testing"
	"time"
)

type flow struct {
	a, b *node
	read int
	mark int
}

func (s *simulation) bulkFlow(there, back *simLink, at time.Duration) *flow {
	f := &flow{}
	f.a, f.b = s.connect(there, back)
	f.a.bulk()
	f.b.sink(&f.read)
	s.after(at, f.a.step)
	return f
}

func TestExplore(t *testing.T) {
	for _, c := range []struct {
		rate   float64
		rtt    time.Duration
		buffer int
		loss   float64
		secs   int
	}{
		{25e6, 50 * time.Millisecond, 256 << 10, 0, 10},
		{25e6, 50 * time.Millisecond, 256 << 10, 0.001, 10},
		{25e6, 50 * time.Millisecond, 2000000, 0, 10},
		{25e6, 50 * time.Millisecond, 2000000, 0.001, 10},
		{25e6, 50 * time.Millisecond, 64 << 10, 0, 10},
		{2e6, 50 * time.Millisecond, 4000000, 0, 12},
		{2e6, 50 * time.Millisecond, 256 << 10, 0, 12},
		{1e5, 50 * time.Millisecond, 200000, 0, 12},
	} {
		s := newSimulation(1)
		there := &simLink{s: s, rate: c.rate, delay: c.rtt / 2, buffer: c.buffer, loss: c.loss}
		back := &simLink{s: s, rate: c.rate, delay: c.rtt / 2, buffer: c.buffer}
		f := s.bulkFlow(there, back, 0)
		line := ""
		first := 0
		for i := range c.secs {
			there.longest = 0
			before := f.read
			s.run(time.Duration(i+2) * time.Second)
			if i == 7 {
				first = f.read
			}
			if i < 12 {
				line += fmt.Sprintf(" %.0f(%dms w%.0fk)", 100*float64(f.read-before)/c.rate, there.longest.Milliseconds(), f.a.e.cong.window/1000)
			}
		}
		t.Logf("%+v: first 8s %.3f all %.3f dropped %d lost %d sent %d target %v\n   %s", c, float64(first)/c.rate/8, float64(f.read)/c.rate/float64(c.secs), there.dropped, there.lost, f.a.packets, f.a.e.cong.target, line)
	}
}
