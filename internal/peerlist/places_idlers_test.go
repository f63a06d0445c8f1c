package peerlist_test

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/memtest"
	"github.com/shoal-go/torrent/internal/peerlist"
)

func TestIdlers(t *testing.T) {
	var l peerlist.Places
	now := time.Unix(1e9, 0)
	at := netip.MustParseAddr
	require.False(t, l.HasLeftIdle(at("80.0.0.1"), now))
	l.PeerLeftIdle(at("80.0.0.1"), now)
	l.PeerLeftIdle(at("2001:db8::1"), now)
	l.PeerLeftIdle(at("10.0.0.1"), now)
	require.True(t, l.HasLeftIdle(at("80.0.0.1"), now.Add(9*time.Minute)))
	require.False(t, l.HasLeftIdle(at("80.0.0.1"), now.Add(10*time.Minute)))
	require.False(t, l.HasLeftIdle(at("80.0.0.2"), now))
	require.True(t, l.HasLeftIdle(at("2001:db8::2"), now), "of the same /64")
	require.False(t, l.HasLeftIdle(at("2001:db8:0:1::1"), now))
	require.False(t, l.HasLeftIdle(at("10.0.0.1"), now), "a local one stands for many")

	// They are bounded, and forgotten.
	for k := range 10_000 {
		l.PeerLeftIdle(netip.AddrFrom4([4]byte{90, byte(k >> 8), byte(k), 1}), now.Add(time.Minute))
	}
	require.False(t, l.HasLeftIdle(at("90.39.15.1"), now.Add(time.Minute)))
	l.PeerLeftIdle(at("90.39.15.1"), now.Add(time.Hour))
	require.True(t, l.HasLeftIdle(at("90.39.15.1"), now.Add(time.Hour)))
}

// Those that came over months are forgotten, and their memory with them.
func TestIdlersAreForgotten(t *testing.T) {
	now := time.Unix(1e9, 0)
	before := memtest.Heap()
	all := make([]peerlist.Places, 50)
	for i := range all {
		for k := range 4000 {
			now = now.Add(time.Minute)
			all[i].PeerLeftIdle(netip.AddrFrom4([4]byte{90, byte(k >> 8), byte(k), 1}), now)
		}
	}
	require.Less(t, (memtest.Heap()-before)/int64(len(all)), int64(20<<10))
	runtime.KeepAlive(all)
}

// While there are as many as are remembered, each one more used to have all of them copied.
func TestManyIdlersAreNotCopied(t *testing.T) {
	var l peerlist.Places
	k, now := 0, time.Unix(1e9, 0)
	add := func() {
		k++
		l.PeerLeftIdle(netip.AddrFrom4([4]byte{90, byte(k >> 8), byte(k), 1}), now)
	}
	for range 5000 {
		add()
	}
	require.Zero(t, testing.AllocsPerRun(10, add))
}
