package tracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"syscall"
	"time"

	"github.com/shoal-go/torrent/internal/printable"
)

// Error is the failure of an announce or a scrape.
type Error struct {
	URL    string
	Reason string // the tracker's failure reason, or a description of what went wrong
	Err    error  // the cause, or nil
}

func (e *Error) Error() string { return fmt.Sprintf("tracker %s: %s", e.URL, e.Reason) }

func (e *Error) Unwrap() error { return e.Err }

// newError returns err as an Error. Its Reason does not repeat the URL.
func newError(tracker string, err error) *Error {
	e := &Error{URL: tracker, Err: err}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errSilent
	}
	e.Reason = printable.Line(err.Error())
	return e
}

// errSilent is the error of a tracker that did not answer in time.
var errSilent = errors.New("no answer")

// A refusal is a failure that the tracker itself reports.
type refusal struct {
	reason string
	retry  time.Duration // time until the tracker may be asked again (BEP 31); 0 if not given
	final  bool          // the tracker must not be asked again
}

func (r *refusal) Error() string { return cmp.Or(r.reason, "refused without a reason") }

// refuse returns a refusal with text as its reason.
func refuse(text []byte) *refusal { return &refusal{reason: printable.Line(string(text))} }

// mostTelling returns nil if one of errs is nil, else the error that says most about the tracker: a refusal, or an error
// that does not come from a missing address family.
func mostTelling(errs []error) error {
	if slices.Contains(errs, nil) {
		return nil
	}
	for _, err := range errs {
		if _, ok := errors.AsType[*refusal](err); ok {
			return err
		}
	}
	for _, err := range errs {
		if !isUnreachable(err) {
			return err
		}
	}
	return errs[0]
}

// isUnreachable reports whether err means that this machine or the tracker lacks an address family. Such an error says
// nothing about the tracker.
func isUnreachable(err error) bool {
	if _, ok := errors.AsType[*net.AddrError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL)
}
