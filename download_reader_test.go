package torrent

import (
	"fmt"
	"io"
	"io/fs"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/stretchr/testify/require"
)

// Close of the only reader ends its Read that waits.
func TestCloseEndsTheOnlyRead(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 16<<10, 64<<10)
		d := simLeech(t, simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil), content)
		var path string
		for f := range content.Files() {
			path = f.Path
		}
		r, err := d.Open(t.Context(), path)
		require.NoError(t, err)
		read := make(chan error, 1)
		go func() {
			_, err := r.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait()
		require.NoError(t, r.Close())
		require.ErrorIs(t, <-read, fs.ErrClosed)
	})
}

// A reader that seeks into the middle of a file of 2 GB gets its first bytes within two round trips and the time
// that the peers, which unchoked us long ago, need for what was on the wire and for one piece. Each peer may send
// two blocks more: the one that it was about to send, and one because blocks cannot be shared out evenly. A
// hundredth more is allowed because rates are estimates.
func TestSeekIsServedFirst(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		rates       []float64 // of the peers, bytes a second
		delay       time.Duration
		pieceLength int64
		fast        bool // BEP 6
	}{
		{name: "one peer", rates: []float64{2e6}, delay: 50 * time.Millisecond, pieceLength: 1 << 20},
		{name: "one slow peer", rates: []float64{200e3}, delay: 20 * time.Millisecond, pieceLength: 1 << 20, fast: true},
		{name: "a far peer", rates: []float64{2e6}, delay: 250 * time.Millisecond, pieceLength: 1 << 20, fast: true},
		{name: "four alike", rates: []float64{1e6, 1e6, 1e6, 1e6}, delay: 25 * time.Millisecond, pieceLength: 1 << 20, fast: true},
		{name: "fast and slow", rates: []float64{4e6, 1e6, 200e3, 30e3}, delay: 25 * time.Millisecond, pieceLength: 1 << 20, fast: true},
		{name: "long pieces", rates: []float64{4e6, 2e6, 1e6}, delay: 25 * time.Millisecond, pieceLength: 16 << 20, fast: true},
		{name: "many slow peers", rates: slices.Repeat([]float64{100e3}, 30), delay: 50 * time.Millisecond, pieceLength: 2 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimRepeating(1, tt.pieceLength, 2e9)
				m := &simMeeting{net: n, content: content}
				defer m.end(t)
				o := &Options{Storage: newSimStorage(content).open}
				total := 0.0
				for _, rate := range tt.rates {
					p := m.meet(t, rate, simpeer.Script{Fast: tt.fast})
					p.Host.Delay = tt.delay
					o.Peers = append(o.Peers, p.Addr())
					total += rate
				}
				host := n.NewHost("81.0.0.1", 0, 0, 0)
				m.client = simStart(t.Context(), t, host, content, nil, o, nil)
				time.Sleep(30 * time.Second) // until rates are known and pipelines full
				require.Len(t, m.client.Stats().Peers, len(tt.rates))

				file, err := m.client.Open(t.Context(), content.name)
				require.NoError(t, err)
				defer file.Close()
				for _, at := range []int64{1e9, 1_900_000_000, 300_000_000} {
					for m.client.verified().Has(int(at / tt.pieceLength)) {
						at += tt.pieceLength
					}
					_, err = file.Seek(at, io.SeekStart)
					require.NoError(t, err)
					wire, began := host.UnderWay()+int64(2*blockSize*len(tt.rates)), time.Now()
					b := make([]byte, 4096)
					_, err = io.ReadFull(file, b)
					require.NoError(t, err)
					require.Equal(t, content.truth.Run(at/tt.pieceLength*tt.pieceLength, tt.pieceLength)[at%tt.pieceLength:][:len(b)], b)
					took := time.Since(began)
					// The slowest may have been given one block more, since blocks cannot be shared out evenly.
					block := time.Duration(blockSize / slices.Min(tt.rates) * float64(time.Second))
					most := block + 4*tt.delay + time.Duration(1.01*(float64(wire)+float64(tt.pieceLength))/total*float64(time.Second))
					t.Logf("first bytes at %d after %v; bound %v, with %d bytes on the wire", at, took, most, wire)
					require.LessOrEqual(t, took, most)
					time.Sleep(5 * time.Second)
				}
				require.Empty(t, m.client.account(m.peers...))
			})
		})
	}
}

// A reader that seeks to the middle of a large file gets its first bytes within two round trips, the time for what
// was on the wire, and that for one piece at the peers' rates. Other requests are cancelled to make room.
func TestSeekDelay(t *testing.T) {
	t.Parallel()
	const rtt = 100 * time.Millisecond
	for _, pieceLength := range []int64{64 << 10, 256 << 10, 1 << 20, 4 << 20} {
		for name, rates := range map[string][]float64{
			"one peer":             {5e6},
			"four peers":           {2e6, 2e6, 2e6, 2e6},
			"one fast, three slow": {10e6, 200e3, 200e3, 200e3},
			"slow peers":           {100e3, 100e3, 100e3, 100e3},
		} {
			t.Run(fmt.Sprintf("pieces of %d KiB, %s", pieceLength>>10, name), func(t *testing.T) {
				found(t, newSimRepeating(1, pieceLength, 2<<30), func(t *testing.T, m *simMeeting) {
					sum := 0.0
					o := &Options{Storage: newSimStorage(m.content).open}
					for _, rate := range rates {
						sum += rate
						p := m.meet(t, rate, simpeer.Script{})
						p.Host.Delay = rtt / 4
						o.Peers = append(o.Peers, p.Addr())
					}
					host := m.net.NewHost("81.0.0.1", 0, 0, rtt/4)
					m.client = simStart(t.Context(), t, host, m.content, nil, o, nil)
					time.Sleep(10 * time.Second)

					r, err := m.client.Open(t.Context(), m.content.layout.File(0).Path)
					require.NoError(t, err)
					defer r.Close()
					for _, where := range []int64{1 << 30, 1<<29 + 12345, 3<<29 + 1} {
						_, err = r.Seek(where, io.SeekStart)
						require.NoError(t, err)
						wire := host.Clearing(blockSize) // and a block that each has begun
						start := time.Now()
						_, err = io.ReadFull(r, make([]byte, 1))
						require.NoError(t, err)
						took := time.Since(start)
						piece := time.Duration(float64(pieceLength) / sum * float64(time.Second))
						t.Logf("took %v, of round trips %v, on the wire %v, a piece %v", took, 2*rtt, wire, piece)
						// One block more, since blocks cannot be shared out evenly.
						block := time.Duration(blockSize / slices.Min(rates) * float64(time.Second))
						bound := 2*rtt + wire + piece + block
						require.LessOrEqual(t, took, bound)
						time.Sleep(5 * time.Second)
					}
				})
			})
		}
	}
}
