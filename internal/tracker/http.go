package tracker

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shoal-go/torrent/internal/httpguard"
	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	httpTimeout = 30 * time.Second // for one request, including redirects and the body
	userAgent   = "shoal-go/torrent"
)

// idleConns is the greatest number of idle connections to all hosts. http.Transport.MaxIdleConns does not close those of HTTP/2,
// so all idle connections are closed each time that this many new ones have been made.
const idleConns = 64

// http2Held is how many bytes of each answer an HTTP/2 server may send before they are read. The requests to a server share one
// connection. A bound for the whole connection would let one request that does not read block the others. A web seed has up to
// five requests under way.
const http2Held = 1 << 20 / 5

// http2Written is how long a write to an HTTP/2 server may make no progress. If a server sends but does not read, writes block,
// and reading or closing a body waits for them, which no context ends. We write little, so normally it fits in the buffer of the
// socket.
const http2Written = time.Second

// familyKey is the context key of the netaddr.Family that a request is made over.
type familyKey struct{}

// dualTransport makes each request over the address family that the request's context has. It has an http.Transport for each
// family, because one http.Transport would share its connections between families.
type dualTransport struct {
	by     [netaddr.Families]*http.Transport
	made   atomic.Int64 // connections made so far
	single bool         // HTTPConfig.Single
}

// HTTPConfig configures NewHTTPClient.
type HTTPConfig struct {
	// Dial connects to a host. It must call check with each address before it connects to that. If nil, a net.Dialer is used.
	Dial func(ctx context.Context, network, addr string, check func(host string) error) (net.Conn, error)
	// Single means to announce once, not over both families, because trackers see only one address of ours.
	Single bool
	// NoProxy means to ignore the proxy in the environment (http.ProxyFromEnvironment).
	NoProxy bool
}

const connectTimeout = 10 * time.Second

// dialSystem is the default of HTTPConfig.Dial.
func dialSystem(ctx context.Context, network, addr string, check func(host string) error) (net.Conn, error) {
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		host, _, _ := net.SplitHostPort(address)
		return check(host)
	}}
	return dialer.DialContext(ctx, network, addr)
}

// NewHTTPClient returns a client for HTTP trackers. An Announcer with this client announces over both IPv4 and IPv6 (BEP 7),
// and checks the address of a host when it dials it. With any other client, an Announcer announces once, over the family that
// the client's transport chooses.
func NewHTTPClient(c HTTPConfig) *http.Client {
	if c.Dial == nil {
		c.Dial = dialSystem
	}
	proxy := http.ProxyFromEnvironment
	if c.NoProxy {
		proxy = nil
	}
	d := &dualTransport{single: c.Single}
	for f := range netaddr.Families {
		dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			conn, err := c.Dial(ctx, f.Network("tcp"), addr, func(host string) error {
				return httpguard.Check(ctx, host)
			})
			if err == nil && d.made.Add(1)%idleConns == 0 {
				d.CloseIdleConnections()
			}
			return conn, err
		}
		d.by[f] = &http.Transport{
			Proxy:       proxy,
			DialContext: dial,
			DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dial(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return handshake(ctx, conn, addr, d.by[f].TLSClientConfig)
			},
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    handshakeTimeout,                          // with a proxy
			TLSClientConfig:        &tls.Config{VerifyConnection: checkChain}, // likewise
			MaxIdleConns:           idleConns,
			MaxIdleConnsPerHost:    2,                // for web seeds
			IdleConnTimeout:        10 * time.Second, // announces are minutes apart
			MaxResponseHeaderBytes: httpguard.MaxHeader,
			ReadBufferSize:         512, // what a server sends unasked net/http logs, four times as long, as far as it is in the buffer
			HTTP2: &http.HTTP2Config{
				MaxReceiveBufferPerStream: http2Held,
				WriteByteTimeout:          http2Written,
			},
		}
		filterHTTP2(d.by[f])
	}
	return &http.Client{Transport: d}
}

func (d *dualTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	f, _ := r.Context().Value(familyKey{}).(netaddr.Family)
	return d.by[f].RoundTrip(r)
}

// CloseIdleConnections is called by http.Client.CloseIdleConnections.
func (d *dualTransport) CloseIdleConnections() {
	for _, t := range d.by {
		t.CloseIdleConnections()
	}
}

// httpRoutes returns a route for each family if client is from NewHTTPClient and the host of u may have addresses of both.
// Otherwise it returns a single route over any family.
func httpRoutes(client *http.Client, u *url.URL) []route {
	d, ok := client.Transport.(*dualTransport)
	if _, err := netip.ParseAddr(u.Hostname()); !ok || err == nil {
		return []route{{}}
	}
	if d.single || d.proxied(u) {
		return []route{{}} // the tracker sees the address of the proxy over either family
	}
	return []route{{family: netaddr.IPv4}, {family: netaddr.IPv6}}
}

// proxied reports whether requests for u go through a proxy.
func (d *dualTransport) proxied(u *url.URL) bool { return isProxied(d.by[netaddr.AnyFamily], u) }

// isProxied reports whether a transport asks a proxy for u.
func isProxied(t *http.Transport, u *url.URL) bool {
	if t.Proxy == nil {
		return false
	}
	proxy, err := t.Proxy(&http.Request{URL: u})
	return proxy != nil || err != nil
}

// reply is the answer to an HTTP request.
type reply struct {
	status int
	body   []byte // as much of the body as could be read
	cut    error  // why the rest of the body could not be read, or nil
	local  bool   // the server is inside our network
	from   netip.Addr
}

// getHTTP fetches u over an address family. byUser is whether the user, not the author of the torrent, named the tracker. A
// body that breaks off or comes too slowly is no error: it is recorded in reply.cut.
func (t *Announcer) getHTTP(ctx context.Context, u string, f netaddr.Family, byUser bool) (reply, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, stop := context.WithTimeoutCause(ctx, httpTimeout, errSilent)
	defer stop()
	giveWay := func() { cancel(errNoRoom) }
	guard := newGuard(t.c.HTTP, byUser)
	if !byUser {
		guard.Pace(t.c.Pace.wait)
	}
	ctx = context.WithValue(ctx, familyKey{}, f)
	ctx = guard.Watch(ctx, cancel)

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("User-Agent", userAgent)
	// An explicit header keeps the transport from inflating the body, which it does without a bound.
	req.Header.Set("Accept-Encoding", "gzip")
	if err := guard.Begin(req.URL); err != nil {
		return reply{}, err
	}
	counted, whole := httpguard.CountHeaders(ctx, t.c.Account, giveWay)
	resp, err := guard.Client(t.c.HTTP).Do(req.WithContext(counted))
	whole()
	if err != nil {
		return reply{}, becauseOf(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols { // no context ends a read of such a body
		return reply{}, fmt.Errorf("HTTP status %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	resp.Header = nil // it may be long
	holder := t.c.Account.Join(giveWay)
	defer holder.Leave()
	r := reply{status: resp.StatusCode, local: guard.Local(req.URL), from: guard.Addr()}
	if r.body, r.cut = readBody(resp.Body, holder); r.cut != nil {
		// After a timeout, what was read is still of use. After any other end of ctx it is not.
		if r.cut = becauseOf(ctx, r.cut); ctx.Err() != nil && r.cut != errSilent {
			return reply{}, r.cut
		}
	}
	return r, nil
}

// becauseOf returns the cause of ctx if it has ended, else err.
func becauseOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
