package torrent

import (
	"context"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/metadata"
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

// A user's connection that is slow to close does not hold up a magnet link.
func TestResolveSlowClose(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 100, false)
		useless := speakMetadata(t, n.NewHost("81.0.0.1", 0, 0, 0), content, metadataScript{none: true})
		honest := speakMetadata(t, n.NewHost("81.0.1.1", 0, 0, 0), content, metadataScript{sizeAfter: 12 * time.Second})
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := us.Dial(ctx, network, addr)
			if err != nil || addr != useless.addr().String() {
				return conn, err
			}
			return slowToClose{conn}, nil
		}
		m, resolved := content.Magnet(), make(chan error, 1)
		go func() {
			_, err := m.Resolve(t.Context(), &Options{Client: c, Peers: []netip.AddrPort{useless.addr(), honest.addr()}})
			resolved <- err
		}()
		simnet.Sleep(20 * time.Second)
		s := c.Stats().Resolving
		require.Len(t, s, 1, "it waits for the connection")
		require.NotZero(t, s[0].Metadata)
		require.Equal(t, s[0].Length, s[0].Metadata)
		require.NoError(t, <-resolved)
	})
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
			resolved := resolveUnreachable(t, content.Magnet(), Options{Client: c, MaxPeers: 6})
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

// Peers that dial a client which resolves one link twice are dealt to both.
func TestTwoResolversShareThePeersThatDial(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		defer simnet.Sleep(2 * time.Minute) // until the peers have noticed the end
		content := newSimResolvable(t, 5, false)
		me := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, me, nil)
		require.NoError(t, c.Open())
		ctx, cancel := context.WithCancel(t.Context())
		var resolving sync.WaitGroup
		for range 2 {
			resolving.Go(func() {
				content.Magnet().Resolve(ctx, &Options{Client: c, Peers: []netip.AddrPort{netip.MustParseAddrPort("89.0.0.1:1")}})
			})
		}
		defer func() { cancel(); resolving.Wait() }()
		simnet.Sleep(time.Second)
		for i := range 12 {
			host := n.NewHost(fmt.Sprintf("81.%d.0.1", i), 0, 0, time.Millisecond)
			conn, err := host.Dial(t.Context(), "tcp", me.Addr(6881).String())
			require.NoError(t, err)
			go (&metadataSpeaker{metadataScript: metadataScript{sizeAfter: time.Hour}, content: content, host: host}).speak(conn)
			simnet.Sleep(time.Second)
			links := c.Stats().Resolving
			require.Equal(t, i+1, links[0].Peers+links[1].Peers)
			require.LessOrEqual(t, max(links[0].Peers, links[1].Peers)-min(links[0].Peers, links[1].Peers), 1)
		}
	})
}

// A handshake costs the same however many links are being resolved, and finds a link whatever else of the same info hash comes
// and goes.
func TestLinksAreFoundByInfoHash(t *testing.T) {
	c := &Client{NoListen: true, NoDHT: true, NoUTP: true}
	require.NoError(t, c.Open())
	defer c.Close()
	link := func(hashes infoHashes) (hide func()) {
		return c.showResolver(&resolver{accepting: true, discovery: &discovery{discoveryConfig: discoveryConfig{hashes: hashes}}})
	}
	v1, v2 := Hash{1}, Hash{2}
	finds := func(h Hash) bool {
		named, ok := c.stream(mse.StreamID(h))
		require.Equal(t, ok, Hash(named) == h)
		_, accepted := c.acceptorFor(h)
		require.Equal(t, ok, accepted)
		return ok
	}
	hideHybrid := link(infoHashes{first: v1, second: v2})
	hideFirst := link(infoHashes{first: v1})
	require.True(t, finds(v1) && finds(v2))
	hideHybrid()
	require.True(t, finds(v1), "the other link has it")
	require.False(t, finds(v2))

	d := &Download{t: &Torrent{infoHash: v1}}
	c.serve(d)
	c.serve(d) // as the start of sharing does
	hideFirst()
	require.True(t, finds(v1), "the download has it")
	hideFirst = link(infoHashes{first: v1})
	c.unserve(d)
	require.True(t, finds(v1), "the link has it")
	hideFirst()
	require.False(t, finds(v1))
	require.Empty(t, c.registry.links)
	require.Empty(t, c.registry.streams)

	cost := func() float64 {
		return testing.AllocsPerRun(10, func() { c.stream([20]byte{}); c.acceptorFor(Hash{}) })
	}
	before := cost()
	for k := range 1000 {
		defer link(infoHashes{first: Hash{3, byte(k), byte(k >> 8)}})()
	}
	require.Equal(t, before, cost())
}

// Peers that send a little and leave, and come back, are not remembered again and again.
func TestServedIsBounded(t *testing.T) {
	r := new(resolver)
	addr := func(k int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{80, 0, byte(k >> 8), byte(k)}), 1)
	}
	for k := range 1000 {
		r.servedBy(addr(k))
		r.servedBy(addr(k / 2))
	}
	require.Len(t, r.served, maxServed)
	require.Contains(t, r.served, addr(999))
	require.Contains(t, r.served, addr(499))
	require.NotContains(t, r.served, addr(0))
}

// A resolver ends while the account asks it to give way. It does not come back into the account, where it would stay for good.
func TestDraftsAreLeftForGood(t *testing.T) {
	r := &resolver{client: &Client{account: account.New(0)}, metadata: metadata.New()}
	r.join()
	h := r.holder
	r.giveWayFor(h)
	require.NotSame(t, h, r.holder, "it has given way, and begins again")
	h = r.holder
	r.leave()
	r.giveWayFor(h)
	require.Nil(t, r.holder)
}
