package torrent

import (
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"
)

// Hash is a SHA-1 sum: an info hash.
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
		return h, fmt.Errorf("%q is no info hash: neither hex nor base32", s)
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
