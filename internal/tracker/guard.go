package tracker

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/shoal-go/torrent/internal/httpguard"
)

var errNoPath = errors.New("not requested: a host inside the network, and not the path of a tracker")

// newGuard returns the guard of a request to a tracker. If the tracker was named by the author of a torrent or link, not by
// the user, a request inside our network must have the path of a tracker: on this machine its first element is announce or
// scrape, on other machines the first or the last. UDP trackers need no guard: nothing that the author chose is sent to them
// before they have answered a connect request (BEP 15).
func newGuard(c *http.Client, byUser bool) *httpguard.Guard {
	var rule httpguard.Rule
	if !byUser {
		rule = func(u *url.URL, here bool) error {
			if !isTrackerPath(u, here) {
				return errNoPath
			}
			return nil
		}
	}
	return httpguard.New(rule, func(u *url.URL) bool { return Direct(c, u) })
}

// Direct reports whether requests of c for u certainly do not go through a proxy. Of a client that was not made by NewHTTPClient
// that is known only if its transport is an http.Transport that dials by itself.
func Direct(c *http.Client, u *url.URL) bool {
	switch t := c.Transport.(type) {
	case *dualTransport:
		return !t.proxied(u)
	case *http.Transport:
		//lint:ignore SA1019 the transport of a user may set these
		dials := t.Dial == nil && t.DialTLS == nil && t.DialContext == nil && t.DialTLSContext == nil
		return dials && !isProxied(t, u)
	}
	return false
}

// isTrackerPath reports whether the path of a URL is that of a tracker, on this machine (here) or on another one. Servers
// differ in how they resolve dots and escapes, so it reports false for a path with these.
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
