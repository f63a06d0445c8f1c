package torrent

import (
	"context"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/mse"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

func (s *metadataSpeaker) floodOver(conn net.Conn) {
	for range 3000 {
		if _, err := conn.Write(s.flood); err != nil {
			return
		}
		s.mu.Lock()
		s.flooded++
		s.mu.Unlock()
	}
}

// A resolver delays its reads from a peer that floods it with messages.
func TestResolverIsFlooded(t *testing.T) {
	for name, flood := range map[string][]byte{
		"handshakes": wire.AppendExtended(nil, 0, fmt.Appendf(nil, "d1:v8000:%8000de", 0)),
		"requests":   wire.AppendExtended(nil, extMetadata, fmt.Appendf(nil, "d8:msg_typei0e5:piecei0e1:v8000:%8000de", 0)),
		"unknown":    wire.AppendExtended(nil, 99, make([]byte, 8000)),
	} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimResolvable(t, 100, false)
			flooder := speakMetadata(t, n.NewHost("81.0.0.1", 0, 0, 0), content, metadataScript{flood: flood, silent: func(int) bool { return true }})
			honest := speakMetadata(t, n.NewHost("81.0.1.1", 0, 0, 0), content, metadataScript{sizeAfter: 12 * time.Second})
			m := content.Magnet()
			c := simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil)
			began := time.Now()
			_, err := m.Resolve(t.Context(), &Options{Client: c, Peers: []netip.AddrPort{flooder.addr(), honest.addr()}})
			require.NoError(t, err, name)
			require.Less(t, time.Since(began), 20*time.Second, name)
			flooder.mu.Lock()
			defer flooder.mu.Unlock()
			t.Logf("%s: %d", name, flooder.flooded)
			require.Less(t, flooder.flooded, 2000, "%s: what may be read is 8 MB, and a connection holds 4", name)
		})
	}
}

// Peers that cannot be dialled and have the metadata dial the resolver, encrypted or not. Peers that are of no use make room for
// them.
func TestResolveByPeersThatDial(t *testing.T) {
	for _, policy := range []EncryptionPolicy{DisableEncryption, RequireEncryption} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimResolvable(t, 5, false)
			me := n.NewHost("80.0.0.1", 0, 0, 0)
			c := simClient(t, me, nil)
			c.Encryption = policy
			require.NoError(t, c.Open())
			m := content.Magnet()
			resolved := make(chan error, 1)
			go func() {
				nowhere := netip.MustParseAddrPort("89.0.0.1:1")
				_, err := m.Resolve(t.Context(), &Options{Client: c, Peers: []netip.AddrPort{nowhere}, MaxPeers: 6})
				resolved <- err
			}()
			simnet.Sleep(time.Second)
			dial := func(ip string, script metadataScript) {
				host := n.NewHost(ip, 0, 0, time.Millisecond)
				conn, err := host.Dial(t.Context(), "tcp", me.Addr(6881).String())
				require.NoError(t, err)
				if policy == RequireEncryption {
					conn, err = mse.Initiate(t.Context(), conn, content.infoHash, policy.methods(), nil)
					require.NoError(t, err)
				}
				go (&metadataSpeaker{metadataScript: script, content: content, host: host}).speak(conn)
			}
			for i := range 2 {
				dial(fmt.Sprintf("81.%d.0.1", i), metadataScript{sizeAfter: time.Hour})
			}
			simnet.Sleep(time.Second)
			dial("82.0.0.1", metadataScript{sizeAfter: 10 * time.Second})
			for i := range 5 {
				dial(fmt.Sprintf("83.%d.0.1", i), metadataScript{sizeAfter: time.Hour})
			}
			simnet.Sleep(time.Second)
			require.Equal(t, 3, c.Stats().Resolving[0].Peers, "half of the places are for those that are dialled")
			simnet.Sleep(9 * time.Second)
			select {
			case err := <-resolved:
				require.NoError(t, err)
			default:
				require.Fail(t, "not resolved")
			}
		})
	}
}

// A seed that cannot be dialled gives the metadata to a resolver that it dialled. It dials again soon after that, for the
// download that follows.
func TestSeedDialsAgainAfterItGaveTheMetadata(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 5, false)
		me := n.NewHost("80.0.0.1", 0, 0, time.Millisecond)
		c := simClient(t, me, nil)
		require.NoError(t, c.Open())
		seed := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		seed.NoListen = true
		_, err := content.Start(t.Context(), &Options{
			Client: seed, Seed: true, Storage: newSimStorage(content).fill().open,
			FindPeers: func(context.Context, Hash) iter.Seq[netip.AddrPort] {
				return func(yield func(netip.AddrPort) bool) {
					simnet.Sleep(time.Second)
					yield(me.Addr(6881))
				}
			},
		})
		require.NoError(t, err)
		nowhere := netip.MustParseAddrPort("89.0.0.1:1")
		o := &Options{Client: c, Peers: []netip.AddrPort{nowhere}, Storage: newSimStorage(content).open}
		got, err := content.Magnet().Resolve(t.Context(), o)
		require.NoError(t, err)
		_, err = got.DownloadAll(t.Context(), o)
		require.NoError(t, err)
		require.Less(t, n.Now(), 20*time.Second)
	})
}
