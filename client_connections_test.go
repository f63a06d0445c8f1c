package torrent

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/mse"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

// slowSeeds makes so many scripted peers that have everything and send slowly. A download keeps as many of them as
// it may.
func slowSeeds(t *testing.T, n *simnet.Network, net byte, count int, content *simContent) (addrs []netip.AddrPort) {
	for k := range count {
		p := simpeer.New("slow", n.NewHost(fmt.Sprintf("81.%d.%d.1", net, k), 1000, 0, 0), 6881, content.truth, simpeer.Script{Fast: true})
		require.NoError(t, p.Arrive())
		t.Cleanup(p.Stop)
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

func connected(all ...*Download) (each []int) {
	for _, d := range all {
		each = append(each, len(d.Stats().Peers))
	}
	return each
}

// Connections that peers make count as well.
func TestBudgetHoldsForIncoming(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.MaxPeers = 10
		d := simSeed(t, c, content)
		simnet.Sleep(time.Second)
		for k := range 20 {
			s := speak(t, n.NewHost(fmt.Sprintf("81.0.0.%d", k), 0, 0, 0), content, us.Addr(6881), speech{fast: true})
			s.sayID(wire.Interested)
		}
		simnet.Sleep(time.Second)
		require.Equal(t, []int{10}, connected(d))
	})
}

// A download that came first does not stay ahead: one below its share gets connections from those above theirs.
func TestBudgetIsDealtFairly(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		c := simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil)
		c.MaxPeers = 60
		var all []*Download
		for k := range byte(3) {
			content := newSimContent(uint64(k+1), 64<<10, 16<<20)
			all = append(all, simLeech(t, c, content, slowSeeds(t, n, k, 100, content)...))
			for range 60 {
				simnet.Sleep(time.Second)
				sum := 0
				for _, k := range connected(all...) {
					sum += k
				}
				require.LessOrEqual(t, sum, 60)
			}
			for _, n := range connected(all...) {
				require.InDelta(t, 60/len(all), n, 8, "%v", connected(all...))
			}
		}
		require.NoError(t, all[0].Close())
		simnet.Sleep(time.Minute)
		require.Zero(t, connected(all[0])[0])
		for _, n := range connected(all[1:]...) {
			require.InDelta(t, 30, n, 8, "what it had goes to the others")
		}
	})
}

// Thousands of candidates that do not answer are named to one download. The only peer of another download is still dialled.
func TestDialsAreTakenInTurns(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		c := simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil)
		var dead []netip.AddrPort
		for k := range 3000 {
			dead = append(dead, netip.MustParseAddrPort(fmt.Sprintf("%d.%d.%d.1:6881", 100+k%50, k/50, k%200)))
		}
		for k := range uint64(2) {
			d := simLeech(t, c, newSimContent(k+1, blockSize, 64*blockSize))
			d.discovery.found(peerlist.FromPEX, "", dead...)
			simnet.Sleep(10*time.Second + 337*time.Millisecond) // so that no two timers end at once
		}
		content := newSimContent(3, blockSize, 64*blockSize)
		d := simLeech(t, c, content)
		p := simpeer.New("honest", n.NewHost("90.0.0.1", 1e6, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
		require.NoError(t, p.Arrive())
		defer p.Stop()
		d.discovery.found(peerlist.FromPEX, "", p.Addr())
		simnet.Sleep(10 * time.Second)
		require.True(t, d.Stats().Complete)
	})
}

// A peer that wants nothing and has nothing that we want makes room for another.
func TestUselessPeersMakeRoom(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.UploadLimit = rate.NewLimiter(blockSize, blockSize)
		d, err := content.Start(t.Context(), &Options{Client: c, MaxPeers: 5, Seed: true, Storage: newSimStorage(content).fill().open})
		require.NoError(t, err)
		simnet.Sleep(time.Second)
		var useless []*speaker
		for k := range 5 {
			useless = append(useless, speak(t, n.NewHost(fmt.Sprintf("%d.0.0.1", 90+k), 0, 0, 0), content, us.Addr(6881), speech{fast: true}))
		}
		simnet.Sleep(time.Second)
		first := simLeech(t, simClient(t, n.NewHost("82.0.0.1", 0, 0, 0), nil), content, us.Addr(6881))
		simnet.Sleep(time.Second)
		require.Empty(t, first.Stats().Peers, "each is given a minute to show what it wants")
		require.NoError(t, first.Close())
		simnet.Sleep(time.Minute)
		second := simLeech(t, simClient(t, n.NewHost("82.0.0.2", 0, 0, 0), nil), content, us.Addr(6881))
		simnet.Sleep(10 * time.Second)
		require.True(t, second.Stats().Complete)
		require.LessOrEqual(t, len(d.Stats().Peers), 5)
		hungUp := 0
		for _, s := range useless {
			if s.hungUp() {
				hungUp++
			}
		}
		require.Equal(t, 1, hungUp)
	})
}

// Torrents may be added, stopped and removed at any time without an effect on others.
func TestManyTorrentsComeAndGo(t *testing.T) {
	seeds, leeches := &Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0", MaxPeers: 30}, &Client{NoDHT: true, Listen: "127.0.0.1:0", MaxPeers: 20}
	seeds.UploadLimit = rate.NewLimiter(rate.Inf, 0)
	leeches.DownloadLimit = rate.NewLimiter(64<<20, blockSize/2)
	defer seeds.Close()
	defer leeches.Close()
	start := func(c *Client, content *simContent, st *simStorage, peers ...netip.AddrPort) *Download {
		d, err := content.Start(t.Context(), &Options{Client: c, Seed: true, Storage: st.open, Peers: peers})
		require.NoError(t, err)
		return d
	}
	var group sync.WaitGroup
	for k := range 24 {
		content := newSimContent(uint64(k), 32<<10, 300<<10)
		group.Go(func() {
			seed := start(seeds, content, newSimStorage(content).fill())
			<-seed.Done()
			addr := netip.MustParseAddrPort(seeds.Addr().String())
			for round := range 3 {
				d := start(leeches, content, newSimStorage(content), addr)
				if round == 0 {
					d.Close() // at once, while it may be shaking hands
					continue
				}
				files, err := d.Wait()
				if assert.NoError(t, err) {
					assert.EqualValues(t, content.length, d.Stats().Verified)
					assert.NoError(t, files.Close())
				}
			}
			if k%2 == 0 {
				seed.Close()
			}
		})
	}
	group.Wait()
	require.Len(t, slices.Collect(seeds.Downloads()), 12)
	require.Empty(t, slices.Collect(leeches.Downloads()))
	require.Eventually(t, func() bool {
		leeches.mu.Lock()
		defer leeches.mu.Unlock()
		connected, dialling := leeches.budget.InUse()
		return connected == 0 && dialling == 0 && leeches.handshakes.Len() == 0
	}, time.Minute, time.Millisecond, "nothing is left counted")
}

// An honest peer with a slow handshake gets in, while 1,450 connections a second come from a few prefixes and say
// nothing.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
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

// Those of one network begin encrypted handshakes without end, each of which costs us far more than them. Few are answered,
// and a peer of another network gets in.
func TestKeyExchangesArePaced(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, time.Millisecond)
		c := simClient(t, us, nil)
		c.Encryption = PreferEncryption
		d := simSeed(t, c, content)
		simnet.Sleep(time.Second)
		var answered atomic.Int64
		const seconds, each = 4, 200
		for k := range 100 {
			h := n.NewHost(fmt.Sprintf("2001:db8:0:%x::1", k), 0, 0, time.Millisecond)
			go func() {
				for range seconds * each / 100 {
					conn, err := h.Dial(t.Context(), "tcp", us.Addr(6881).String())
					if err != nil {
						return
					}
					conn.Write(bytes.Repeat([]byte{7}, 96))
					conn.SetReadDeadline(time.Now().Add(100 * time.Second / each))
					if n, _ := conn.Read(make([]byte, 1)); n > 0 {
						answered.Add(1)
					}
					conn.Close()
				}
			}()
		}
		simnet.Sleep(2 * time.Second)
		leech := simClient(t, n.NewHost("90.0.0.1", 0, 0, time.Millisecond), nil)
		leech.Encryption = RequireEncryption
		simLeech(t, leech, content, us.Addr(6881))
		simnet.Sleep(time.Second)
		require.Positive(t, d.Stats().Uploaded)
		simnet.Sleep(5 * time.Second)
		require.Positive(t, answered.Load())
		require.LessOrEqual(t, answered.Load(), int64(10*(seconds+2)))
	})
}

// Connections of one network wait by the thousand for their key exchange. Those that were closed for others stop waiting, and a
// peer of another network gets in.
func TestShedHandshakesEnd(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, time.Millisecond)
		c := simClient(t, us, nil)
		c.Encryption = PreferEncryption
		d := simSeed(t, c, content)
		simnet.Sleep(time.Second)
		var hosts []*simnet.Host
		for k := range 50 {
			hosts = append(hosts, n.NewHost(fmt.Sprintf("2001:db8::%x", k+1), 0, 0, time.Millisecond))
		}
		before := runtime.NumGoroutine()
		for k := range 1000 {
			conn, err := hosts[k%len(hosts)].Dial(t.Context(), "tcp", us.Addr(6881).String())
			require.NoError(t, err)
			defer conn.Close()
			conn.Write(bytes.Repeat([]byte{7}, 96))
		}
		simnet.Sleep(100 * time.Millisecond)
		require.Less(t, runtime.NumGoroutine()-before, 3*maxHandshakes)
		leech := simClient(t, n.NewHost("90.0.0.1", 0, 0, time.Millisecond), nil)
		leech.Encryption = RequireEncryption
		simLeech(t, leech, content, us.Addr(6881))
		simnet.Sleep(time.Second)
		require.Positive(t, d.Stats().Uploaded)
	})
}

// A peer that Allow refuses is neither dialled nor accepted, whatever its source, and no metadata is fetched from it.
func TestAllow(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 16*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		bad, good := n.NewHost("81.0.0.1", 1e6, 0, 0), n.NewHost("82.0.0.1", 10e3, 0, 0)
		var dialled dialRecord
		c := simClient(t, us, nil)
		c.Dial, c.NoUTP = dialled.of(us), true
		refused := netip.MustParsePrefix("81.0.0.0/8")
		c.Allow = func(a netip.Addr) bool { return !refused.Contains(a) }
		d := simLeech(t, c, content)
		d.discovery.mu.Lock() // one that is known from before it was refused
		d.discovery.candidates.Add(netip.MustParseAddrPort("81.9.9.9:1"), peerlist.FromDHT, "", time.Now())
		d.discovery.mu.Unlock()
		d.discovery.changed()
		for _, h := range []*simnet.Host{bad, good} {
			p := simpeer.New("peer", h, 6881, content.truth, simpeer.Script{Fast: true})
			require.NoError(t, p.Arrive())
			defer p.Stop()
			for _, from := range []peerlist.Source{peerlist.FromUser, peerlist.FromTracker, peerlist.FromDHT} {
				d.discovery.found(from, "", p.Addr())
			}
			if h == bad {
				p.Call(3, us.Addr(6881), time.Second)
			}
		}
		simnet.Sleep(time.Second)
		s := speak(t, bad, content, us.Addr(6881), speech{fast: true})
		simnet.Sleep(time.Second)
		require.True(t, s.hungUp())
		simnet.Sleep(time.Minute)
		require.True(t, d.Stats().Complete)
		require.Zero(t, dialled.count(refused.Contains))
	})
}

// Ban is for every port of an address, also of a local one, and of peers that the user named before or after.
func TestBanByUser(t *testing.T) {
	for _, ip := range []string{"81.0.0.1", "10.0.0.1"} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, blockSize, 64*blockSize)
			us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost(ip, 20e3, 0, 0)
			d := simLeech(t, simClient(t, us, nil), content)
			var events []Event
			go func() {
				for e := range d.Events(t.Context()) {
					if e.Kind == PeerBanned {
						events = append(events, e)
					}
				}
			}()
			for port := range uint16(2) {
				p := simpeer.New(fmt.Sprint("peer ", port), them, 6881+port, content.truth, simpeer.Script{Fast: true})
				require.NoError(t, p.Arrive())
				defer p.Stop()
				d.AddPeers(p.Addr())
			}
			speak(t, them, content, us.Addr(6881), speech{fast: true})
			simnet.Sleep(5 * time.Second)
			require.Len(t, d.Stats().Peers, 3)

			d.Ban(netip.AddrFrom16(them.IP().As16()))
			simnet.Sleep(time.Second)
			require.Empty(t, d.Stats().Peers)
			require.Equal(t, 1, d.Stats().Banned)
			require.Len(t, events, 1)
			require.Equal(t, netip.AddrPortFrom(them.IP(), 0), events[0].Peer)
			require.ErrorIs(t, events[0].Err, errBannedByUser)
			d.AddPeers(them.Addr(6881), them.Addr(6882))
			s := speak(t, them, content, us.Addr(6881), speech{fast: true})
			simnet.Sleep(time.Second)
			require.True(t, s.hungUp())
			simnet.Sleep(5 * time.Minute)
			require.Empty(t, d.Stats().Peers)
			d.Ban(netip.Addr{})
		})
	}
}

// strictPeer stands before a seed of a hybrid and does as libtorrent does: an encrypted connection stays in the swarm whose info
// hash it is encrypted for, though the answer says that version 2 is spoken, and ends if it is asked for hashes in that of
// version 1.
type strictPeer struct {
	seed    netip.AddrPort
	hashes  infoHashes
	refuses Hash // a swarm in which it takes no connection

	mu         sync.Mutex
	ins        []Hash // of the connections, in order
	overstrict int    // connections that ended because hashes were asked for
}

func (s *strictPeer) listen(t *testing.T) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.relay(conn)
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func (s *strictPeer) relay(raw net.Conn) {
	defer raw.Close()
	made, in, err := mse.Accept(context.Background(), raw, nil, func(id [20]byte) (h [20]byte, ok bool) {
		for _, h := range s.hashes.all() {
			if mse.StreamID(h) == id {
				return h, true
			}
		}
		return h, false
	}, mse.Options{})
	s.mu.Lock()
	s.ins = append(s.ins, in)
	s.mu.Unlock()
	if err != nil || Hash(in) == s.refuses {
		return
	}
	seed, err := net.Dial("tcp", s.seed.String())
	if err != nil {
		return
	}
	defer seed.Close()
	var p [wire.HandshakeSize]byte
	if _, err := io.ReadFull(made, p[:]); err != nil {
		return
	}
	p[27] &^= 0x10 // so that the seed does not upgrade
	seed.Write(p[:])
	if _, err := io.ReadFull(seed, p[:]); err != nil {
		return
	}
	made.Write(p[:])
	go func() {
		defer made.Close()
		io.Copy(made, seed)
	}()
	for {
		var head [4]byte
		if _, err := io.ReadFull(made, head[:]); err != nil {
			return
		}
		m := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(made, m); err != nil {
			return
		}
		if len(m) > 0 && wire.ID(m[0]) == wire.AskHashes && Hash(in) == s.hashes.first {
			s.mu.Lock()
			s.overstrict++
			s.mu.Unlock()
			return
		}
		seed.Write(append(head[:], m...))
	}
}

// A peer that speaks version 2 and does not upgrade a connection is connected to in the swarm of version 2, or asked for no
// hashes.
func TestHybridPeerThatDoesNotUpgrade(t *testing.T) {
	tor, seed := shareV2(t, CreateOptions{Version: Hybrid}, Options{})
	h := tor.infoHashes()
	for _, c := range []struct {
		name    string
		refuses Hash
		want    []Hash
	}{
		{"it is met again", Hash{}, []Hash{h.first, h.second}},
		{"it refuses version 2", h.second, []Hash{h.first, h.second, h.first}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &strictPeer{seed: seed, hashes: h, refuses: c.refuses}
			client := localClient(t)
			client.Encryption = RequireEncryption
			bare := withoutLayers(t, tor)
			files, err := bare.DownloadAll(t.Context(), &Options{Client: client, Peers: []netip.AddrPort{s.listen(t)}})
			require.NoError(t, err)
			require.NoError(t, files.Close())
			s.mu.Lock()
			defer s.mu.Unlock()
			require.Equal(t, c.want, s.ins)
			require.Zero(t, s.overstrict)
		})
	}
}
