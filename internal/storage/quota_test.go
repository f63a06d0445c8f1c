package storage_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/storage"
)

func TestQuota(t *testing.T) {
	all := func(k *storage.Taker) (n int) {
		for ; ; n++ {
			if _, ok := k.Try(math.MaxInt); !ok {
				return n
			}
		}
	}
	q := storage.NewQuota(1200)
	require.Equal(t, 400, all(q.NewTaker("a")), "a store has a third")
	for range 20 {
		all(q.NewTaker("a"))
	}
	require.Equal(t, 600, q.Used(), "one place has half")
	require.Equal(t, 200, all(q.NewTaker("b")))
	for k := range 8 { // whatever hangs, something is left for another
		for range 20 {
			all(q.NewTaker(storage.Place(fmt.Sprint(k))))
		}
	}
	_, ok := q.NewTaker("c").Try(math.MaxInt)
	require.True(t, ok)
}

// Those that wait are served in turn, store by store, also those that moved meanwhile or gave up.
func TestQuotaIsWaitedForInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := storage.NewQuota(3)
		first, ok := q.NewTaker("a").Take(nil)
		require.True(t, ok)
		second, ok := q.NewTaker("a").Take(nil)
		require.True(t, ok)
		var mu sync.Mutex
		var order []string
		wait := func(name string, k *storage.Taker, done <-chan struct{}) {
			go func() {
				taken, ok := k.Take(done)
				mu.Lock()
				order = append(order, fmt.Sprint(name, " ", ok))
				mu.Unlock()
				if ok {
					taken.Give()
				}
			}()
			synctest.Wait()
		}
		x, y, z := q.NewTaker("a"), q.NewTaker("a"), q.NewTaker("a")
		wait("x1", x, nil)
		wait("x2", x, nil)
		wait("y", y, nil)
		gaveUp := make(chan struct{})
		wait("z", z, gaveUp)
		require.Empty(t, order)
		close(gaveUp)
		synctest.Wait()
		require.Equal(t, []string{"z false"}, order)
		y.Moved("b")
		synctest.Wait()
		require.Equal(t, []string{"z false", "y true"}, order)
		first.Give()
		second.Give()
		synctest.Wait()
		require.Equal(t, []string{"z false", "y true", "x1 true", "x2 true"}, order)
		require.Zero(t, q.Used())
		require.Zero(t, q.Places())
	})
}

// After any sequence of takes, waits, moves and returns, the quota is not exceeded, and no store waits that may take.
func TestQuotaHistories(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			q := storage.NewQuota(20)
			var takers []*storage.Taker
			for range 8 {
				takers = append(takers, q.NewTaker("0"))
			}
			var mu sync.Mutex
			waiting, held := 0, []storage.Taken(nil)
			give := func() {
				mu.Lock()
				taken := held[0]
				held = held[1:]
				mu.Unlock()
				taken.Give()
				synctest.Wait()
			}
			var ends []chan struct{}
			for range 500 {
				k := takers[rng.IntN(len(takers))]
				switch n := rng.IntN(10); {
				case n < 4:
					done := make(chan struct{})
					ends = append(ends, done)
					waiting++
					go func() {
						taken, ok := k.Take(done)
						mu.Lock()
						defer mu.Unlock()
						if ok {
							held = append(held, taken)
						}
						waiting--
					}()
				case n < 7 && len(held) > 0:
					give()
				case n < 8 && len(ends) > 0:
					close(ends[0])
					ends = ends[1:]
				case n < 9:
					k.Moved(storage.Place(fmt.Sprint(rng.IntN(3))))
				}
				synctest.Wait()
				require.LessOrEqual(t, len(held), 20)
				require.Equal(t, len(held), q.Used())
				require.False(t, q.Idle(), "one waits that may take")
			}
			for len(held) > 0 || waiting > 0 {
				require.NotEmpty(t, held)
				give()
			}
			require.Zero(t, q.Used())
			require.Zero(t, q.Places())
		})
	}
}
