package torrent

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// resolveUnreachable begins to resolve a magnet link of which no peer can be dialled: others have to dial.
func resolveUnreachable(t *testing.T, m *Magnet, o Options) <-chan error {
	o.Peers = []netip.AddrPort{netip.MustParseAddrPort("89.0.0.1:1")} // where no peer is
	resolved := make(chan error, 1)
	go func() {
		_, err := m.Resolve(t.Context(), &o)
		resolved <- err
	}()
	simnet.Sleep(time.Second)
	return resolved
}

// A crowd of one network, or of many, holds all connections of a magnet link. If each peer claims another length of the metadata, there is no
// memory for most of these, so that nothing is ever requested from the peer. If all claim the same, they send false pieces, slowly. An honest
// peer that is named later still gets in.
func TestResolveEclipse(t *testing.T) {
	for _, c := range []struct{ peers, networks, lengths int }{{80, 1, 80}, {80, 20, 80}, {20, 20, 1}} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			defer simnet.Sleep(2 * time.Minute) // until the liars have noticed the end
			content := newSimResolvable(t, 1000, false)
			var crowd []*metadataSpeaker
			for k := range c.peers {
				script := metadataScript{stays: true, delay: 14 * time.Second, answer: func(int, []byte) []byte { return make([]byte, wire.MetadataBlock) }}
				script.size = func(int64) int64 { return 30<<20 + int64(k%c.lengths) }
				ip := fmt.Sprintf("%d.0.%d.1", 100+k%c.networks, k)
				crowd = append(crowd, speakMetadata(t, n.NewHost(ip, 0, 0, time.Millisecond), content, script))
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
			_, err := m.Resolve(ctx, &Options{Client: simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil), MaxPeers: c.peers, FindPeers: find})
			require.NoError(t, err)
			require.Less(t, n.Now(), 6*time.Minute)
		})
	}
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
		resolved := resolveUnreachable(t, &Magnet{InfoHash: content.infoHash}, Options{Client: c})
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

// Peers that share the address of one with the metadata have as many connections as may be to an address.
func TestResolveFullAddress(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		defer simnet.Sleep(2 * time.Minute) // until the liars have noticed the end
		content := newSimResolvable(t, 1000, false)
		me, router := n.NewHost("81.0.0.1", 0, 0, 0), n.NewHost("66.0.0.1", 0, 0, time.Millisecond)
		c := simClient(t, me, nil)
		require.NoError(t, c.Open())
		resolved := resolveUnreachable(t, content.Magnet(), Options{Client: c})
		dial := func(script metadataScript) {
			conn, err := router.Dial(t.Context(), "tcp", me.Addr(6881).String())
			require.NoError(t, err)
			go (&metadataSpeaker{metadataScript: script, content: content, host: router}).speak(conn)
		}
		for range peerlist.MaxPerAddress {
			dial(metadataScript{stays: true, size: func(int64) int64 { return 30 << 20 }, delay: 14 * time.Second, answer: func(int, []byte) []byte { return make([]byte, wire.MetadataBlock) }})
		}
		simnet.Sleep(peerlist.TurnoverEvery)
		dial(metadataScript{})
		simnet.Sleep(time.Minute)
		require.Len(t, resolved, 1, "%+v", c.Stats().Resolving)
		require.NoError(t, <-resolved)
	})
}

// A crowd of one network that dials a resolver again and again holds all connections that the client may have. A peer that dials
// later gets in at its first attempt.
func TestResolveCrowdThatReconnects(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 1000, false)
		me := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, me, nil)
		c.MaxPeers = 20
		require.NoError(t, c.Open())
		resolved := resolveUnreachable(t, content.Magnet(), Options{Client: c})
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

// Peers hold all places for incoming connections of a resolver, and do not say how long the metadata is. Each leaves before it has to
// make room, and dials again at once. A peer that dials later still gets in.
func TestResolvePeersThatComeBackAtOnce(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 1000, false)
		me := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, me, nil)
		require.NoError(t, c.Open())
		resolved := resolveUnreachable(t, content.Magnet(), Options{Client: c, MaxPeers: 10})
		var over atomic.Bool
		defer simnet.Sleep(2 * time.Minute) // until the crowd has noticed the end
		defer over.Store(true)
		call := func(ip string, script metadataScript) {
			host := n.NewHost(ip, 0, 0, time.Millisecond)
			for !over.Load() {
				began := time.Now()
				if conn, err := host.Dial(t.Context(), "tcp", me.Addr(6881).String()); err == nil {
					time.AfterFunc(55*time.Second, func() { conn.Close() })
					(&metadataSpeaker{metadataScript: script, content: content, host: host}).speak(conn)
				}
				if time.Since(began) < time.Second {
					time.Sleep(7 * time.Second) // it was refused
				}
			}
		}
		for k := range 5 {
			go call(fmt.Sprintf("%d.0.0.1", 100+k), metadataScript{stays: true, size: func(int64) int64 { return 0 }})
			simnet.Sleep(2 * time.Second)
		}
		require.Equal(t, 5, c.Stats().Resolving[0].Peers)
		simnet.Sleep(time.Minute)
		go call("90.0.0.1", metadataScript{})
		simnet.Sleep(3 * time.Minute)
		select {
		case err := <-resolved:
			require.NoError(t, err)
		default:
			require.Fail(t, "not resolved", "%+v", c.Stats().Resolving)
		}
	})
}

// Three times as many liars as there are places can be dialled, each of a network of its own, and send false pieces, slowly. A peer that the
// same source names later waits behind many of them, and gets in soon all the same.
func TestResolveBehindCandidatesThatGiveLittle(t *testing.T) {
	for chance := range uint64(2) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			defer simnet.Sleep(2 * time.Minute) // until the liars have noticed the end
			content := newSimResolvable(t, 1000, false)
			var named []netip.AddrPort
			for k := range 60 {
				script := metadataScript{stays: true, delay: 14 * time.Second, answer: func(int, []byte) []byte { return make([]byte, wire.MetadataBlock) }}
				script.size = func(int64) int64 { return 30 << 20 }
				named = append(named, speakMetadata(t, n.NewHost(fmt.Sprintf("%d.0.0.1", 100+k), 0, 0, time.Millisecond), content, script).addr())
			}
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil)
			c.hooks.seed += chance
			find := func(context.Context, Hash) iter.Seq[netip.AddrPort] {
				return func(yield func(netip.AddrPort) bool) {
					for _, a := range named {
						yield(a)
					}
					if n.Now() < time.Minute {
						simnet.Sleep(6 * time.Minute)
						yield(speakMetadata(t, n.NewHost("90.0.0.1", 0, 0, time.Millisecond), content, metadataScript{}).addr())
					}
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
			defer cancel()
			_, err := content.Magnet().Resolve(ctx, &Options{Client: c, MaxPeers: 20, FindPeers: find})
			require.NoError(t, err)
			require.Less(t, n.Now(), 20*time.Minute)
		})
	}
}
