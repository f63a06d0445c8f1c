package webseed

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
)

const (
	maxConns    = 2    // of one host, by HTTP/1
	maxRequests = 5    // of one host under way, where one connection takes several (HTTP/2)
	maxKnown    = 1000 // hosts, beside those in use
)

// hosts bounds how many requests are under way to each host, those of all downloads together.
type hosts struct {
	mu    sync.Mutex
	known map[string]*host
}

// A host is one server, by its name and port.
type host struct {
	used    int
	by      map[*Content]int // of them, by torrent
	most    int
	waiting []waiter // those that want to ask, in the order in which they came
}

// A waiter wants to ask for content of a torrent.
type waiter struct {
	turn    chan struct{} // closed when it is its turn
	content *Content
}

// host is the name and port of the seed's host, however its URL writes them.
func (s *Seed) host() string {
	port := s.base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[s.base.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(strings.TrimSuffix(s.base.Hostname(), ".")), port)
}

// Acquire waits for its turn to ask the seed's host, until ctx ends. release ends the turn.
func (s *Seed) Acquire(ctx context.Context) (release func(), err error) {
	h := &s.client.hosts
	key := s.host()
	h.mu.Lock()
	at := h.known[key]
	if at == nil {
		if len(h.known) >= maxKnown {
			maps.DeleteFunc(h.known, func(_ string, at *host) bool { return at.used == 0 && len(at.waiting) == 0 })
		}
		at = &host{most: maxConns, by: make(map[*Content]int)}
		h.known[key] = at
	}
	turn := make(chan struct{})
	at.waiting = append(at.waiting, waiter{turn, s.content})
	at.grant()
	h.mu.Unlock()
	release = sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		at.used--
		if at.by[s.content]--; at.by[s.content] == 0 {
			delete(at.by, s.content)
		}
		at.grant()
	})
	select {
	case <-turn:
		return release, nil
	case <-ctx.Done():
	}
	h.mu.Lock()
	k := slices.IndexFunc(at.waiting, func(w waiter) bool { return w.turn == turn })
	if k >= 0 {
		at.waiting = slices.Delete(at.waiting, k, k+1)
	}
	h.mu.Unlock()
	if k < 0 {
		release() // it was granted in the same moment
	}
	return nil, context.Cause(ctx)
}

// grant gives the next ones their turns: those of the torrent that has the fewest, else those that came first. The lock is held.
func (h *host) grant() {
	for h.used < h.most && len(h.waiting) > 0 {
		next := 0
		for k, w := range h.waiting {
			if h.by[w.content] < h.by[h.waiting[next].content] {
				next = k
			}
		}
		w := h.waiting[next]
		close(w.turn)
		h.waiting = slices.Delete(h.waiting, next, next+1)
		h.used++
		h.by[w.content]++
	}
}

// Wanted reports whether seeds of other torrents wait for their turn at the seed's host.
func (s *Seed) Wanted() bool {
	h := &s.client.hosts
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.known[s.host()]
	return at != nil && slices.ContainsFunc(at.waiting, func(w waiter) bool { return w.content != s.content })
}

// Starves reports whether a seed of a torrent that has fewer turns at the seed's host than its own waits for another.
func (s *Seed) Starves() bool {
	h := &s.client.hosts
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.known[s.host()]
	return at != nil && slices.ContainsFunc(at.waiting, func(w waiter) bool { return at.by[w.content] < at.by[s.content] })
}

// MaxRequests returns how many requests to the seed's host may be under way.
func (s *Seed) MaxRequests() int {
	h := &s.client.hosts
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.known[s.host()]; at != nil {
		return at.most
	}
	return maxConns
}

// heard records the version of HTTP that the seed's host speaks.
func (s *Seed) heard(major int) {
	h := &s.client.hosts
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.known[s.host()]; at != nil {
		at.most = maxConns
		if major >= 2 {
			at.most = maxRequests
		}
		at.grant()
	}
}
