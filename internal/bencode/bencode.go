package bencode

import "github.com/zeebo/bencode"

// Raw is a value in its encoded form, for a field that Marshal copies as it is.
type Raw = bencode.RawMessage

// Marshal encodes v, with its keys sorted. Fields of structs are named by their `bencode` tags.
func Marshal(v any) ([]byte, error) { return bencode.EncodeBytes(v) }
