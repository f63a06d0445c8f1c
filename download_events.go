package torrent

import (
	"context"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// State is the state of a download.
type State uint8

const (
	Checking    State = iota // hashing what storage holds, at the start or in a Recheck, and not paused
	Downloading              // something that is chosen is not verified yet, or nothing is chosen
	Seeding                  // all that is chosen is verified, and shared
	Paused                   // by Pause or Options.Paused, until Resume; Stats.Checking says whether it hashes
	Stopped                  // it is ending, or has ended
)

var stateNames = [...]string{"checking", "downloading", "seeding", "paused", "stopped"}

// String is the name in lower case.
func (s State) String() string { return nameOf(s, stateNames[:]) }

// nameOf returns the name of a value, or its number if it has none.
func nameOf[T ~uint8](v T, names []string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return strconv.Itoa(int(v))
}

// MarshalText is String as encoding.TextMarshaler has it.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// state is what the download is at. The caller holds d.mu.
func (d *Download) state() State {
	switch {
	case d.ended():
		return Stopped
	case d.paused:
		return Paused
	case d.progress.checking || d.disk.checking:
		return Checking
	case d.progress.complete:
		return Seeding
	}
	return Downloading
}

// Pause makes the download leave the swarm until Resume: it ends all connections, announces to trackers that it
// stops, and asks no source for peers. Verified data stays, and can be read. Pause returns at once.
func (d *Download) Pause() { d.setPaused(true) }

// Resume makes a paused download join the swarm again. Nothing is hashed again.
func (d *Download) Resume() { d.setPaused(false) }

func (d *Download) setPaused(paused bool) {
	now := time.Now()
	d.mu.Lock()
	d.paused = paused
	d.progress.waitsFrom(now) // a pause is no stall
	d.unlock(now)
	d.signal()
}

func (d *Download) isPaused() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.paused
}

// Verified returns the pieces that are verified and on storage, chosen or not.
func (d *Download) Verified() Bitfield {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Bitfield{d.picker.Verified().Clone()}
}

// Files yields all files in torrent order, chosen or not, and how many bytes of each are verified. Padding files are
// left out.
func (d *Download) Files() iter.Seq2[File, int64] {
	return func(yield func(File, int64) bool) {
		have := d.Verified()
		for f := range d.t.Files() {
			verified := int64(0)
			for k, end := d.t.layout.PiecesOf(f.Index); k < end; k++ {
				if have.Has(k) {
					verified += d.t.layout.Overlap(f.Index, k)
				}
			}
			if !yield(f, verified) {
				return
			}
		}
	}
}

// EventKind is the kind of an Event.
type EventKind uint8

const (
	PieceVerified   EventKind = iota // Piece is verified and on storage
	PieceFailed                      // Piece came whole, and did not have its hash
	FileVerified                     // File, a chosen one, is whole
	PeerConnected                    // Peer
	PeerGone                         // Peer, and Err says why
	PeerBanned                       // Peer, and Err says why; its port is 0 if all ports of the address are banned
	TrackerAnswered                  // Tracker named Peers; Message is its warning, if it gave one
	TrackerFailed                    // Tracker, and Err is a *TrackerError
	StateChanged                     // State is the new one
	StorageFailed                    // Err, of the storage; Stats.StorageErrors counts these
	EventsDropped                    // Dropped events are left out here, because the caller was too slow
)

var eventNames = [...]string{
	"piece verified", "piece failed", "file verified", "peer connected", "peer gone", "peer banned",
	"tracker answered", "tracker failed", "state changed", "storage failed", "events dropped",
}

// String is the name in words.
func (k EventKind) String() string { return nameOf(k, eventNames[:]) }

// MarshalText is String as encoding.TextMarshaler has it.
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Event is one thing that happened in a download. Kind says which of the other fields it has.
type Event struct {
	Kind EventKind // what happened
	Time time.Time // when

	Piece   int            // its index
	File    File           // as in the torrent
	Peer    netip.AddrPort // its address
	Tracker string         // its URL
	Peers   int            // how many addresses were in the tracker's answer
	Message string         // free text of the tracker
	State   State          // of the download
	Err     error          // what went wrong
	Dropped int            // how many events
}

// maxEvents is how many events wait for one reader of them.
const maxEvents = 1000

// subscriptions are the readers of a download's events.
type subscriptions struct {
	subscriptions []*subscription
	lastState     State // that they were told of
}

// A subscription is one reader of a download's events. The download's mutex guards it.
type subscription struct {
	waker
	waiting []Event
	dropped int // since the last that waits
}

// Events yields the events of the download from now on, until ctx or the download ends. It never delays the download:
// while the caller is busy up to 1000 events wait, and further ones are dropped and counted in an event of kind
// EventsDropped.
func (d *Download) Events(ctx context.Context) iter.Seq[Event] {
	s := &subscription{waker: newWaker()}
	d.subscribe(s)
	context.AfterFunc(ctx, func() { d.unsubscribe(s) })
	return func(yield func(Event) bool) {
		d.subscribe(s)
		defer d.unsubscribe(s)
		for {
			gone := d.isGone()
			for _, e := range d.takeEvents(s) {
				if ctx.Err() != nil || !yield(e) {
					return
				}
			}
			if gone {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-s.wake:
			case <-d.life.gone:
			}
		}
	}
}

// subscribe adds s to the subscriptions, unless it is one already.
func (d *Download) subscribe(s *subscription) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.events.subscriptions, s) {
		d.events.subscriptions = append(d.events.subscriptions, s)
	}
}

func (d *Download) unsubscribe(s *subscription) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events.subscriptions = slices.DeleteFunc(d.events.subscriptions, func(other *subscription) bool { return other == s })
}

// takeEvents empties a subscription.
func (d *Download) takeEvents(s *subscription) []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	events := s.waiting
	if s.dropped > 0 {
		events = append(events, Event{Kind: EventsDropped, Time: time.Now(), Dropped: s.dropped})
	}
	s.waiting, s.dropped = nil, 0
	return events
}

// emit passes an event to all subscriptions. The caller holds d.mu.
func (d *Download) emit(e Event) {
	if len(d.events.subscriptions) == 0 {
		return
	}
	e.Time, e.Err = time.Now(), asText(e.Err)
	for _, s := range d.events.subscriptions {
		if len(s.waiting) < maxEvents {
			s.waiting = append(s.waiting, e)
		} else {
			s.dropped++
		}
		s.signal()
	}
}

// emitState emits the state if it has changed.
func (d *Download) emitState() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if state := d.state(); state != d.events.lastState {
		d.events.lastState = state
		d.emit(Event{Kind: StateChanged, State: state})
	}
}

// emitTracker emits the answer or the error of a tracker.
func (d *Download) emitTracker(url string, peers int, warning string, err error) {
	e := Event{Kind: TrackerAnswered, Tracker: url, Peers: peers, Message: warning}
	if err != nil {
		e = Event{Kind: TrackerFailed, Tracker: url, Err: err}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.emit(e)
}
