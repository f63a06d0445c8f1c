package torrent

import (
	"io"
	"slices"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/stretchr/testify/require"
)

// A reader that seeks into the middle of a file of 2 GB has its first bytes from peers that unchoked us
// long ago within two round trips, what was already on the wire, and one piece at their rate. On the wire
// is as well the block that a peer was about to send; and where several share a piece, one may have a
// block more to send than another.
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
				time.Sleep(30 * time.Second) // of the bubble's: rates are known, pipelines full
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
					most := 4*tt.delay + time.Duration((float64(wire)+float64(tt.pieceLength))/total*float64(time.Second))
					t.Logf("first bytes at %d after %v; bound %v, with %d bytes on the wire", at, took, most, wire)
					require.LessOrEqual(t, took, most)
					time.Sleep(5 * time.Second)
				}
				require.Empty(t, m.client.account(m.peers...))
			})
		})
	}
}
