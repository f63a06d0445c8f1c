package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/internal/human"
)

// senders are the peers that something came from, those included that are no longer connected.
type senders struct {
	mu   sync.Mutex
	sent map[connection]*sender
}

type connection struct {
	download *torrent.Download
	addr     netip.AddrPort
}

type sender struct {
	client string
	total  int64 // of all connections with it
	last   int64 // of the present one, as last seen
}

// watch looks at a download's peers with every piece, and ten times a second, until it ends.
func (s *senders) watch(d *torrent.Download) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pieces := make(chan struct{}, 1)
	go func() {
		for range d.Events(ctx) {
			select {
			case pieces <- struct{}{}:
			default:
			}
		}
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-pieces:
		case <-tick.C:
		case <-d.Done():
			return
		}
		s.look(d, d.Stats().Peers)
	}
}

func (s *senders) look(d *torrent.Download, peers []torrent.PeerStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent == nil {
		s.sent = make(map[connection]*sender)
	}
	for _, p := range peers {
		at := connection{d, p.Addr}
		from := s.sent[at]
		if from == nil {
			from = new(sender)
			s.sent[at] = from
		}
		if p.Downloaded < from.last { // it was connected to again
			from.last = 0
		}
		from.total += p.Downloaded - from.last
		from.client, from.last = p.Client, p.Downloaded
	}
}

// maxNamed is how many senders are named, largest first.
const maxNamed = 5

// list says how much of what was received came from whom. webSeeds is what came from each of them.
func (s *senders) list(received int64, webSeeds map[string]int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	type row struct {
		name  string
		bytes int64
	}
	byName := make(map[string]*row)
	add := func(name string, bytes int64) {
		if byName[name] == nil {
			byName[name] = &row{name: name}
		}
		byName[name].bytes += bytes
	}
	for at, from := range s.sent {
		add(fmt.Sprintf("%s (%s)", at.addr, from.client), from.total)
	}
	for url, bytes := range webSeeds {
		add(url, bytes)
	}
	var rows []*row
	rest := received
	for _, r := range byName {
		if r.bytes > 0 {
			rows = append(rows, r)
			rest -= r.bytes
		}
	}
	slices.SortFunc(rows, func(a, b *row) int { return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.name, b.name)) })
	if len(byName) == 1 && len(rows) == 1 { // then what came after the last look is its, too
		rows[0].bytes += max(0, rest)
		rest = 0
	}
	var parts []string
	for _, r := range rows[:min(len(rows), maxNamed)] {
		parts = append(parts, fmt.Sprintf("%s from %s", human.Size(r.bytes), r.name))
	}
	if more := rows[min(len(rows), maxNamed):]; len(more) > 0 {
		var bytes int64
		for _, r := range more {
			bytes += r.bytes
		}
		parts = append(parts, fmt.Sprintf("%s from %s more", human.Size(bytes), human.Count(len(more), "sender")))
	}
	if rest > 0 {
		parts = append(parts, human.Size(rest)+" from senders that left at once")
	}
	return strings.Join(parts, ", ")
}
