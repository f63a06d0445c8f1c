package peerlist

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDialBudget(t *testing.T) {
	var b dials
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
		b.halfOpen++
	}
	allowed(0, 0, "no time will help, only a dial that ends")
	for range 20 {
		b.end()
	}
	allowed(10, 0, "thirty in a second")
	now = now.Add(600 * time.Millisecond)
	for range 10 {
		b.begin(now)
		b.halfOpen++
	}
	require.Equal(t, 400*time.Millisecond, b.pause(now))
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

// Those that wait for a dial get one each, in the order in which they asked, unless they ask no more.
func TestDialsAreTakenInTurns(t *testing.T) {
	var b Budget
	now := epoch
	dial := func(by string) bool { return b.Dial(Claim{By: by}, host, now) }
	end := func() (woken []any) {
		b.EndDial()
		return slices.Collect(b.Turn(now))
	}
	for range maxHalfOpen {
		require.True(t, dial("a"))
	}
	now = now.Add(time.Hour)
	for _, by := range []string{"a", "b", "c", "b"} {
		require.False(t, dial(by))
	}
	require.Equal(t, []any{"a"}, end())
	require.False(t, dial("c"), "it is not its turn")
	require.Equal(t, now.Add(budgetRound), b.DialAt(Claim{By: "c"}, now, now))
	require.Equal(t, now, b.DialAt(Claim{By: "a"}, now, now))
	require.True(t, dial("a"))
	require.False(t, dial("a"), "each has one")
	require.Equal(t, []any{"b"}, end())
	require.Equal(t, []any{"b", "c"}, end())
	require.True(t, dial("c"), "there is room for both")
	require.True(t, dial("b"))

	require.False(t, dial("b"))
	now = now.Add(waitsFor)
	require.False(t, dial("c"))
	require.Equal(t, []any{"a"}, end())
	now = now.Add(time.Millisecond)
	require.Equal(t, []any{"c"}, slices.Collect(b.Turn(now)), "the others have not asked for long")
	require.True(t, dial("c"))

	require.False(t, b.Dial(Claim{By: "b"}, host, now))
	require.False(t, b.Dial(Claim{By: "b", Most: 1}, host, now))
	require.Empty(t, end(), "one that may not connect does not wait for a dial")
}

// Dials of one download that take all connections that are left keep no other below its share from its turn.
func TestDialsTakeTurnsAtTheLastConnections(t *testing.T) {
	var b Budget
	now := epoch
	dial := func(by string, has int) bool { return b.Dial(Claim{By: by, Has: has, Sharing: 2, Most: 4}, host, now) }
	require.True(t, b.Accept(Claim{By: "b", Sharing: 2, Most: 4}, netip.Addr{}, now))
	for range 3 {
		require.True(t, dial("a", 0))
	}
	require.False(t, dial("a", 0))
	require.False(t, dial("b", 1))
	b.EndDial()
	require.True(t, dial("a", 0), "it waited first")
	require.False(t, dial("a", 0))
	b.EndDial()
	require.Equal(t, []any{"b"}, slices.Collect(b.Turn(now)))
	require.False(t, dial("a", 0), "it is the turn of the other")
	require.True(t, dial("b", 1))
	require.False(t, dial("b", 2), "it has its share")
}

// BenchmarkDialsOfManyDownloads is what it costs that one of many downloads which wait for a dial asks for it, as each does once a
// second, and is told when to ask again.
func BenchmarkDialsOfManyDownloads(b *testing.B) {
	for _, downloads := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprint(downloads), func(b *testing.B) {
			var budget Budget
			now := epoch
			for range maxHalfOpen {
				require.True(b, budget.Dial(Claim{By: -1}, host, now))
			}
			for k := range b.N {
				now = now.Add(time.Second / time.Duration(downloads))
				c := Claim{By: k % downloads}
				if budget.Dial(c, host, now) {
					budget.EndDial()
				}
				budget.DialAt(c, now, now)
			}
		})
	}
}
