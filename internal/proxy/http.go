package proxy

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// maxHeader is the greatest length of the header of a proxy's answer, in bytes.
const maxHeader = 16 << 10

// connectHTTP asks an HTTP proxy for a tunnel to a target (RFC 9110, 9.3.6), and returns a connection through the tunnel.
func connectHTTP(conn net.Conn, user *url.Userinfo, to target) (net.Conn, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n", to)
	if user != nil {
		password, _ := user.Password()
		fmt.Fprintf(&b, "Proxy-Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	b.WriteString("\r\n")
	if _, err := conn.Write(b.Bytes()); err != nil {
		return nil, err
	}
	rest, err := readTunnel(conn)
	if err != nil {
		return nil, err
	}
	if len(rest) == 0 {
		return conn, nil
	}
	return &begunConn{Conn: conn, begun: rest}, nil
}

// readTunnel reads the answer to a CONNECT request. rest is what was read after the answer: the target may send first.
func readTunnel(r io.Reader) (rest []byte, err error) {
	limited := &io.LimitedReader{R: r, N: maxHeader}
	br := bufio.NewReader(limited)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		if limited.N == 0 {
			err = fmt.Errorf("answer over %d bytes", maxHeader)
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("the proxy says: HTTP status %d", resp.StatusCode)
	}
	return br.Peek(br.Buffered())
}

// A begunConn is a connection whose first bytes have been read already. Read returns these first.
type begunConn struct {
	net.Conn
	begun []byte // not yet returned; belongs to the goroutine that reads
}

func (c *begunConn) Read(b []byte) (int, error) {
	if len(c.begun) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.begun)
	c.begun = c.begun[n:]
	return n, nil
}
