package utp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRivals(t *testing.T) {
	const base = 50 * time.Millisecond
	for _, c := range []struct {
		name    string
		before  time.Duration // the queue was as long
		queue   time.Duration // at the loss
		most    int           // bytes under way before
		flight  int           // at the loss
		present bool
	}{
		{"we filled the queue", 10 * time.Millisecond, 10 * time.Millisecond, 100_000, 95_000, false},
		{"another did, though we made room", 10 * time.Millisecond, 10 * time.Millisecond, 100_000, 60_000, true},
		{"no queue, no overflow", 10 * time.Millisecond, 2 * time.Millisecond, 100_000, 60_000, false},
		{"a queue that the delay tells of", 40 * time.Millisecond, 40 * time.Millisecond, 100_000, 60_000, false},
	} {
		var r rivals
		m := measure{now: time.Hour, base: base, newest: 10, next: 20, queue: c.before, flight: c.most}
		r.acknowledged(m)
		m.now += 200 * time.Millisecond
		m.flight = c.flight
		r.lost(c.queue, m)
		require.Equal(t, c.present, r.present(m.now), c.name)
		require.False(t, r.present(m.now+longestMemory), c.name)

		// What was under way when the overflow was heard of says nothing of the time after it.
		if c.present {
			m.newest, m.next, m.flight = 19, 30, c.most
			r.acknowledged(m)
			m.newest, m.flight = 20, c.flight
			r.acknowledged(m)
			m.now += 2 * longestMemory
			r.acknowledged(m)
			r.lost(c.queue, m)
			require.False(t, r.present(m.now), c.name)
		}
	}
}
