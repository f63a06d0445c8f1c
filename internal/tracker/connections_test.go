package tracker

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
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

// A web seed that leads each request to another host does not have a connection kept to each: they took all handles.
func TestIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := make(pipeListener)
		var open atomic.Int64
		client := NewHTTPClient(HTTPConfig{Dial: func(context.Context, string, string, func(string) error) (net.Conn, error) {
			ours, theirs := net.Pipe()
			open.Add(1)
			listener <- theirs
			return &countedConn{Conn: ours, open: &open}, nil
		}})
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("x")) })}
		go server.Serve(listener)
		defer func() {
			client.CloseIdleConnections()
			close(listener)
			server.Close()
		}()
		for i := range 10 * idleConns {
			resp, err := client.Get(fmt.Sprintf("http://h%d.example/f", i))
			require.NoError(t, err)
			_, err = io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			synctest.Wait()
			require.LessOrEqual(t, open.Load(), int64(idleConns))
		}
	})
}

// A countedConn counts among those that are open until it is closed.
type countedConn struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
