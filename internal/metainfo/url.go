package metainfo

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
)

// IsTracker reports whether s is the announce URL of a tracker.
func IsTracker(s string) bool { return hasScheme(s, "http", "https", "udp") }

// IsWebSeed reports whether s is the URL of a web seed (BEP 19).
func IsWebSeed(s string) bool { return hasScheme(s, "http", "https") }

func hasScheme(s string, schemes ...string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || !slices.Contains(schemes, u.Scheme) {
		return false
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "1"), 10, 16)
	return err == nil && port > 0
}
