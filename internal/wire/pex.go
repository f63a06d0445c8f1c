package wire

import (
	"net/netip"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/netaddr"
)

// maxPEX is how many peers are parsed of each list of a PEX message.
const maxPEX = 100

// Flags of a peer in a PEX message (BEP 11).
const (
	PEXEncrypts  = 0x01 // prefers encryption
	PEXSeed      = 0x02 // downloads nothing
	PEXUTP       = 0x04 // supports uTP
	PEXHolePunch = 0x08 // supports ut_holepunch (BEP 55)
	PEXReachable = 0x10 // the sender could connect to the peer
)

// PEX is a message of ut_pex (BEP 11): the peers that the sender has connected to, or lost, since its last message. Of the
// addresses only the form is checked; ports may be 0.
type PEX struct {
	Added, Added6           []netip.AddrPort // IPv4 and IPv6
	AddedFlags, Added6Flags []byte           // one byte for each peer in Added and in Added6
	Dropped, Dropped6       []netip.AddrPort // IPv4 and IPv6
}

// ParsePEX parses the payload of a ut_pex message, up to 100 peers of each list. A malformed list counts as empty, and a missing
// flag as 0. The result does not refer to p.
func ParsePEX(p []byte) PEX {
	var x PEX
	var flags, flags6 []byte
	dict, _ := salvage(p)
	for key, value := range bencode.Keys(dict) {
		s, _ := bencode.String(value)
		switch string(key) {
		case "added":
			x.Added = parseCompact(s, 4)
		case "added.f":
			flags = s
		case "added6":
			x.Added6 = parseCompact(s, 16)
		case "added6.f":
			flags6 = s
		case "dropped":
			x.Dropped = parseCompact(s, 4)
		case "dropped6":
			x.Dropped6 = parseCompact(s, 16)
		}
	}
	x.AddedFlags = fitFlags(flags, len(x.Added))
	x.Added6Flags = fitFlags(flags6, len(x.Added6))
	return x
}

// Append appends the dictionary of the message to b. Missing flags are written as 0.
func (x *PEX) Append(b []byte) []byte {
	b = appendString(append(b, 'd'), "added") // BEP 11 requires at least one list
	b = appendString(b, netaddr.AppendCompact(nil, x.Added))
	b = appendStringEntry(b, "added.f", fitFlags(x.AddedFlags, len(x.Added)))
	b = appendStringEntry(b, "added6", netaddr.AppendCompact(nil, x.Added6))
	b = appendStringEntry(b, "added6.f", fitFlags(x.Added6Flags, len(x.Added6)))
	b = appendStringEntry(b, "dropped", netaddr.AppendCompact(nil, x.Dropped))
	b = appendStringEntry(b, "dropped6", netaddr.AppendCompact(nil, x.Dropped6))
	return append(b, 'e')
}

// parseCompact parses up to maxPEX peers of a compact list with addresses of size bytes.
func parseCompact(p []byte, size int) (peers []netip.AddrPort) {
	for a := range netaddr.Compact(p[:min(len(p), maxPEX*(size+2))], size) {
		peers = append(peers, a)
	}
	return peers
}

// fitFlags returns the first n flags, padded with zeros.
func fitFlags(flags []byte, n int) []byte {
	fit := make([]byte, n)
	copy(fit, flags)
	return fit
}
