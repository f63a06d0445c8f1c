package torrent

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

// Many peers that are each faster than our own link fetch few blocks twice: that some have nothing more to send while
// others have costs nothing, because the link is full.
func TestFastCrowdWastesLittle(t *testing.T) {
	const downlink = 100e6
	size := int64(256 << 20)
	if raceEnabled() {
		size = 64 << 20
	}
	for _, peers := range []int{80, 500} {
		t.Run(fmt.Sprint(peers), func(t *testing.T) {
			t.Parallel()
			if raceEnabled() && peers > 80 {
				t.Skip("takes minutes under the race detector, and finds no more")
			}
			found(t, newSimRepeating(1, 256<<10, size), func(t *testing.T, m *simMeeting) {
				for range peers {
					later(m.meet(t, downlink, simpeer.Script{}), time.Second) // all at once, which dials are not
				}
				m.host = m.net.NewHost("81.0.0.1", 0, downlink, time.Millisecond)
				m.options.MaxPeers = peers
				m.run(t, time.Hour)
				s := m.client.Stats()
				t.Logf("took %v, wasted %d bytes, %.1f %%, %d thefts", m.client.took, s.Wasted, 100*float64(s.Wasted)/float64(size), s.Steals)
				require.Less(t, s.Wasted, size/50)
			})
		})
	}
}

// Where some peers are slow, a fast swarm does not wait for them at the end, though a link that is full looks alike.
func TestFastSwarmOutrunsTheSlow(t *testing.T) {
	if raceEnabled() {
		t.Skip("takes minutes under the race detector, and finds no more")
	}
	type some struct {
		peers  int
		uplink float64
	}
	for _, tc := range []struct{ fast, slow some }{
		{some{4, 25e6}, some{20, 200e3}},
		{some{10, 10e6}, some{30, 500e3}},
		{some{30, 1e6}, some{30, 100e3}},
	} {
		t.Run(fmt.Sprint(tc), func(t *testing.T) {
			t.Parallel()
			const size = 256 << 20
			found(t, newSimRepeating(1, 256<<10, size), func(t *testing.T, m *simMeeting) {
				rate, n := 0.0, 0
				for _, s := range []some{tc.fast, tc.slow} {
					for range s.peers {
						later(m.meet(t, s.uplink, simpeer.Script{}), time.Second+time.Duration(n)*15*time.Millisecond)
						rate, n = rate+s.uplink, n+1
					}
				}
				m.host = m.net.NewHost("81.0.0.1", 0, 1e9, time.Millisecond)
				m.options.MaxPeers = n
				m.run(t, time.Hour)
				require.Less(t, m.client.took.Seconds(), 2+1.1*size/rate)
				require.Less(t, m.client.Stats().Wasted, int64(size/100))
			})
		})
	}
}

// BenchmarkCrowd is a download from many peers over loopback at once, where every peer is as fast as the machine, and how
// much of it comes twice.
func BenchmarkCrowd(b *testing.B) {
	const size = 256 << 20
	for _, peers := range []int{20, 80, 500} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			content := newSimRepeating(1, 256<<10, size)
			addr := listens(b, func(conn net.Conn) { serveContent(conn, content) })
			b.SetBytes(size)
			wasted := int64(0)
			for b.Loop() {
				wasted += crowdDownload(b, content, addr, peers)
			}
			b.ReportMetric(100*float64(wasted)/float64(size*b.N), "%wasted")
		})
	}
}

// crowdDownload downloads from so many connections to one address, and returns what came twice.
func crowdDownload(b *testing.B, content *simContent, addr string, peers int) (wasted int64) {
	c := &Client{NoDHT: true, NoUTP: true, NoListen: true, Encryption: DisableEncryption}
	defer c.Close()
	d := startBare(b, c, content, peers)
	for k := range peers {
		meetAt(b, d, addr, netip.AddrFrom4([4]byte{80, byte(k >> 8), byte(k), 1}))
	}
	_, err := d.Wait()
	require.NoError(b, err)
	return d.Stats().Wasted
}

// startBare starts a download without peers, and returns once it takes connections.
func startBare(b *testing.B, c *Client, content *simContent, peers int) *Download {
	d, err := content.Start(b.Context(), &Options{Client: c, MaxPeers: peers, Storage: newSimStorage(content).open})
	require.NoError(b, err)
	for d.Stats().State == Checking {
		time.Sleep(time.Millisecond)
	}
	return d
}

// meetAt connects a download to what listens at addr, as if that had the address ip.
func meetAt(b *testing.B, d *Download, addr string, ip netip.Addr) {
	conn, err := net.Dial("tcp", addr)
	require.NoError(b, err)
	hello := wire.Handshake{}
	hello.SetFast()
	copy(hello.PeerID[:], ip.AsSlice())
	if !d.addPeer(&connection{Conn: conn, addr: netip.AddrPortFrom(ip, 6881), theirs: hello}, peerlist.FromUser) {
		conn.Close()
	}
}

// BenchmarkFlood is a download of small pieces from one seed over loopback, beside twenty peers that each send a megabit of
// messages a second that give nothing.
func BenchmarkFlood(b *testing.B) {
	const pieces, size, flooders = 16_000, 16_000 * blockSize, 20
	one := wire.AppendBitfield(nil, append([]byte{0x80}, make([]byte, pieces/8-1)...))
	for _, flood := range []struct {
		kind        string
		once, again []byte
	}{
		{"none", wire.AppendSimple(nil, wire.HaveNone), nil},
		{"interested", wire.AppendSimple(nil, wire.HaveNone), wire.AppendSimple(nil, wire.Interested)},
		{"interested and not", wire.AppendSimple(nil, wire.HaveNone), wire.AppendSimple(wire.AppendSimple(nil, wire.Interested), wire.NotInterested)},
		{"have-all", one, wire.AppendSimple(nil, wire.HaveAll)},
		{"choke and unchoke", one, wire.AppendSimple(wire.AppendSimple(nil, wire.Unchoke), wire.Choke)},
	} {
		b.Run(flood.kind, func(b *testing.B) {
			content := newSimRepeating(1, blockSize, size)
			seed := listens(b, func(conn net.Conn) { serveContent(conn, content) })
			flooder := listens(b, func(conn net.Conn) {
				go io.Copy(io.Discard, conn)
				_, err := conn.Write(flood.once)
				for tick := time.NewTicker(20 * time.Millisecond); err == nil && flood.again != nil; <-tick.C {
					_, err = conn.Write(bytes.Repeat(flood.again, 2500/len(flood.again)))
				}
			})
			b.SetBytes(size)
			for b.Loop() {
				c := &Client{NoDHT: true, NoUTP: true, NoListen: true, Encryption: DisableEncryption}
				d := startBare(b, c, content, flooders+1)
				for k := range flooders {
					meetAt(b, d, flooder, netip.AddrFrom4([4]byte{80, byte(k), 0, 1}))
				}
				meetAt(b, d, seed, netip.AddrFrom4([4]byte{90, 0, 0, 1}))
				_, err := d.Wait()
				require.NoError(b, err)
				c.Close()
			}
		})
	}
}

// listens has serve answer the connections to an address of this machine, until the benchmark ends.
func listens(b *testing.B, serve func(net.Conn)) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return l.Addr().String()
}

// serveContent answers all requests on a connection.
func serveContent(conn net.Conn, content *simContent) {
	defer conn.Close()
	conn.Write(wire.AppendSimple(wire.AppendSimple(nil, wire.HaveAll), wire.Unchoke))
	r := wire.NewReader(conn, 1<<20)
	var out []byte
	for {
		m, err := r.Next()
		if err != nil {
			return
		}
		if m.ID != wire.Request {
			continue
		}
		out = wire.AppendPieceHeader(out[:0], m.Index, m.Begin, m.Length)
		out = append(out, content.truth.Block(m.Index, m.Begin, m.Length)...)
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

// Seventy connections of one network hold upload slots and ask for next to nothing. The peers of others are served as if they
// were one.
func TestSlotsAreDealtByNetwork(t *testing.T) {
	took := func(crowd int) (took time.Duration) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, 64<<10, 8<<20)
			us := n.NewHost("80.0.0.1", 200e3, 0, 10*time.Millisecond)
			simSeed(t, simClient(t, us, nil), content)
			simnet.Sleep(time.Second)
			for k := range crowd {
				s := speak(t, n.NewHost(fmt.Sprintf("2001:db8::%x", k+1), 0, 0, 10*time.Millisecond), content, us.Addr(6881), speech{fast: true})
				s.sayID(wire.HaveNone)
				s.sayID(wire.Interested)
				go func() {
					for s.pause(8 * time.Second) {
						s.ask(0)
					}
				}()
			}
			simnet.Sleep(time.Minute)
			began := time.Now()
			var honest []*Download
			for k := range 3 {
				leech := n.NewHost(fmt.Sprintf("9%d.0.0.1", k), 200e3, 400e3, 10*time.Millisecond)
				honest = append(honest, simLeech(t, simClient(t, leech, nil), content, us.Addr(6881)))
			}
			for _, d := range honest {
				_, err := d.Wait()
				require.NoError(t, err)
			}
			took = time.Since(began)
		})
		return took
	}
	alone, crowded := took(0), took(70)
	t.Logf("took %v alone, %v beside a crowd", alone, crowded)
	require.Less(t, crowded, 3*alone/2)
}

// Twenty peers that send a block in eighteen seconds each, so that they are not snubbed, were asked for all of the content. A seed
// that comes later takes it over from them.
func TestSlowCrowdKeepsNothingFromSeed(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 8<<20)
		d := simLeech(t, simClient(t, n.NewHost("80.0.0.1", 0, 0, 5*time.Millisecond), nil), content)
		arrive := func(addr string, rate float64) netip.AddrPort {
			p := simpeer.New(addr, n.NewHost(addr, rate, 0, 5*time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true, Eager: true})
			require.NoError(t, p.Arrive())
			t.Cleanup(p.Stop)
			return p.Addr()
		}
		for k := range 20 {
			d.discovery.found(peerlist.FromPEX, "", arrive(fmt.Sprintf("%d.%d.0.1", 100+k, k), 900))
		}
		simnet.Sleep(30 * time.Second)
		d.discovery.found(peerlist.FromTracker, "", arrive("90.0.0.1", 250e3))
		began := time.Now()
		_, err := d.Wait()
		require.NoError(t, err)
		s := d.Stats()
		t.Logf("took %v, wasted %d bytes, %d thefts", time.Since(began), s.Wasted, s.Steals)
		require.Less(t, time.Since(began), time.Minute)
		require.Less(t, s.Wasted, content.length/20)
	})
}
