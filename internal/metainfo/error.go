package metainfo

import (
	"errors"
	"fmt"
)

// ErrUnsupported is the cause of an Error about what is well formed but of an unknown kind.
var ErrUnsupported = errors.New("torrent: unsupported")

// Error says which field of a torrent is malformed, and how.
type Error struct {
	Field  string // the keys that lead to it, such as "info.piece length"; "" is the whole file
	Reason string
	Err    error // the cause, or nil
}

func (e *Error) Error() string {
	s := "torrent: metainfo"
	if e.Field != "" {
		s += ": " + e.Field
	}
	return s + ": " + e.Reason
}

func (e *Error) Unwrap() error { return e.Err }

// TooLarge is the error for a file that is larger than MaxSize.
func TooLarge() *Error { return &Error{Reason: fmt.Sprintf("larger than %d MiB", MaxSize>>20)} }

// Malformed is the error for a field with a cause.
func Malformed(field string, err error) *Error {
	return &Error{Field: field, Reason: err.Error(), Err: err}
}
