package dht

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
	"github.com/shoal-go/torrent/internal/memtest"
)

// full has a core hold as much as it ever does: tables and stores of both families at their bounds, a
// thousand torrents, queries and lookups under way, and as many strangers as it remembers.
func full(t testing.TB) *bench {
	b := newBench(t, Config{IPv4: true, IPv6: true})
	value := strings.Repeat("x", maxValue-4)
	for f, h := range b.fams {
		six := family(f) == ipv6
		addr := func(i int) netip.AddrPort {
			if six {
				return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 16), byte(i >> 8), byte(i), 15: 1}), 6881)
			}
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(11 + i>>16), byte(i >> 8), byte(i), 1}), 6881)
		}
		for i := range 60_000 {
			a := addr(i)
			h.table.answered(b.now, krpc.Contact{ID: secureID(a.Addr(), b.rng), Addr: a}, time.Duration(b.rng.Int64N(int64(time.Second))), false)
			b.dead.add(b.now, a)
		}
		for i := range maxSwarms {
			hash := krpc.RandomID(b.rng)
			for j := range maxSwarmPeers {
				if h.peers.announce(b.now, h.table.self, hash, addr(1000*i+j), false); i > 2*maxPeers/maxSwarmPeers {
					break // one is enough from here on
				}
			}
		}
		require.Equal(t, maxSwarms, len(h.peers.swarms))
		require.Equal(t, maxPeers, h.peers.peers)
		for i := range 2 * maxGuarded {
			b.guard.admit(b.now, addr(i))
		}
		for i := range 128 {
			h.vote.Cast(addr(i), addr(i).Addr(), i%2 == 0)
		}
	}
	for i := range maxItems {
		item := Sign(newKey(byte(i%200)), fmt.Appendf(nil, "%d", i), []byte("996:"+value), 1)
		require.Nil(t, b.items.put(b.now, b.fams[ipv4].table.self, item, nil, host(i)))
	}
	for range 1000 {
		b.keep(b.now, Torrent{Hash: krpc.RandomID(b.rng), Port: 1}, func(netip.Addr, []netip.AddrPort) {})
	}
	for range 20 {
		b.start(&search{target: krpc.RandomID(b.rng), method: krpc.GetPeers}, b.fams[:]...)
	}
	for range 30 {
		b.tick(b.now)
		b.out.reset()
		b.now = b.now.Add(500 * time.Millisecond)
	}
	return b
}

// A full node takes no more than 4 MiB.
func TestMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	before := memtest.Heap()
	b := full(t)
	taken := memtest.Heap() - before
	t.Logf("%d KiB: %+v", taken>>10, b.statsNow())
	require.Less(t, taken, int64(4<<20))
	runtime.KeepAlive(b)
}

// BenchmarkIdle is an hour of an idle node in a network of 200: the CPU time that it takes, of which an
// hour is 3.6e12 ns.
func BenchmarkIdle(b *testing.B) {
	net := newSimNet(1, .02)
	for range 200 {
		net.join(Config{}, 4)
	}
	net.run(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		packets := net.packets
		net.run(time.Hour)
		b.ReportMetric(float64(net.packets-packets)/200, "datagrams/node")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/200/3.6e12*100, "%core/node")
}

// BenchmarkAnswer is a query for peers that is answered.
func BenchmarkAnswer(b *testing.B) {
	bench := newBench(b, Config{Version: "SH01"})
	bench.fill(ipv4, 300)
	hash := krpc.RandomID(bench.rng)
	for i := range 100 {
		bench.fams[ipv4].peers.announce(bench.now, ID{}, hash, host(i), false)
	}
	m := ask("get_peers", hash)
	m.Kind, m.TID, m.ID, m.Has = krpc.Query, []byte("aa"), ID{1}, m.Has|krpc.HasID
	p := m.Append(nil)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		bench.now = bench.now.Add(time.Second)
		bench.receive(bench.now, p, host(i%5000))
		bench.out.reset()
	}
}
