package torrent

import (
	"slices"
	"sync"

	"github.com/shoal-go/torrent/internal/wire"
)

const (
	// maxQueuedRequests is how many requests a peer may have waiting here; said as reqq (BEP 10).
	maxQueuedRequests = 500
	// maxOutbox bounds the messages that wait for a peer that does not read.
	maxOutbox = 4 << 20
	// requestSize is the length of a request on the wire.
	requestSize = 17
)

// An outbox is what is to be written to one peer: encoded messages, what the peer is to be asked
// for, and the requests of the peer that are still to be answered. Anybody may add to it without
// waiting; the peer's writer takes from it. Payload is not kept here: it is read when it is about
// to go out. Our own requests are encoded then, too: while the writer is busy with an upload, what
// they ask for may have come from elsewhere, or the peer may have choked us.
type outbox struct {
	waker // of the writer

	mu       sync.Mutex
	messages []byte
	ours     []request     // that the peer is to be sent behind the messages; oldest first
	theirs   []request     // that are to be answered; oldest first
	room     chan struct{} // closed when theirs fell below its bound; nil unless the reader waits
}

// A request names a block as requests, cancels and rejects do.
type request struct {
	piece, begin, length uint32
}

func newOutbox() outbox { return outbox{waker: newWaker()} }

// add appends messages, as encode makes them, and wakes the writer. It returns false once too much
// is waiting.
func (o *outbox) add(encode func([]byte) []byte) bool {
	ok := o.addLazily(encode)
	o.signal()
	return ok
}

// addLazily is add for messages that may wait for company.
func (o *outbox) addLazily(encode func([]byte) []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages = encode(o.messages)
	return o.fits()
}

// fits tells whether no more waits than may.
func (o *outbox) fits() bool { return len(o.messages)+requestSize*len(o.ours) <= maxOutbox }

// request adds requests of ours and wakes the writer. It returns false once too much is waiting.
func (o *outbox) request(requests []request) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ours = append(o.ours, requests...)
	o.signal()
	return o.fits()
}

// withdraw takes out the requests of ours that which holds for, and tells whether there were any. The
// peer will not have heard of them.
func (o *outbox) withdraw(which func(request) bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.ours)
	o.ours = slices.DeleteFunc(o.ours, which)
	return len(o.ours) < n
}

// What became of a request that was to be queued.
type queueing uint8

const (
	queued       queueing = iota
	queuedBefore          // it waits already
	queueFull             // too many wait
)

// enqueue adds a request of the peer.
func (o *outbox) enqueue(r request) queueing {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case slices.Contains(o.theirs, r):
		return queuedBefore
	case len(o.theirs) >= maxQueuedRequests:
		return queueFull
	}
	o.theirs = append(o.theirs, r)
	o.signal()
	return queued
}

// whenRoom returns a channel that is closed once another request can be queued.
func (o *outbox) whenRoom() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.room == nil {
		o.room = make(chan struct{})
	}
	if len(o.theirs) < maxQueuedRequests {
		o.makeRoom()
		c := make(chan struct{})
		close(c)
		return c
	}
	return o.room
}

func (o *outbox) makeRoom() {
	if o.room != nil && len(o.theirs) < maxQueuedRequests {
		close(o.room)
		o.room = nil
	}
}

// remove takes out a request of the peer, because it was taken back or is being answered, and tells
// whether it was still waiting.
func (o *outbox) remove(r request) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := slices.Index(o.theirs, r)
	if k < 0 {
		return false
	}
	o.theirs = slices.Delete(o.theirs, k, k+1)
	o.makeRoom()
	return true
}

// refuse takes all requests of the peer back for which stay does not hold, rejecting them where
// the peer understands that (BEP 6).
func (o *outbox) refuse(reject bool, stay func(request) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := o.theirs[:0]
	for _, r := range o.theirs {
		switch {
		case stay(r):
			kept = append(kept, r)
		case reject:
			o.messages = wire.AppendReject(o.messages, r.piece, r.begin, r.length)
		}
	}
	o.theirs = kept
	o.makeRoom()
	o.signal()
}

// take returns the messages that wait, in exchange for an empty buffer, and the next requests to
// answer: at most n, none of which is taken out yet.
func (o *outbox) take(empty []byte, n int, answer []request) ([]byte, []request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	messages := o.messages
	for _, r := range o.ours {
		messages = wire.AppendRequest(messages, r.piece, r.begin, r.length)
	}
	o.messages, o.ours = empty[:0], o.ours[:0]
	return messages, append(answer[:0], o.theirs[:min(n, len(o.theirs))]...)
}

// waiting is how many requests of the peer wait to be answered.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.theirs)
}

// backlog is how many bytes of messages wait to be written.
func (o *outbox) backlog() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.messages)
}
