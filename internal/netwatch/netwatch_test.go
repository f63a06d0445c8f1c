package netwatch_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netwatch"
)

func addrs(list string) (all []netip.Addr) {
	for a := range strings.FieldsSeq(list) {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func TestWatch(t *testing.T) {
	type look struct {
		after, wall time.Duration // since the last look; a wall of 0 is as much
		addrs       string
		want        netwatch.Change
	}
	const home = "10.0.0.2 127.0.0.1 fe80::1"
	second := time.Second
	for name, looks := range map[string][]look{
		"nothing happens": {
			{5 * second, 0, home, netwatch.Change{}},
			{5 * second, 0, "fe80::2 127.0.0.1 ::ffff:10.0.0.2 10.0.0.2", netwatch.Change{}},
			{30 * second, 0, home, netwatch.Change{}},
			{5 * second, 6 * second, home, netwatch.Change{}},
			{5 * second, -time.Hour, home, netwatch.Change{}},
		},
		"sleep that stops the clock of timers": {
			{5 * second, time.Hour, home, netwatch.Change{Slept: time.Hour - 5*second}},
			{second, 0, home, netwatch.Change{}},
			{2 * second, 0, home, netwatch.Change{Settled: true}},
			{5 * second, 0, home, netwatch.Change{}},
			{12 * second, 0, home, netwatch.Change{Again: true}},
			{time.Minute / 2, 0, home, netwatch.Change{}},
		},
		"sleep that does not": {
			{time.Hour, 0, home, netwatch.Change{Slept: time.Hour - 5*second}},
			{3 * second, 0, home, netwatch.Change{Settled: true}},
		},
		"another address": {
			{5 * second, 0, "10.0.0.3 127.0.0.1", netwatch.Change{Gone: addrs("10.0.0.2"), Come: addrs("10.0.0.3")}},
			{5 * second, 0, "10.0.0.3 127.0.0.1", netwatch.Change{Settled: true}},
		},
		"an address that comes late": {
			{5 * second, 0, "127.0.0.1", netwatch.Change{Gone: addrs("10.0.0.2")}},
			{2 * second, 0, home, netwatch.Change{Come: addrs("10.0.0.2")}},
			{2 * second, 0, home + " 2001:db8::1", netwatch.Change{Come: addrs("2001:db8::1")}},
			{2 * second, 0, home + " 2001:db8::1", netwatch.Change{}},
			{second, 0, home + " 2001:db8::1", netwatch.Change{Settled: true}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var w netwatch.Watch
			now := time.Unix(1e9, 0)
			wall := now
			got := w.Look(now, wall, addrs(home))
			require.False(t, got.Any())
			for i, l := range looks {
				now = now.Add(l.after)
				if l.wall == 0 {
					l.wall = l.after
				}
				wall = wall.Add(l.wall)
				require.Equal(t, l.want, w.Look(now, wall, addrs(l.addrs)), i)
			}
		})
	}
}

func TestNext(t *testing.T) {
	var w netwatch.Watch
	now := time.Unix(1e9, 0)
	w.Look(now, now, nil)
	require.Equal(t, now.Add(5*time.Second), w.Next(now, 5*time.Second))
	w.Look(now, now, addrs("10.0.0.1"))
	require.Equal(t, now.Add(3*time.Second), w.Next(now, 5*time.Second))
	require.Equal(t, now.Add(time.Second), w.Next(now, time.Second))
}
