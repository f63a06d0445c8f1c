package tracker

import (
	"context"
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
	httpTimeout = 30 * time.Second // of one request, redirects and body included
	userAgent   = "shoal-go/torrent"
)

// idleConns is how many connections are kept for later requests, to all hosts. MaxIdleConns closes none of HTTP/2, so all idle ones are
// closed each time that as many have been made.
const idleConns = 64

// httpHeader is how many bytes the header of an answer may have. Of short lines it takes fifteen times as much memory, which is in no
// account.
const httpHeader = 16 << 10

// http2Held is how many bytes a server may send ahead of those who read, by HTTP/2. All requests of it share one connection, but no
// bound: what one does not read yet would keep the others from any. Web seeds have five requests of a server under way.
const http2Held = 1 << 20 / 5

// http2Written is how long nothing may be written to a server by HTTP/2: one that sends and does not read. No context ends that wait, which
// reads and closes of a body are in, too. What we write is little, and fits in the buffers of a socket otherwise.
const http2Written = time.Second

// familyKey is the context key of the netaddr.Family that a request is made over.
type familyKey struct{}

// dualTransport makes each request over the family of addresses that its context names. Connections
// of different families are kept apart, which one http.Transport alone could not do.
type dualTransport struct {
	by     [netaddr.Families]*http.Transport
	made   atomic.Int64 // connections
	single bool
}

// HTTPConfig says how a client connects.
type HTTPConfig struct {
	// Dial connects to a host. It calls check with each address before it connects to it. Nil is a net.Dialer.
	Dial func(ctx context.Context, network, addr string, check func(host string) error) (net.Conn, error)
	// Single announces once, because trackers see one address of ours only.
	Single bool
	// NoProxy leaves alone what the environment says of proxies.
	NoProxy bool
}

const connectTimeout = 10 * time.Second

// dialSystem is an HTTPConfig's Dial by the system.
func dialSystem(ctx context.Context, network, addr string, check func(host string) error) (net.Conn, error) {
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		host, _, _ := net.SplitHostPort(address)
		return check(host)
	}}
	return dialer.DialContext(ctx, network, addr)
}

// NewHTTPClient returns a client for HTTP trackers that announces over IPv4 and IPv6 alike (BEP 7) and
// checks the addresses of names when it dials them. A client of the user's own announces
// once, over whatever its transport chooses.
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
		d.by[f] = &http.Transport{
			Proxy: proxy,
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, connectTimeout)
				defer cancel()
				conn, err := c.Dial(ctx, f.Network("tcp"), addr, func(host string) error {
					return httpguard.Check(ctx, host)
				})
				if err == nil && d.made.Add(1)%idleConns == 0 {
					d.CloseIdleConnections()
				}
				return conn, err
			},
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxIdleConns:           idleConns,
			MaxIdleConnsPerHost:    2,                // web seeds use two
			IdleConnTimeout:        10 * time.Second, // announces are minutes apart
			MaxResponseHeaderBytes: httpHeader,
			HTTP2: &http.HTTP2Config{
				MaxReceiveBufferPerStream: http2Held,
				WriteByteTimeout:          http2Written,
			},
		}
	}
	return &http.Client{Transport: d}
}

func (d *dualTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	f, _ := r.Context().Value(familyKey{}).(netaddr.Family)
	return d.by[f].RoundTrip(r)
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (d *dualTransport) CloseIdleConnections() {
	for _, t := range d.by {
		t.CloseIdleConnections()
	}
}

// httpRoutes returns both families if client can separate them and u names a host that may have both.
func httpRoutes(client *http.Client, u *url.URL) []route {
	d, ok := client.Transport.(*dualTransport)
	if _, err := netip.ParseAddr(u.Hostname()); !ok || err == nil {
		return []route{{}}
	}
	if d.single || d.proxied(u) {
		return []route{{}} // the tracker sees the proxy's address in any case
	}
	return []route{{family: netaddr.IPv4}, {family: netaddr.IPv6}}
}

// proxied reports whether requests for u go through a proxy.
func (d *dualTransport) proxied(u *url.URL) bool {
	of := d.by[netaddr.AnyFamily].Proxy
	if of == nil {
		return false
	}
	proxy, err := of(&http.Request{URL: u})
	return proxy != nil || err != nil
}

// reply is what came back for a request.
type reply struct {
	status int
	body   []byte // as much as could be read of it
	cut    error  // why there is no more of the body, or nil
	local  bool   // it came from inside our network
}

// getHTTP fetches u, of a tracker that the user or the author named, over a family of addresses. The error is why there
// is no reply at all.
func (t *Announcer) getHTTP(ctx context.Context, u string, f netaddr.Family, byUser bool) (reply, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, stop := context.WithTimeoutCause(ctx, httpTimeout, errSilent)
	defer stop()
	holder := t.c.Account.Join(func() { cancel(errNoRoom) })
	defer holder.Leave()
	guard := newGuard(t.c.HTTP, byUser)
	ctx = context.WithValue(ctx, familyKey{}, f)
	ctx = guard.Watch(ctx, cancel)

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("User-Agent", userAgent)
	// Said by us, it keeps the transport from inflating the body, which it does without a bound.
	req.Header.Set("Accept-Encoding", "gzip")
	if err := guard.Begin(req.URL); err != nil {
		return reply{}, err
	}
	resp, err := guard.Client(t.c.HTTP).Do(req)
	if err != nil {
		return reply{}, becauseOf(ctx, err)
	}
	defer resp.Body.Close()
	r := reply{status: resp.StatusCode, local: guard.Local(req.URL)}
	if r.body, r.cut = readBody(resp.Body, holder); r.cut != nil {
		// That there was no more time is no reason to refuse what came, but what else ended it is.
		if r.cut = becauseOf(ctx, r.cut); ctx.Err() != nil && r.cut != errSilent {
			return reply{}, r.cut
		}
	}
	return r, nil
}

// becauseOf is err, or why ctx ended if it has.
func becauseOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
