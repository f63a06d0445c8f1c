package metainfo

import (
	"unicode/utf8"

	"github.com/shoal-go/torrent/internal/bencode"
)

func intField(field string, value []byte) (int64, *Error) {
	if value == nil {
		return 0, &Error{Field: field, Reason: "missing"}
	}
	n, ok := bencode.Int(value)
	if !ok {
		return 0, &Error{Field: field, Reason: "not an integer"}
	}
	return n, nil
}

func stringField(field string, value []byte) ([]byte, *Error) {
	if value == nil {
		return nil, &Error{Field: field, Reason: "missing"}
	}
	s, ok := bencode.String(value)
	if !ok {
		return nil, &Error{Field: field, Reason: "not a string"}
	}
	return s, nil
}

// isText reports whether value is a string in valid UTF-8.
func isText(value []byte) bool {
	s, ok := bencode.String(value)
	return ok && utf8.Valid(s)
}

// isPathText reports whether value can be a path: a list that is not empty, of strings in valid UTF-8.
func isPathText(value []byte) bool {
	n := 0
	for element := range bencode.Elems(value) {
		if !isText(element) {
			return false
		}
		n++
	}
	return n > 0
}
