package tracker

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/shoal-go/torrent/internal/httpguard"
)

var errNoPath = errors.New("not asked: an address inside the network, and not the path of a tracker")

// newGuard returns the guard of a request to a tracker. One that the author of a torrent or link named is asked inside our
// network by the paths of trackers alone: on this machine the first part of the path is announce or scrape, elsewhere the
// first or the last is. UDP trackers need no guard: they hear nothing of the author's before they have answered as trackers
// do (BEP 15).
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

// Direct reports whether requests of c for u are known to go through no proxy.
func Direct(c *http.Client, u *url.URL) bool {
	d, ours := c.Transport.(*dualTransport)
	return ours && !d.proxied(u)
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
