// Package dht is a node of the mainline DHT: peers of a torrent, announces, and small items, with no tracker
// (BEP 5; IPv6 as in BEP 32, scrapes as in 33, node ids as in 42, read-only nodes as in 43, items as in 44,
// samples as in 51).
//
// A [Node] has no socket. The owner of the socket calls [Node.Receive] for each datagram that may be a message, and
// gives the node a function to send datagrams. It has one goroutine for the time, a few more while names are looked
// up, and none a packet or a query. It writes no file: [Node.Nodes] goes out, and Config.Nodes of a later run in.
//
// # Layers
//
// Everything below [Node] is plain data: the time is an argument, chance is injected, and no goroutine, lock
// or I/O is in it. The parts each keep one rule: the routing table (table.go, bucket.go) takes who answered,
// the lookup (lookup.go) decides whom to ask, guard.go whom to answer, the stores (peerstore.go, itemstore.go,
// fair.go) what to keep, token.go who may store, schedule.go when a torrent's turn comes,
// queries.go what is under way, spared.go whom to spare. The core (core.go with search.go, answer.go, upkeep.go
// and bootstrap.go) joins them to a state machine of datagrams in and datagrams out, which a simulation drives
// by thousands. The Node (node.go, operations.go) is a lock, a timer and a goroutine around one core.
//
// # Trust
//
// It trusts no node. A query may come from a forged address, so it proves nothing and counts against no node. An
// answer must repeat a random transaction id and come from the address that was asked. Nodes named by another are
// asked only as far as that node has proved good, and only a few of one network; nodes whose ids do not follow from
// their addresses (BEP 42) do not push out those whose ids do. Every other lookup of a torrent begins far from it,
// because all nodes that we know near it may be liars. No address of a local network is asked because a node on the
// Internet named it. Answers are bounded in bytes, so that an attacker gains nothing by making us send to others.
package dht

import "github.com/shoal-go/torrent/internal/krpc"

// ID is a point of the space that nodes, info hashes and items share.
type ID = krpc.ID
