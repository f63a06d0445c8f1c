package simnet

import "time"

// path is what lies between two hosts, beside their own links, one way.
type path struct {
	delay time.Duration
	link  *link // nil if only the hosts' links bound the rate
}

// SetPath sets latency and bandwidth between two hosts, each way, in place of the sum of their delays. A rate
// of 0 is no limit beside those of the links.
func (n *Network) SetPath(a, b *Host, delay time.Duration, rate float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, ends := range [][2]*Host{{a, b}, {b, a}} {
		p := &path{delay: delay}
		if rate > 0 {
			p.link = &link{net: n, rate: rate}
		}
		n.paths[ends] = p
	}
}

// between is the path from a to b. The caller holds n.mu.
func (n *Network) between(a, b *Host) *path {
	if p := n.paths[[2]*Host{a, b}]; p != nil {
		return p
	}
	return &path{delay: a.Delay + b.Delay}
}

// link sends one segment at a time at its rate. When several connections wait, the one that was served
// least goes first (start-time fair queueing), so that each gets an equal share and a short message does
// not wait behind the bulk of another connection.
type link struct {
	net     *Network
	rate    float64 // bytes a second; 0 is no limit
	busy    bool
	served  int64 // virtual start of the segment served last, in bytes
	waiting []*flow
	bytes   int64 // that have passed
}

// flow is the queue of one connection, one way, before one link.
type flow struct {
	link          *link
	next          func(segment) // where a segment goes once it has passed the link
	queue         []segment
	start, finish int64 // where the segment at the head begins and the one before it ended, in the link's virtual bytes
}

// segment is a run of bytes under way, or the end of a stream.
type segment struct {
	b    []byte
	read int // how much of b its receiver has taken
	fin  bool
}

func (l *link) passed() int64 {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	return l.bytes
}

// send queues a segment on the flow. The caller holds f.link.net.mu.
func (f *flow) send(s segment) {
	l := f.link
	if len(f.queue) == 0 {
		f.start = max(f.finish, l.served)
		l.waiting = append(l.waiting, f)
	}
	f.queue = append(f.queue, s)
	l.serve()
}

// serve puts the next segment on the link if it is free. The caller holds l.net.mu.
func (l *link) serve() {
	for !l.busy && len(l.waiting) > 0 {
		best := 0
		for i, f := range l.waiting {
			if f.start < l.waiting[best].start {
				best = i
			}
		}
		f := l.waiting[best]
		s := f.queue[0]
		f.queue[0] = segment{}
		f.queue = f.queue[1:]
		l.served, f.finish = f.start, f.start+int64(len(s.b))
		f.start = f.finish
		if len(f.queue) == 0 {
			l.waiting = append(l.waiting[:best], l.waiting[best+1:]...)
		}
		l.bytes += int64(len(s.b))
		if l.rate == 0 || len(s.b) == 0 {
			f.next(s)
			continue
		}
		l.busy = true
		l.net.After(time.Duration(float64(len(s.b))/l.rate*float64(time.Second)), func() {
			l.busy = false
			f.next(s)
			l.serve()
		})
	}
}
