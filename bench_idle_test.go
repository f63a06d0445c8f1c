package torrent_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// BenchmarkIdle1000 measures what a thousand torrents cost that a client shares and no peer asks for: heap and
// stacks, and goroutines, for each.
func BenchmarkIdle1000(b *testing.B) {
	for _, tracked := range []bool{false, true} {
		b.Run(fmt.Sprintf("tracker=%t", tracked), func(b *testing.B) { benchmarkIdle(b, 1001, tracked) })
	}
}

func benchmarkIdle(b *testing.B, n int, tracked bool) {
	var trackers [][]string
	if tracked {
		tracker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "d8:intervali1800e5:peers0:e")
		}))
		defer tracker.Close()
		trackers = [][]string{{tracker.URL + "/announce"}}
	}
	dir := b.TempDir()
	torrents := make([]*torrent.Torrent, n)
	for k := range torrents {
		name := filepath.Join(dir, fmt.Sprintf("content-%04d", k))
		content := fmt.Appendf(nil, "%0100000d", k)
		require.NoError(b, os.WriteFile(name, content, 0o644))
		var err error
		torrents[k], err = torrent.Create(name, &torrent.CreateOptions{Trackers: trackers, PieceLength: 16 << 10})
		require.NoError(b, err)
	}
	for b.Loop() {
		c := &torrent.Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0"}
		start := func(torrents []*torrent.Torrent) {
			var all []*torrent.Download
			for _, t := range torrents {
				d, err := t.Start(b.Context(), &torrent.Options{Dir: dir, Seed: true, Client: c})
				require.NoError(b, err)
				all = append(all, d)
			}
			for _, d := range all {
				<-d.Done()
				require.Eventually(b, func() bool {
					trackers := d.Stats().Trackers
					return !tracked || !trackers[0].Announcing && !trackers[0].LastAnnounce.IsZero()
				}, time.Minute, time.Millisecond)
			}
		}
		start(torrents[:1]) // what the client itself costs is not counted
		memory, goroutines := footprint()
		start(torrents[1:])
		m, g := footprint()
		b.ReportMetric(float64(m-memory)/float64(n-1), "B/torrent")
		b.ReportMetric(float64(g-goroutines)/float64(n-1), "goroutines/torrent")
		require.NoError(b, c.Close())
	}
}

// footprint is how many bytes of memory are in use, and how many goroutines run.
func footprint() (bytes int64, goroutines int) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse), runtime.NumGoroutine()
}
