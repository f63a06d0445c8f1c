//go:build linux

package interop

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// TestTrackers lets two clients of this library find each other through each tracker, over HTTP and UDP,
// IPv4 and IPv6, and follows with scrapes what the tracker makes of their announces.
func TestTrackers(t *testing.T) {
	t.Parallel()
	hosts := map[string]netip.Addr{"IPv4": trackerAddr, "IPv6": netip.MustParseAddr("fd77::1")}
	tb := newTable(t, "tracker", "http IPv4", "http IPv6", "udp IPv4")
	for _, kind := range trackers {
		t.Run(kind.name, func(t *testing.T) {
			need(t, kind.programs...)
			row := tb.row(kind.name)
			t.Parallel()
			for _, way := range kind.ways {
				scheme, family, _ := strings.Cut(way, " ")
				t.Run(way, func(t *testing.T) {
					t.Parallel()
					defer row.record(t, way)
					meetAt(t, kind, scheme, hosts[family])
				})
			}
		})
	}
}

func meetAt(t *testing.T, kind trackerProgram, scheme string, host netip.Addr) {
	content := t.TempDir()
	makeContent(t, content)
	addr := netip.AddrPortFrom(host, newPort())
	what := makeWithLibrary(torrent.V1)(t, content, fmt.Sprintf("%s://%s/announce", scheme, addr))
	tor, err := torrent.Read(what)
	require.NoError(t, err)
	kind.start(t, addr, tor.InfoHash())

	// Both live on all addresses, so that the tracker sees them in its own family.
	start := func(dir string) *torrent.Download {
		d, err := tor.Start(t.Context(), &torrent.Options{Dir: dir, Seed: true})
		require.NoError(t, err)
		t.Cleanup(func() { d.Close() })
		return d
	}
	scrapes := func(d *torrent.Download, seeds, completed int) {
		t.Helper()
		var got torrent.Scrape
		var err error
		defer func() {
			if t.Failed() {
				t.Logf("the scrape was %+v, %v", got, err)
			}
		}()
		require.Eventuallyf(t, func() bool {
			got, err = d.Scrape(t.Context())
			return err == nil && got.Seeds == seeds && got.Leechers == 0 && (got.Completed == completed || !kind.counts)
		}, patience, time.Second/4, "%d seeds, %d completed", seeds, completed)
	}
	seed := start(content)
	scrapes(seed, 1, 0)
	dir := t.TempDir()
	leech := start(dir)
	select {
	case <-leech.Done():
	case <-time.After(patience):
		t.Fatalf("not complete: %+v", leech.Stats())
	}
	_, err = leech.Wait()
	require.NoError(t, err)
	requireSame(t, content, dir)
	scrapes(seed, 2, 1) // it said completed
	require.NoError(t, leech.Close())
	scrapes(seed, 1, 1) // and stopped
}
