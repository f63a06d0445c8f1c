package simpeer

import (
	"time"
)

// Script is how a Peer behaves. The zero value is honest: it unchokes every peer that is interested, and
// answers every request in order.
type Script struct {
	// Choices of an honest peer.
	Fast  bool // speaks BEP 6
	Eager bool // unchokes without being asked
	Takes bool // downloads what it lacks

	// Lies.
	Corrupt   int  // every so many blocks, one is false
	Shortens  int  // every so many blocks, one has the wrong length
	ClaimsAll bool // claims all pieces, whatever it has

	// Answers that are missing or wrong.
	Never         Absence
	Flap          time.Duration // chokes and unchokes in turn
	DropsSilently bool          // does not reject what it drops, though it speaks BEP 6
	SendsLate     bool          // sends what was asked for after its choke
	Twice         bool          // sends every block twice
	Scatters      bool          // sends only the first block of each piece, and rejects the others (BEP 6)
	Rejects       int           // rejects one request in so many, at random (BEP 6)
	Drip          time.Duration // waits so long between two bytes of a block
	StallAfter    int           // stops in the middle of the block after so many
	ResetAfter    int           // resets each connection after so many blocks
	LeaveAfter    time.Duration // closes each connection after so long

	// Hashes of version 2 (BEP 52), if the content has any.
	OnlyV1        bool // of a hybrid knows version 1 alone
	AsksHashes    bool // asks for hashes, a few times
	CorruptHashes int  // every so many answers to hash requests, one is false
	RefusesHashes bool // rejects hash requests

	// Bytes that should not be sent.
	Handshake  func(hello []byte) []byte // given the handshake, returns what to send in its place
	Opening    func(*Content) []byte     // returns what to send in place of the bitfield
	Noise      []Noise                   // sent in turn
	NoiseEvery time.Duration
	Floods     bool // asks for blocks without end
}

// Absence is a set of what a peer never does.
type Absence uint8

const (
	ShakesHands   Absence = 1 << iota // takes the connection, and does nothing more
	Unchokes                          // lets no peer ask
	Answers                           // lets others ask, and does nothing more
	Reads                             // anything beyond the handshake
	AnswersHashes                     // hash requests (BEP 52)
)
