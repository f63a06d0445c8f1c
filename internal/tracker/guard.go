package tracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const maxRedirects = 5

// guardKey is the context key of the *guard of a request.
type guardKey struct{}

// A guard bounds what a request to a tracker may reach inside our network, where a stranger wrote its URL.
//
//   - A tracker on the open internet cannot cause requests inside our network by a redirect. One that is itself
//     inside may redirect anywhere.
//   - A tracker that the author of a torrent or link named may be inside, for there are torrents of private
//     networks. But it is asked by the paths of trackers alone: on this machine the first part of the path is announce
//     or scrape, elsewhere the first or the last is. So an author cannot have a router or a service of the
//     user's do what a GET of a path can make it do.
//
// What the user names may be anywhere, and so may UDP trackers, which hear nothing of the author's before they have
// answered as trackers do (BEP 15).
type guard struct {
	byUser     bool        // the user named the tracker
	public     atomic.Bool // the first address was a public one, or is not known
	redirected atomic.Bool
	u          atomic.Pointer[url.URL] // that is asked for
	direct     atomic.Bool             // by no proxy: the address of the connection is that of u
}

var (
	errInward   = errors.New("redirected from a public address to a private one")
	errNoPath   = errors.New("not asked: an address inside the network, and not the path of a tracker")
	errRedirect = fmt.Errorf("more than %d redirects", maxRedirects)
)

// begin checks the URL of the first request.
func (g *guard) begin(c *http.Client, u *url.URL) error {
	g.public.Store(!isInward(u.Hostname()))
	return g.checkURL(c, u)
}

// checkURL refuses to ask for a URL inside our network that it must not. A name passes: its addresses are checked when
// they are known.
func (g *guard) checkURL(c *http.Client, u *url.URL) error {
	d, ours := c.Transport.(*dualTransport)
	g.u.Store(u)
	g.direct.Store(ours && !d.proxied(u))
	return g.check(u.Hostname(), true)
}

// checkConn refuses to connect to an address, or to use a connection to it.
func (g *guard) checkConn(host string) error { return g.check(host, g.direct.Load()) }

// check refuses a host, which is that of the URL if it is known not to be that of a proxy.
func (g *guard) check(host string, direct bool) error {
	switch {
	case !isInward(host):
		return nil
	case g.redirected.Load() && g.public.Load():
		return errInward
	case direct && !g.byUser && !isTrackerPath(g.u.Load(), isLoopback(host)):
		return errNoPath
	}
	return nil
}

// isTrackerPath reports whether the path of a URL is that of a tracker, on this machine or on another one. Programs
// differ in what they make of dots and escapes, so there are none.
func isTrackerPath(u *url.URL, here bool) bool {
	path := strings.TrimPrefix(u.EscapedPath(), "/")
	if strings.ContainsAny(path, "%\\;") || strings.Contains("/"+path, "/.") {
		return false
	}
	parts := strings.Split(path, "/")
	named := func(part string) bool {
		name, _, _ := strings.Cut(part, ".") // as in announce.php
		return name == "announce" || name == "scrape"
	}
	return named(parts[0]) || !here && named(parts[len(parts)-1])
}

// watch has the guard check each connection of a request that is made with the context it returns. cancel
// ends the request.
func (g *guard) watch(ctx context.Context, cancel context.CancelCauseFunc) context.Context {
	ctx = context.WithValue(ctx, guardKey{}, g)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) {
			host, _, err := net.SplitHostPort(c.Conn.RemoteAddr().String())
			if err != nil {
				return
			}
			if !g.redirected.Load() {
				g.public.Store(!isInward(host))
			}
			// The dialer of a user's own transport does not check.
			if err := g.checkConn(host); err != nil {
				cancel(err)
				c.Conn.Close() // or the request might be written before the cancellation is seen
			}
		},
	})
}

// local reports whether a request for u, made by c, went to an address inside our network. Through a proxy,
// or a transport that may use one, only the host in the URL says so.
func (g *guard) local(c *http.Client, u *url.URL) bool {
	d, ok := c.Transport.(*dualTransport)
	return isInward(u.Hostname()) || ok && !d.proxied(u) && !g.public.Load()
}

// client returns a client that makes one request as c does, with the guard's rules for redirects before
// c's own.
func (g *guard) client(c *http.Client) *http.Client {
	guarded := *c
	guarded.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errRedirect
		}
		g.redirected.Store(true)
		if err := g.checkURL(c, req.URL); err != nil {
			return err
		}
		req.Header.Del("Referer") // an announce URL may hold a secret
		if c.CheckRedirect != nil {
			return c.CheckRedirect(req, via)
		}
		return nil
	}
	return &guarded
}

// isInward reports whether a host is, by its address or its name, not on the open internet.
func isInward(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		return host == "localhost" || strings.HasSuffix(host, ".localhost")
	}
	ip = ip.Unmap()
	return netaddr.IsLocal(ip) || ip.IsUnspecified()
}

// isLoopback reports whether a host that is inward is this machine.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err != nil || ip.Unmap().IsLoopback() || ip.IsUnspecified()
}
