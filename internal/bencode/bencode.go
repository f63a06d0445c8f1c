package bencode

import (
	"fmt"

	"github.com/zeebo/bencode"
)

// Raw is a value in its encoded form, for a field that Marshal copies and Unmarshal keeps as it is.
type Raw = bencode.RawMessage

// Marshal encodes v, with its keys sorted. Fields of structs are named by their `bencode` tags.
func Marshal(v any) ([]byte, error) { return bencode.EncodeBytes(v) }

// Unmarshal decodes the one value that p holds into v, a pointer. Bytes behind the value are an
// error. What Scan refuses is a *SyntaxError, and v is untouched; where a value is of another type
// than v has a place for, the error is another one and v may be filled in part.
func Unmarshal(p []byte, v any, l Limits) error {
	n, err := Scan(p, l)
	if err != nil {
		return err
	}
	if n < len(p) {
		return &SyntaxError{n, "bytes behind the value"}
	}
	return decode(p, v)
}

// UnmarshalPrefix decodes the value that stands at the start of p, as Unmarshal does, and returns
// its length. Other bytes may follow it, as in the messages of ut_metadata (BEP 9).
func UnmarshalPrefix(p []byte, v any, l Limits) (n int, err error) {
	n, err = Scan(p, l)
	if err != nil {
		return 0, err
	}
	return n, decode(p[:n], v)
}

func decode(p []byte, v any) error {
	if err := bencode.DecodeBytes(p, v); err != nil {
		return fmt.Errorf("bencode: %w", err)
	}
	return nil
}
