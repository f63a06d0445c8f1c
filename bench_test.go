package torrent

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/shoal-go/torrent/internal/wire"
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

// BenchmarkBlock is the whole way of a block over loopback, with sender and receiver in one process: read from
// a file, sent, received, assembled, hashed, and stored in memory or in a file. Allocations are those of the last
// three quarters of a download, after those of its start.
func BenchmarkBlock(b *testing.B) {
	const size = 256 << 20
	for _, to := range []string{"memory", "files"} {
		for _, pieceLength := range []int64{256 << 10, 1 << 20, 16 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", to, pieceLength>>10), func(b *testing.B) {
				dir, t := benchContent(b, size, pieceLength)
				var before, after runtime.MemStats
				client := &Client{NoDHT: true, NoUTP: true, NoListen: true, Encryption: DisableEncryption}
				client.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					conn, err := new(net.Dialer).DialContext(ctx, network, addr)
					return &milestone{conn, size / 4, func() { runtime.ReadMemStats(&before) }}, err
				}
				defer client.Close()
				o := &Options{Peers: []netip.AddrPort{benchSeed(b, t, dir)}, Client: client}
				b.SetBytes(size)
				var allocs uint64
				for b.Loop() {
					if to == "files" {
						o.Dir = b.TempDir()
					}
					d, err := t.Start(b.Context(), o)
					require.NoError(b, err)
					files, err := d.Wait()
					require.NoError(b, err)
					runtime.ReadMemStats(&after)
					allocs += after.Mallocs - before.Mallocs
					require.NoError(b, files.Close())
				}
				blocks := float64(b.N) * size / blockSize
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/blocks, "ns/block")
				b.ReportMetric(float64(allocs)/(blocks*3/4), "allocs/block")
			})
		}
	}
}

// benchSeed shares what dir holds, and returns its address.
func benchSeed(b *testing.B, t *Torrent, dir string) netip.AddrPort {
	client := &Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0", Encryption: DisableEncryption}
	b.Cleanup(func() { client.Close() })
	seed, err := t.Start(b.Context(), &Options{Dir: dir, Seed: true, Client: client})
	require.NoError(b, err)
	<-seed.Done()
	return netip.MustParseAddrPort(client.Addr().String())
}

// milestone is a connection that reports when so many bytes have been read.
type milestone struct {
	net.Conn
	left int
	tell func()
}

func (c *milestone) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if had := c.left; had > 0 {
		if c.left -= n; c.left <= 0 {
			c.tell()
		}
	}
	return n, err
}

// BenchmarkUpload is the sender's half of that: one block, to a peer that only asks and reads.
func BenchmarkUpload(b *testing.B) {
	const (
		size        = 256 << 20
		pieceLength = 1 << 20
		inFlight    = 256
	)
	dir, t := benchContent(b, size, pieceLength)
	conn, err := net.Dial("tcp", benchSeed(b, t, dir).String())
	require.NoError(b, err)
	defer conn.Close()
	hello := wire.Handshake{InfoHash: t.infoHash}
	_, err = conn.Write(wire.AppendSimple(hello.Append(nil), wire.Interested))
	require.NoError(b, err)
	_, err = io.ReadFull(conn, make([]byte, wire.HandshakeSize))
	require.NoError(b, err)
	r := wire.NewReader(conn, 1<<20)
	for m := (wire.Message{}); m.ID != wire.Unchoke; {
		m, err = r.Next()
		require.NoError(b, err)
	}
	b.SetBytes(blockSize)
	b.ReportAllocs()
	block := make([]byte, blockSize)
	var requests []byte
	var asked, waiting int64
	for b.Loop() {
		if waiting <= inFlight*3/4 {
			for requests = requests[:0]; waiting < inFlight; waiting++ {
				at := asked * blockSize % size
				requests = wire.AppendRequest(requests, uint32(at/pieceLength), uint32(at%pieceLength), blockSize)
				asked++
			}
			if _, err := conn.Write(requests); err != nil {
				b.Fatal(err)
			}
		}
		for m := (wire.Message{}); m.ID != wire.Piece; {
			if m, err = r.Next(); err != nil {
				b.Fatal(err)
			}
		}
		if err := r.ReadBlock(block); err != nil {
			b.Fatal(err)
		}
		waiting--
	}
}

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

// BenchmarkStart starts a download of a large torrent into an empty directory, until it looks for peers. heap-MB
// is what it holds then, including the torrent.
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
				d, err := t.Start(b.Context(), &Options{Dir: dir, Client: &Client{NoDHT: true, NoUTP: true, NoListen: true}})
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
