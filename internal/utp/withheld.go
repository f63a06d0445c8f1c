package utp

import (
	"errors"
	"time"
)

const (
	firstWithheld = 32 // packets of data, or up to twice as many, until the first is withheld
	// withheldWindows is how many windows of packets lie between two that are withheld, on average: what one that lies gets for each
	// time that it has been found honest. Each makes acknowledgements dearer, by the number of packets under way, until it has arrived.
	withheldWindows = 16
	withheldGrowth  = 4 // by how much the window may grow meanwhile
	withheldFlight  = 8 // packets under way, below which none is withheld
)

// errNotSent is the error of a connection whose other end lies about what has arrived.
var errNotSent = errors.New("acknowledges a packet that was not sent")

// withholding finds other ends that acknowledge packets which they have not received. To one of them no loss and no delay would
// set a limit: we would fill our line with packets that are dropped on the way, so that nothing else could be sent, and might
// do that to an address which is not that of the sender. So now and then the number of a packet is passed over. Who acknowledges
// that has not looked at what came. To one that does look, it seems to be lost, and to arrive later.
//
// The packet is sent once it counts as lost, as one that was lost on the way would, but not before: an end that waits until it
// must have been sent has had all that it did not receive counted as lost, too. (There is no other limit to what it may say of
// the time that packets take, so waiting for any time would not do.)
type withholding struct {
	lot  uint64 // state of a sequence of random numbers; 0 withholds nothing
	due  uint32 // the transmission from which on a packet is withheld
	most uint32 // packets under way, above which it is to be soon; 0 if it is to be soon already
}

// draw returns a random number below n.
func (w *withholding) draw(n uint32) uint32 {
	w.lot ^= w.lot << 13 // xorshift
	w.lot ^= w.lot >> 7
	w.lot ^= w.lot << 17
	return uint32(w.lot>>32) % n
}

// begin draws which packet is withheld first.
func (w *withholding) begin(lot uint64, order uint32) {
	w.lot = lot
	if lot != 0 {
		w.due = order + firstWithheld + w.draw(firstWithheld)
	}
}

// withhold passes over the next packet, if it is time to do so. It reports whether it did.
func (e *endpoint) withhold(now time.Duration) bool {
	w, o := &e.withheld, &e.out
	flight := uint32(o.unacknowledged())
	if w.lot == 0 || flight < withheldFlight {
		return false
	}
	if flight > w.most && w.most != 0 {
		w.most = 0
		if soon := o.order + w.draw(flight); int32(w.due-soon) > 0 {
			w.due = soon
		}
	}
	p := o.at(o.nxt)
	if int32(o.order-w.due) < 0 || o.end-o.nxt < withheldFlight || p.probe || p.fin || e.rtt.smoothed == 0 {
		return false
	}
	w.due, w.most = o.order+1+w.draw(2*withheldWindows*(flight+withheldFlight)), withheldGrowth*flight
	o.withhold(p, now)
	return true
}
