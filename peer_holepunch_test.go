package torrent

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// Two peers behind routers reach each other, once a third that is connected to both has introduced them. One of them does
// not listen, so that the other does not hear of it from peer exchange.
func TestHolePunch(t *testing.T) {
	for _, tc := range []struct {
		name    string
		hosts   string // of which three are numbered
		alone   bool   // the relay is without uTP, so that it does not offer it
		private bool
		want    bool
	}{
		{name: "IPv4", hosts: "80.0.%d.1", want: true},
		{name: "IPv6", hosts: "2001:db8:%d::1", want: true},
		{name: "a relay without uTP", hosts: "80.0.%d.1", alone: true},
		{name: "a private torrent", hosts: "80.0.%d.1", private: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, 64<<10, 2<<20)
				content.private = tc.private
				host := func(k int) *simnet.Host { return n.NewHost(fmt.Sprintf(tc.hosts, k), 0, 0, 20*time.Millisecond) }
				middle, left, right := host(1), host(2), host(3)
				left.Firewall()
				right.Firewall()
				relay := utpClient(t, middle, true)
				relay.NoUTP = tc.alone
				relay.DownloadLimit = rate.NewLimiter(1, 1<<14)
				simLeech(t, relay, content)
				simnet.Sleep(time.Second)
				seed := utpClient(t, left, tc.alone)
				seed.UploadLimit = rate.NewLimiter(50e3, 1<<14)
				simSeed(t, seed, content, middle.Addr(6881))
				simnet.Sleep(5 * time.Second)
				leech := utpClient(t, right, tc.alone)
				leech.NoListen = true
				d := simLeech(t, leech, content, middle.Addr(6881))
				simnet.Sleep(20 * time.Second)
				var to []string
				for _, p := range d.Stats().Peers {
					if p.Addr.Addr() == left.IP() {
						to = append(to, p.Transport)
					}
				}
				if !tc.want {
					require.Empty(t, to)
					return
				}
				require.Equal(t, []string{"utp"}, to)
				<-d.Done()
			})
		})
	}
}

// puncher is a scripted peer that speaks ut_holepunch, by the number 9, and ut_pex by 7, and says where it listens.
type puncher struct {
	net.Conn
	heard chan wire.HolePunch
	named chan wire.PEX
}

func newPuncher(t *testing.T, h *simnet.Host, content *simContent, to netip.AddrPort, punches bool) *puncher {
	conn, err := h.Dial(t.Context(), "tcp", to.String())
	require.NoError(t, err)
	s := &puncher{conn, make(chan wire.HolePunch, 100), make(chan wire.PEX, 100)}
	hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte(fmt.Appendf(nil, "%20v", h))}
	hello.SetExtended()
	ours := wire.ExtHandshake{M: map[string]int{"ut_pex": 7}, P: 1234}
	if punches {
		ours.M["ut_holepunch"] = 9
	}
	_, err = conn.Write(wire.AppendExtended(hello.Append(nil), 0, ours.Append(nil)))
	require.NoError(t, err)
	go func() {
		io.ReadFull(conn, make([]byte, wire.HandshakeSize))
		for r := wire.NewReader(conn, 1<<20); ; {
			m, err := r.Next()
			switch {
			case err != nil:
				return
			case m.ID == wire.Extended && m.ExtID == 7:
				s.named <- wire.ParsePEX(m.Payload)
			case m.ID == wire.Extended && m.ExtID == 9:
				punch, _ := wire.ParseHolePunch(m.Payload)
				s.heard <- punch
			}
		}
	}()
	simnet.Sleep(time.Second)
	return s
}

func (s *puncher) say(kind byte, addr string) {
	m := wire.HolePunch{Type: kind, Addr: netip.MustParseAddrPort(addr)}
	s.Write(wire.AppendExtended(nil, extHolePunch, m.Append(nil)))
	simnet.Sleep(500 * time.Millisecond)
}

func (s *puncher) take() (heard []string) {
	for len(s.heard) > 0 {
		m := <-s.heard
		heard = append(heard, fmt.Sprintf("%d %v %d", m.Type, m.Addr, m.Code))
	}
	return heard
}

// A relay introduces only peers that it is connected to, and says why not.
func TestHolePunchRelay(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		d := simLeech(t, utpClient(t, us, true), content)
		simnet.Sleep(time.Second)
		a := newPuncher(t, n.NewHost("80.0.1.1", 0, 0, 0), content, us.Addr(6881), true)
		b := newPuncher(t, n.NewHost("80.0.2.1", 0, 0, 0), content, us.Addr(6881), true)
		newPuncher(t, n.NewHost("80.0.3.1", 0, 0, 0), content, us.Addr(6881), false)
		d.mu.Lock()
		d.discovery.candidates.SetExternal(us.Addr(6881))
		d.mu.Unlock()
		for _, tc := range []struct {
			to      string
			a, b    []string
			because string
		}{
			{"80.0.2.1:1234", []string{"1 80.0.2.1:1234 0"}, []string{"1 80.0.1.1:1234 0"}, "both are told"},
			{"80.0.2.1:0", []string{"2 80.0.2.1:0 1"}, nil, "no port"},
			{"224.0.0.1:5", []string{"2 224.0.0.1:5 1"}, nil, "no host's address"},
			{"80.0.1.1:1234", []string{"2 80.0.1.1:1234 1"}, nil, "it is the initiator's"},
			{"80.0.9.1:1234", []string{"2 80.0.9.1:1234 2"}, nil, "it is not connected"},
			{"[2001:db8::1]:1", []string{"2 [2001:db8::1]:1 2"}, nil, "nor is this"},
			{"80.0.2.1:1235", []string{"2 80.0.2.1:1235 2"}, nil, "its host at another port is a third"},
			{"80.0.3.1:1234", []string{"2 80.0.3.1:1234 3"}, nil, "it does not speak the extension"},
			{"80.0.0.1:6881", []string{"2 80.0.0.1:6881 4"}, nil, "it is the relay"},
		} {
			simnet.Sleep(time.Second)
			a.say(wire.HolePunchRendezvous, tc.to)
			require.Equal(t, tc.a, a.take(), tc.because)
			require.Equal(t, tc.b, b.take(), tc.because)
		}

		// One a second counts, of each, and for each.
		simnet.Sleep(introduceEvery)
		m := wire.HolePunch{Type: wire.HolePunchRendezvous, Addr: netip.MustParseAddrPort("80.0.2.1:1234")}
		for range 100 {
			a.Write(wire.AppendExtended(nil, extHolePunch, m.Append(nil)))
		}
		simnet.Sleep(500 * time.Millisecond)
		require.Len(t, a.take(), 1)
		require.Len(t, b.take(), 1)
		c := newPuncher(t, n.NewHost("80.0.4.1", 0, 0, 0), content, us.Addr(6881), true)
		e := newPuncher(t, n.NewHost("80.0.5.1", 0, 0, 0), content, us.Addr(6881), true)
		c.say(wire.HolePunchRendezvous, "80.0.2.1:1234")
		e.say(wire.HolePunchRendezvous, "80.0.2.1:1234")
		require.Len(t, b.take(), 1, "from two peers")
		require.Empty(t, e.take())
		require.Len(t, c.take(), 1)

		// Nor does what cannot be read end a connection.
		a.Write(wire.AppendExtended(nil, extHolePunch, []byte("\x00\x05")))
		simnet.Sleep(introduceEvery)
		a.say(wire.HolePunchRendezvous, "80.0.2.1:1234")
		require.Len(t, a.take(), 1)

		// Peer exchange says who speaks it.
		simnet.Sleep(time.Minute)
		flags := make(map[netip.AddrPort]byte)
		for len(b.named) > 0 {
			x := <-b.named
			for k, addr := range x.Added {
				flags[addr] = x.AddedFlags[k]
			}
		}
		both := byte(wire.PEXUTP | wire.PEXHolePunch)
		require.Equal(t, both, flags[netip.MustParseAddrPort("80.0.1.1:1234")]&both)
		require.Zero(t, flags[netip.MustParseAddrPort("80.0.3.1:1234")]&both)
	})
}

// Two peers of one network ask a relay again and again to be introduced to a peer. Another one that asks once is introduced, too.
func TestHolePunchRelayIsFair(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		simLeech(t, utpClient(t, us, true), content)
		simnet.Sleep(time.Second)
		join := func(ip string) *puncher {
			return newPuncher(t, n.NewHost(ip, 0, 0, 0), content, us.Addr(6881), true)
		}
		target, other := join("80.0.2.1"), join("80.0.3.1")
		greedy := []*puncher{join("80.0.1.1"), join("80.0.1.2")}
		for range 10 {
			for _, g := range greedy {
				g.say(wire.HolePunchRendezvous, "80.0.2.1:1234")
			}
		}
		require.Equal(t, []string{"1 80.0.1.1:1234 0"}, target.take())
		greedy[0].say(wire.HolePunchRendezvous, "80.0.2.1:1234")
		other.say(wire.HolePunchRendezvous, "80.0.2.1:1234")
		require.Equal(t, []string{"1 80.0.3.1:1234 0"}, target.take())
		require.Equal(t, []string{"1 80.0.2.1:1234 0"}, other.take())
		simnet.Sleep(introduceEvery)
		greedy[1].say(wire.HolePunchRendezvous, "80.0.2.1:1234")
		require.Equal(t, []string{"1 80.0.1.2:1234 0"}, target.take(), "it is its turn again")
	})
}

// holePunchRig starts a download on us, and returns the message by which its peers name 80.0.9.1:6881, which can only be reached by their
// introduction.
func holePunchRig(t *testing.T, n *simnet.Network) (content *simContent, us *simnet.Host, named []byte) {
	content = newSimContent(1, 64<<10, 1<<20)
	us, far := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.9.1", 0, 0, 0)
	far.Firewall()
	simLeech(t, utpClient(t, us, true), content)
	simnet.Sleep(time.Second)
	x := wire.PEX{Added: []netip.AddrPort{far.Addr(6881)}, AddedFlags: []byte{wire.PEXHolePunch}}
	return content, us, wire.AppendExtended(nil, extPEX, x.Append(nil))
}

// An initiator asks those that named a peer to introduce it once it cannot be reached, and none again that says that it does not.
func TestHolePunchInitiator(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content, us, message := holePunchRig(t, n)
		a := newPuncher(t, n.NewHost("81.0.1.1", 0, 0, 0), content, us.Addr(6881), true)
		b := newPuncher(t, n.NewHost("82.0.2.1", 0, 0, 0), content, us.Addr(6881), true)
		for _, s := range []*puncher{a, b} {
			s.Write(message)
			simnet.Sleep(time.Second)
		}
		require.Empty(t, slices.Concat(a.take(), b.take()), "it may be reached without")
		simnet.Sleep(10 * time.Second)
		want := []string{"0 80.0.9.1:6881 0"}
		require.Equal(t, want, a.take())
		require.Equal(t, want, b.take())
		b.say(wire.HolePunchError, "80.0.9.1:6881")
		simnet.Sleep(70 * time.Second)
		require.Equal(t, want, a.take())
		require.Empty(t, b.take())
	})
}

// Peers of many networks say, again and again, that they may introduce us to a peer, and do not. One that does is asked all the same
// before the peer is given up.
func TestHolePunchBesideRelaysThatDoNothing(t *testing.T) {
	for _, first := range []bool{true, false} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content, us, message := holePunchRig(t, n)
			honest := newPuncher(t, n.NewHost("81.0.1.1", 0, 0, 0), content, us.Addr(6881), true)
			var crowd []*puncher
			for k := range 10 {
				crowd = append(crowd, newPuncher(t, n.NewHost(fmt.Sprintf("100.%d.0.1", k), 0, 0, 0), content, us.Addr(6881), true))
			}
			if first {
				honest.Write(message)
			}
			for k := range 20 {
				for _, s := range crowd {
					s.Write(message)
				}
				if k == 0 && !first {
					honest.Write(message)
				}
				honest.Write(wire.AppendKeepAlive(nil))
				simnet.Sleep(11 * time.Second)
			}
			require.Contains(t, honest.take(), "0 80.0.9.1:6881 0", "it names it first: %t", first)
		})
	}
}

// Peers of as many networks as are remembered name a peer and leave. Those that name it then are asked.
func TestHolePunchAfterRelaysHaveLeft(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content, us, message := holePunchRig(t, n)
		name := func(host string) *puncher {
			s := newPuncher(t, n.NewHost(host, 0, 0, 0), content, us.Addr(6881), true)
			s.Write(message)
			simnet.Sleep(100 * time.Millisecond)
			return s
		}
		for k := range 16 {
			name(fmt.Sprintf("100.%d.0.1", k)).Close()
		}
		stays := []*puncher{name("81.0.1.1")}
		simnet.Sleep(10 * time.Second)
		for k := range 3 {
			stays = append(stays, name(fmt.Sprintf("82.%d.0.1", k)))
		}
		simnet.Sleep(80 * time.Second)
		for _, s := range stays {
			require.NotEmpty(t, s.take())
		}
	})
}

// A connect is acted on at once, by uTP; but not more often than once a second, nor for an address that the relay may not
// name.
func TestHolePunchTarget(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		d := simLeech(t, utpClient(t, us, true), content)
		simnet.Sleep(time.Second)
		far, err := n.NewHost("80.0.9.1", 0, 0, 0).ListenPacket("udp", ":6881")
		require.NoError(t, err)
		defer far.Close()
		a := newPuncher(t, n.NewHost("80.0.1.1", 0, 0, 0), content, us.Addr(6881), true)
		a.say(wire.HolePunchConnect, "80.0.9.1:6881")
		require.NoError(t, far.SetReadDeadline(time.Now().Add(time.Millisecond)))
		size, from, err := far.ReadFrom(make([]byte, 1500))
		require.NoError(t, err)
		require.Positive(t, size)
		require.Equal(t, us.Addr(6881).String(), from.String())
		known := d.Stats().Known
		for _, addr := range []string{"80.0.9.2:6881", "80.0.9.3:6881"} {
			a.say(wire.HolePunchConnect, addr)
		}
		require.Equal(t, known+1, d.Stats().Known, "the second came too soon")
		for _, addr := range []string{"192.168.0.1:1", "224.0.0.1:1", "80.0.9.4:0"} {
			simnet.Sleep(time.Second)
			a.say(wire.HolePunchConnect, addr)
		}
		require.Equal(t, known+1, d.Stats().Known)
	})
}

// A peer sends connect messages (BEP 55) again and again for another peer, which is away for a while and does not support uTP.
// That the attempts by uTP fail does not keep the client from dialling it as usual.
func TestHolePunchKeepsNoPeerOut(t *testing.T) {
	for _, from := range []peerlist.Source{peerlist.FromUser, peerlist.FromTracker} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, 64<<10, 1<<20)
			us, away := n.NewHost("80.0.0.1", 0, 0, time.Millisecond), n.NewHost("90.0.0.1", 0, 0, time.Millisecond)
			d := simLeech(t, utpClient(t, us, true), content)
			d.discovery.found(from, "", away.Addr(6881))
			simnet.Sleep(time.Second)
			a := newPuncher(t, n.NewHost("80.0.1.1", 0, 0, 0), content, us.Addr(6881), true)
			time.AfterFunc(50*time.Second, func() { simSeed(t, simClient(t, away, nil), content) })
			for range 4 {
				for range 3 {
					a.say(wire.HolePunchConnect, "90.0.0.1:6881")
					simnet.Sleep(6 * time.Second)
				}
				simnet.Sleep(20 * time.Second)
			}
			require.True(t, d.Stats().Complete, "named by a %v", from)
		})
	}
}

// A peer names many others that can only be reached by its introduction. The dials of these fail at about the same time, and the peer
// may be asked once a second. Each is asked for before it is given up.
func TestHolePunchOfManyPeers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const others = 40
		content := newSimContent(1, 64<<10, 1<<20)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		simLeech(t, utpClient(t, us, true), content)
		simnet.Sleep(time.Second)
		relay := newPuncher(t, n.NewHost("81.0.1.1", 0, 0, 0), content, us.Addr(6881), true)
		x := wire.PEX{AddedFlags: bytes.Repeat([]byte{wire.PEXHolePunch}, others)}
		for k := range others {
			far := n.NewHost(fmt.Sprintf("%d.0.0.1", 140+k), 0, 0, 0)
			far.Firewall()
			x.Added = append(x.Added, far.Addr(6881))
		}
		relay.Write(wire.AppendExtended(nil, extPEX, x.Append(nil)))
		simnet.Sleep(4 * time.Minute)
		asked := map[string]bool{}
		for _, m := range relay.take() {
			asked[m] = true
		}
		require.Len(t, asked, others)
	})
}
