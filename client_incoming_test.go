package torrent

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// An honest peer with a slow handshake gets in, while 1,450 connections a second come from a few prefixes and say
// nothing.
func TestSilentConnections(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		d := simSeed(t, simClient(t, us, nil), content)
		simnet.Sleep(time.Second)
		var crowd []*simnet.Host
		for k := range 200 {
			crowd = append(crowd, n.NewHost(fmt.Sprintf("66.0.%d.%d", k%4, k/4), 0, 0, 0), n.NewHost(fmt.Sprintf("2001:db8::%d:%x", k%4, k), 0, 0, 0))
		}
		over := t.Context()
		go func() {
			for k := 0; over.Err() == nil && k < 1450*10; k++ {
				if conn, err := crowd[k%len(crowd)].Dial(over, "tcp", us.Addr(6881).String()); err == nil {
					defer conn.Close()
				}
				time.Sleep(time.Second / 1450)
			}
		}()
		simnet.Sleep(2 * time.Second)
		for k := range 10 { // a round trip takes 300 ms, and the handshake begins after one more
			honest := n.NewHost(fmt.Sprintf("90.%d.0.1", k), 0, 0, 150*time.Millisecond)
			conn, err := honest.Dial(t.Context(), "tcp", us.Addr(6881).String())
			require.NoError(t, err)
			simnet.Sleep(300 * time.Millisecond)
			hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte{byte(k), 1}}
			conn.Write(hello.Append(nil))
			simnet.Sleep(400 * time.Millisecond)
			require.Len(t, d.Stats().Peers, k+1)
		}
	})
}
