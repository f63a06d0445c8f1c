//go:build linux

package interop

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

var allLines = flag.Bool("lines", false, "have TestLines move a torrent between all clients over all lines, and compare how long that takes")

// lineTests are what TestLines tries: lines, by name, and the pairs of clients that move a torrent over each of them every time.
var lineTests = []struct {
	name string
	conditions
	size  int // of the content
	usual []string
}{
	{"near", conditions{rate: 10e6, queue: 500e3}, 16e6, nil},
	{"middle", conditions{rate: 25e6, delay: 25 * time.Millisecond, queue: 2e6}, 32e6, nil},
	// So much that the other end has no more room, for as many windows of packets as are between two that are withheld. On a busy machine
	// not every connection gets as far as that.
	{"far", conditions{rate: 40e6, delay: 100 * time.Millisecond, queue: 4e6}, 48e6, []string{"us to libtorrent", "us to libtorrent", "us to libtorrent", "us to qBittorrent"}},
	{"short queue", conditions{rate: 3e6, delay: 25 * time.Millisecond, queue: 32e3}, 8e6, []string{"us to libtorrent", "libtorrent to us"}},
	{"losses", conditions{rate: 10e6, delay: 25 * time.Millisecond, queue: 500e3, loss: 0.01}, 8e6, []string{"us to libtorrent", "us to us"}},
	{"far losses", conditions{rate: 10e6, delay: 100 * time.Millisecond, queue: 500e3, loss: 0.01}, 4e6, []string{"libtorrent to us"}},
	{"overtaken", conditions{rate: 10e6, delay: 25 * time.Millisecond, queue: 500e3, overtake: 0.05}, 8e6, []string{"us to libtorrent"}},
	{"delay jumps", conditions{rate: 3e6, delay: 50 * time.Millisecond, queue: 500e3,
		trouble: trouble{after: 2e6, lasts: 4 * time.Second, delay: 500 * time.Millisecond}}, 8e6, []string{"us to libtorrent", "us to Transmission"}},
	{"outage", conditions{rate: 3e6, delay: 25 * time.Millisecond, queue: 500e3,
		trouble: trouble{after: 2e6, lasts: 10 * time.Second}}, 8e6, []string{"us to libtorrent", "Transmission to us"}},
}

// TestLines moves a torrent by uTP between this library and other clients over lines as there are between far peers: it arrives
// by one connection, and little of it is sent twice. How long it takes is not judged, as long as something passes.
func TestLines(t *testing.T) {
	t.Parallel()
	need(t, "nsenter")
	us, theirs := overUTP(library), map[string]client{}
	for _, c := range append(slices.Clip(clients), qbittorrent) {
		theirs[c.name] = overUTP(c)
	}
	lt, tm, qb := theirs["libtorrent"], theirs["Transmission"], theirs["qBittorrent"]
	pairs := []struct {
		name     string
		from, to client
	}{
		{"us to us, TCP", library, library}, {"us to us", us, us},
		{"libtorrent to libtorrent", lt, lt}, {"us to libtorrent", us, lt}, {"libtorrent to us", lt, us},
		{"us to Transmission", us, tm}, {"Transmission to us", tm, us},
		{"us to qBittorrent", us, qb}, {"qBittorrent to us", qb, us},
	}
	var columns []string
	for _, p := range pairs {
		columns = append(columns, p.name)
	}
	tb := newTable(t, "over a line, by uTP", columns...)
	for _, l := range lineTests {
		if !*allLines && l.usual == nil {
			continue
		}
		row := tb.row(fmt.Sprintf("%s: %v", l.name, l.conditions))
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			names := l.usual
			if *allLines {
				names = columns
			}
			for _, name := range names {
				p := pairs[slices.Index(columns, name)]
				t.Run(p.name, func(t *testing.T) {
					need(t, append(p.from.programs, p.to.programs...)...)
					t.Parallel()
					defer row.record(t, p.name)
					between := newLine(t, l.conditions)
					moveOver(t, between, l.size, p.from, p.to)
					t.Logf("%s, %s: %v", l.name, p.name, between)
					require.Less(t, between.passed.Load(), int64(l.size)*3/2)
					if l.trouble.after == 0 {
						require.Zero(t, between.redials.Load(), "it stood still, or broke, and was made again")
					}
					if *allLines {
						row.set(p.name, fmt.Sprintf("%.1f s", between.took().Seconds()))
					}
				})
			}
		})
	}
}

// moveOver moves a torrent from one client to another, each at an end of a line.
func moveOver(t *testing.T, l *line, size int, from, to client) {
	t.Helper()
	content, dir := t.TempDir(), t.TempDir()
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{8}).Read(b)
	require.NoError(t, os.WriteFile(filepath.Join(content, contentName), b, 0o644))
	s := &swarm{tracker: serveTracker(t, l.sites[middle].listen(t, netip.AddrPortFrom(l.sites[middle].addr, 6969).String())), content: content}
	s.torrent = makeAs(torrent.CreateOptions{PieceLength: 128 << 10})(t, content, s.url)
	seed := from.start(t, role{what: s.torrent, dir: content, seed: true, site: l.sites[near]})
	s.await(t, "seeds", seed, seeds)
	leech := to.start(t, role{what: s.torrent, dir: dir, site: l.sites[far]})
	leech.awaitComplete(t)
	leech.stop()
	requireSame(t, content, dir)
}
