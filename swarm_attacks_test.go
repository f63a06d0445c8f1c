package torrent

import (
	"context"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/memtest"
	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

// A dialRecord is what a client dialled, and when.
type dialRecord struct {
	mu sync.Mutex
	to []netip.AddrPort
	at []time.Time
}

// of returns a Client.Dial that records what it dials from a host.
func (r *dialRecord) of(h *simnet.Host) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		r.mu.Lock()
		r.to, r.at = append(r.to, netip.MustParseAddrPort(addr)), append(r.at, time.Now())
		r.mu.Unlock()
		return h.Dial(ctx, network, addr)
	}
}

// count returns how many dials went to addresses for which is returns true.
func (r *dialRecord) count(is func(netip.Addr) bool) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.to {
		if is(a.Addr()) {
			n++
		}
	}
	return n
}

// busiest returns the most dials that began within any second.
func (r *dialRecord) busiest() (most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, oldest := 0, 0; k < len(r.at); k++ {
		for r.at[k].Sub(r.at[oldest]) >= time.Second {
			oldest++
		}
		most = max(most, k-oldest+1)
	}
	return most
}

// A peer on the open internet names addresses inside our network, and a hundred peers name one victim outside.
func TestAimedAtOthers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 100*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		var dialled dialRecord
		c := simClient(t, us, nil)
		c.NoUTP = true // whose dials the record does not see
		c.Dial = dialled.of(us)
		simLeech(t, c, content)
		simnet.Sleep(time.Second)
		names := func(from string, named ...netip.AddrPort) {
			s := speak(t, n.NewHost(from, 0, 0, 0), content, us.Addr(6881), speech{fast: true, extended: true})
			x := wire.PEX{Added: named, AddedFlags: make([]byte, len(named))}
			s.say(wire.AppendExtended(nil, extPEX, x.Append(nil)))
		}
		within := func(a netip.Addr) bool { return a.As4()[0] == 10 || a.IsLoopback() }
		victim := netip.MustParseAddr("9.9.9.9")
		n.NewHost(victim.String(), 0, 0, 0)

		var inward []netip.AddrPort
		for k := range uint16(50) {
			inward = append(inward, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 1000+k), netip.AddrPortFrom(netip.MustParseAddr("10.1.1.1"), 1000+k))
		}
		names("81.0.0.1", inward...)
		for k := range 100 {
			names(fmt.Sprintf("82.%d.0.1", k), netip.AddrPortFrom(victim, uint16(1000+k)))
		}
		simnet.Sleep(10 * time.Minute)
		require.Zero(t, dialled.count(within), "what a public peer says of our network is not believed")
		hits := dialled.count(func(a netip.Addr) bool { return a == victim })
		require.LessOrEqual(t, hits, 66)
		require.Greater(t, hits, 30, "but it may well be a peer")

		names("10.2.2.2", inward...)
		simnet.Sleep(10 * time.Second)
		require.Zero(t, dialled.count(netip.Addr.IsLoopback), "nor what our neighbours say of this machine")
		require.Equal(t, 30, dialled.count(within), "that there is a host beside them is")
	})
}

// A magnet link names a hundred ports of one host outside our network, and of one inside.
func TestMagnetAimedAtOthers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		var dialled dialRecord
		c := simClient(t, us, nil)
		c.NoUTP = true
		c.Dial = dialled.of(us)
		link := "magnet:?xt=urn:btih:0123456789012345678901234567890123456789"
		for k := range 50 {
			link += fmt.Sprintf("&x.pe=9.9.9.9:%d&x.pe=10.0.0.1:%d", 1000+k, 1000+k)
		}
		m, err := ParseMagnet(link)
		require.NoError(t, err)
		n.NewHost("9.9.9.9", 0, 0, 0)
		n.NewHost("10.0.0.1", 0, 0, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		_, err = m.Resolve(ctx, &Options{Client: c})
		require.Error(t, err)
		outside := dialled.count(func(a netip.Addr) bool { return a.As4()[0] == 9 })
		require.LessOrEqual(t, outside, 66)
		require.Greater(t, outside, 50, "but they are never given up")
		require.LessOrEqual(t, dialled.count(netip.Addr.IsPrivate), 330)
	})
}

// Peers that hang up on encryption are dialled twice, and both dials count.
func TestDialsOfBothKindsArePaced(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 100*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		var dialled dialRecord
		c := simClient(t, us, nil)
		c.Encryption = PreferEncryption
		c.NoUTP = true
		c.Dial = dialled.of(us)
		var peers []netip.AddrPort
		for k := range 200 {
			p := simpeer.New("plain", n.NewHost(fmt.Sprintf("81.%d.0.1", k), 1000, 0, 10*time.Millisecond), 6881, content.truth, simpeer.Script{})
			require.NoError(t, p.Arrive())
			t.Cleanup(p.Stop)
			peers = append(peers, p.Addr())
		}
		d, err := content.Start(t.Context(), &Options{Client: c, MaxPeers: 200, Peers: peers, Storage: newSimStorage(content).open})
		require.NoError(t, err)
		simnet.Sleep(20 * time.Second)
		require.Len(t, d.Stats().Peers, 200)
		require.Len(t, dialled.to, 400)
		require.Equal(t, 30, dialled.busiest())
	})
}

// A liar that shares its address with an honest peer says that it listens where that one does, and even takes its
// peer id. The user named the honest one, which is dialled all the same, and not banned for what the liar does.
func TestClaimOfAnothersPort(t *testing.T) {
	for _, ip := range []string{"80.0.0.9", "10.0.0.9", "100.64.0.9"} {
		for _, stolen := range []bool{false, true} {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, blockSize, 64*blockSize)
				us, behind := n.NewHost("81.0.0.1", 0, 0, time.Millisecond), n.NewHost(ip, 20e3, 0, time.Millisecond)
				honest := simpeer.New("honest", behind, 6881, content.truth, simpeer.Script{Fast: true})
				defer honest.Stop()
				c := simClient(t, us, nil)
				d := simLeech(t, c, content)
				simnet.Sleep(time.Second)
				for k := range 3 { // as many as a public address may have
					can := speech{fast: true, extended: true}
					if stolen && k == 0 {
						can.id = honest.ID()
					}
					liar := speak(t, behind, content, us.Addr(6881), can)
					liar.sayID(wire.HaveNone)
					liar.sayHello(wire.ExtHandshake{P: 6881})
				}
				simnet.Sleep(time.Second)
				require.NoError(t, honest.Arrive())
				d.AddPeers(honest.Addr())
				simnet.Sleep(40 * time.Second)
				require.True(t, slices.ContainsFunc(d.Stats().Peers, func(p PeerStats) bool { return p.Addr == honest.Addr() }), "%s, with the id of the honest one: %t", ip, stolen)

				d.mu.Lock()
				for _, p := range d.swarm.peers {
					if p.conn.incoming {
						d.ban(0, []any{p.supply.Origin}) // as if it had sent a false block
						break
					}
				}
				d.mu.Unlock()
				simnet.Sleep(time.Minute)
				require.True(t, d.Stats().Complete, "%s", ip)
			})
		}
	}
}

// Eighty peers send all but the last byte of a megabyte, in messages of any kind, and nothing more. It held 172 MiB.
func TestHalfSentMessages(t *testing.T) {
	head := func(kind wire.ID, size uint32, next ...byte) []byte {
		b := append(binary.BigEndian.AppendUint32(nil, size), byte(kind))
		return append(append(b, next...), make([]byte, int(size)-2-len(next))...)
	}
	for name, half := range map[string][]byte{
		"extension handshake": head(wire.Extended, 1<<20, 0),
		"peer exchange":       head(wire.Extended, 1<<20, extPEX),
		"unknown extension":   head(wire.Extended, 1<<20, 99),
		"unknown message":     head(99, 1<<20),
		"hashes":              head(wire.Hashes, 1+32+16+32*8000),
		"bitfield":            head(wire.Bitfield, 1<<20),
		"block":               head(wire.Piece, 9+wire.MaxBlock, make([]byte, 8)...),
		"keep-alives":         make([]byte, 100_003),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := crowded(t, plainTorrent(1000), 0)
				before := memtest.Heap()
				for k := range 80 {
					defer join(t, d, k, half).leave()
				}
				synctest.Wait()
				require.Less(t, memtest.Heap()-before, int64(12<<20))
			})
		})
	}
}

// Strangers have long pieces started, of which they send a block each. When what is kept of these is too much, they are given
// up, but not while they are of use.
func TestStartedPiecesGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const length, pieces, limit = 64 << 20, 200, 128 << 10
		to := &Torrent{name: "large", length: pieces * length, infoHash: Hash{1}, pieces: make([]byte, sha1.Size*pieces)}
		to.layout = layout.New(length, layout.File{Path: "large", Length: to.length})
		c := &Client{NoDHT: true, NoUTP: true, NoListen: true, hooks: hooks{heldMemory: limit}}
		defer c.Close()
		d, err := to.Start(t.Context(), &Options{Client: c, MaxPeers: 300, Storage: func(*Torrent) (Storage, error) { return emptyStorage{}, nil }})
		require.NoError(t, err)
		synctest.Wait()
		send := func(k int) {
			b := wire.AppendHave(wire.AppendSimple(nil, wire.HaveNone), uint32(k))
			conn := join(t, d, k, wire.AppendSimple(b, wire.Unchoke))
			synctest.Wait()
			d.mu.Lock()
			p := d.swarm.peers[len(d.swarm.peers)-1]
			out, err := p.handIn(picker.Block{Piece: int32(k)}, d.client.blockPool.Get(), time.Now())
			d.unlock(time.Now())
			require.NoError(t, err)
			if out.a != nil {
				d.write(out)
			}
			conn.leave()
		}
		started := func() (n, memory int) {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.picker.NumStarted(), d.picker.Memory()
		}
		for k := range pieces {
			send(k)
		}
		time.Sleep(10 * time.Second)
		n, memory := started()
		require.Equal(t, pieces, n)
		require.Greater(t, memory, 3*limit)
		time.Sleep(time.Minute)
		n, memory = started()
		require.Positive(t, n, "what fits stays")
		require.LessOrEqual(t, memory, limit+account.Free)
		held, _ := c.account.Held()
		require.LessOrEqual(t, held, int64(limit))
		require.NoError(t, d.Close())
		held, _ = c.account.Held()
		require.Zero(t, held)
	})
}

// A peer that has a piece, is asked for it, and has it no more is forgiven the block, should it come: what is remembered of that
// is charged to it.
func TestTakenBackRequestsAreCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pieces = 10_000
		d := crowded(t, plainTorrent(pieces), 0)
		once := wire.AppendSimple(wire.AppendSimple(nil, wire.HaveNone), wire.Unchoke)
		const liars, atOnce = 10, 25 // pieces, each of which is requested before it is lost
		for k := range liars {
			conn := join(t, d, k, once)
			defer conn.leave()
			for first := range pieces / atOnce {
				var have, lost []byte
				for i := range uint32(atOnce) {
					have = wire.AppendHave(have, uint32(first*atOnce)+i)
					lost = wire.AppendDontHave(lost, extDontHave, uint32(first*atOnce)+i)
				}
				conn.say(have, 1)
				synctest.Wait()
				conn.say(lost, 1)
				synctest.Wait()
			}
		}
		time.Sleep(2 * time.Second)
		held, _ := d.client.account.Held()
		require.Greater(t, held, int64(liars*4096*20))
		require.Less(t, held, int64(liars*pieces*50))
	})
}

// keepsPlace is how those behave that want nothing but the place: they claim everything, are interested, and send
// keep-alives. They come back whenever they are dropped.
var keepsPlace = simpeer.Script{
	ClaimsAll: true, Never: simpeer.Unchokes,
	Opening: func(c *simpeer.Content) []byte {
		b := make([]byte, c.NumPieces()/8)
		for i := range b {
			b[i] = 0xff
		}
		return wire.AppendSimple(wire.AppendBitfield(nil, b), wire.Interested)
	},
	Noise: []simpeer.Noise{simpeer.Noises()[13]}, NoiseEvery: 100 * time.Second,
}

// A crowd holds all places before honest seeds come. These get in all the same, whether they call or have to be
// called, and the download completes.
func TestEclipse(t *testing.T) {
	t.Parallel()
	client := netip.MustParseAddrPort("81.0.0.1:6881")
	for _, crowd := range []struct {
		name  string
		addr  func(k int) string
		hosts int
	}{
		{"one /64 of IPv6", func(k int) string { return fmt.Sprintf("2001:db8::%x", k+1) }, 100},
		{"one /24 of IPv4", func(k int) string { return fmt.Sprintf("66.0.0.%d", k+1) }, 100},
		{"27 addresses", func(k int) string { return fmt.Sprintf("%d.%d.3.4", 100+k, k) }, 27},
		{"160 addresses that come back at once", func(k int) string { return fmt.Sprintf("%d.%d.3.4", 130+k%20, k%250) }, 160},
	} {
		for _, called := range []bool{false, true} {
			if raceEnabled() && called != (crowd.hosts > 100) {
				continue // it finds no more
			}
			name := crowd.name + ", seeds call"
			if called {
				name = crowd.name + ", seeds are called"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				content := newSimContent(1, 64<<10, 16<<20)
				simnet.Run(t, func(t *testing.T, n *simnet.Network) {
					m := &simMeeting{net: n, content: content, host: n.NewHost("81.0.0.1", 0, 0, 10*time.Millisecond)}
					defer m.end(t)
					m.client = simStart(t.Context(), t, m.host, content, nil, nil, nil)
					for k := range crowd.hosts {
						p := simpeer.New("crowd", n.NewHost(crowd.addr(k), 1e6, 0, 10*time.Millisecond), 6881, content.truth, keepsPlace)
						require.NoError(t, p.Arrive())
						m.peers = append(m.peers, p)
						if crowd.hosts > 100 {
							p.Call(1, client, 2*time.Second)
							continue
						}
						p.Call(min(3, 100/crowd.hosts), client, 5*time.Second)
					}
					simnet.Sleep(2 * time.Minute)
					require.Len(t, m.client.Stats().Peers, 80, "the crowd has all places")

					var seeds []netip.AddrPort
					for k := range 11 {
						p := simpeer.New("seed", n.NewHost(fmt.Sprintf("90.%d.0.1", k), 20e3, 0, 10*time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
						require.NoError(t, p.Arrive())
						m.peers = append(m.peers, p)
						seeds = append(seeds, p.Addr())
						if !called {
							p.Call(1, client, 5*time.Second)
						}
					}
					if called {
						m.client.discovery.found(7, "", seeds...) // by peer exchange
					}
					came, want := time.Now(), len(seeds)
					if crowd.hosts > 100 {
						want = 5 // which give enough that others are waited for
					}
					var all time.Duration // until the last was in
					for all == 0 && time.Since(came) < 5*time.Minute {
						simnet.Sleep(time.Second)
						in := 0
						for _, p := range m.client.Stats().Peers {
							if p.Addr.Addr().Is4() && p.Addr.Addr().As4()[0] == 90 {
								in++
							}
						}
						if in >= want {
							all = time.Since(came)
						}
					}
					require.NotZero(t, all, "not enough seeds got in")
					simWait(5*time.Minute, m.client)
					require.True(t, m.client.done(), "%s", m.client.describe())
					require.NoError(t, m.client.compare(nil))
					t.Logf("all seeds were in after %v, complete after %v", all, time.Since(came))
				})
			})
		}
	}
}

// One that connects again begins with what was left of the work that it may cause, not with a new account.
func TestWorkIsRememberedOfThoseThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := crowded(t, plainTorrent(1000), 0)
		waits := func(k int) time.Duration {
			conn := join(t, d, k, wire.AppendSimple(nil, wire.HaveNone))
			synctest.Wait()
			wait := d.swarm.peers[0].work.Charge(workAtOnce/2, time.Now())
			conn.leave()
			synctest.Wait()
			return wait
		}
		require.Zero(t, waits(1))
		require.Less(t, waits(1), time.Second)
		require.Greater(t, waits(1), 5*time.Second)
		require.Zero(t, waits(2), "another address")
		time.Sleep(time.Minute)
		require.Zero(t, waits(1))
	})
}
