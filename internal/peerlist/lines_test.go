package peerlist

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each network has one turn, then each of its prefixes, then each of their addresses.
func TestLineOfPrefixes(t *testing.T) {
	now := epoch
	var l line
	waiting := map[string]bool{}
	for _, addr := range []string{"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.2.1", "2.1.1.1", "1.1.1.4", "2.1.1.2", "3.1.1.1"} {
		l.wait(lineage(netip.MustParseAddr(addr)), false, now)
		waiting[addr] = true
	}
	var order []string
	for len(waiting) > 0 {
		for addr := range waiting {
			if path := lineage(netip.MustParseAddr(addr)); l.ahead(path, false, 100, now) == 0 {
				l.leave(path, true)
				order = append(order, addr)
				delete(waiting, addr)
				break
			}
		}
	}
	require.Equal(t, []string{"1.1.1.1", "2.1.1.1", "3.1.1.1", "1.1.2.1", "2.1.1.2", "1.1.1.2", "1.1.1.3", "1.1.1.4"}, order)
	require.Zero(t, l.size())
}

// One that gets no place leaves the line, and its neighbours stay where they are.
func TestLineIsLeft(t *testing.T) {
	var l line
	path := func(addr string) []netip.Prefix { return lineage(netip.MustParseAddr(addr)) }
	for _, addr := range []string{"1.1.1.1", "1.1.1.2", "2.1.1.1", "3.1.1.1"} {
		l.wait(path(addr), false, epoch)
	}
	require.Equal(t, 3, l.ahead(path("3.1.1.9"), false, 9, epoch), "two networks, and one address")
	l.leave(path("1.1.1.1"), false)
	require.Zero(t, l.ahead(path("1.1.1.2"), false, 9, epoch))
	l.leave(path("1.1.1.2"), false)
	require.Zero(t, l.ahead(path("2.1.1.1"), false, 9, epoch))
	require.Equal(t, 6, l.size())
}

// However many addresses of a few networks wait, they take bounded memory, and other networks wait beside them in order, and so
// do their addresses. Networks of which none waits any more make room.
func TestLineIsBounded(t *testing.T) {
	var l line
	for net := range 40 {
		for k := range 1000 {
			l.wait(lineage(netip.MustParseAddr(fmt.Sprintf("2001:%x:1:%x::1", net, k))), false, epoch)
		}
	}
	require.LessOrEqual(t, l.size(), maxWithin+40)
	for k := range 3 {
		l.wait(lineage(netip.MustParseAddr(fmt.Sprintf("90.0.0.%d", k))), false, epoch)
	}
	require.Equal(t, 40+2, l.ahead(lineage(netip.MustParseAddr("90.0.0.2")), false, 100, epoch))
	require.LessOrEqual(t, l.size(), maxWithin+41)
	for k := range 2 * maxNetworks {
		l.wait(lineage(netip.AddrFrom4([4]byte{byte(20 + k>>8), byte(k), 0, 1})), false, epoch)
	}
	require.Equal(t, maxNetworks, l.order.Len())
	require.LessOrEqual(t, l.size(), maxWithin+maxNetworks)
	l.wait(lineage(netip.MustParseAddr("90.1.0.1")), false, epoch.Add(waitsForPlace+time.Second))
	require.Equal(t, 3, l.size())
}

// A network that has its part gets more once others have left.
func TestLineIsCountedAgain(t *testing.T) {
	var l line
	path := func(net, k int) []netip.Prefix {
		return lineage(netip.MustParseAddr(fmt.Sprintf("2001:%x:1:%x::1", net, k)))
	}
	for k := range maxWithin / 4 { // each takes its /64 and its address
		l.wait(path(0, k), false, epoch)
	}
	for k := range maxWithin/4 - 1 {
		l.wait(path(1, k), false, epoch)
	}
	for k := range maxWithin/4 - 2 {
		l.leave(path(1, k), false)
	}
	full := l.size()
	l.wait(path(0, maxWithin), false, epoch)
	require.Greater(t, l.size(), full)
}

// Networks do not take more memory because they become late and have had no place lately in turn.
func TestLateNetworksAreBounded(t *testing.T) {
	now := epoch.Add(time.Hour)
	var places Places
	for net := range 100 {
		addr := func(k int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:%x:1:%x::1", net, k)) }
		for k := range 200 {
			places.hasTurn(addr(k), 0, now)
		}
		places.PeerLeft(addr(0), now)
		places.hasTurn(addr(0), 0, now)
		now = now.Add(waitsForPlace / 10)
	}
	require.LessOrEqual(t, places.waiting(), maxWithin+maxNetworks)
}

// waiting returns how many wait or keep their turns.
func (t *Places) waiting() int { return t.line.size() }

// Neighbours that dial one after another, each once, do not keep their network first in the line for others.
func TestLineOfThoseThatDialOnce(t *testing.T) {
	var l line
	now := epoch
	seed := lineage(netip.MustParseAddr("2.0.0.1"))
	for k := range 10 {
		l.wait(lineage(netip.AddrFrom4([4]byte{1, 1, byte(k), byte(k)})), false, now)
		l.wait(seed, false, now.Add(time.Second))
		now = now.Add(waitsForPlace / 2)
	}
	require.Zero(t, l.ahead(seed, false, 9, now))
}

// One that dials again after a while has its turn at once.
func TestLineKeepsTurns(t *testing.T) {
	var l line
	for _, addr := range []string{"1.0.0.1", "2.0.0.1", "1.0.0.2", "1.0.1.1"} {
		l.wait(lineage(netip.MustParseAddr(addr)), false, epoch)
	}
	now := epoch.Add(waitsForPlace + time.Second)
	for _, addr := range []string{"2.0.0.1", "1.0.0.2", "1.0.1.1"} {
		l.wait(lineage(netip.MustParseAddr(addr)), false, now)
	}
	require.Zero(t, l.ahead(lineage(netip.MustParseAddr("1.0.0.1")), false, 9, now))
}

// Where too many wait, newcomers do not have all of them counted each time.
func BenchmarkLine(b *testing.B) {
	for name, k := range map[string]int{"a /48": 6, "many networks": 2} { // k is where addresses begin to differ
		b.Run(name, func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 1))
			now := epoch
			var l line
			wait := func() {
				a := [16]byte{0x2a, 1}
				binary.BigEndian.PutUint64(a[k:], rng.Uint64())
				l.wait(lineage(netip.AddrFrom16(a)), false, now)
				now = now.Add(3 * time.Millisecond)
			}
			for range 2 * maxNetworks {
				wait()
			}
			for b.Loop() {
				wait()
			}
		})
	}
}
