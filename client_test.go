package torrent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/portmap"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/wire"
)

// A client that has all the peers it may have looks for another once a second. If it looked all the time, the
// virtual clock would stand still here.
func TestClientMaxPeers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20)
		var peers []*simpeer.Peer
		var addrs []netip.AddrPort
		for k := range 5 {
			p := simpeer.New("silent", n.NewHost(fmt.Sprintf("80.0.%d.1", k), 0, 0, 0), 6881, content.truth, simpeer.Script{Never: simpeer.Unchokes})
			require.NoError(t, p.Arrive())
			defer p.Stop()
			peers, addrs = append(peers, p), append(addrs, p.Addr())
		}
		client := simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil)
		client.MaxPeers = 2
		d := simLeech(t, client, content, addrs...)
		simnet.Sleep(10 * time.Second)
		require.Len(t, d.Stats().Peers, 2)
		for _, p := range peers {
			if connectedTo(d, p.Addr()) {
				p.Depart()
			}
		}
		simnet.Sleep(3 * time.Second)
		require.Len(t, d.Stats().Peers, 2, "others take their place")
	})
}

// A client may be closed, and asked for its downloads, while another goroutine is about to start one.
func TestClientClosedDuringStart(t *testing.T) {
	tor, _ := testContent(blockSize, 3*blockSize)
	c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
	closed := make(chan error)
	_, err := tor.Start(t.Context(), &Options{Client: c, Storage: func(t *Torrent) (Storage, error) {
		for d := range c.Downloads() {
			d.Stats()
		}
		go func() { closed <- c.Close() }()
		<-closed
		return storage.NewMemory(t.content(), 1<<20), nil
	}})
	require.ErrorIs(t, err, ErrClosed)
	require.Empty(t, c.registry.downloads)
}

// A client that is told its own address dials it once, and never again.
func TestOwnAddressIsCalledOnce(t *testing.T) {
	for _, policy := range []EncryptionPolicy{PreferEncryption, RequireEncryption, DisableEncryption} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, 16<<10, 256<<10)
			us := n.NewHost("80.0.0.1", 0, 0, 0)
			c := simClient(t, us, nil)
			c.Encryption = policy
			calls := 0
			c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				calls++
				return us.Dial(ctx, network, addr)
			}
			simLeech(t, c, content, netip.MustParseAddrPort("80.0.0.1:6881"))
			simnet.Sleep(10 * time.Minute)
			require.Equal(t, 1, calls, policy)
		})
	}
}

// A client cannot be identified in one swarm by its identity in another, and it does not answer for torrents that it
// does not have. Nor can lots be computed from what it sends.
func TestIdentityIsOfOneTorrent(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, other := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		one, two, none := newSimContent(1, 16<<10, 64<<10), newSimContent(2, 16<<10, 64<<10), newSimContent(3, 16<<10, 64<<10)
		c := simClient(t, us, nil)
		first := simSeed(t, c, one)
		simSeed(t, c, two)
		who := c.identity(one.infoHash)
		require.NotEqual(t, uint64(who.key), who.lot)
		require.NotContains(t, string(who.id[:]), string(binary.BigEndian.AppendUint64(nil, who.lot)[:4]))

		// answer returns what the client sends back to a handshake for an info hash.
		answer := func(h Hash, id [20]byte) []byte {
			conn, err := other.Dial(t.Context(), "tcp", "80.0.0.1:6881")
			require.NoError(t, err)
			defer conn.Close()
			conn.Write((&wire.Handshake{InfoHash: h, PeerID: id}).Append(nil))
			conn.SetReadDeadline(time.Now().Add(2 * handshakeTimeout))
			b := make([]byte, wire.HandshakeSize)
			k, _ := io.ReadFull(conn, b)
			return b[:k]
		}
		id := func(h Hash) [20]byte {
			theirs, err := wire.ParseHandshake(answer(h, [20]byte{1}))
			require.NoError(t, err)
			return theirs.PeerID
		}
		seen := id(one.infoHash)
		require.Equal(t, peerIDPrefix, string(seen[:len(peerIDPrefix)]))
		require.NotEqual(t, seen, id(two.infoHash))
		require.Equal(t, c.identity(one.infoHash).id, seen, "as trackers are told")
		require.NotEqual(t, c.identity(one.infoHash).key, c.identity(two.infoHash).key)
		require.Empty(t, answer(none.infoHash, [20]byte{1}))
		require.Empty(t, answer(none.infoHash, seen), "not even to a peer with our own id")

		require.NoError(t, first.Close())
		simSeed(t, c, one)
		require.Equal(t, seen, id(one.infoHash), "in one run a torrent keeps its own")
		next := &Client{NoDHT: true, NoUTP: true, NoListen: true}
		require.NoError(t, next.Open())
		defer next.Close()
		require.NotEqual(t, seen, next.identity(one.infoHash).id, "and another run has another")
	})
}

// UDP uses the number of the TCP port. Its sockets are opened when something is sent.
func TestPacketsShareThePort(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		c := simClient(t, us, nil)
		require.NoError(t, c.Open())
		require.Empty(t, c.mux.Addrs())
		require.NoError(t, c.sendPacket([]byte("packet"), them.Addr(1)))
		require.Equal(t, c.port(), c.mux.Addrs()[0].Port())
	})
}

// Another program may have the number of the TCP port for UDP.
func TestPacketsWherePortIsTaken(t *testing.T) {
	c := &Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0"}
	defer c.Close()
	require.NoError(t, c.Open())
	taken, err := net.ListenPacket("udp4", c.Addr().String())
	if err == nil {
		defer taken.Close()
	} // otherwise another program does have it
	require.NoError(t, c.sendPacket([]byte("packet"), netip.MustParseAddrPort(c.Addr().String())))
	require.NotZero(t, c.mux.Addrs()[0].Port())
}

// A client whose connections all go through the user's Dial sends no packet beside it.
func TestNoPacketsBesideDial(t *testing.T) {
	c := &Client{NoDHT: true, NoUTP: true, NoListen: true, Dial: new(net.Dialer).DialContext}
	defer c.Close()
	require.NoError(t, c.Open())
	require.ErrorIs(t, c.sendPacket([]byte("packet"), netip.MustParseAddrPort("127.0.0.1:1")), ErrUnsupported)
	require.Empty(t, c.mux.Addrs())
}

// askingHandler asks each download of a client for its Stats whenever something is logged.
type askingHandler struct {
	client *Client
	said   chan string
}

func (h *askingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *askingHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *askingHandler) WithGroup(string) slog.Handler            { return h }

func (h *askingHandler) Handle(_ context.Context, r slog.Record) error {
	for d := range h.client.Downloads() {
		d.Stats()
	}
	h.said <- r.Message
	return nil
}

func TestLoggerMayAskForStats(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 10*blockSize)
		us, them, liar := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0), n.NewHost("80.0.0.3", 0, 0, 0)
		client := simClient(t, us, nil)
		asks := &askingHandler{client, make(chan string, 1000)}
		client.Logger = slog.New(asks)
		d := simLeech(t, client, content)
		simnet.Sleep(time.Second)

		s := speak(t, liar, content, us.Addr(6881), speech{})
		s.say(wire.AppendBitfield(nil, []byte{0xFF, 0xC0}))
		s.sayID(wire.Unchoke)
		simnet.Sleep(time.Second)
		s.say(append(wire.AppendPieceHeader(nil, 0, 0, blockSize), make([]byte, blockSize)...))
		simnet.Sleep(time.Second)
		simSeed(t, simClient(t, them, nil), content, us.Addr(6881))
		<-d.Done()
		require.NoError(t, client.Close())
		close(asks.said)
		var said []string
		for message := range asks.said {
			said = append(said, message)
		}
		require.Subset(t, said, []string{"examined", "connected", "banned", "disconnected", "complete"})
	})
}

// natpmpRouter answers NAT-PMP (RFC 6886) on a host, grants one external port, and returns how many mappings it holds.
func natpmpRouter(t *testing.T, h *simnet.Host, external netip.Addr, port uint16) (held func() int) {
	conn, err := h.ListenPacket("udp4", ":5351")
	require.NoError(t, err)
	booted := time.Now()
	var mu sync.Mutex
	granted := make(map[byte]bool)
	go func() {
		p := make([]byte, 100)
		for {
			n, from, err := conn.ReadFrom(p)
			if err != nil {
				return
			}
			be := binary.BigEndian
			seconds := uint32(time.Since(booted) / time.Second)
			if n < 2 || p[0] != 0 { // it does not know PCP
				conn.WriteTo(be.AppendUint32([]byte{0, 128, 0, 1}, seconds), from)
				continue
			}
			answer := be.AppendUint32([]byte{0, p[1] | 128, 0, 0}, seconds)
			if p[1] == 0 {
				answer = append(answer, external.AsSlice()...)
			} else {
				life := be.Uint32(p[8:])
				mu.Lock()
				if granted[p[1]] = life > 0; life == 0 {
					delete(granted, p[1])
				}
				mu.Unlock()
				answer = append(answer, p[4:6]...)
				answer = be.AppendUint32(be.AppendUint16(answer, port), life)
			}
			conn.WriteTo(answer, from)
		}
	}()
	t.Cleanup(func() { conn.Close() })
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(granted)
	}
}

// The port that a router opens is the one that trackers, the DHT and peers are told of.
func TestMapPorts(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, gateway := n.NewHost("90.0.0.2", 0, 0, 0), n.NewHost("90.0.0.1", 0, 0, 0)
		held := natpmpRouter(t, gateway, netip.MustParseAddr("80.0.0.1"), 7000)
		router := dhtNetwork(t, n, 5)
		content := newSimContent(1, 16<<10, 64<<10)
		content.trackers = [][]string{{"http://tracker.sim/announce"}}
		tracker := simtracker.New(1)
		c := dhtClient(t, us, router)
		c.HTTPClient = tracker.Client(us)
		c.MapPorts, c.NoUTP = true, false
		c.hooks.gateways = func() ([]portmap.Gateway, error) {
			return []portmap.Gateway{{Router: gateway.IP(), Local: us.IP()}}, nil
		}
		simSeed(t, c, content)
		simnet.Sleep(6 * time.Minute) // a tracker is not asked again before that
		st := c.Stats()
		require.NoError(t, st.PortMapErr)
		require.Equal(t, []PortMapping{{
			Protocol: "NAT-PMP", Router: gateway.IP(), External: netip.MustParseAddr("80.0.0.1"), TCP: 7000, UDP: 7000,
		}}, st.PortMappings)
		require.Equal(t, 2, held())
		said := tracker.Announces()
		require.EqualValues(t, 7000, said[len(said)-1].From.Port())
		require.EqualValues(t, 6881, c.port())

		var found []netip.AddrPort
		asker := dhtClient(t, n.NewHost("80.0.9.9", 0, 0, 0), router)
		asker.DHT()
		simnet.Sleep(time.Minute)
		for a, err := range asker.DHT().Peers(t.Context(), content.infoHash) {
			require.NoError(t, err)
			found = append(found, a)
		}
		require.Contains(t, found, netip.AddrPortFrom(us.IP(), 7000))
		require.NoError(t, c.Close())
		require.Zero(t, held(), "nothing stays open")
	})
}

// The external address that a router reports decides the order of peers (BEP 40), also for downloads that are added later, unless
// there is another router behind it.
func TestMappedAddress(t *testing.T) {
	for said, want := range map[string]string{"80.0.0.1": "80.0.0.1:7000", "10.0.0.7": "invalid AddrPort"} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			us, gateway := n.NewHost("90.0.0.2", 0, 0, 0), n.NewHost("90.0.0.1", 0, 0, 0)
			natpmpRouter(t, gateway, netip.MustParseAddr(said), 7000)
			c := dhtClient(t, us, "")
			c.MapPorts, c.NoUTP = true, false
			c.hooks.gateways = func() ([]portmap.Gateway, error) {
				return []portmap.Gateway{{Router: gateway.IP(), Local: us.IP()}}, nil
			}
			for seed := range uint64(2) {
				d := simSeed(t, c, newSimContent(1+seed, 16<<10, 64<<10))
				simnet.Sleep(time.Minute)
				d.mu.Lock()
				external := d.discovery.candidates.External(netaddr.IPv4)
				d.mu.Unlock()
				require.Equal(t, want, external.String())
			}
			require.Len(t, c.Stats().PortMappings, 1)
		})
	}
}

// A client whose connections all go through a function of the user's asks no router beside it, and says so.
func TestMapPortsBesideDial(t *testing.T) {
	c := &Client{NoDHT: true, Listen: "127.0.0.1:0", MapPorts: true, Dial: new(net.Dialer).DialContext}
	defer c.Close()
	c.hooks.gateways = func() ([]portmap.Gateway, error) {
		t.Error("looked for a router")
		return nil, errors.New("no")
	}
	require.NoError(t, c.Open())
	require.ErrorIs(t, c.Stats().PortMapErr, ErrUnsupported)
}

// utpClient is a client on a simulated host that has uTP, and TCP if it may.
func utpClient(t *testing.T, h *simnet.Host, tcp bool) *Client {
	c := simClient(t, h, nil)
	c.NoUTP, c.NoTCP = false, !tcp
	return c
}

// Peers are reached by the way that both ends have, and what won is remembered.
func TestWays(t *testing.T) {
	for _, tc := range []struct {
		name                       string
		seedTCP, seedUTP, tcp, utp bool
		policy                     EncryptionPolicy
		want                       string
	}{
		{"both at both ends", true, true, true, true, DisableEncryption, "tcp"},
		{"uTP alone at both ends", false, true, false, true, DisableEncryption, "utp"},
		{"encrypted uTP", false, true, false, true, RequireEncryption, "utp"},
		{"a seed without TCP", false, true, true, true, PreferEncryption, "utp"},
		{"a seed without uTP", true, false, true, true, PreferEncryption, "tcp"},
		{"a leech without TCP", true, true, false, true, DisableEncryption, "utp"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, 64<<10, 4<<20)
				them, us := n.NewHost("80.0.0.1", 0, 0, 20*time.Millisecond), n.NewHost("80.0.0.2", 0, 0, 20*time.Millisecond)
				seed := utpClient(t, them, tc.seedTCP)
				seed.NoUTP, seed.Encryption = !tc.seedUTP, tc.policy
				simSeed(t, seed, content)
				leech := utpClient(t, us, tc.tcp)
				leech.NoUTP, leech.Encryption = !tc.utp, tc.policy
				d := simLeech(t, leech, content, them.Addr(6881))
				var seen []string
				for len(seen) == 0 {
					simnet.Sleep(10 * time.Millisecond)
					for _, p := range d.Stats().Peers {
						seen = append(seen, p.Transport)
					}
				}
				require.Equal(t, []string{tc.want}, seen)
				<-d.Done()
				d.mu.Lock()
				defer d.mu.Unlock()
				require.Equal(t, tc.want, way(d.discovery.candidates.Way(them.Addr(6881))).String())
			})
		})
	}
}

// A client that has uTP alone says so by its address, and shares its port with the DHT.
func TestNoTCP(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		c := utpClient(t, n.NewHost("80.0.0.1", 0, 0, 0), false)
		require.NoError(t, c.Open())
		require.EqualValues(t, 6881, c.port())
		_, err := n.NewHost("80.0.0.2", 0, 0, 0).Dial(t.Context(), "tcp", "80.0.0.1:6881")
		require.Error(t, err)
	})
}

func TestNoTCPWherePortIsTaken(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		taken, err := us.ListenPacket("udp4", ":6881")
		require.NoError(t, err)
		c := utpClient(t, us, false)
		require.ErrorIs(t, c.Open(), syscall.EADDRINUSE)
		require.NoError(t, taken.Close())
		require.NoError(t, c.Open())
		require.Equal(t, us.Addr(6881).String(), c.Addr().String())
	})
}

// A client whose port is taken opens once the port is free.
func TestClientOpensAgain(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		taken, err := us.Listen("tcp", ":6881")
		require.NoError(t, err)
		c := simClient(t, us, nil)
		require.ErrorIs(t, c.Open(), syscall.EADDRINUSE)
		require.Nil(t, c.Addr())
		require.NoError(t, taken.Close())

		require.NoError(t, c.Open())
		require.Equal(t, us.Addr(6881).String(), c.Addr().String(), "before any Start")
		require.NoError(t, c.Open(), "a second time does nothing")
		require.NoError(t, c.Close())
		require.ErrorIs(t, c.Open(), ErrClosed)
		_, err = them.Dial(t.Context(), "tcp", us.Addr(6881).String())
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	})
}

// The first way has a head start, the next is tried once it fails, and what comes second is closed.
func TestRace(t *testing.T) {
	fails := errors.New("no")
	for _, tc := range []struct {
		name   string
		tcp    time.Duration // until it is connected; negative is until it fails
		utp    time.Duration
		want   way
		took   time.Duration
		closed int
	}{
		{"the first at once", 10 * time.Millisecond, 10 * time.Millisecond, byTCP, 10 * time.Millisecond, 0},
		{"the first within its head start and a bit", 300 * time.Millisecond, 100 * time.Millisecond, byTCP, 300 * time.Millisecond, 1},
		{"the second after the head start", time.Second, 100 * time.Millisecond, byUTP, 350 * time.Millisecond, 1},
		{"the second once the first fails", -10 * time.Millisecond, 100 * time.Millisecond, byUTP, 110 * time.Millisecond, 0},
		{"the first though the second fails", time.Second, -10 * time.Millisecond, byTCP, time.Second, 0},
		{"none", -10 * time.Millisecond, -10 * time.Millisecond, anyWay, 20 * time.Millisecond, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var tasks sync.WaitGroup
				closed := 0
				began := time.Now()
				k, err := race(t.Context(), []way{byTCP, byUTP}, &tasks, func(ctx context.Context, by way) (*connection, error) {
					after := tc.tcp
					if by == byUTP {
						after = tc.utp
					}
					time.Sleep(after.Abs()) // deaf to the context, as the worst of dialers
					if after < 0 {
						return nil, fails
					}
					return &connection{Conn: closer{&closed}, way: by}, nil
				})
				require.Equal(t, tc.took, time.Since(began))
				tasks.Wait()
				if tc.want == anyWay {
					require.ErrorIs(t, err, fails)
				} else {
					require.NoError(t, err)
					require.Equal(t, tc.want, k.way)
				}
				require.Equal(t, tc.closed, closed)
			})
		})
	}
}

// closer counts its Close.
type closer struct{ closed *int }

func (c closer) Close() error                     { *c.closed++; return nil }
func (c closer) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (c closer) Write([]byte) (int, error)        { return 0, net.ErrClosed }
func (c closer) LocalAddr() net.Addr              { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }
func (c closer) RemoteAddr() net.Addr             { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }
func (c closer) SetDeadline(time.Time) error      { return nil }
func (c closer) SetReadDeadline(time.Time) error  { return nil }
func (c closer) SetWriteDeadline(time.Time) error { return nil }
