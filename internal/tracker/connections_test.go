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

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/httpguard"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/simnet"
)

// A pipeListener is a net.Listener whose connections are sent to it.
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

// What an HTTP/2 server sends and the reader of a web seed does not read yet is buffered. Five requests may buffer about a
// megabyte together, not 20 MiB.
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

// Answers that are not read, because a rate limit delays their readers, do not block another answer from the same server.
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

// serveHTTP2 starts an HTTP/2 server whose bodies have no end. get returns a new body; sent counts the bytes that the server
// has written.
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

// A web seed that redirects each request to another host must not leave an idle connection to each: they would use up all
// file descriptors. Requests under way are not interrupted.
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

// A countedConn decrements open when it is closed.
type countedConn struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// An HTTP/2 server that sends but does not read makes writes of net/http block. Reading or closing a body waits for these, and no
// context ends that. A read must fail after http2Written, or a download could not be closed.
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
				theirs.Write(frame(ping, 0, 0, make([]byte, 8)...)) // the client must answer, which blocks
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
		// The body is closed only afterwards: a goroutine that waits for a mutex stops the clock of a bubble.
		body, err := io.ReadAll(resp.Body)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, "some of the body", string(body))
		require.Equal(t, http2Written, time.Since(began))
		resp.Body.Close()
	})
}

// A server that switches to another protocol, and then says nothing, is dropped at once: no context ends the reads of such a
// connection.
func TestServerThatSwitchesProtocols(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
		r.serve("10.0.1.1", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chess\r\n\r\n")
			select {
			case <-t.Context().Done():
			case <-time.After(time.Hour):
			}
		})
		a, end := r.start()
		simnet.Sleep(2 * httpTimeout)
		require.ErrorContains(t, a.Errors()[0], "101")
		began := time.Now()
		end()
		require.Less(t, time.Since(began), time.Second)
	})
}

// A server that ends each HTTP/2 connection before it takes a request is not connected to again and again.
func TestServerThatGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made atomic.Int32
		client := NewHTTPClient(HTTPConfig{NoProxy: true, Dial: func(context.Context, string, string, func(string) error) (net.Conn, error) {
			made.Add(1)
			ours, theirs := net.Pipe()
			context.AfterFunc(t.Context(), func() { theirs.Close() })
			go io.Copy(io.Discard, theirs)
			go theirs.Write([]byte{
				0, 0, 0, 4, 0, 0, 0, 0, 0, // settings
				0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // GOAWAY
			})
			time.Sleep(time.Millisecond)
			return ours, nil
		}})
		var http2 http.Protocols
		http2.SetUnencryptedHTTP2(true)
		for _, transport := range client.Transport.(*dualTransport).by {
			transport.Protocols = &http2
		}
		a := New(Config{HTTP: client, Pace: NewPace(), Account: account.New(0)})
		_, err := a.getHTTP(t.Context(), "http://h.example/announce", netaddr.IPv4, true)
		require.ErrorIs(t, err, httpguard.ErrConns)
		require.LessOrEqual(t, made.Load(), int32(10))
		time.Sleep(time.Second) // a dial may still be under way
	})
}
