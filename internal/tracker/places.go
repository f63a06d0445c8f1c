package tracker

import (
	"context"
	"net/url"
	"sync"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// A client of a thousand torrents of one tracker would open a thousand connections to it at once, and use up its own file
// descriptors. So of all announces over HTTP to a host, over an address family, few are under way at a time. The others wait in the
// order in which they came. Announces that a torrent stops wait only for each other, because they have little time.
const (
	placesAtHost  = 50
	partingAtHost = 200
)

// places bounds the announces under way to each host.
type places struct {
	mu sync.Mutex
	at map[placesKey]*placesAt // of which there is an announce that waits or is under way
}

type placesKey struct {
	host    string
	family  netaddr.Family
	parting bool
}

type placesAt struct {
	taken chan struct{} // one element for each announce under way
	users int           // announces that wait or are under way
}

// take waits for a place at the host of u, or returns why ctx ended before. The caller calls leave when its announce has ended.
func (p *places) take(ctx context.Context, u *url.URL, f netaddr.Family, parting bool) (leave func(), err error) {
	if u.Scheme == "udp" {
		return func() {}, nil
	}
	k, n := placesKey{u.Host, f, parting}, placesAtHost
	if parting {
		n = partingAtHost
	}
	p.mu.Lock()
	at := p.at[k]
	if at == nil {
		at = &placesAt{taken: make(chan struct{}, n)}
		p.at[k] = at
	}
	at.users++
	p.mu.Unlock()
	gone := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if at.users--; at.users == 0 {
			delete(p.at, k)
		}
	}
	select {
	case at.taken <- struct{}{}:
		return func() { <-at.taken; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, context.Cause(ctx)
	}
}
