package httpguard

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
)

// talk makes a request to a server that sends the given parts of an answer, a minute after each other.
func talk(t *testing.T, ctx context.Context, parts ...string) (*http.Response, error) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		mine, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			theirs.Read(make([]byte, 4<<10))
			for _, p := range parts {
				if _, err := io.WriteString(theirs, p); err != nil {
					return
				}
				select {
				case <-time.After(time.Minute):
				case <-t.Context().Done():
					return
				}
			}
		}()
		return mine, nil
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://10.0.0.1/", nil)
	require.NoError(t, err)
	guard := New(nil, func(*url.URL) bool { return true })
	return guard.Client(&http.Client{Transport: transport}).Do(req)
}

// A header that does not become whole is in the account, and its request gives way to what needs the room.
func TestHeadersAreCounted(t *testing.T) {
	for _, full := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a := account.New(headerMemory)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			ctx, whole := CountHeaders(ctx, a, func() { cancel(io.ErrShortBuffer) })
			go func() {
				time.Sleep(headerPatience + time.Second)
				held, _ := a.Held()
				require.EqualValues(t, headerMemory-account.Free, held)
				if full {
					a.Join(func() { t.Error("gave way") }).Set(account.Incoming, headerMemory-1)
				}
			}()
			resp, err := talk(t, ctx, "HTTP/1.1 200 OK\r\nA: b\r\n", "\r\n")
			whole()
			if full {
				require.ErrorIs(t, err, io.ErrShortBuffer)
				return
			}
			require.NoError(t, err)
			resp.Body.Close()
			held, _ := a.Held()
			require.Zero(t, held)
		})
	}
}

// A header that comes at once is not counted, even if the account is full.
func TestShortHeadersAreNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := account.New(1)
		ctx, whole := CountHeaders(t.Context(), a, func() { t.Error("gave way") })
		defer whole()
		_, err := talk(t, ctx, "HTTP/1.1 200 OK\r\nA: b\r\n\r\n")
		require.NoError(t, err)
	})
}

// Of an answer that redirects nothing is kept but where it leads.
func TestHeadersOfRedirectsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resp, err := talk(t, t.Context(), "HTTP/1.1 302 Found\r\nLocation: /there\r\nA: b\r\n\r\n")
		require.ErrorIs(t, err, ErrRedirect)
		require.NotEmpty(t, resp.Header)
		for r := resp.Request.Response; r != nil; r = r.Request.Response {
			require.Empty(t, r.Header)
		}
	})
}

// A request whose header has come does not give way for it, however close that was.
func TestAWholeHeaderDoesNotGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, whole := CountHeaders(t.Context(), account.New(0), func() { t.Error("gave way") })
		firstByte := httptrace.ContextClientTrace(ctx).GotFirstResponseByte
		firstByte()
		whole()
		firstByte() // as if the timer had just fired
		time.Sleep(2 * headerPatience)
	})
}

// The header of a redirect has come when the next request begins: what that waits for is no slow header.
func TestWaitAfterARedirectIsNoSlowHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, whole := CountHeaders(t.Context(), account.New(1), func() { t.Error("gave way") })
		defer whole()
		trace := httptrace.ContextClientTrace(ctx)
		trace.GetConn("10.0.0.1:80")
		trace.GotFirstResponseByte()
		trace.GetConn("10.0.0.2:80")
		time.Sleep(2 * headerPatience)
	})
}
