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

// guardKey is the context key of the *redirectGuard of a request.
type guardKey struct{}

// redirectGuard keeps a tracker on the open internet from causing requests inside our network. A tracker that
// is itself within a private network may redirect anywhere.
type redirectGuard struct {
	public     atomic.Bool // the first address was a public one, or is not known
	redirected atomic.Bool
}

var errInward = errors.New("redirected from a public address to a private one")

// check refuses to follow a redirect to a host that is private. A name passes: its addresses are checked
// when they are known.
func (g *redirectGuard) check(host string) error {
	if g.redirected.Load() && g.public.Load() && isInward(host) {
		return errInward
	}
	return nil
}

// watch has the guard check each connection of a request that is made with the context it returns. cancel
// ends the request.
func (g *redirectGuard) watch(ctx context.Context, cancel context.CancelCauseFunc) context.Context {
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
			if err := g.check(host); err != nil {
				cancel(err)
			}
		},
	})
}

// local reports whether a request for u, made by c, went to an address inside our network. Through a proxy,
// or a transport that may use one, only the host in the URL says so.
func (g *redirectGuard) local(c *http.Client, u *url.URL) bool {
	d, ok := c.Transport.(*dualTransport)
	return isInward(u.Hostname()) || ok && !d.proxied(u) && !g.public.Load()
}

// client returns a client that makes one request as c does, with the guard's rules for redirects before
// c's own.
func (g *redirectGuard) client(c *http.Client) *http.Client {
	guarded := *c
	guarded.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		g.redirected.Store(true)
		if err := g.check(req.URL.Hostname()); err != nil {
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
