package simpeer

import (
	"time"
)

// Script is how a Peer behaves. The zero value is honest: it unchokes whoever is interested
// and answers everything in order.
type Script struct {
	// Ways to be that are no fault.
	Fast  bool // speaks BEP 6
	Eager bool // unchokes without being asked
	Takes bool // downloads what it lacks

	// Lies.
	Corrupt   int  // each so-many-th block is false
	Shortens  int  // each so-many-th block has the wrong length
	ClaimsAll bool // says that it has everything, whatever it has

	// Answers that do not come, or not as they should.
	Never         Absence
	Flap          time.Duration // chokes and unchokes in turn
	DropsSilently bool          // does not reject what it drops, though it speaks BEP 6
	SendsLate     bool          // sends what was asked for in spite of its choke
	Twice         bool          // sends every block twice
	Rejects       int           // one in so many requests is rejected (BEP 6)
	Drip          time.Duration // between two bytes of a block
	StallAfter    int           // blocks; stops in the middle of the next
	ResetAfter    int           // blocks on each connection
	LeaveAfter    time.Duration // closes each connection so long after it began

	// Bytes that should not be.
	Handshake  func(hello []byte) []byte // what it sends instead
	Opening    func(*Content) []byte     // what it sends instead of its bitfield
	Noise      []Noise                   // sent in turn
	NoiseEvery time.Duration
	Floods     bool // asks for blocks without end
}

// Absence is what a peer never does.
type Absence uint8

const (
	ShakesHands Absence = 1 << iota // takes the connection, and that is all
	Unchokes                        // lets nobody ask
	Answers                         // lets others ask, and that is all
	Reads                           // beyond the handshake
)
