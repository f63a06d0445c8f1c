package wire

import (
	"net/netip"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/netaddr"
)

// maxPEX is how many peers are taken from each list of a PEX message.
const maxPEX = 100

// Flags of a peer in a PEX message (BEP 11).
const (
	PEXEncrypts  = 0x01 // prefers encryption
	PEXSeed      = 0x02 // wants nothing
	PEXUTP       = 0x04 // speaks uTP
	PEXHolePunch = 0x08 // speaks ut_holepunch (BEP 55)
	PEXReachable = 0x10 // the sender had connected to it
)

// PEX is a message of ut_pex (BEP 11): peers that connected to the sender and that left it. Only the form of the
// addresses was checked. They may not be addresses of peers, and ports may be 0.
type PEX struct {
	Added, Added6           []netip.AddrPort // of IPv4, of IPv6
	AddedFlags, Added6Flags []byte           // one for each of Added and of Added6
	Dropped, Dropped6       []netip.AddrPort // of IPv4, of IPv6
}

// ParsePEX parses the payload of a ut_pex message, up to 100 peers of each list. A list that cannot be read counts as
// empty, a missing flag as 0. The result does not refer to p.
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

// Append appends the dictionary of the message to b. Flags may be left out.
func (x *PEX) Append(b []byte) []byte {
	b = appendString(append(b, 'd'), "added") // BEP 11 wants at least one list
	b = appendString(b, netaddr.AppendCompact(nil, x.Added))
	b = appendStringEntry(b, "added.f", fitFlags(x.AddedFlags, len(x.Added)))
	b = appendStringEntry(b, "added6", netaddr.AppendCompact(nil, x.Added6))
	b = appendStringEntry(b, "added6.f", fitFlags(x.Added6Flags, len(x.Added6)))
	b = appendStringEntry(b, "dropped", netaddr.AppendCompact(nil, x.Dropped))
	b = appendStringEntry(b, "dropped6", netaddr.AppendCompact(nil, x.Dropped6))
	return append(b, 'e')
}

// parseCompact parses the first peers of a compact list.
func parseCompact(p []byte, size int) (peers []netip.AddrPort) {
	for a := range netaddr.Compact(p[:min(len(p), maxPEX*(size+2))], size) {
		peers = append(peers, a)
	}
	return peers
}

// fitFlags returns n flags: those given, and zeros after them.
func fitFlags(flags []byte, n int) []byte {
	fit := make([]byte, n)
	copy(fit, flags)
	return fit
}
