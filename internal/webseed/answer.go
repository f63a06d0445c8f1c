package webseed

import (
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// An Error says why a server did not send the requested bytes, and what follows from that.
type Error struct {
	URL    string // of the file
	Reason string
	Err    error // the cause, or nil
	Fate   Fate
	After  time.Duration // how long it asks us to wait (Retry-After); 0 if it does not say
	// Doubtful is set with Missing if the answer may be that of something on the way, such as the login page of a network.
	Doubtful bool
}

func (e *Error) Error() string { return "web seed " + e.URL + ": " + e.Reason }
func (e *Error) Unwrap() error { return e.Err }

// A Fate is the consequence of an Error.
type Fate uint8

const (
	Broken  Fate = iota // the server or the way there failed: it rests
	Busy                // the server says that it is busy: it rests as long as it asks for
	Missing             // it does not have that file: the file rests
)

// A request is for the bytes of a file from one offset to before another.
type request struct {
	from, to int64
	size     int64 // of the file
}

func (r request) whole() bool { return r.from == 0 && r.to == r.size }

// judge returns the offsets in the file at which the body of an answer starts and ends, or the error in it. length is
// the Content-Length, or -1.
func (r request) judge(status int, h http.Header, length int64, now time.Time) (from, to int64, wrong *Error) {
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return 0, 0, &Error{Reason: statusText(status), Fate: Busy, After: retryAfter(h.Get("Retry-After"), now)}
	case status == http.StatusRequestTimeout, status >= 500:
		return 0, 0, &Error{Reason: statusText(status), Fate: Broken}
	case status != http.StatusOK && status != http.StatusPartialContent:
		// With 416 the server's file ends before the range.
		return 0, 0, &Error{Reason: statusText(status), Fate: Missing}
	}
	missing := func(format string, args ...any) (int64, int64, *Error) {
		return 0, 0, &Error{Reason: fmt.Sprintf(format, args...), Fate: Missing, Doubtful: status == http.StatusOK}
	}
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return missing("content encoding %q", e)
	}
	if status == http.StatusOK {
		if length >= 0 && length != r.size {
			return missing("a file of %d bytes, not %d", length, r.size)
		}
		return 0, r.size, nil
	}
	from, to, size, ok := parseContentRange(h.Get("Content-Range"))
	switch {
	case !ok:
		return missing("content range %q", h.Get("Content-Range"))
	case size >= 0 && size != r.size:
		return missing("a file of %d bytes, not %d", size, r.size)
	case from != r.from || to != r.to, length >= 0 && length != to-from:
		return missing("sent %q, asked for the bytes from %d to %d", h.Get("Content-Range"), r.from, r.to-1)
	}
	return from, to, nil
}

func statusText(status int) string {
	return strings.TrimSpace(fmt.Sprintf("HTTP status %d %s", status, http.StatusText(status)))
}

// parseContentRange parses a Content-Range header (RFC 9110, section 14.4). to is the offset behind the last byte, and size
// that of the whole file, or -1 if the server does not know it.
func parseContentRange(s string) (from, to, size int64, ok bool) {
	unit, s, _ := strings.Cut(textproto.TrimString(s), " ")
	span, all, isRange := strings.Cut(textproto.TrimString(s), "/")
	first, last, isSpan := strings.Cut(span, "-")
	if !strings.EqualFold(unit, "bytes") || !isRange || !isSpan {
		return 0, 0, 0, false
	}
	from, ok1 := parseOffset(first)
	to, ok2 := parseOffset(last)
	size, ok3 := parseOffset(all)
	if all == "*" {
		size, ok3 = -1, true
	}
	if !ok1 || !ok2 || !ok3 || to < from || size >= 0 && to >= size {
		return 0, 0, 0, false
	}
	return from, to + 1, size, true
}

// parseOffset parses digits alone.
func parseOffset(s string) (n int64, ok bool) {
	if s == "" || len(s) > 18 || strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

const maxRetryAfter = 24 * time.Hour

// retryAfter returns how long a Retry-After header says to wait, in seconds or by a date; 0 if it does not say.
func retryAfter(s string, now time.Time) time.Duration {
	s = textproto.TrimString(s)
	if s == "" {
		return 0
	}
	var d time.Duration
	if n, ok := parseOffset(s); ok {
		d = time.Duration(min(n, int64(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(s); err == nil {
		d = at.Sub(now)
	} else {
		return 0
	}
	return min(max(d, time.Second), maxRetryAfter)
}
