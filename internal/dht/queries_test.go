package dht

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestQueries(t *testing.T) {
	qs := newQueries(rand.New(rand.NewPCG(1, 1)))
	require.True(t, qs.next().IsZero())
	require.Nil(t, qs.due(epoch))
	a, b := &query{to: host(1)}, &query{to: host(2)}
	tidA := qs.add(epoch, a)
	tidB := qs.add(epoch.Add(500*time.Millisecond), b)
	require.Len(t, tidA, 4)
	require.NotEqual(t, tidA, tidB)

	require.Nil(t, qs.take(tidA, host(2)), "another address")
	require.Nil(t, qs.take(tidA[:3], host(1)))
	require.Nil(t, qs.take([]byte("none"), host(1)))
	require.Nil(t, qs.take(nil, host(1)))

	type step struct {
		after time.Duration
		q     *query
		stage stage
	}
	for _, s := range []step{
		{time.Second, a, slow},
		{1500 * time.Millisecond, b, slow},
		{4 * time.Second, a, late},
		{4500 * time.Millisecond, b, late},
	} {
		require.Equal(t, epoch.Add(s.after), qs.next())
		require.Nil(t, qs.due(epoch.Add(s.after-1)))
		require.Same(t, s.q, qs.due(epoch.Add(s.after)))
		require.Equal(t, s.stage, s.q.stage)
		require.Nil(t, qs.due(epoch.Add(s.after)))
	}
	require.Same(t, b, qs.take(tidB, host(2)), "a late answer is one")
	require.Nil(t, qs.take(tidB, host(2)), "once")
	require.Equal(t, epoch.Add(failAfter), qs.next())
	require.Same(t, a, qs.due(epoch.Add(time.Hour)))
	require.Equal(t, failed, a.stage)
	require.Nil(t, qs.take(tidA, host(1)), "this one is too late")
	require.Nil(t, qs.due(epoch.Add(time.Hour)))
	require.True(t, qs.next().IsZero())
	require.Empty(t, qs.byTID)
	require.Empty(t, qs.order)
}

// After a jump of the clock, each query still comes to all of its stages, one after the other.
func TestQueriesAfterAJump(t *testing.T) {
	qs := newQueries(rand.New(rand.NewPCG(1, 2)))
	var all []*query
	for i := range 5 {
		all = append(all, &query{to: host(i)})
		qs.add(epoch, all[i])
	}
	stages := make(map[*query][]stage)
	for q := qs.due(epoch.Add(time.Hour)); q != nil; q = qs.due(epoch.Add(time.Hour)) {
		stages[q] = append(stages[q], q.stage)
	}
	for _, q := range all {
		require.Equal(t, []stage{slow, late, failed}, stages[q])
	}
	require.Empty(t, qs.order)
}

// However answers come, none is reported after it was answered, and nothing is kept.
func TestQueryHistories(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 3))
		qs := newQueries(rng)
		now := epoch
		tids := make(map[*query][]byte)
		over := make(map[*query]bool)
		for range 2000 {
			switch rng.IntN(4) {
			case 0, 1:
				q := &query{to: host(rng.IntN(100))}
				tids[q] = qs.add(now, q)
			case 2:
				for q, tid := range tids {
					got := qs.take(tid, q.to)
					require.Equal(t, over[q], got == nil)
					over[q] = true
					delete(tids, q)
					break
				}
			case 3:
				now = now.Add(time.Duration(rng.Int64N(int64(3 * time.Second))))
				for q := qs.due(now); q != nil; q = qs.due(now) {
					require.False(t, over[q])
					if q.stage == failed {
						over[q] = true
					}
				}
				for _, q := range qs.byTID {
					require.Less(t, now.Sub(q.sent), failAfter)
					require.Equal(t, now.Sub(q.sent) >= slowAfter, q.stage >= slow)
					require.Equal(t, now.Sub(q.sent) >= lateAfter, q.stage >= late)
				}
				require.LessOrEqual(t, len(qs.order), 2*len(qs.byTID)+64+int(failAfter/time.Second)*4)
			}
		}
		qs.due(now.Add(time.Hour))
	}
}
