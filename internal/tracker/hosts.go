package tracker

import (
	"maps"
	"net/netip"
	"strings"
	"time"
)

// A torrent may list one host, which need not be a tracker, under hundreds of URLs or names. In any time of hostWindow, at most
// hostAsks announces begin to one host, which is enough for four trackers to be asked twice, and namesAsks to all names, since
// they may lead to one address. A fifth of each is for trackers that were not asked before.
const (
	hostAsks   = 10
	namesAsks  = 50
	hostWindow = 10 * time.Second
)

// hosts holds when each host of a torrent's trackers was asked recently; "" is all that are given by name.
type hosts map[string][]time.Time

// next returns when tr may be asked.
func (h hosts) next(tr *tracker) (at time.Time) {
	for host, n := range tr.bounds() {
		if !tr.askedAt.IsZero() {
			n -= n / 5
		}
		if asks := h[host]; len(asks) >= n && asks[len(asks)-n].Add(hostWindow).After(at) {
			at = asks[len(asks)-n].Add(hostWindow)
		}
	}
	return at
}

// add records that tr is asked.
func (h hosts) add(tr *tracker, now time.Time) {
	maps.DeleteFunc(h, func(_ string, asks []time.Time) bool { return now.Sub(asks[len(asks)-1]) >= hostWindow })
	for host, n := range tr.bounds() {
		h[host] = append(h[host][max(0, len(h[host])-n+1):], now)
	}
}

// bounds returns how many announces may begin within hostWindow to the host of tr and to those like it. Trackers that the user
// named are not bounded.
func (tr *tracker) bounds() map[string]int {
	if tr.byUser.Load() {
		return nil
	}
	host := strings.ToLower(strings.TrimSuffix(tr.u.Hostname(), "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return map[string]int{host: hostAsks}
	}
	return map[string]int{host: hostAsks, "": namesAsks}
}
