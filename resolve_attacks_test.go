package torrent

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// A crowd of one network holds all connections of a magnet link. Each peer claims another length of the metadata. For most of
// these there is no memory, so that nothing is ever requested from the peer. An honest peer that is named later still gets in.
func TestResolveEclipse(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		defer simnet.Sleep(2 * time.Minute) // until the liars have noticed the end
		content := newSimResolvable(t, 1000, false)
		var crowd []*metadataSpeaker
		for k := range 80 {
			script := metadataScript{stays: true, delay: 14 * time.Second, answer: func(int, []byte) []byte { return make([]byte, wire.MetadataBlock) }}
			script.size = func(int64) int64 { return 30<<20 + int64(k) }
			crowd = append(crowd, speakMetadata(t, n.NewHost(fmt.Sprintf("66.0.0.%d", k+1), 0, 0, time.Millisecond), content, script))
		}
		honest := speakMetadata(t, n.NewHost("90.0.0.1", 0, 0, time.Millisecond), content, metadataScript{})
		find := func(ctx context.Context, _ Hash) iter.Seq[netip.AddrPort] {
			return func(yield func(netip.AddrPort) bool) {
				for _, s := range crowd {
					yield(s.addr())
				}
				select {
				case <-time.After(5 * time.Minute):
					yield(honest.addr())
				case <-ctx.Done():
				}
			}
		}
		m := &Magnet{InfoHash: content.infoHash}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := m.Resolve(ctx, &Options{Client: simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil), FindPeers: find})
		require.NoError(t, err)
		require.Less(t, n.Now(), 6*time.Minute)
	})
}

// Liars hold as many connections of a magnet link as the client may have. A download that starts later has its share of them.
func TestResolveSharesConnections(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		defer simnet.Sleep(2 * time.Minute) // until the liars have noticed the end
		unresolved := newSimResolvable(t, 1000, false)
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil)
		c.MaxPeers = 20
		var liars []netip.AddrPort
		for k := range 40 {
			script := metadataScript{stays: true, delay: 14 * time.Second, answer: func(int, []byte) []byte { return make([]byte, wire.MetadataBlock) }}
			script.size = func(int64) int64 { return 30<<20 + int64(k) }
			liars = append(liars, speakMetadata(t, n.NewHost(fmt.Sprintf("%d.0.0.1", 100+k), 0, 0, time.Millisecond), unresolved, script).addr())
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			unresolved.Magnet().Resolve(ctx, &Options{Client: c, FindPeers: func(context.Context, Hash) iter.Seq[netip.AddrPort] {
				return func(yield func(netip.AddrPort) bool) {
					for _, a := range liars {
						yield(a)
					}
				}
			}})
		}()
		defer func() { cancel(); <-ended }()
		simnet.Sleep(time.Minute)
		content := newSimContent(2, blockSize, 64*blockSize)
		simSeed(t, simClient(t, n.NewHost("90.0.0.1", 0, 0, 0), nil), content)
		d := simLeech(t, c, content, netip.MustParseAddrPort("90.0.0.1:6881"))
		simnet.Sleep(time.Minute)
		require.True(t, d.Stats().Complete, "%+v", d.Stats())
	})
}

// A crowd of one network dials a resolver and holds all places for incoming connections. A peer that dials later still gets in.
func TestResolveEclipseByPeersThatDial(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		defer simnet.Sleep(2 * time.Minute) // until the liars have noticed the end
		content := newSimResolvable(t, 1000, false)
		me := n.NewHost("81.0.0.1", 0, 0, 0)
		c := simClient(t, me, nil)
		require.NoError(t, c.Open())
		m := &Magnet{InfoHash: content.infoHash}
		resolved := make(chan error, 1)
		go func() {
			nowhere := netip.MustParseAddrPort("89.0.0.1:1")
			_, err := m.Resolve(t.Context(), &Options{Client: c, Peers: []netip.AddrPort{nowhere}})
			resolved <- err
		}()
		simnet.Sleep(time.Second)
		dial := func(ip string, script metadataScript) {
			host := n.NewHost(ip, 0, 0, time.Millisecond)
			conn, err := host.Dial(t.Context(), "tcp", me.Addr(6881).String())
			require.NoError(t, err)
			go (&metadataSpeaker{metadataScript: script, content: content, host: host}).speak(conn)
		}
		for k := range 60 {
			dial(fmt.Sprintf("66.0.0.%d", k+1), metadataScript{
				stays: true, delay: 14 * time.Second,
				size:   func(int64) int64 { return 30<<20 + int64(k) },
				answer: func(int, []byte) []byte { return make([]byte, wire.MetadataBlock) },
			})
		}
		simnet.Sleep(time.Minute)
		require.Greater(t, c.Stats().Resolving[0].Peers, 30)
		dial("90.0.0.1", metadataScript{})
		simnet.Sleep(time.Minute)
		select {
		case err := <-resolved:
			require.NoError(t, err)
		default:
			require.Fail(t, "not resolved", "%+v", c.Stats().Resolving)
		}
	})
}
