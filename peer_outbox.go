package torrent

import (
	"slices"
	"sync"

	"github.com/shoal-go/torrent/internal/wire"
)

const (
	// maxQueuedRequests is how many requests of a peer may wait here. It is told as reqq (BEP 10).
	maxQueuedRequests = 500
	// maxOutbox bounds the messages that wait for a peer that does not read.
	maxOutbox = 4 << 20
	// requestSize is the length of a request on the wire.
	requestSize = 17
)

// An outbox holds what is to be written to one peer: encoded messages, our requests, and the peer's requests that are
// not answered yet. Any goroutine may add to it and does not wait; the peer's writer takes from it.
//
// Payload is not kept here. It is read when it is about to be sent. Our requests are encoded then, too: while the writer
// is busy with an upload, the blocks may come from other peers, or the peer may choke us.
type outbox struct {
	waker // of the writer

	mu       sync.Mutex
	messages []byte
	ours     []request     // our requests, sent behind the messages; oldest first
	theirs   []request     // the peer's requests that are not answered; oldest first
	room     chan struct{} // closed when theirs falls below its bound; nil unless the reader waits
}

// A request names a block as requests, cancels and rejects do.
type request struct {
	piece, begin, length uint32
}

func newOutbox() outbox { return outbox{waker: newWaker()} }

// add appends messages with encode, and wakes the writer. It returns false once too much is waiting.
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

// fits reports whether no more is waiting than may.
func (o *outbox) fits() bool { return len(o.messages)+requestSize*len(o.ours) <= maxOutbox }

// request adds requests of ours, and wakes the writer. It returns false once too much is waiting.
func (o *outbox) request(requests []request) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ours = append(o.ours, requests...)
	o.signal()
	return o.fits()
}

// withdraw removes the requests of ours that which selects, and reports whether there were any. The peer does not hear of
// them.
func (o *outbox) withdraw(which func(request) bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.ours)
	o.ours = slices.DeleteFunc(o.ours, which)
	return len(o.ours) < n
}

// queueing is what became of a request of the peer.
type queueing uint8

const (
	queued       queueing = iota
	queuedBefore          // it is waiting already
	queueFull             // too many are waiting
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

// remove removes a request of the peer that is cancelled or about to be answered, and reports whether it was waiting.
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

// refuse removes the requests of the peer for which stay is false. reject is whether to tell the peer (BEP 6).
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

// take returns the messages that are waiting, in exchange for an empty buffer, and at most n requests to answer next.
// These stay in the outbox.
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

// waiting is how many requests of the peer are not answered.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.theirs)
}

// backlog is how many bytes of messages are waiting.
func (o *outbox) backlog() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.messages)
}
