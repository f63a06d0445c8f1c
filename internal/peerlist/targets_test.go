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

func TestTargetsAreForgotten(t *testing.T) {
	b := make(targets)
	for k := range uint32(10 * sweepTargetsOver) { // at the greatest rate of dials
		b.begin(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 8<<24+k))), epoch.Add(time.Duration(k)*time.Second/maxDialsPerSecond))
		require.LessOrEqual(t, len(b), sweepTargetsOver+2)
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
