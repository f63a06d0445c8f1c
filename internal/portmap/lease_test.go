package portmap

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLease plays the lives of leases: what happens, and what is due first after it.
func TestLease(t *testing.T) {
	type event struct {
		at   time.Duration
		do   func(l *lease, now time.Time)
		next step
		due  time.Duration
	}
	grant := func(life time.Duration, by Protocol) func(*lease, time.Time) {
		return func(l *lease, now time.Time) { l.grant(now, life, by) }
	}
	checked := func(by Protocol) func(*lease, time.Time) {
		return func(l *lease, now time.Time) { l.checked(now, by) }
	}
	fail := func(wait time.Duration) func(*lease, time.Time) {
		return func(l *lease, now time.Time) { l.fail(now, wait) }
	}
	lose := func(l *lease, now time.Time) { l.lose(now) }
	hurry := func(l *lease, now time.Time) { l.hurry(now) }
	end := func(l *lease, now time.Time) { l.end() }
	const minute, hour = time.Minute, time.Hour
	for name, events := range map[string][]event{
		"checked, then renewed at half of an hour": {
			{0, grant(hour, PCP), stepCheck, minute},
			{minute, checked(PCP), stepCheck, 2 * minute},
			{29 * minute, checked(PCP), stepMap, 30 * minute},
			{30 * minute, grant(hour, PCP), stepCheck, 31 * minute},
		},
		"renewed at three quarters": {
			{0, grant(hour, UPnP), stepCheck, 5 * minute},
			{40 * minute, checked(UPnP), stepMap, 45 * minute},
		},
		"a short lease":                 {{0, grant(90*time.Second, NATPMP), stepMap, 45 * time.Second}},
		"one too short to keep up with": {{0, grant(time.Second, NATPMP), stepMap, 30 * time.Second}},
		"one too long to believe": {
			{0, grant(1<<32*time.Second, PCP), stepCheck, minute},
			{12*hour - minute, checked(PCP), stepMap, 12 * hour},
			{12 * hour, fail(0), stepMap, 12*hour + minute},
			{24*hour - time.Second, fail(0), stepEnd, 24 * hour},
		},
		"lost, and made again": {
			{0, grant(hour, PCP), stepCheck, minute},
			{minute, lose, stepMap, minute},
			{minute, grant(hour, PCP), stepCheck, 2 * minute},
		},
		"lost, and the router silent until it ends": {
			{0, grant(hour, PCP), stepCheck, minute},
			{minute, lose, stepMap, minute},
			{2 * minute, fail(0), stepMap, 3 * minute},
			{59*minute + 1, fail(0), stepEnd, hour},
			{hour, end, stepMap, 60*minute + 1},
			{2 * hour, fail(0), stepMap, 2*hour + minute},
			{9 * hour, fail(0), stepMap, 9*hour + minute},
		},
		"never granted": {
			{0, fail(0), stepMap, minute},
			{minute, fail(0), stepMap, 3 * minute},
			{3 * minute, fail(0), stepMap, 7 * minute},
			{7 * minute, fail(0), stepMap, 15 * minute},
			{15 * minute, fail(0), stepMap, 31 * minute},
			{31 * minute, fail(0), stepMap, 61 * minute},
			{61 * minute, fail(0), stepMap, 91 * minute},
		},
		"told to wait": {
			{0, fail(10 * minute), stepMap, 10 * minute},
			{10 * minute, fail(100 * hour), stepMap, 40 * minute},
		},
		"hurried": {
			{0, hurry, stepMap, 0},
			{0, fail(0), stepMap, minute},
			{time.Second, hurry, stepMap, time.Second},
			{2 * time.Second, grant(hour, PCP), stepCheck, minute + 2*time.Second},
			{3 * time.Second, hurry, stepCheck, 3 * time.Second},
		},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Unix(1e9, 0)
			var l lease
			next, at := l.next()
			require.Equal(t, stepMap, next)
			require.True(t, at.Before(began), "at once")
			for i, e := range events {
				e.do(&l, began.Add(e.at))
				next, at := l.next()
				require.Equal(t, e.next, next, "after event %d", i)
				require.Equal(t, e.due, at.Sub(began), "after event %d", i)
			}
		})
	}
	t.Run("many failures", func(t *testing.T) {
		var l lease
		now := time.Unix(1e9, 0)
		for range 1000 {
			l.fail(now, 0)
		}
		_, at := l.next()
		require.Equal(t, retryMost, at.Sub(now))
	})
}

func TestEpoch(t *testing.T) {
	for _, tt := range []struct {
		name          string
		ours          time.Duration // between two answers
		before, after uint32        // their clock
		pcp, natpmp   bool          // restarted, by the rule of
	}{
		{"the same", time.Hour, 100, 3700, false, false},
		{"within what clocks differ", time.Hour, 100, 3600, false, false},
		{"slow by a ninth", time.Hour, 100, 3300, true, false},
		{"slow by a fifth", time.Hour, 100, 2980, true, true},
		{"fast by a ninth", time.Hour, 100, 4100, true, false},
		{"a second late", time.Second, 100, 99, false, false},
		{"two seconds back", 0, 100, 98, true, false},
		{"three seconds back", 0, 100, 97, true, true},
		{"begun again", time.Minute, 100000, 5, true, true},
		{"begun again long ago", time.Hour, 100, 1800, true, true},
		{"while this machine slept", time.Second, 100, 4000, true, false},
		{"set to what cannot be", time.Second, 100, 1<<32 - 1, true, false},
		{"set back from that", time.Second, 1<<32 - 1, 0, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := time.Unix(1e9, 0)
			var pcp, natpmp epoch
			require.False(t, pcp.restarted(now, tt.before), "the first answer")
			require.False(t, natpmp.restartedNATPMP(now, tt.before), "the first answer")
			now = now.Add(tt.ours)
			require.Equal(t, tt.pcp, pcp.restarted(now, tt.after))
			require.Equal(t, tt.natpmp, natpmp.restartedNATPMP(now, tt.after))
			require.False(t, pcp.restarted(now, tt.after), "and no more")
		})
	}
}
