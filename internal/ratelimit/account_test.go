package ratelimit_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/memtest"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/stretchr/testify/require"
)

func TestAccount(t *testing.T) {
	now := time.Unix(1, 0)
	a := ratelimit.NewAccount(100, 1000, now)
	require.Zero(t, a.Charge(1000, now), "all of it at once")
	require.Equal(t, time.Second, a.Charge(100, now), "then what is owed takes its time")
	now = now.Add(time.Second)
	require.Zero(t, a.Charge(0, now))
	require.Equal(t, 500*time.Millisecond, a.Charge(50, now))
	a.Earn(50)
	require.Zero(t, a.Charge(0, now), "or is earned")
	a.Earn(1 << 40)
	now = now.Add(time.Hour)
	require.Zero(t, a.Charge(1000, now))
	require.Zero(t, a.Owed(now))
	require.NotZero(t, a.Charge(1, now), "no more is saved than the most")
	require.EqualValues(t, 1, a.Owed(now))
	a.Charge(99, now)
	require.EqualValues(t, 50, a.Owed(now.Add(500*time.Millisecond)))
	require.Zero(t, a.Owed(now.Add(time.Minute)))

	a.Pace(10, now)
	require.EqualValues(t, 100, a.Owed(now))
	require.Equal(t, 10*time.Second, a.Charge(0, now))
	now = now.Add(5 * time.Second)
	a.Pace(100, now)
	require.EqualValues(t, 50, a.Owed(now), "it filled at the rate of that time")
	require.Equal(t, 500*time.Millisecond, a.Charge(0, now))
}

// An address that closes an account and opens another gets the balance that was left, and of several the least.
func TestAccounts(t *testing.T) {
	now := time.Unix(1, 0)
	fresh := func() ratelimit.Account { return ratelimit.NewAccount(100, 1000, now) }
	var all ratelimit.Accounts[int]
	a := all.Open(1, fresh())
	require.Zero(t, a.Charge(900, now))
	all.Close(1, a, now)
	other := all.Open(2, fresh())
	require.Zero(t, other.Charge(1000, now), "another has its own")

	b := all.Open(1, fresh())
	require.Equal(t, time.Second, b.Charge(200, now))
	all.Close(1, b, now)
	all.Close(1, fresh(), now)
	now = now.Add(2 * time.Second)
	c := all.Open(1, fresh())
	require.Zero(t, c.Charge(100, now), "it filled meanwhile")
	require.NotZero(t, c.Charge(1, now))

	for k := range 100_000 {
		all.Close(k, a, now)
	}
	require.LessOrEqual(t, ratelimit.Closed(&all), 1024)
	now = now.Add(time.Minute)
	d := all.Open(99_999, fresh())
	require.Zero(t, d.Charge(1000, now))
	require.NotZero(t, d.Charge(1, now))
}

// The accounts of the peers that come and go over months are forgotten, and their memory with them.
func TestAccountsAreForgotten(t *testing.T) {
	now := time.Unix(1, 0)
	before := memtest.Heap()
	all := make([]ratelimit.Accounts[int], 100)
	for i := range all {
		for k := range 5000 {
			now = now.Add(50 * time.Millisecond)
			a := ratelimit.NewAccount(100, 1000, now)
			a.Charge(900, now)
			all[i].Close(k, a, now)
		}
	}
	require.Less(t, (memtest.Heap()-before)/int64(len(all)), int64(100<<10), "those of the last 9 seconds")
	now = now.Add(time.Minute)
	for i := range all {
		for k := range 1000 {
			now = now.Add(time.Second)
			a := ratelimit.NewAccount(100, 1000, now)
			a.Charge(1, now)
			all[i].Close(k, a, now)
		}
	}
	require.Less(t, (memtest.Heap()-before)/int64(len(all)), int64(10<<10))
	runtime.KeepAlive(all)
}
