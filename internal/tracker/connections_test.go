package tracker

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
		get, sent := serveHTTP2(t)
		for range 5 {
			get()
		}
		synctest.Wait()
		t.Logf("%d KiB", sent.Load()>>10)
		require.Less(t, sent.Load(), int64(1300<<10))
	})
}

// Answers that are not read, as a limit holds their readers back, leave others of the same server alone.
func TestUnreadBesideRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		get, _ := serveHTTP2(t)
		for range 4 {
			get()
		}
		synctest.Wait()
		read := make(chan error, 1)
		body := get()
		go func() {
			_, err := io.CopyN(io.Discard, body, 4<<20)
			read <- err
		}()
		select {
		case err := <-read:
			require.NoError(t, err)
		case <-time.After(time.Minute):
			require.FailNow(t, "starved")
		}
	})
}

// serveHTTP2 returns what asks a server for a body that has no end, by HTTP/2, and how many bytes that sent in all.
func serveHTTP2(t *testing.T) (get func() io.Reader, sent *atomic.Int64) {
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
	sent = new(atomic.Int64)
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
	t.Cleanup(func() {
		for _, conn := range conns {
			conn.Close()
		}
		close(listener)
		server.Close()
	})
	return func() io.Reader {
		resp, err := client.Get("http://h.example/f")
		require.NoError(t, err)
		require.Equal(t, 2, resp.ProtoMajor)
		return resp.Body
	}, sent
}

// A web seed that leads each request to another host does not have a connection kept to each: they took all handles. What is
// under way goes on.
func TestIdleConnections(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		var protocols http.Protocols
		protocols.SetHTTP1(!http2)
		protocols.SetUnencryptedHTTP2(http2)
		t.Run(protocols.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				listener := make(pipeListener)
				var open atomic.Int64
				client := NewHTTPClient(HTTPConfig{Dial: func(context.Context, string, string, func(string) error) (net.Conn, error) {
					ours, theirs := net.Pipe()
					open.Add(1)
					listener <- theirs
					return &countedConn{Conn: ours, open: &open}, nil
				}})
				for _, transport := range client.Transport.(*dualTransport).by {
					transport.Protocols = &protocols
				}
				longEnough, goOn := context.WithCancel(t.Context())
				server := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Write([]byte("x"))
					if r.URL.Path == "/long" {
						http.NewResponseController(w).Flush()
						<-longEnough.Done()
					}
				})}
				go server.Serve(listener)
				defer func() {
					goOn()
					client.CloseIdleConnections()
					close(listener)
					server.Close()
				}()
				long, err := client.Get("http://h.example/long")
				require.NoError(t, err)
				for i := range 10 * idleConns {
					resp, err := client.Get(fmt.Sprintf("http://h%d.example/f", i))
					require.NoError(t, err)
					_, err = io.ReadAll(resp.Body)
					require.NoError(t, err)
					resp.Body.Close()
					synctest.Wait()
					require.LessOrEqual(t, open.Load(), int64(1+idleConns))
				}
				goOn()
				body, err := io.ReadAll(long.Body)
				require.NoError(t, err)
				require.Equal(t, "x", string(body))
			})
		})
	}
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

// A server that speaks HTTP/2, sends and does not read has net/http wait to write to it, and what reads or closes a body wait for that,
// which no context ends. It kept a download from being closed.
func TestHTTP2ServerThatDoesNotRead(t *testing.T) {
	frame := func(kind, flags, stream byte, payload ...byte) []byte {
		return append([]byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, stream}, payload...)
	}
	const data, headers, settings, ping = 0, 1, 4, 6
	synctest.Test(t, func(t *testing.T) {
		client := NewHTTPClient(HTTPConfig{Dial: func(context.Context, string, string, func(string) error) (net.Conn, error) {
			ours, theirs := net.Pipe()
			context.AfterFunc(t.Context(), func() { theirs.Close() })
			go func() {
				io.ReadFull(theirs, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
				go theirs.Write(frame(settings, 0, 0))
				for asked, acknowledged := false, false; !asked || !acknowledged; {
					var head [9]byte
					if _, err := io.ReadFull(theirs, head[:]); err != nil {
						return
					}
					io.CopyN(io.Discard, theirs, int64(head[0])<<16|int64(head[1])<<8|int64(head[2]))
					asked = asked || head[3] == headers
					acknowledged = acknowledged || head[3] == settings && head[4] == 1
				}
				theirs.Write(frame(headers, 4, 1, 0x88)) // status 200
				theirs.Write(frame(data, 0, 1, []byte("some of the body")...))
				theirs.Write(frame(ping, 0, 0, make([]byte, 8)...)) // which is to be answered
			}()
			return ours, nil
		}})
		var http2 http.Protocols
		http2.SetUnencryptedHTTP2(true)
		for _, transport := range client.Transport.(*dualTransport).by {
			transport.Protocols = &http2
		}
		began := time.Now()
		resp, err := client.Get("http://h.example/f")
		require.NoError(t, err)
		// What waits on a mutex stops the clock of a bubble, so the body is not closed before.
		body, err := io.ReadAll(resp.Body)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, "some of the body", string(body))
		require.Equal(t, http2Written, time.Since(began))
		resp.Body.Close()
	})
}
