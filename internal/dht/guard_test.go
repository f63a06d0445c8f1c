package dht

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	addr1 = netip.MustParseAddrPort("11.1.1.1:6881")
)

// host is one of many public addresses, each in a network of its own.
func host(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{12, byte(i >> 8), byte(i), 7}), uint16(6881+i%100))
}

func TestBudget(t *testing.T) {
	b := budget{rate: 100, burst: 400, at: epoch}
	now := epoch
	require.EqualValues(t, 400, b.left(now))
	b.spend(now, 400)
	require.Equal(t, now.Add(10*time.Millisecond+time.Microsecond), b.when(now, 1))
	require.EqualValues(t, 50, b.left(now.Add(500*time.Millisecond)))
	b.spend(now.Add(500*time.Millisecond), 60)
	require.EqualValues(t, -10, b.left(now.Add(500*time.Millisecond)), "one spending may pass what is left")
	require.EqualValues(t, 400, b.left(now.Add(time.Hour)), "and no more than the burst is saved")
	require.Equal(t, now.Add(time.Hour), b.when(now.Add(time.Hour), 400))
	b.spend(now.Add(time.Hour), 400)
	require.EqualValues(t, 0, b.left(now), "a clock that goes back earns nothing")
	require.EqualValues(t, 100, b.left(now.Add(time.Second)), "and goes on from there")

	// At the time that it names, there is as much.
	for i := range 1000 {
		b := budget{rate: 100, burst: 400, at: epoch}
		b.spend(epoch, 400+float64(i)/7)
		at := b.when(epoch, 101)
		require.GreaterOrEqual(t, b.left(at), 101.0)
	}
}

// More than 50 queries of an address within 10 s are answered by silence for 5 min.
func TestFlood(t *testing.T) {
	for _, tc := range []struct {
		name  string
		every time.Duration
		count int
		want  int // how many are admitted
	}{
		{"fifty at once", 0, 50, 50},
		{"too many at once", 0, 60, 50},
		{"too many in ten seconds", 180 * time.Millisecond, 60, 50},
		{"as many as may be", 210 * time.Millisecond, 500, 500},
		{"an honest node", 2 * time.Second, 500, 500},
	} {
		g, now, admitted := newGuard(), epoch, 0
		for range tc.count {
			if g.admit(now, addr1) {
				admitted++
			}
			now = now.Add(tc.every)
		}
		require.InDelta(t, tc.want, admitted, float64(tc.want)/20, tc.name)
	}

	g, now := newGuard(), epoch
	for range 51 {
		g.admit(now, addr1)
	}
	require.False(t, g.admit(now.Add(floodSilence-time.Second), addr1))
	require.True(t, g.admit(now.Add(floodSilence), addr1), "it is forgiven")
	require.True(t, g.admit(now, host(1)), "and no other is silenced")
	require.True(t, g.admit(now, netip.MustParseAddrPort("11.1.1.2:6881")))
	require.False(t, g.admit(now, netip.MustParseAddrPort("11.1.1.1:1")), "by another port neither")

	local := netip.MustParseAddrPort("127.0.0.1:1")
	for range 51 {
		g.admit(now, local)
	}
	require.False(t, g.admit(now, local))
	require.True(t, g.admit(now, netip.MustParseAddrPort("127.0.0.1:2")), "local nodes may share an address")
}

// A burst that straddles two windows is seen, too.
func TestFloodAcrossWindows(t *testing.T) {
	g, now := newGuard(), epoch
	require.True(t, g.admit(now, addr1))
	now = now.Add(9900 * time.Millisecond)
	for range 40 {
		require.True(t, g.admit(now, addr1))
	}
	now = now.Add(200 * time.Millisecond)
	admitted := 0
	for range 40 {
		if g.admit(now, addr1) {
			admitted++
		}
	}
	require.InDelta(t, 10, admitted, 2)
}

// 8,000 bytes a second with 3 s of burst, in all; an eighth of it an address, a quarter a network.
func TestAnswerBudget(t *testing.T) {
	spend := func(g *guard, now time.Time, from func(i int) netip.AddrPort) (bytes int) {
		for i := range 1000 {
			if to := from(i); g.admit(now, to) {
				g.answered(now, to, 300)
				bytes += 300
			}
		}
		return bytes
	}
	every := func(i int) netip.AddrPort { return host(i) }
	sameNet := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{13, 1, 1, byte(i)}), 6881)
	}
	for _, tc := range []struct {
		name string
		from func(int) netip.AddrPort
		most int
	}{
		{"every host", every, 24000},
		{"a network", sameNet, 6000},
		{"an address", func(int) netip.AddrPort { return addr1 }, 3000},
	} {
		g := newGuard()
		require.InDelta(t, tc.most, spend(&g, epoch, tc.from), 300, tc.name)
		require.Zero(t, spend(&g, epoch, tc.from))
		if tc.name != "an address" { // which is silenced by now
			require.InDelta(t, tc.most/3, spend(&g, epoch.Add(time.Second), tc.from), 600, tc.name)
		}
	}
}

// Forged senders without number take no memory, and nothing that others have.
func TestGuardIsBounded(t *testing.T) {
	g, now := newGuard(), epoch
	for range 60 {
		g.admit(now, addr1)
	}
	for i := range 100_000 {
		g.admit(now, netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 1}), 1))
	}
	require.LessOrEqual(t, len(g.hosts), maxGuarded)
	require.LessOrEqual(t, len(g.networks), maxGuarded)
	require.False(t, g.admit(now, addr1), "who floods stays silenced")
	g.sweep(now.Add(time.Minute))
	require.Len(t, g.hosts, 1)
	g.sweep(now.Add(6 * time.Minute))
	require.Empty(t, g.hosts)
	require.Empty(t, g.networks)
}

func TestSpared(t *testing.T) {
	s := newSpared()
	s.add(epoch, addr1)
	require.True(t, s.has(epoch.Add(sparedFor-1), addr1))
	require.True(t, s.has(epoch, netip.MustParseAddrPort("11.1.1.1:99")), "whatever its port")
	require.False(t, s.has(epoch.Add(sparedFor), addr1))
	require.False(t, s.has(epoch, host(1)))
	for i := range 3 * maxSpared {
		s.add(epoch, host(i))
	}
	require.Len(t, s.until, maxSpared)
	require.Len(t, s.ring, maxSpared)
	require.False(t, s.has(epoch, addr1))
	require.True(t, s.has(epoch, host(3*maxSpared-1)))
}
