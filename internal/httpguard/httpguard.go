// Package httpguard bounds what an HTTP request may reach inside the user's network, where a stranger wrote its URL: the
// author of a torrent or link, or a server that redirects. The address that is connected to is judged, not the name. It also
// counts the memory that headers of answers take.
//
// A Guard belongs to one request with its redirects. Its methods may be called from any goroutine, as transports do.
package httpguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	maxRedirects = 5
	// maxConns is how many connections are tried for one URL. A transport tries another one at once, and without end, after a
	// server has ended one before it took the request.
	maxConns = 8
)

// guardKey is the context key of the *Guard of a request.
type guardKey struct{}

// A Guard checks a request and its redirects.
//
//   - A server on the open internet cannot cause requests inside our network by a redirect. One that is itself
//     inside may redirect anywhere.
//   - What the author of a torrent or link named may be inside, for there are torrents of private
//     networks. But there a rule says what may be asked for, so that an author cannot have a router or a service of the
//     user's do what a GET can make it do.
//
// A URL of the user may be at any address.
type Guard struct {
	rule       Rule                  // nil if the user named the URL
	isDirect   func(u *url.URL) bool // requests go through no proxy, as far as is known
	public     atomic.Bool           // the first address was a public one, or is not known
	connected  atomic.Bool           // there is no connection yet, or the first led to a public address, perhaps that of a proxy
	redirected atomic.Bool
	u          atomic.Pointer[url.URL] // that is asked for
	direct     atomic.Bool             // by no proxy: the address of the connection is that of u
	conns      atomic.Int32            // tried for u

	turn    func(ctx context.Context, addr netip.Addr) error // of Pace, or nil
	request context.Context                                  // of Watch
	took    atomic.Bool                                      // the turn of the next connection
	addr    atomic.Pointer[netip.Addr]                       // of the last connection
}

// A Rule says why a URL inside our network is not asked for, or nil. here is whether it is on this machine.
type Rule func(u *url.URL, here bool) error

// Errors of a Guard that refuses a request.
var (
	ErrInward   = errors.New("redirected from a public address to a private one")
	ErrRedirect = fmt.Errorf("more than %d redirects", maxRedirects)
	ErrScheme   = errors.New("redirected to a URL that is neither http nor https")
	ErrConns    = fmt.Errorf("%d connections ended before they took the request", maxConns)
)

// New returns a guard for one request. The rule is for what a stranger named; nil is for what the user did. direct reports
// whether requests for a URL are known to go through no proxy.
func New(rule Rule, direct func(u *url.URL) bool) *Guard { return &Guard{rule: rule, isDirect: direct} }

// Begin checks the URL of the first request.
func (g *Guard) Begin(u *url.URL) error {
	g.public.Store(!IsInward(u.Hostname()))
	g.connected.Store(true)
	return g.checkURL(u)
}

// An Origin is where a request began.
type Origin struct{ public, connected bool }

// Resume checks the URL that an earlier request was redirected to, whose Origin is given.
func (g *Guard) Resume(u *url.URL, from Origin) error {
	g.public.Store(from.public)
	g.connected.Store(from.connected)
	g.redirected.Store(true)
	return g.checkURL(u)
}

// Origin returns where the request began.
func (g *Guard) Origin() Origin { return Origin{g.public.Load(), g.connected.Load()} }

// checkURL refuses to ask for a URL inside our network that it must not. A name passes: its addresses are checked when
// they are known.
func (g *Guard) checkURL(u *url.URL) error {
	g.u.Store(u)
	g.conns.Store(0)
	g.direct.Store(g.isDirect(u))
	return g.check(u.Hostname(), true)
}

// Pace has turn called before an address is asked for something, without a proxy. turn may wait, or return an error to end the
// request. Call Pace before Watch.
func (g *Guard) Pace(turn func(ctx context.Context, addr netip.Addr) error) { g.turn = turn }

// Addr returns the address that was asked last. It is not valid if that may be a proxy's.
func (g *Guard) Addr() (addr netip.Addr) {
	if a := g.addr.Load(); a != nil && g.direct.Load() {
		addr = *a
	}
	return addr
}

// takeTurn waits for the turn of an address.
func (g *Guard) takeTurn(ctx context.Context, host string) error {
	addr, err := netip.ParseAddr(host)
	if err != nil || g.turn == nil || !g.direct.Load() {
		return nil
	}
	g.took.Store(true)
	// The context of a dial does not end with that of the request.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(g.request, func() { cancel(context.Cause(g.request)) })()
	return g.turn(ctx, addr.Unmap())
}

// Check refuses to connect to an address if the guard of the context's request does. A dialer calls it.
func Check(ctx context.Context, host string) error {
	if g, ok := ctx.Value(guardKey{}).(*Guard); ok {
		if err := g.checkConn(host); err != nil {
			return err
		}
		return g.takeTurn(ctx, host)
	}
	return nil
}

// checkConn refuses to connect to an address, or to use a connection to it.
func (g *Guard) checkConn(host string) error { return g.check(host, g.direct.Load()) }

// check refuses a host, which is that of the URL if it is known not to be that of a proxy.
func (g *Guard) check(host string, direct bool) error {
	public := g.public.Load()
	if !direct {
		public = g.connected.Load()
	}
	switch {
	case !IsInward(host):
		return nil
	case g.redirected.Load() && public:
		return ErrInward
	case direct && g.rule != nil:
		return g.rule(g.u.Load(), isLoopback(host))
	}
	return nil
}

// Watch has the guard check each connection of a request that is made with the context it returns. cancel
// ends the request.
func (g *Guard) Watch(ctx context.Context, cancel context.CancelCauseFunc) context.Context {
	g.request = ctx
	ctx = context.WithValue(ctx, guardKey{}, g)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			if g.conns.Add(1) > maxConns {
				cancel(ErrConns)
			}
		},
		GotConn: func(c httptrace.GotConnInfo) {
			host, _, err := net.SplitHostPort(c.Conn.RemoteAddr().String())
			if err != nil {
				return
			}
			if !g.redirected.Load() {
				g.connected.Store(!IsInward(host))
				if g.direct.Load() {
					g.public.Store(!IsInward(host))
				}
			}
			if addr, err := netip.ParseAddr(host); err == nil {
				addr = addr.Unmap()
				g.addr.Store(&addr)
			}
			// The dialer of a user's own transport does not check, and a connection may be an older one.
			err = g.checkConn(host)
			if err == nil && (c.Reused || !g.took.Load()) {
				err = g.takeTurn(ctx, host)
			}
			g.took.Store(false)
			if err != nil {
				cancel(err)
				c.Conn.Close() // or the request might be written before the cancellation is seen
			}
		},
	})
}

// Local reports whether the request for u went to an address inside our network. Through what may be a proxy, only the host
// in the URL says so.
func (g *Guard) Local(u *url.URL) bool {
	return IsInward(u.Hostname()) || g.isDirect(u) && !g.public.Load()
}

// Client returns a client that makes one request as c does, with the guard's rules for redirects before
// c's own.
func (g *Guard) Client(c *http.Client) *http.Client {
	guarded := *c
	guarded.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return ErrRedirect
		}
		if s := req.URL.Scheme; s != "http" && s != "https" {
			return ErrScheme
		}
		g.redirected.Store(true)
		if err := g.checkURL(req.URL); err != nil {
			return err
		}
		req.Header.Del("Referer") // an announce URL may hold a secret
		if c.CheckRedirect != nil {
			if err := c.CheckRedirect(req, via); err != nil {
				return err
			}
		}
		req.Response.Header = nil // it may be long, and would be kept until the last answer has come
		return nil
	}
	return &guarded
}

// insideNames are the last elements of names that lead to nothing on the open internet (RFC 6761, 6762; reserved by ICANN, or common
// on routers and in no public zone). Nor does a name of one element, or one below home.arpa (RFC 8375).
var insideNames = []string{"localhost", "local", "internal", "lan"}

// IsInward reports whether a host is, by its address or its name, not on the open internet.
func IsInward(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		last := host[strings.LastIndexByte(host, '.')+1:]
		return slices.Contains(insideNames, last) || last == host || strings.HasSuffix(host, ".home.arpa")
	}
	ip = ip.Unmap()
	return netaddr.IsLocal(ip) || ip.IsUnspecified()
}

// isLoopback reports whether a host that is inward is this machine, as far as is known.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		return host == "localhost" || strings.HasSuffix(host, ".localhost")
	}
	return ip.Unmap().IsLoopback() || ip.IsUnspecified()
}
