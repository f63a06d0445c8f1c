// Package krpc reads and writes the messages of the DHT (BEP 5 with 32, 33, 42, 43, 44 and 51): bencoded
// dictionaries, one a datagram, each a query, a response or an error. It matches no answers to queries, and acts on
// no message.
//
// Data from strangers is scanned under bounds before any of it is read. A key that is missing or of the wrong type is
// treated as absent; the caller decides whether that is an error.
//
// It holds no state. Any package may call it, from any goroutine.
package krpc

import (
	"net/netip"
)

const (
	minPacket = 15   // bytes of a datagram; a shorter one is no message
	MaxPacket = 4096 // no honest message is longer
	MaxAnswer = 1024 // what an answer may be (BEP 32), if what it carries allows
)

const (
	maxTID    = 64  // bytes of a transaction id
	maxNodes  = 32  // contacts taken from a list; 8 are usual
	maxValues = 200 // peers taken from a list
)

// Kind is the type of a message, its key y.
type Kind byte

const (
	Query    Kind = 'q'
	Response Kind = 'r'
	Failure  Kind = 'e'
)

// The queries.
const (
	Ping             = "ping"
	FindNode         = "find_node"
	GetPeers         = "get_peers"
	AnnouncePeer     = "announce_peer"
	Get              = "get"               // BEP 44
	Put              = "put"               // BEP 44
	SampleInfohashes = "sample_infohashes" // BEP 51
)

// The codes of errors.
const (
	GenericError     = 201
	ServerError      = 202
	ProtocolError    = 203
	MethodUnknown    = 204
	ValueTooBig      = 205 // BEP 44, as are those that follow
	InvalidSignature = 206
	SaltTooBig       = 207
	CASMismatch      = 301
	SeqTooLow        = 302
)

// Contact is a node: where it is, and the id that it has or is said to have.
type Contact struct {
	ID   ID
	Addr netip.AddrPort
}

// Fields says which of the numbers, ids and lists of nodes of a message are there. What is left of it is
// there if it is not nil.
type Fields uint16

const (
	HasID Fields = 1 << iota
	HasTarget
	HasPort
	HasSeq
	HasCAS
	HasInterval
	HasNum
	HasWant
	HasNodes
	HasNodes6
)

// Message is a KRPC message. One that was parsed refers to the bytes that it was parsed from.
type Message struct {
	Kind     Kind
	TID      []byte         // t: chosen by who asks, and repeated by who answers
	Version  []byte         // v
	IP       netip.AddrPort // ip, of an answer: the receiver as the sender sees it (BEP 42)
	ReadOnly bool           // ro, of a query: the sender answers none (BEP 43)
	Method   []byte         // q, of a query

	// Arguments of a query, or values of a response.
	Has    Fields
	ID     ID     // the sender's
	Target ID     // of a query: target, or info_hash if it is get_peers or announce_peer
	Token  []byte // an opaque permission to store

	Want4, Want6 bool // which contacts a query asks for (BEP 32), if HasWant
	NoSeed       bool // no seeds, if there are others (BEP 33)
	Scrape       bool // filters are asked for (BEP 33)

	Port        int64 // of announce_peer
	ImpliedPort bool  // the port that the datagram came from counts instead
	Seed        bool  // BEP 33

	Value  []byte // v, encoded as it stands in the message (BEP 44)
	Key    []byte // k, 32 bytes
	Sig    []byte // sig, 64 bytes
	Salt   []byte
	Seq    int64
	CAS    int64
	Values []netip.AddrPort // peers

	Nodes, Nodes6          []Contact // of IPv4, of IPv6 (BEP 32)
	SeedFilter, PeerFilter []byte    // BFsd and BFpe (BEP 33), 256 bytes
	Samples                []byte    // whole info hashes (BEP 51)
	Interval, Num          int64     // BEP 51
	Code                   int64     // of an error
	Text                   []byte    // of an error
}

// reset makes m an empty message, and keeps what its lists have allocated.
func (m *Message) reset() {
	*m = Message{Values: m.Values[:0], Nodes: m.Nodes[:0], Nodes6: m.Nodes6[:0]}
}
