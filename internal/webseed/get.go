package webseed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/shoal-go/torrent/internal/httpguard"
	"github.com/shoal-go/torrent/internal/printable"
)

const (
	// silence is how long a server may send no byte.
	silence   = 20 * time.Second
	userAgent = "shoal-go/torrent"
)

var (
	errSilent = fmt.Errorf("not a byte in %v", silence)
	errNoRoom = errors.New("no memory for the rest of a slow header")
)

// A Body is bytes of a file as a server sends them.
type Body struct {
	// Offset is that of the next byte within the file, and End that behind the last byte.
	Offset, End int64
	// Rangeless is set if the server sends a whole file although it was asked for a part.
	Rangeless bool
	all       bool // the server says that this is the whole file

	url    string
	framed bool // HTTP says where the body ends, so that an end is no broken connection
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer // ends the request
}

// Open asks for the bytes of a file from one offset to before another. The body may start before and end after that,
// if the server sends whole files only. It must be closed. ctx ends the request, its body included. An error that is
// not an *Error is that of ctx.
func (s *Seed) Open(ctx context.Context, file int, from, to int64) (*Body, error) {
	r := request{from: from, to: to, size: s.content.Layout.File(file).Length}
	s.mu.Lock()
	known, redirected := s.redirects[file]
	s.mu.Unlock()
	if redirected {
		b, err := s.get(ctx, file, r, &known)
		if err == nil || ctx.Err() != nil {
			return b, err
		}
		if e, ok := errors.AsType[*Error](err); ok && e.Fate == Busy {
			return nil, err
		}
		s.mu.Lock()
		s.forget(file) // it may lead elsewhere by now
		s.mu.Unlock()
	}
	return s.get(ctx, file, r, nil)
}

// get makes one request, to where an earlier one was redirected if known is not nil.
func (s *Seed) get(parent context.Context, file int, r request, known *redirect) (*Body, error) {
	u := s.fileURL(file)
	if known != nil {
		u = known.to
	}
	fail := func(ctx context.Context, err error) (*Body, error) {
		if parent.Err() != nil {
			return nil, context.Cause(parent)
		}
		return nil, s.failure(u, because(ctx, err))
	}
	ctx, cancel := context.WithCancelCause(parent)
	b := &Body{url: printable.Line(u.Redacted()), cancel: cancel}
	b.timer = time.AfterFunc(silence, func() { cancel(errSilent) })
	ok := false
	defer func() {
		if !ok {
			b.timer.Stop()
			cancel(nil)
		}
	}()
	guard := httpguard.New(s.rule, s.client.direct)
	b.ctx = guard.Watch(ctx, cancel)
	req, err := http.NewRequestWithContext(b.ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fail(ctx, err)
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept-Encoding", "identity")
	if !r.whole() {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.from, r.to-1))
	}
	if known != nil {
		err = guard.Resume(req.URL, known.from)
	} else {
		err = guard.Begin(req.URL)
	}
	if err != nil {
		return fail(ctx, err)
	}
	counted, whole := httpguard.CountHeaders(b.ctx, s.client.account, func() { cancel(errNoRoom) })
	resp, err := guard.Client(s.client.http).Do(req.WithContext(counted))
	whole()
	if err != nil {
		return fail(ctx, err)
	}
	defer func() {
		if !ok {
			resp.Body.Close()
		}
	}()
	s.heard(resp.ProtoMajor)
	var wrong *Error
	if b.Offset, b.End, wrong = r.judge(resp.StatusCode, resp.Header, resp.ContentLength, time.Now()); wrong != nil {
		wrong.URL, wrong.Reason = b.url, printable.Line(wrong.Reason)
		return nil, wrong
	}
	if end := resp.Request.URL; known == nil && end.String() != u.String() {
		s.remember(file, end, guard.Origin())
	}
	resp.Header = nil // it may be long
	b.timer.Stop()
	b.framed = resp.ProtoMajor >= 2 || resp.ContentLength >= 0 || len(resp.TransferEncoding) > 0
	b.body, b.all = resp.Body, resp.StatusCode == http.StatusOK
	b.Rangeless = b.all && !r.whole()
	ok = true
	return b, nil
}

// failure is the error of a request for u that had no answer.
func (s *Seed) failure(u *url.URL, err error) *Error {
	e := &Error{URL: printable.Line(u.Redacted()), Err: err}
	// A guard refuses a URL because of the URL itself, not because of anything that the server did.
	for _, refused := range []error{errQuery, httpguard.ErrInward, httpguard.ErrRedirect, httpguard.ErrScheme} {
		if errors.Is(err, refused) {
			e.Err, e.Fate, e.Doubtful = refused, Missing, refused == httpguard.ErrInward
		}
	}
	if of, ok := errors.AsType[*url.Error](e.Err); ok {
		e.Err = of.Err
	}
	e.Reason = printable.Line(e.Err.Error())
	return e
}

// because returns err, or the cause of ctx if it has ended.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// Read reads the next bytes. It never returns io.EOF before the end of the body. The limit on silence counts only
// while Read waits.
func (b *Body) Read(p []byte) (int, error) {
	p = p[:min(int64(len(p)), b.End-b.Offset)]
	b.timer.Reset(silence)
	n, err := b.body.Read(p)
	b.timer.Stop()
	b.Offset += int64(n)
	if err == nil || err == io.EOF && b.Offset == b.End {
		return n, err
	}
	if err == io.EOF && b.framed { // the server's file is shorter
		reason := fmt.Sprintf("ended at byte %d, not %d", b.Offset, b.End)
		return n, &Error{URL: b.url, Reason: reason, Err: io.ErrUnexpectedEOF, Fate: Missing, Doubtful: b.all}
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	err = because(b.ctx, err)
	return n, &Error{URL: b.url, Reason: printable.Line(err.Error()), Err: err}
}

// Close ends the request. Its connection is used again if the body was read to its end.
func (b *Body) Close() {
	b.timer.Stop()
	if b.Offset < b.End {
		b.cancel(nil)
	}
	b.body.Close()
	b.cancel(nil)
}
