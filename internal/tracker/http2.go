package tracker

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
)

// filterHTTP2 has a transport read HTTP/2 through a filter. For each frame of a kind that net/http does not use it writes a line
// to the standard logger, eight times as long as the frame, so that a server could fill the disk of the user.
//
// net/http takes over a TLS connection as one of HTTP/2 only if it has made it itself, but any connection as one of HTTP/2
// without TLS.
func filterHTTP2(t *http.Transport) {
	t.CloseIdleConnections() // sets TLSNextProto
	take := t.TLSNextProto["unencrypted_http2"]
	if take == nil {
		return
	}
	t.TLSNextProto["h2"] = func(authority string, c *tls.Conn) http.RoundTripper {
		return take(authority, tls.Client(http2Carrier{Conn: c}, nil))
	}
}

// An http2Carrier is how net/http is given a connection for HTTP/2 without TLS.
type http2Carrier struct{ *tls.Conn }

func (c http2Carrier) UnencryptedNetConn() net.Conn { return &http2Conn{Conn: c.Conn} }

// An http2Conn leaves out frames of kinds that a client has to ignore (RFC 9113, 5.5), and PRIORITY. It also leaves out
// WINDOW_UPDATE, which says how much of the bodies of requests we may send: ours have none, and one that exceeds what a stream's
// window may be has net/http lock a mutex that it holds, so that neither the request nor a later one would ever end. What follows
// Conn belongs to the goroutine that reads.
type http2Conn struct {
	*tls.Conn
	header [9]byte // of the present frame
	ahead  []byte  // what is left of it
	body   int     // what is left of the frame's payload
}

func (c *http2Conn) Read(p []byte) (n int, err error) {
	for len(c.ahead) == 0 && c.body == 0 {
		if _, err := io.ReadFull(c.Conn, c.header[:]); err != nil {
			return 0, err
		}
		h := &c.header
		length := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		const priority, windowUpdate, continuation = 2, 8, 9
		if kind := h[3]; kind == priority || kind == windowUpdate || kind > continuation {
			if _, err := io.CopyN(io.Discard, c.Conn, int64(length)); err != nil {
				return 0, err
			}
			continue
		}
		c.ahead, c.body = h[:], length
	}
	if len(c.ahead) > 0 {
		n = copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	n, err = c.Conn.Read(p[:min(len(p), c.body)])
	c.body -= n
	return n, err
}

// Close sends no close-notify of TLS, which would wait for a server that does not read.
func (c *http2Conn) Close() error { return c.NetConn().Close() }
