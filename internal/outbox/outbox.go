// Package outbox queues the output to one peer: encoded messages, our requests, and the requests of the peer that are
// not answered yet.
//
// It owns no connection and no goroutine. An Outbox has a lock of its own. Any goroutine may add to it, under a
// download's lock or without; only the goroutine that writes to the peer takes from it.
package outbox

import (
	"slices"
	"sync"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/wire"
)

const (
	// MaxQueued is how many requests of a peer may wait here. It is told as reqq (BEP 10).
	MaxQueued = 500
	// maxBytes bounds the messages that wait for a peer that does not read.
	maxBytes = 4 << 20
	// requestSize is the length of a request on the wire.
	requestSize = 17
)

// An Outbox queues the output to one peer. Adding to it never blocks.
//
// Payload is not kept here. It is read when it is about to be sent. Our requests are encoded then, too: while the writer
// is busy with an upload, the blocks may come from other peers, or the peer may choke us.
type Outbox struct {
	holder *account.Holder // of the peer
	wake   chan struct{}   // holds a token from an addition until the writer takes it

	mu        sync.Mutex
	messages  []byte
	taken     int           // bytes of the messages that Take returned last, which may not be written yet
	ours      []Request     // our requests, sent behind the messages; oldest first
	answers   [][]byte      // messages that count as uploads; oldest first
	answering int           // bytes of answers
	theirs    []Request     // the peer's requests that are not answered; oldest first
	room      chan struct{} // closed when theirs falls below its bound; nil unless the reader waits
}

// A Request names a block as requests, cancels and rejects do.
type Request struct {
	Piece, Begin, Length uint32
}

// New returns an empty outbox. Messages that wait in it are charged to h.
func New(h *account.Holder) Outbox { return Outbox{holder: h, wake: make(chan struct{}, 1)} }

// Wake returns a channel that has a token if something was added, or Signal called, since the writer last took one.
func (o *Outbox) Wake() <-chan struct{} { return o.wake }

// Signal wakes the writer.
func (o *Outbox) Signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Add appends messages with encode, and wakes the writer. It returns false once too much is waiting.
func (o *Outbox) Add(encode func([]byte) []byte) bool {
	ok := o.AddLazily(encode)
	o.Signal()
	return ok
}

// AddLazily is like Add, but does not wake the writer: the messages are sent together with later ones.
func (o *Outbox) AddLazily(encode func([]byte) []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages = encode(o.messages)
	return o.fits()
}

// fits reports whether the waiting messages are within their bound. The caller holds o.mu.
func (o *Outbox) fits() bool {
	return o.count() && o.backlog()+requestSize*len(o.ours) <= maxBytes
}

// count brings the account up to date, and reports whether what is waiting has room in it. The caller holds o.mu.
func (o *Outbox) count() bool { return o.holder.Set(account.Outgoing, o.backlog()+o.taken) }

// backlog returns the size in bytes of the waiting messages. The caller holds o.mu.
func (o *Outbox) backlog() int { return len(o.messages) + o.answering }

// Close takes what is waiting out of the account, once nothing is added any more.
func (o *Outbox) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages, o.taken = nil, 0
	o.answers, o.answering = nil, 0
	o.count()
}

// AddAnswer adds a message that is long enough to count as an upload, and wakes the writer. It returns false once too much is
// waiting.
func (o *Outbox) AddAnswer(message []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answers = append(o.answers, message)
	o.answering += len(message)
	o.Signal()
	return o.fits()
}

// Answer returns the oldest message that counts as an upload, or nil. The message stays in the outbox until Answered is called.
func (o *Outbox) Answer() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.answers) == 0 {
		return nil
	}
	return o.answers[0]
}

// Answered removes the message that Answer returned last. It is called once that is written.
func (o *Outbox) Answered() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answering -= len(o.answers[0])
	o.answers[0] = nil
	o.answers = o.answers[1:]
	o.count()
}

// spare is the largest buffer that is kept for reuse. Each outbox has two, which are in no account while they are empty.
const spare = 8 << 10

// Request adds requests of ours, and wakes the writer. It returns false once too much is waiting.
func (o *Outbox) Request(requests []Request) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ours = append(o.ours, requests...)
	o.Signal()
	return o.fits()
}

// Withdraw removes those of our requests that which selects, and reports whether there were any. They are never sent.
func (o *Outbox) Withdraw(which func(Request) bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.ours)
	o.ours = slices.DeleteFunc(o.ours, which)
	return len(o.ours) < n
}

// Queueing is the result of Enqueue.
type Queueing uint8

const (
	Queued       Queueing = iota
	QueuedBefore          // it is waiting already
	QueueFull             // too many are waiting
)

// Enqueue adds a request of the peer.
func (o *Outbox) Enqueue(r Request) Queueing {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case slices.Contains(o.theirs, r):
		return QueuedBefore
	case len(o.theirs) >= MaxQueued:
		return QueueFull
	}
	o.theirs = append(o.theirs, r)
	o.Signal()
	return Queued
}

// WhenRoom returns a channel that is closed once another request can be queued.
func (o *Outbox) WhenRoom() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.room == nil {
		o.room = make(chan struct{})
	}
	if len(o.theirs) < MaxQueued {
		o.makeRoom()
		c := make(chan struct{})
		close(c)
		return c
	}
	return o.room
}

// makeRoom wakes the reader once theirs is below its bound. The caller holds o.mu.
func (o *Outbox) makeRoom() {
	if o.room != nil && len(o.theirs) < MaxQueued {
		close(o.room)
		o.room = nil
	}
}

// Remove removes a request of the peer that is cancelled or about to be answered, and reports whether it was waiting.
func (o *Outbox) Remove(r Request) bool {
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

// Refuse removes the requests of the peer for which stay is false. If reject is set, the peer is told (BEP 6).
func (o *Outbox) Refuse(reject bool, stay func(Request) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := o.theirs[:0]
	for _, r := range o.theirs {
		switch {
		case stay(r):
			kept = append(kept, r)
		case reject:
			o.messages = wire.AppendReject(o.messages, r.Piece, r.Begin, r.Length)
		}
	}
	o.theirs = kept
	o.makeRoom()
	o.Signal()
}

// Take returns the messages that are waiting, in exchange for an empty buffer, and at most n requests to answer next.
// These stay in the outbox.
func (o *Outbox) Take(empty []byte, n int, answer []Request) ([]byte, []Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	messages := o.messages
	for _, r := range o.ours {
		messages = wire.AppendRequest(messages, r.Piece, r.Begin, r.Length)
	}
	if cap(empty) > spare {
		empty = nil
	}
	o.taken = len(messages)
	o.messages, o.ours = empty[:0], o.ours[:0]
	o.count()
	return messages, append(answer[:0], o.theirs[:min(n, len(o.theirs))]...)
}

// Waiting is how many requests of the peer are not answered.
func (o *Outbox) Waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.theirs)
}

// Backlog is how many bytes of messages are waiting.
func (o *Outbox) Backlog() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.backlog()
}
