package torrent

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// largeInfo is an info dictionary of so many files and pieces; the hashes are all zero.
func largeInfo(files, pieces int) []byte {
	const pieceLength = 16 << 10
	var b bytes.Buffer
	b.WriteString("d5:filesl")
	each := pieces * pieceLength / files
	for i := range files {
		name := fmt.Sprintf("f%07d", i)
		fmt.Fprintf(&b, "d6:lengthi%de4:pathl3:d%02d%d:%see", each, i%97, len(name), name)
	}
	total := each * files
	n := (total + pieceLength - 1) / pieceLength
	b.WriteString("e4:name5:large12:piece lengthi" + strconv.Itoa(pieceLength) + "e6:pieces" + strconv.Itoa(20*n) + ":")
	b.Write(make([]byte, 20*n))
	b.WriteString("e")
	return b.Bytes()
}

// BenchmarkStart begins a download of a large torrent into an empty directory, until it asks for
// peers. heap-MB is what it holds then, the torrent included.
func BenchmarkStart(b *testing.B) {
	for name, size := range map[string][2]int{"files=100000": {1e5, 1e5}, "pieces=1000000": {1, 1e6}} {
		b.Run(name, func(b *testing.B) {
			info := largeInfo(size[0], size[1])
			var before, after runtime.MemStats
			for b.Loop() {
				b.StopTimer()
				dir := b.TempDir()
				runtime.GC()
				runtime.ReadMemStats(&before)
				b.StartTimer()
				t, err := newTorrent(info, outer{})
				require.NoError(b, err)
				d, err := t.Start(b.Context(), &Options{Dir: dir, Client: &Client{NoDHT: true, NoListen: true}})
				require.NoError(b, err)
				for d.Stats().Checking || d.Stats().ETA == 0 {
					runtime.Gosched()
				}
				b.StopTimer()
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "heap-MB")
				require.NoError(b, d.Close())
				b.StartTimer()
			}
		})
	}
}
