package webseed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/httpguard"
	"github.com/shoal-go/torrent/internal/layout"
)

func direct(*url.URL) bool { return true }

func newSeed(t testing.TB, c *http.Client, u string, byUser bool, content *Content) *Seed {
	s, err := NewClient(c, direct, account.New(0)).NewSeed(u, byUser, content)
	require.NoError(t, err)
	return s
}

func TestFileURL(t *testing.T) {
	one := &Content{Name: "a b.iso"}
	many := &Content{Name: "d", Paths: [][]string{{"sub", "f"}, {"ü?#%41&+;=/\x00\xff"}, {"..", ".", ""}, {"~-._A9"}}}
	for _, c := range []struct {
		base    string
		content *Content
		file    int
		want    string
	}{
		{"http://h/x.iso", one, 0, "http://h/x.iso"},
		{"http://h/x%20y.iso?k=v#frag", one, 0, "http://h/x%20y.iso?k=v"},
		{"http://h/x/", one, 0, "http://h/x/a%20b.iso"},
		{"http://h", one, 0, "http://h/a%20b.iso"},
		{"http://h/", one, 0, "http://h/a%20b.iso"},
		{"http://h/?k=v", one, 0, "http://h/a%20b.iso?k=v"},
		{"http://h/a%2Fb/", one, 0, "http://h/a%2Fb/a%20b.iso"},
		{"https://u:p@h:8443/x", many, 0, "https://u:p@h:8443/x/d/sub/f"},
		{"https://h/x/", many, 0, "https://h/x/d/sub/f"},
		{"http://[::1]:80/x?q#f", many, 1, "http://[::1]:80/x/d/%C3%BC%3F%23%2541%26%2B%3B%3D%2F%00%FF?q"},
		{"http://h/", many, 2, "http://h/d/_/_/_"},
		{"http://h/", many, 3, "http://h/d/~-._A9"},
	} {
		require.Equal(t, c.want, newSeed(t, nil, c.base, true, c.content).fileURL(c.file).String(), c.base)
	}
	for u, want := range map[string]error{
		"ftp://h/": errScheme, "file:///etc/passwd": errScheme, "": errScheme, "//h/": errScheme, "http:///x": errNoHost, "http:x": errNoHost,
	} {
		_, err := NewClient(nil, direct, account.New(0)).NewSeed(u, true, one)
		require.ErrorIs(t, err, want, u)
	}
	_, err := NewClient(nil, direct, account.New(0)).NewSeed("http://h/%zz", true, one)
	require.ErrorContains(t, err, "malformed")
}

// Whatever names are, the URL is of the same server, below the same path, and decodes to them.
func FuzzFileURL(f *testing.F) {
	f.Add("http://h/x/", "name", "sub/../../etc")
	f.Add("https://u@h:1/%2e/?q#f", "..", "%00\\?#")
	f.Fuzz(func(t *testing.T, base, name, path string) {
		content := &Content{Name: name, Paths: [][]string{strings.Split(path, "/")}}
		s, err := NewClient(nil, direct, account.New(0)).NewSeed(base, false, content)
		if err != nil {
			return
		}
		u := s.fileURL(0)
		again, err := url.Parse(u.String())
		require.NoError(t, err)
		require.Equal(t, s.base.Host, again.Host)
		require.Equal(t, s.base.Scheme, again.Scheme)
		require.Equal(t, s.base.RawQuery, again.RawQuery)
		require.True(t, strings.HasPrefix(again.EscapedPath(), strings.TrimSuffix(s.base.EscapedPath(), "/")), "%q", again.EscapedPath())
		below := strings.Split(strings.TrimPrefix(again.EscapedPath(), strings.TrimSuffix(s.base.EscapedPath(), "/")), "/")
		require.Len(t, below, 2+len(content.Paths[0]))
		for _, name := range below[1:] {
			require.NotContains(t, []string{"", ".", ".."}, name)
		}
	})
}

func TestPartAt(t *testing.T) {
	l := layout.New(32<<10, layout.File{Path: "a", Length: 10}, layout.File{Path: "e"}, layout.File{Path: "p", Length: 90, Pad: true}, layout.File{Path: "b", Length: 1000})
	for _, c := range []struct {
		off, end int64
		want     Part
	}{
		{0, 5, Part{File: 0, Offset: 0, Length: 5}},
		{3, 500, Part{File: 0, Offset: 3, Length: 7}},
		{10, 500, Part{File: 2, Offset: 0, Length: 90, Pad: true}},
		{50, 60, Part{File: 2, Offset: 40, Length: 10, Pad: true}},
		{100, 1100, Part{File: 3, Offset: 0, Length: 1000}},
	} {
		require.Equal(t, c.want, PartAt(l, c.off, c.end))
	}
}

func TestJudge(t *testing.T) {
	part, whole := request{100, 200, 1000}, request{0, 1000, 1000}
	head := request{0, 200, 1000}
	h := func(kv ...string) http.Header {
		h := http.Header{}
		for k := 0; k < len(kv); k += 2 {
			h.Set(kv[k], kv[k+1])
		}
		return h
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		what     string
		r        request
		status   int
		h        http.Header
		length   int64
		from, to int64
		reason   string
		fate     Fate
		after    time.Duration
	}{
		{"the range", part, 206, h("Content-Range", "bytes 100-199/1000"), 100, 100, 200, "", 0, 0},
		{"size unknown", part, 206, h("Content-Range", "Bytes 100-199/*"), -1, 100, 200, "", 0, 0},
		{"identity", part, 206, h("Content-Range", "bytes 100-199/1000", "Content-Encoding", "identity"), 100, 100, 200, "", 0, 0},
		{"gzip", part, 206, h("Content-Range", "bytes 100-199/1000", "Content-Encoding", "gzip"), 100, 0, 0, "encoding", Missing, 0},
		{"another range", part, 206, h("Content-Range", "bytes 101-200/1000"), 100, 0, 0, "sent", Missing, 0},
		{"less", part, 206, h("Content-Range", "bytes 100-198/1000"), 99, 0, 0, "sent", Missing, 0},
		{"another length", part, 206, h("Content-Range", "bytes 100-199/1000"), 99, 0, 0, "sent", Missing, 0},
		{"another size", part, 206, h("Content-Range", "bytes 100-199/1001"), 100, 0, 0, "1001 bytes, not 1000", Missing, 0},
		{"no range", part, 206, h(), 100, 0, 0, "content range", Missing, 0},
		{"multipart", part, 206, h("Content-Type", "multipart/byteranges; boundary=x"), 100, 0, 0, "content range", Missing, 0},
		{"whole", whole, 200, h(), 1000, 0, 1000, "", 0, 0},
		{"whole, chunked", whole, 200, h(), -1, 0, 1000, "", 0, 0},
		{"whole instead of a part", part, 200, h(), 1000, 0, 1000, "", 0, 0},
		{"whole instead of a head", head, 200, h(), -1, 0, 1000, "", 0, 0},
		{"another whole", part, 200, h(), 999, 0, 0, "999 bytes, not 1000", Missing, 0},
		{"its file ends before", part, 416, h("Content-Range", "bytes */50"), 0, 0, 0, "416", Missing, 0},
		{"forbidden", part, 403, h(), 0, 0, 0, "403", Missing, 0},
		{"not found", part, 404, h(), 0, 0, 0, "404 Not Found", Missing, 0},
		{"gone", part, 410, h(), 0, 0, 0, "410", Missing, 0},
		{"law", part, 451, h(), 0, 0, 0, "451", Missing, 0},
		{"no content", part, 204, h(), 0, 0, 0, "204", Missing, 0},
		{"broken", part, 500, h(), 0, 0, 0, "500", Broken, 0},
		{"gateway", part, 502, h(), 0, 0, 0, "502", Broken, 0},
		{"busy", part, 503, h(), 0, 0, 0, "503", Busy, 0},
		{"busy for a while", part, 503, h("Retry-After", "120"), 0, 0, 0, "503", Busy, 2 * time.Minute},
		{"too many", part, 429, h("Retry-After", "Fri, 02 Jan 2026 03:05:05 GMT"), 0, 0, 0, "429", Busy, time.Minute},
		{"busy till yesterday", part, 429, h("Retry-After", "Thu, 01 Jan 2026 03:05:05 GMT"), 0, 0, 0, "429", Busy, time.Second},
		{"busy for ever", part, 429, h("Retry-After", "99999999999"), 0, 0, 0, "429", Busy, 24 * time.Hour},
		{"busy for nonsense", part, 429, h("Retry-After", "-5"), 0, 0, 0, "429", Busy, 0},
		{"unknown", part, 799, h(), 0, 0, 0, "799", Broken, 0},
	} {
		from, to, err := c.r.judge(c.status, c.h, c.length, now)
		if c.reason == "" {
			require.Nil(t, err, c.what)
			require.Equal(t, []int64{c.from, c.to}, []int64{from, to}, c.what)
			continue
		}
		require.NotNil(t, err, c.what)
		require.ErrorContains(t, err, c.reason, c.what)
		require.Equal(t, c.fate, err.Fate, c.what)
		require.Equal(t, c.after, err.After, c.what)
	}
}

// Whatever a server says, what is taken of it is what was asked for.
func FuzzJudge(f *testing.F) {
	f.Add(206, "bytes 100-199/1000", "", "", int64(100))
	f.Add(200, "", "gzip", "", int64(-1))
	f.Add(503, "bytes */1", "", "Fri, 02 Jan 2026 03:05:05 GMT", int64(0))
	f.Fuzz(func(t *testing.T, status int, span, encoding, after string, length int64) {
		h := http.Header{"Content-Range": {span}, "Content-Encoding": {encoding}, "Retry-After": {after}}
		r := request{100, 200, 1000}
		from, to, err := r.judge(status, h, length, time.Unix(1e9, 0))
		switch {
		case err != nil:
			require.Zero(t, from+to)
			require.GreaterOrEqual(t, err.After, time.Duration(0))
			require.LessOrEqual(t, err.After, maxRetryAfter)
		case status == 206:
			require.Equal(t, []int64{100, 200}, []int64{from, to})
		default:
			require.Equal(t, 200, status)
			require.Equal(t, []int64{0, 1000}, []int64{from, to})
		}
	})
}

func TestHealth(t *testing.T) {
	now := time.Unix(1e9, 0)
	broken, busy := &Error{Fate: Broken}, &Error{Fate: Busy}
	var h Health
	for _, c := range []struct {
		err  error
		rest time.Duration
	}{
		{broken, 5 * time.Second}, {broken, 10 * time.Second}, {busy, 30 * time.Second}, {broken, time.Minute}, {io.EOF, 2 * time.Minute},
		{busy, 4 * time.Minute}, {busy, 8 * time.Minute}, {busy, 10 * time.Minute}, {broken, 10 * time.Minute},
		{&Error{Fate: Busy, After: time.Hour}, time.Hour},
	} {
		require.False(t, h.Failed(3, c.err, now))
		require.Equal(t, c.rest, h.Rests().Sub(now))
		require.False(t, h.Failed(4, broken, now), "another request that was under way")
		require.Equal(t, c.rest, h.Rests().Sub(now))
		now = h.Rests()
	}
	h.Worked()
	require.False(t, h.Failed(3, busy, now))
	require.Equal(t, 30*time.Second, h.Rests().Sub(now))
	for range h.Resting {
		t.Fatal("it rests as a whole")
	}

	require.True(t, h.Failed(7, &Error{Fate: Missing}, now))
	require.True(t, h.FileRests(7))
	require.False(t, h.FileRests(8))
	require.False(t, h.Lied(5, now.Add(time.Minute)))
	require.True(t, h.PieceRests(5))
	rests := make(map[int]bool)
	for i, piece := range h.Resting {
		rests[i] = piece
	}
	require.Equal(t, map[int]bool{7: false, 5: true}, rests)
	require.Equal(t, now.Add(time.Hour), h.NextRested())
	require.True(t, h.Failed(7, &Error{Fate: Missing}, now.Add(time.Second)), "again, as it was asked twice")
	files, pieces := h.Rested(now.Add(time.Hour - 1))
	require.Empty(t, files)
	require.Empty(t, pieces)
	files, pieces = h.Rested(now.Add(time.Hour))
	require.Equal(t, []int{7}, files)
	require.Empty(t, pieces)
	require.False(t, h.FileRests(7))
	require.True(t, h.PieceRests(5))
	require.False(t, h.Banned())
	require.True(t, h.Lied(6, now))
	require.True(t, h.Banned())

	var lacking Health
	for i := range 3 * maxMissing {
		require.True(t, lacking.Failed(i, &Error{Fate: Missing}, now))
		if i+1 == 2*maxMissing {
			require.Equal(t, 10*time.Second, lacking.Rests().Sub(now), "it has none of many files")
			lacking.Worked()
		}
		if now.Before(lacking.Rests()) {
			require.Zero(t, (i+1)%maxMissing)
			now = lacking.Rests()
		}
	}
	require.Equal(t, now, lacking.Rests(), "5 s again")

	var unusable Health
	unusable.Unusable(errScheme)
	require.True(t, unusable.Banned())
	require.Equal(t, errScheme, unusable.Err())
}

// A URL inside the user's network, or one that is not HTTP, is not requested. A server on the open internet is one whose name
// resolves to this machine at first, as far as the guard knows.
func TestForbidden(t *testing.T) {
	var asked atomic.Int32
	secret := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		io.WriteString(w, "0123456789")
	}))
	defer secret.Close()
	inside := secret.Listener.Addr().String()
	to := ""
	public := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }))
	defer public.Close()

	const allowed = ""
	inward, query := httpguard.ErrInward.Error(), errQuery.Error()
	for _, c := range []struct {
		what             string
		url, to          string
		byAuthor, byUser string // the error
	}{
		{"a path inside", "http://" + inside + "/f", "", allowed, allowed},
		{"a query inside", "http://" + inside + "/f?reboot=1", "", query, allowed},
		{"an empty query inside", "http://" + inside + "/f?", "", query, allowed},
		{"a name that is inside, with a query", "http://inside.example/f?q", "", query, allowed},
		{"a name that is inside", "http://inside.example/f", "", allowed, allowed},
		{"from outside to loopback", "http://public.example/f", "http://" + inside + "/f", inward, inward},
		{"from outside to a name of loopback", "http://public.example/f", "http://inside.example/f", inward, inward},
		{"from outside to localhost", "http://public.example/f", "http://localhost/f", inward, inward},
		{"from outside to link-local", "http://public.example/f", "http://169.254.169.254/latest/meta-data/", inward, inward},
		{"from outside to private", "http://public.example/f", "http://192.168.1.1:8080/", inward, inward},
		{"from outside to private IPv6", "http://public.example/f", "http://[fd00::1]/", inward, inward},
		{"from outside to mapped loopback", "http://public.example/f", "http://[::ffff:127.0.0.1]/", inward, inward},
		{"from outside to unspecified", "http://public.example/f", "http://0.0.0.0/", inward, inward},
		{"from outside to a file", "http://public.example/f", "file:///etc/passwd", "neither http nor https", "neither http nor https"},
		{"from outside to another scheme", "http://public.example/f", "gopher://h/", "neither http nor https", "neither http nor https"},
		{"from outside to itself", "http://public.example/f", "http://public.example/f", "redirects", "redirects"},
		{"a name that moves inside between check and dial", "http://public.example/f", "http://moves.example/f", inward, inward},
		{"from inside to another port inside", "http://" + public.Listener.Addr().String() + "/f", "http://" + inside + "/f", allowed, allowed},
		{"from inside to a query inside", "http://" + public.Listener.Addr().String() + "/f", "http://" + inside + "/f?q", query, allowed},
	} {
		for byUser, want := range map[bool]string{false: c.byAuthor, true: c.byUser} {
			asked.Store(0)
			to = c.to
			dialer := &net.Dialer{}
			transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				host, _, _ := net.SplitHostPort(addr)
				switch host {
				case "public.example": // judged as if it were outside
					conn, err := dialer.DialContext(ctx, network, public.Listener.Addr().String())
					return outside{conn}, err
				case "inside.example", "moves.example":
					addr, host = inside, "127.0.0.1"
				}
				if err := httpguard.Check(ctx, host); err != nil {
					return nil, err
				}
				return dialer.DialContext(ctx, network, addr)
			}}
			content := &Content{Layout: layout.New(16<<10, layout.File{Path: "f", Length: 10}), Name: "f"}
			s := newSeed(t, &http.Client{Transport: transport}, c.url, byUser, content)
			b, err := s.Open(t.Context(), 0, 0, 10)
			what := fmt.Sprintf("%s, named by the user: %t", c.what, byUser)
			if want == allowed {
				require.NoError(t, err, what)
				b.Close()
				require.EqualValues(t, 1, asked.Load(), what)
			} else {
				require.ErrorContains(t, err, want, what)
				require.Zero(t, asked.Load(), what)
				e, ok := errors.AsType[*Error](err)
				require.True(t, ok && e.Fate == Missing, what)
			}
			transport.CloseIdleConnections()
		}
	}
}

// outside is a connection to an address on the open internet.
type outside struct{ net.Conn }

func (outside) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(1, 1, 1, 1), Port: 80} }

// A server that sends no byte is given up, at its answer as in its body.
func TestSilence(t *testing.T) {
	content := &Content{Layout: layout.New(16<<10, layout.File{Path: "f", Length: 10}), Name: "f"}
	for _, sends := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newSeed(t, &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				if !sends {
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
				pr, pw := io.Pipe()
				go pw.Write([]byte("01234"))
				context.AfterFunc(r.Context(), func() { pr.CloseWithError(r.Context().Err()) })
				return &http.Response{StatusCode: 200, Body: pr, ContentLength: 10, Header: http.Header{}, Request: r}, nil
			})}, "http://h/f", true, content)
			began := time.Now()
			b, err := s.Open(t.Context(), 0, 0, 10)
			if sends {
				require.NoError(t, err)
				time.Sleep(time.Hour) // our own delay is no silence
				began = time.Now()
				n, e := io.ReadFull(b, make([]byte, 10))
				require.Equal(t, 5, n)
				err = e
				b.Close()
			}
			require.ErrorIs(t, err, errSilent)
			require.Equal(t, silence, time.Since(began))
		})
	}
}

// A body that ends too early is that of a shorter file where HTTP says that it is whole, and a broken one elsewhere.
func TestShort(t *testing.T) {
	content := &Content{Layout: layout.New(16<<10, layout.File{Path: "f", Length: 10}), Name: "f"}
	for name, c := range map[string]struct {
		resp http.Response
		err  error
		fate Fate
	}{
		"chunked":             {http.Response{ProtoMajor: 1, TransferEncoding: []string{"chunked"}}, io.EOF, Missing},
		"chunked, broken off": {http.Response{ProtoMajor: 1, TransferEncoding: []string{"chunked"}}, io.ErrUnexpectedEOF, Broken},
		"HTTP/2":              {http.Response{ProtoMajor: 2}, io.EOF, Missing},
		"until it closes":     {http.Response{ProtoMajor: 1}, io.EOF, Broken},
	} {
		s := newSeed(t, &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			resp := c.resp
			resp.StatusCode, resp.ContentLength, resp.Header, resp.Request = 200, -1, http.Header{}, r
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("01234"), iotest.ErrReader(c.err)))
			return &resp, nil
		})}, "http://h/f", true, content)
		b, err := s.Open(t.Context(), 0, 0, 10)
		require.NoError(t, err, name)
		n, err := io.ReadFull(b, make([]byte, 10))
		b.Close()
		require.Equal(t, 5, n, name)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, name)
		e, ok := errors.AsType[*Error](err)
		require.True(t, ok, name)
		require.Equal(t, c.fate, e.Fate, name)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Whatever a server says of its answer, what is taken from it is within what it was asked for.
func FuzzAnswer(f *testing.F) {
	f.Add(206, "bytes 10-19/100", "", "", int64(10))
	f.Add(206, "bytes 10-9223372036854775807/9223372036854775808", "", "", int64(-1))
	f.Add(206, "bytes */100", "identity", "", int64(-1))
	f.Add(200, "", "gzip", "", int64(100))
	f.Add(503, "", "", "99999999999999999999", int64(0))
	f.Add(429, "", "", "Fri, 31 Dec 9999 23:59:59 GMT", int64(0))
	f.Fuzz(func(t *testing.T, status int, contentRange, encoding, retry string, length int64) {
		h := http.Header{"Content-Range": {contentRange}, "Content-Encoding": {encoding}, "Retry-After": {retry}}
		r := request{from: 10, to: 20, size: 100}
		from, to, wrong := r.judge(status, h, length, time.Unix(1e9, 0))
		if wrong != nil {
			require.GreaterOrEqual(t, wrong.After, time.Duration(0))
			return
		}
		whole := status == http.StatusOK && from == 0 && to == 100
		require.True(t, whole || status == http.StatusPartialContent && from == 10 && to == 20, "%d %d", from, to)
	})
}
