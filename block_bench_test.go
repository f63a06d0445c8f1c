package torrent

import (
	"crypto/rand"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// benchContent is a file of n random bytes and its torrent.
func benchContent(b *testing.B, n, pieceLength int64) (dir string, t *Torrent) {
	b.Helper()
	dir = b.TempDir()
	content := make([]byte, n)
	rand.Read(content)
	path := filepath.Join(dir, "content")
	require.NoError(b, os.WriteFile(path, content, 0o644))
	t, err := Create(path, &CreateOptions{PieceLength: pieceLength})
	require.NoError(b, err)
	return dir, t
}

// BenchmarkBlock is a block's whole way over loopback, sender and receiver in one process: read from
// a file, sent, received, put together, hashed, and stored in memory or in a file.
func BenchmarkBlock(b *testing.B) {
	const size = 256 << 20
	for _, to := range []string{"memory", "files"} {
		b.Run(to, func(b *testing.B) {
			dir, t := benchContent(b, size, 1<<20)
			client := &Client{Listen: "127.0.0.1:0", Encryption: DisableEncryption}
			seed, err := t.Start(b.Context(), &Options{Dir: dir, Seed: true, Client: client})
			require.NoError(b, err)
			defer client.Close()
			<-seed.Done()
			o := &Options{Peers: []netip.AddrPort{netip.MustParseAddrPort(client.Addr().String())}}
			b.SetBytes(size)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for b.Loop() {
				if to == "files" {
					o.Dir = b.TempDir()
				}
				o.Client = &Client{NoListen: true, Encryption: DisableEncryption}
				files, err := t.DownloadAll(b.Context(), o)
				require.NoError(b, err)
				require.NoError(b, files.Close())
				require.NoError(b, o.Client.Close())
			}
			runtime.ReadMemStats(&after)
			blocks := float64(b.N) * size / blockSize
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/blocks, "ns/block")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/blocks, "allocs/block")
		})
	}
}
