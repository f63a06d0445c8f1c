package simnet

import "time"

// delay is the latency between two hosts, one way.
func delay(a, b *Host) time.Duration { return a.Delay + b.Delay }

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
