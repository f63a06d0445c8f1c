package utp

import "time"

// reno is a TCP of the plainest kind, which always has something to send: it doubles its window until
// something is lost, then adds a packet a round trip, and halves it for each round trip in which something
// is lost.
type reno struct {
	s           *simulation
	there, back *simLink

	window, threshold float64 // packets
	next              int     // number of the next transmission
	recover           int     // transmissions up to this one are answered for
	flight            []renoPacket
	delivered         int // bytes
	timer             int
	stopped           bool
	smoothed          time.Duration
}

type renoPacket struct {
	number int
	sent   time.Duration
}

const renoPayload, renoPacketSize = 1448, 1500

func (s *simulation) reno(there, back *simLink, at time.Duration) *reno {
	r := &reno{s: s, there: there, back: back, window: 10, threshold: 1e9}
	s.after(at, r.send)
	return r
}

// stop has it send nothing any more.
func (r *reno) stop() { r.stopped = true }

func (r *reno) send() {
	if r.stopped {
		return
	}
	for float64(len(r.flight)) < r.window {
		p := renoPacket{r.next, r.s.now}
		r.next++
		r.flight = append(r.flight, p)
		r.there.send(renoPacketSize-ipHeaders, false, func() {
			r.delivered += renoPayload
			r.back.send(40-ipHeaders, false, func() { r.acknowledged(p) })
		})
	}
	r.timer++
	timer := r.timer
	r.s.after(max(200*time.Millisecond, 3*r.smoothed), func() {
		if r.timer != timer {
			return
		}
		r.threshold, r.window, r.flight = max(r.window/2, 2), 1, nil
		r.recover = r.next
		r.send()
	})
}

func (r *reno) acknowledged(p renoPacket) {
	rtt := r.s.now - p.sent
	r.smoothed += (rtt - r.smoothed) / 8
	lost := false
	kept := r.flight[:0]
	for _, f := range r.flight {
		switch {
		case f.number == p.number:
		case f.number < p.number-3:
			lost = lost || f.number >= r.recover
		default:
			kept = append(kept, f)
		}
	}
	r.flight = kept
	switch {
	case lost:
		r.window = max(r.window/2, 2)
		r.threshold = r.window
		r.recover = r.next
	case r.window < r.threshold:
		r.window++
	default:
		r.window += 1 / r.window
	}
	r.send()
}
