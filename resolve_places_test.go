package torrent

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// A crowd of one network that dials a resolver again and again holds all connections that the client may have. A peer that dials
// later gets in at its first attempt.
func TestResolveCrowdThatReconnects(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 1000, false)
		me := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, me, nil)
		c.MaxPeers = 20
		require.NoError(t, c.Open())
		resolved := make(chan error, 1)
		go func() {
			nowhere := netip.MustParseAddrPort("89.0.0.1:1")
			_, err := content.Magnet().Resolve(t.Context(), &Options{Client: c, Peers: []netip.AddrPort{nowhere}})
			resolved <- err
		}()
		simnet.Sleep(time.Second)
		var over atomic.Bool
		call := func(ip string, script metadataScript, again time.Duration) {
			host := n.NewHost(ip, 0, 0, time.Millisecond)
			for ; !over.Load(); time.Sleep(again) {
				if conn, err := host.Dial(t.Context(), "tcp", me.Addr(6881).String()); err == nil {
					(&metadataSpeaker{metadataScript: script, content: content, host: host}).speak(conn)
				}
			}
		}
		for k := range 40 {
			go call(fmt.Sprintf("66.0.0.%d", k+1), metadataScript{
				stays: true, delay: 14 * time.Second,
				size:   func(int64) int64 { return 30<<20 + int64(k) },
				answer: func(int, []byte) []byte { return make([]byte, wire.MetadataBlock) },
			}, time.Second)
		}
		simnet.Sleep(2 * time.Minute)
		go call("90.0.0.1", metadataScript{}, time.Minute)
		simnet.Sleep(30 * time.Second)
		over.Store(true)
		defer simnet.Sleep(2 * time.Minute) // until the liars have noticed the end
		select {
		case err := <-resolved:
			require.NoError(t, err)
		default:
			require.Fail(t, "not resolved", "%+v", c.Stats().Resolving)
		}
	})
}

// Peers of 38 networks dial a resolver again as soon as they are dropped, and answer no request. All of the metadata is requested
// from them before a peer connects that has it.
func TestResolveSilentCrowdThatReconnects(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 20_000, false)
		me, honest := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("90.0.0.1", 0, 0, 50*time.Millisecond)
		c := simClient(t, me, nil)
		require.NoError(t, c.Open())
		var over atomic.Bool
		defer simnet.Sleep(2 * time.Minute) // until the crowd has noticed the end
		defer over.Store(true)
		for k := range 38 {
			host := n.NewHost(fmt.Sprintf("66.%d.0.1", k), 0, 0, time.Millisecond)
			script := metadataScript{stays: true, silent: func(int) bool { return true }}
			go func() {
				for ; !over.Load(); time.Sleep(100 * time.Millisecond) {
					if conn, err := host.Dial(t.Context(), "tcp", me.Addr(6881).String()); err == nil {
						(&metadataSpeaker{metadataScript: script, content: content, host: host}).speak(conn)
					}
				}
			}()
		}
		time.AfterFunc(30*time.Second, func() { speakMetadata(t, honest, content, metadataScript{}) })
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		_, err := content.Magnet().Resolve(ctx, &Options{Client: c, Peers: []netip.AddrPort{honest.Addr(6881)}})
		require.NoError(t, err)
	})
}
