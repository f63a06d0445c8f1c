package torrent

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPeerPriority(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want uint32
	}{
		// The two examples of BEP 40.
		{"123.213.32.10:1", "98.76.54.32:2", 0xec2d7224},
		{"123.213.32.10:1", "123.213.32.234:2", 0x99568189},
		{"[::ffff:123.213.32.10]:1", "98.76.54.32:2", 0xec2d7224},
	} {
		require.Equal(t, tc.want, peerPriority(addrPort(tc.a), addrPort(tc.b)))
	}

	same := func(a, b, c, d string) bool {
		return peerPriority(addrPort(a), addrPort(b)) == peerPriority(addrPort(c), addrPort(d))
	}
	for _, tc := range []struct {
		a, b, c, d string
		want       bool
		why        string
	}{
		{"1.2.3.4:1", "5.6.7.8:2", "1.2.3.4:9", "5.6.7.8:9", true, "the port does not matter"},
		{"1.2.3.4:1", "5.6.7.8:2", "1.2.3.6:1", "5.6.7.8:2", true, "nor do every other bit of the last bytes"},
		{"1.2.3.4:1", "5.6.7.8:2", "1.2.3.5:1", "5.6.7.8:2", false, "the others do"},
		{"1.2.3.4:1", "1.2.7.8:2", "1.2.3.6:1", "1.2.7.8:2", true, "in one /16, the last byte counts by half"},
		{"1.2.3.4:1", "1.2.7.8:2", "1.2.1.4:1", "1.2.7.8:2", false, "the byte before it in full"},
		{"1.2.3.4:1", "1.2.3.8:2", "1.2.3.6:1", "1.2.3.8:2", false, "in one /24, all bytes do"},
		{"1.2.3.4:1", "1.2.3.4:2", "1.2.3.4:1", "1.2.3.4:3", false, "of one host, the ports do"},
		{"1.2.3.4:1", "1.2.3.4:2", "9.9.9.9:2", "9.9.9.9:1", true, "and nothing else"},
		{"[2001:db8:1::1]:1", "[2001:db9::2]:2", "[2001:db8:1:aa00::1]:1", "[2001:db9::2]:2", true, "IPv6: bytes after the /48 count by half"},
		{"[2001:db8:1:100::1]:1", "[2001:db8:1:200::2]:2", "[2001:db8:1:300::1]:1", "[2001:db8:1:200::2]:2", false, "in one /48, the next byte counts in full"},
		{"[2001:db8:1:1::1]:1", "[2001:db8:1:2::2]:2", "[2001:db8:1:3::1]:1", "[2001:db8:1:2::2]:2", false, "in one /56 one more"},
		{"1.2.3.4:1", "[2001:db8::1]:2", "[::ffff:1.2.3.4]:1", "[2001:db8::1]:2", true, "the families do not meet, but if they do, no harm is done"},
	} {
		require.Equal(t, tc.want, same(tc.a, tc.b, tc.c, tc.d), "%s-%s and %s-%s: %s", tc.a, tc.b, tc.c, tc.d, tc.why)
	}

	rng := rand.New(rand.NewPCG(1, 8))
	for range 1000 {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{1, byte(rng.IntN(2)), byte(rng.IntN(2)), byte(rng.IntN(256))}), uint16(rng.IntN(9)))
		b := netip.AddrPortFrom(netip.AddrFrom4([4]byte{1, byte(rng.IntN(2)), byte(rng.IntN(2)), byte(rng.IntN(256))}), uint16(rng.IntN(9)))
		require.Equal(t, peerPriority(a, b), peerPriority(b, a), "both ends come to the same, for %s and %s", a, b)
	}
}

func TestDialBudget(t *testing.T) {
	var b dialBudget
	now := epoch
	allowed := func(want int, wait time.Duration, why string) {
		t.Helper()
		n, w := b.allowance(now)
		require.Equal(t, want, n, why)
		require.Equal(t, wait, w, why)
	}
	allowed(20, 0, "twenty may be half open")
	for range 20 {
		b.begin(now)
	}
	allowed(0, 0, "no time will help, only a dial that ends")
	for range 20 {
		b.end()
	}
	allowed(10, 0, "thirty in a second")
	now = now.Add(600 * time.Millisecond)
	for range 10 {
		b.begin(now)
	}
	allowed(0, 400*time.Millisecond, "until the first twenty are a second old")
	now = now.Add(400 * time.Millisecond)
	allowed(10, 0, "ten are still half open")
	for range 10 {
		b.end()
	}
	allowed(20, 0, "")
	now = now.Add(time.Hour)
	allowed(20, 0, "nothing is saved up")
}

func TestTurnover(t *testing.T) {
	for _, tc := range []struct{ connected, most, want int }{
		{0, 80, 0}, {71, 80, 0}, {72, 80, 2}, {80, 80, 3}, {500, 500, 20}, {9, 10, 1}, {1, 1, 1},
	} {
		require.Equal(t, tc.want, turnover(tc.connected, tc.most), "%d of %d", tc.connected, tc.most)
	}
}

func TestWorst(t *testing.T) {
	old, now := epoch, epoch.Add(time.Hour)
	peers := []peerWorth{
		{id: 1, joined: old, mutual: true, rate: 100, priority: 1},
		{id: 2, joined: old, mutual: true, rate: 0, priority: 9},
		{id: 3, joined: old, mutual: true, rate: 0, priority: 8},
		{id: 4, joined: old, mutual: false, rate: 0, priority: 99},
		{id: 5, joined: old, keep: true},
		{id: 6, joined: now.Add(-turnoverGrace / 2)},
	}
	require.Empty(t, worst(now, peers, 0))
	require.Equal(t, []int{4}, worst(now, peers, 1), "neither wants anything")
	require.Equal(t, []int{4, 3, 2}, worst(now, peers, 3), "then who is slow, and of those the one of lower priority")
	require.Equal(t, []int{4, 3, 2, 1}, worst(now, peers, 10), "never the user's own, nor one that just came")
	require.Equal(t, 1, peers[0].id, "what was given is left as it is")
}
