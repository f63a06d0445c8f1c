package tracker

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// A pipeListener accepts the other ends of connections within the test.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	conn, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l pipeListener) Close() error   { return nil }
func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// What a server sends by HTTP/2, and a web seed's reader does not take yet, is held: a megabyte of each server. Five
// requests had 20 MiB held of each, in no account.
func TestUnreadHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := make(pipeListener)
		var conns []net.Conn
		client := NewHTTPClient(HTTPConfig{Dial: func(context.Context, string, string, func(string) error) (net.Conn, error) {
			ours, theirs := net.Pipe()
			conns = append(conns, ours, theirs)
			listener <- theirs
			return ours, nil
		}})
		var http2 http.Protocols
		http2.SetUnencryptedHTTP2(true)
		for _, transport := range client.Transport.(*dualTransport).by {
			transport.Protocols = &http2
		}
		var sent atomic.Int64
		server := &http.Server{Protocols: &http2, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for b := make([]byte, 16<<10); ; {
				n, err := w.Write(b)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		})}
		go server.Serve(listener)
		defer func() {
			for _, conn := range conns {
				conn.Close()
			}
			close(listener)
			server.Close()
		}()
		for range 5 {
			resp, err := client.Get("http://h.example/f")
			require.NoError(t, err)
			require.Equal(t, 2, resp.ProtoMajor)
		}
		synctest.Wait()
		t.Logf("%d KiB", sent.Load()>>10)
		require.Less(t, sent.Load(), int64(1300<<10))
	})
}
