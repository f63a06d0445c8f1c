package peerlist

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// However many ports of a host are named, it gets no more dials than a host needs.
func TestTargets(t *testing.T) {
	for _, tc := range []struct {
		name string
		addr func(k uint32) netip.Addr
		want int // dials in ten minutes, where 100 a minute are tried
	}{
		{"a public address", func(uint32) netip.Addr { return host }, 60},
		{"in IPv6 form", func(uint32) netip.Addr { return netip.AddrFrom16(host.As16()) }, 60},
		{"addresses of one /64", func(k uint32) netip.Addr {
			a := netip.MustParseAddr("2001:db8::").As16()
			binary.BigEndian.PutUint32(a[8:], k)
			return netip.AddrFrom16(a)
		}, 60},
		{"a local address", func(uint32) netip.Addr { return netip.MustParseAddr("10.0.0.1") }, 300},
		{"this machine", func(uint32) netip.Addr { return netip.MustParseAddr("127.0.0.1") }, 1000},
		{"many hosts", func(k uint32) netip.Addr {
			return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 8<<24+k)))
		}, 1000},
	} {
		var b Budget
		dialled := 0
		for k := range 1000 {
			now := epoch.Add(time.Duration(k) * 600 * time.Millisecond)
			addr := tc.addr(uint32(k))
			require.Equal(t, now, b.TargetAt(Claim{}, addr, FromUser, now), "the user may name any")
			if at := b.TargetAt(Claim{}, addr, FromPEX, now); at.After(now) {
				require.LessOrEqual(t, at.Sub(now), targetWindow)
				continue
			}
			require.True(t, b.Dial(Claim{}, addr, now))
			b.EndDial()
			dialled++
		}
		require.Equal(t, tc.want, dialled, tc.name)
	}
}

// Hosts, and the downloads that wait for them, are kept no longer than they matter, and none is forgotten before.
func TestTargetsAreForgotten(t *testing.T) {
	for _, every := range []time.Duration{time.Second / maxDialsPerSecond, time.Second} { // the greatest rate of dials, and a lower one
		var b targets
		matter := int((targetWindow + waitsFor) / every)
		most, refused := 0, 0
		for k := range uint32(20_000) {
			a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 8<<24+k)))
			b.begin(a, epoch.Add(time.Duration(k)*every))
			most = max(most, b.hosts.Len())
			if _, ok := b.hosts.Get(netip.PrefixFrom(a, 32)); !ok {
				refused++
			}
		}
		require.Zero(t, refused)
		require.LessOrEqual(t, most, min(maxTargets, 2*matter+1))
	}
}

// Downloads keep their turns at a host when dials of others have hosts be forgotten just as its time has come.
func TestTurnsOutliveOtherHosts(t *testing.T) {
	var b Budget
	at := func(by any, now time.Time) time.Duration {
		return b.TargetAt(Claim{By: by}, host, FromPEX, now).Sub(now)
	}
	for range maxDialsPerTarget {
		require.True(t, b.Dial(Claim{By: "first"}, host, epoch))
		b.EndDial()
	}
	for k := range maxDialsPerTarget {
		require.Equal(t, targetWindow-time.Second, at(k, epoch.Add(time.Second)))
	}
	now := epoch.Add(targetWindow)
	for k := range uint32(3000) {
		b.begin(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 8<<24+k))), now)
	}
	require.Positive(t, at("first", now), "others wait already")
	for k := range maxDialsPerTarget {
		require.Zero(t, at(k, now))
	}
}

// A second connection in place of the first counts to the rate, and takes no other half-open place.
func TestRedial(t *testing.T) {
	var b Budget
	for range 20 {
		require.True(t, b.Dial(Claim{}, host, epoch))
	}
	for range 10 {
		require.Zero(t, b.Redial(host, epoch))
	}
	now := epoch.Add(300 * time.Millisecond)
	require.Equal(t, 700*time.Millisecond, b.Redial(host, now))
	_, dialling := b.InUse()
	require.Equal(t, 20, dialling)
	require.Zero(t, b.Redial(host, epoch.Add(time.Second)))
}

// Downloads to which endless ports of a host are named leave one that knows a single port of it its turn, however many they are.
func TestTargetsAreDealtInTurns(t *testing.T) {
	for _, hostile := range []int{1, 10, 50} {
		var b Budget
		dial := func(by any, now time.Time) (at time.Time) {
			c := Claim{By: by}
			if at = b.TargetAt(c, host, FromPEX, now); !at.After(now) {
				require.True(t, b.Dial(c, host, now))
				b.EndDial()
			}
			return at
		}
		arrives := epoch.Add(30 * time.Second)
		asks := arrives
		for now := epoch; ; now = now.Add(time.Second / 10) {
			for k := range hostile {
				dial(k, now)
			}
			if now.Before(asks) {
				continue
			}
			if asks = dial("honest", now); asks.Equal(now) {
				took := now.Sub(arrives)
				t.Logf("%d: after %v", hostile, took)
				require.LessOrEqual(t, took, targetWindow*time.Duration(2+hostile/maxDialsPerTarget))
				break
			}
			require.Less(t, now.Sub(arrives), 2*time.Hour)
		}
	}
}

// A download that waits for a host and does not ask again keeps no other from it.
func TestTurnsAtATargetEnd(t *testing.T) {
	var b Budget
	at := func(by string, now time.Time) time.Duration {
		return b.TargetAt(Claim{By: by}, host, FromPEX, now).Sub(now)
	}
	dial := func(by string, now time.Time) {
		require.True(t, b.Dial(Claim{By: by}, host, now))
		b.EndDial()
	}
	for k := range maxDialsPerTarget {
		dial("first", epoch.Add(time.Duration(k)*time.Second))
	}
	now := epoch.Add(10 * time.Second)
	require.Equal(t, 50*time.Second, at("second", now))
	require.Equal(t, 51*time.Second, at("third", now))
	require.Equal(t, 50*time.Second, at("second", now), "it has its turn already")
	now = epoch.Add(targetWindow)
	require.Equal(t, time.Second, at("third", now), "it is the turn of the second")
	require.Zero(t, at("second", now))
	dial("second", now)
	require.Equal(t, time.Second, at("third", now))
	now = epoch.Add(targetWindow + 2*time.Second)
	require.Zero(t, at("third", now))
	require.Zero(t, at("second", now), "there is a dial for each")
	now = now.Add(time.Hour)
	require.Zero(t, at("second", now))
	h, _ := b.targets.hosts.Get(netip.PrefixFrom(host, 32))
	waiting := h.waiting.place
	require.NotContains(t, waiting, "third", "it asks no more")
	for range maxDialsPerTarget {
		dial("second", now)
	}
	require.Equal(t, targetWindow, at("fourth", now))
	require.Contains(t, waiting, "fourth")
	b.Forget("fourth")
	require.Empty(t, waiting)
}
