package torrent

import (
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/shoal-go/torrent/internal/wire"
)

// Hash is an info hash of 20 bytes: a SHA-1 sum, or the first 20 bytes of an info hash of version 2.
type Hash [20]byte

// ParseHash reads an info hash as magnet links write it: 40 characters of hex or 32 of base32, in either case.
func ParseHash(s string) (h Hash, err error) {
	var p []byte
	switch len(s) {
	case 2 * len(h):
		p, err = hex.DecodeString(s)
	case 32:
		p, err = base32.StdEncoding.DecodeString(strings.ToUpper(s))
	default:
		return h, fmt.Errorf("an info hash of %d characters, not 40 (hex) or 32 (base32)", len(s))
	}
	if err != nil || len(p) != len(h) {
		return h, fmt.Errorf("%q is not an info hash: neither hex nor base32", s)
	}
	return Hash(p), nil
}

// String is the lower-case hex form, 40 characters.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is String as encoding.TextMarshaler has it, so that JSON shows hex.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText is ParseHash as encoding.TextUnmarshaler has it.
func (h *Hash) UnmarshalText(text []byte) error {
	parsed, err := ParseHash(string(text))
	if err == nil {
		*h = parsed
	}
	return err
}

// HashV2 is an info hash of version 2 (BEP 52): a SHA-256 sum.
type HashV2 [32]byte

// parseHashV2 reads an info hash of version 2: 64 characters of hex, or the 68 that magnet links have, which begin with 1220.
func parseHashV2(s string) (h HashV2, err error) {
	digits := s
	if len(s) == 2*len(h)+len(multihash) {
		digits = strings.TrimPrefix(s, multihash)
	}
	if len(digits) != 2*len(h) {
		return h, fmt.Errorf("an info hash of version 2 of %d characters, not %d (hex)", len(s), 2*len(h))
	}
	if _, err := hex.Decode(h[:], []byte(digits)); err != nil {
		return HashV2{}, fmt.Errorf("%q is not an info hash of version 2: not hex", s)
	}
	return h, nil
}

// multihash is how the hash of a magnet link says that it is SHA-256 and has 32 bytes.
const multihash = "1220"

// String is the lower-case hex form, 64 characters.
func (h HashV2) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is String as encoding.TextMarshaler has it, so that JSON shows hex.
func (h HashV2) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads 64 characters of hex, or the 68 that magnet links have, which begin with 1220.
func (h *HashV2) UnmarshalText(text []byte) error {
	parsed, err := parseHashV2(string(text))
	if err == nil {
		*h = parsed
	}
	return err
}

// truncated returns the form of the hash that the protocol uses where it has room for 20 bytes only.
func (h HashV2) truncated() Hash { return Hash(h[:20]) }

// infoHashes are the info hashes of the swarms of one torrent. A hybrid has two, and so two swarms (BEP 52).
type infoHashes struct {
	first  Hash // identifies the torrent within the client: of version 1, unless the torrent is of version 2 alone
	second Hash // of version 2, in addition to that; zero if there is none
	v2     bool // one of them is of version 2
	linked bool // they are what a link says: any bytes, until content is known that has them
}

func (t *Torrent) infoHashes() infoHashes {
	h := infoHashes{first: t.infoHash, v2: t.version != V1}
	if t.version == Hybrid {
		h.second = t.infoHashV2.truncated()
	}
	return h
}

// all returns the info hashes.
func (h infoHashes) all() []Hash {
	if h.second == (Hash{}) {
		return []Hash{h.first}
	}
	return []Hash{h.first, h.second}
}

// ofV2 returns the info hash of version 2, or zero.
func (h infoHashes) ofV2() Hash {
	if h.v2 && h.second == (Hash{}) {
		return h.first
	}
	return h.second
}

// accepts reports whether a peer may answer our handshake for ours with theirs: the same info hash, or the one of
// version 2 instead (BEP 52).
func (h infoHashes) accepts(ours, theirs Hash) bool {
	return theirs == ours || h.second != (Hash{}) && theirs == h.second
}

// answer returns the info hash with which to answer a handshake. A peer of a hybrid that supports version 2 is answered
// with the info hash of version 2.
func (h infoHashes) answer(theirs *wire.Handshake) Hash {
	if h.second != (Hash{}) && theirs.V2() {
		return h.second
	}
	return theirs.InfoHash
}
