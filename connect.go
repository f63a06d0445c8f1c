package torrent

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"slices"
	"time"
)

const (
	maxHalfOpen       = 20
	maxDialsPerSecond = 30

	// turnoverRound is how often, in a crowd, the worst peers make room for others.
	turnoverRound = 300 * time.Second
	// turnoverGrace is how long after it connected a peer is not judged.
	turnoverGrace = time.Minute
)

// dialBudget bounds how many connections are half open, and how many dials begin in any second. The
// zero value is ready; its owner's lock guards it.
type dialBudget struct {
	halfOpen int
	began    [maxDialsPerSecond]time.Time // the last dials, from oldest on around
	oldest   int
}

// allowance is how many dials may begin now. If the rate alone forbids one, wait is until it does not.
func (b *dialBudget) allowance(now time.Time) (n int, wait time.Duration) {
	room := maxHalfOpen - b.halfOpen
	for n < room && n < len(b.began) {
		age := now.Sub(b.began[(b.oldest+n)%len(b.began)])
		if age < time.Second {
			if n == 0 {
				wait = time.Second - age
			}
			break
		}
		n++
	}
	return n, wait
}

// begin counts a dial that begins, end one that is over, whether it led to a connection or not.
func (b *dialBudget) begin(now time.Time) {
	b.halfOpen++
	b.began[b.oldest] = now
	b.oldest = (b.oldest + 1) % len(b.began)
}

func (b *dialBudget) end() { b.halfOpen-- }

// unmap writes the address of an IPv4 host in its 4-byte form.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// dialable tells whether there can be a peer at an unmapped address.
func dialable(a netip.AddrPort) bool {
	ip := a.Addr()
	return ip.IsValid() && a.Port() != 0 && !ip.IsUnspecified() && !ip.IsMulticast() && ip != broadcast
}

var (
	broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	cgnat     = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
)

// isLocal tells whether an unmapped address is loopback or private, so that one host, or many, may
// stand behind it with several peers.
func isLocal(ip netip.Addr) bool {
	return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || cgnat.Contains(ip)
}

// peerPriority is the canonical priority of the connection between two peers (BEP 40), the same at
// both ends. The higher, the rather should it be made and kept.
func peerPriority(a, b netip.AddrPort) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	a, b = unmap(a), unmap(b)
	if a.Addr() == b.Addr() {
		p := binary.BigEndian.AppendUint16(nil, min(a.Port(), b.Port()))
		return crc32.Checksum(binary.BigEndian.AppendUint16(p, max(a.Port(), b.Port())), table)
	}
	p, q, whole := a.Addr().AsSlice(), b.Addr().AsSlice(), 2
	if len(p)+len(q) > 8 {
		v, w := a.Addr().As16(), b.Addr().As16()
		p, q, whole = v[:], w[:], 6
	}
	// The first bytes count in full, at least one more than both have in common; of the rest every
	// other bit does.
	same := 0
	for same < len(p) && p[same] == q[same] {
		same++
	}
	for i := max(whole, same+1); i < len(p); i++ {
		p[i] &= 0x55
		q[i] &= 0x55
	}
	if bytes.Compare(p, q) > 0 {
		p, q = q, p
	}
	return crc32.Checksum(append(p, q...), table)
}

// peerWorth is what decides whether a connection is kept when others are waiting.
type peerWorth struct {
	id       int
	keep     bool // the user asked for this peer
	joined   time.Time
	mutual   bool    // one of the two is interested in the other
	rate     float64 // bytes a second of payload, both ways
	priority uint32  // BEP 40
}

// turnover is how many of the connected peers are to make room for others in a turnoverRound.
func turnover(connected, maxPeers int) int {
	if connected*10 < maxPeers*9 {
		return 0
	}
	return max(1, connected*4/100)
}

// worst returns the ids of the n peers that would be missed least, worst first; fewer where the rest
// is new, or the user's own.
func worst(now time.Time, peers []peerWorth, n int) (ids []int) {
	peers = slices.DeleteFunc(slices.Clone(peers), func(p peerWorth) bool {
		return p.keep || now.Sub(p.joined) < turnoverGrace
	})
	slices.SortFunc(peers, func(p, q peerWorth) int {
		return cmp.Or(
			compareBool(p.mutual, q.mutual),
			cmp.Compare(p.rate, q.rate),
			cmp.Compare(p.priority, q.priority),
		)
	})
	for _, p := range peers[:min(n, len(peers))] {
		ids = append(ids, p.id)
	}
	return ids
}

// family is 0 for an unmapped IPv4 address, 1 for one of IPv6.
func family(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return 0
	}
	return 1
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
