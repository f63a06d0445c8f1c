package tracker

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// newTLSClient returns a client whose connections go to a server with the certificate of httptest, for "example.com".
func newTLSClient(t *testing.T, addr string, certificate *x509.Certificate) *http.Client {
	client := NewHTTPClient(HTTPConfig{NoProxy: true, Dial: func(ctx context.Context, _, _ string, _ func(string) error) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}})
	t.Cleanup(client.CloseIdleConnections)
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	client.Transport.(*dualTransport).by[netaddr.AnyFamily].TLSClientConfig.RootCAs = roots
	return client
}

// answerHTTP2 returns a client of a server that takes one connection by HTTP/2, reads a request, and answers it by answer.
func answerHTTP2(t *testing.T, answer func(conn net.Conn)) *http.Client {
	model := httptest.NewTLSServer(nil)
	t.Cleanup(model.Close)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: model.TLS.Certificates, NextProtos: []string{"h2"}})
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // settings
		for read, b := 0, make([]byte, 1<<10); read < len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")+100; {
			n, err := conn.Read(b)
			if read += n; err != nil {
				return
			}
		}
		answer(conn)
		io.Copy(io.Discard, conn)
	}()
	return newTLSClient(t, listener.Addr().String(), model.Certificate())
}

// A server that sends frames of HTTP/2 that mean nothing has nothing written to the log of the program.
func TestHTTP2FramesThatMeanNothing(t *testing.T) {
	var logged bytes.Buffer
	defer log.SetOutput(log.Writer())
	log.SetOutput(&logged)
	client := answerHTTP2(t, func(conn net.Conn) {
		unknown := append([]byte{0, 0, 5, 99, 0, 0, 0, 0, 0}, "hello"...)
		conn.Write(bytes.Repeat(unknown, 1000))
		conn.Write([]byte{0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88}) // status 200
		priority := []byte{0, 0, 5, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 1}
		conn.Write(bytes.Repeat(priority, 1000))
		conn.Write(append([]byte{0, 0, 5, 0, 1, 0, 0, 0, 1}, "whole"...))
	})
	resp, err := client.Get("https://example.com/f")
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "whole", string(body))
	require.Equal(t, 2, resp.ProtoMajor)
	require.Empty(t, logged.String()[:min(logged.Len(), 200)])
}

// A server that says that we may send more than a window can hold keeps no request from ending. net/http waited for itself,
// whatever became of the context.
func TestHTTP2WindowThatOverflows(t *testing.T) {
	client := answerHTTP2(t, func(conn net.Conn) {
		conn.Write([]byte{0, 0, 4, 8, 0, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff}) // window of the stream
		conn.Write([]byte{0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff}) // and of the connection
		conn.Write([]byte{0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88})                   // status 200, and no more
	})
	ended := make(chan error, 1)
	go func() {
		resp, err := client.Get("https://example.com/f")
		if err == nil {
			resp.Body.Close()
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(2 * time.Minute):
		panic("the request does not end") // nor would the test: closing the connection waits, too
	}
}

// Of what a server sends unasked after an answer, net/http writes to the standard logger whatever is in its buffer.
func TestLittleIsLoggedOfWhatIsSentUnasked(t *testing.T) {
	var logged bytes.Buffer
	before := log.Writer()
	log.SetOutput(&logged)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	client := NewHTTPClient(HTTPConfig{NoProxy: true})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Read(make([]byte, 1<<10))
		conn.Write(append([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), make([]byte, 4<<10)...))
		io.Copy(io.Discard, conn) // until net/http closes it
	}()
	resp, err := client.Get("http://" + listener.Addr().String())
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	<-gone
	log.SetOutput(before)
	require.Contains(t, logged.String(), "Unsolicited response")
	require.Less(t, logged.Len(), 3<<10)
}

// Requests to an HTTP/2 server by TLS share a connection.
func TestHTTP2OverTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(bytes.Repeat([]byte("x"), 1<<20))
	}))
	server.EnableHTTP2 = true
	var conns atomic.Int32
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	client := newTLSClient(t, server.Listener.Addr().String(), server.Certificate())
	for range 3 {
		resp, err := client.Get("https://example.com/f")
		require.NoError(t, err)
		require.Equal(t, 2, resp.ProtoMajor)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Len(t, body, 1<<20)
		resp.Body.Close()
	}
	require.EqualValues(t, 1, conns.Load())
}
