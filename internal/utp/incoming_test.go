package utp

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newIncoming(capacity int) (*incoming, *plain) {
	memory := new(plain)
	return &incoming{memory: memory, ack: 65530, capacity: capacity, told: capacity}, memory
}

func TestAccept(t *testing.T) {
	type p struct {
		off     int // from the last in order at the beginning
		bytes   int
		fin, ok bool
	}
	for _, c := range []struct {
		name     string
		capacity int
		packets  []p
		ready    int
		complete bool
	}{
		{"in order", 1000, []p{{1, 100, false, true}, {2, 100, false, true}}, 200, false},
		{"twice", 1000, []p{{1, 100, false, true}, {1, 100, false, false}, {3, 100, false, true}, {3, 100, false, false}}, 100, false},
		{"old", 1000, []p{{0, 100, false, false}, {-5, 100, false, false}, {-32768, 100, false, false}}, 0, false},
		{"too far ahead", 1000, []p{{leastReorder, 100, false, true}, {leastReorder + 1, 100, false, false}}, 0, false},
		{"full", 150, []p{{1, 100, false, true}, {2, 100, false, true}, {3, 100, false, false}, {4, 100, false, false}}, 200, false},
		{"what is missing is taken though the rest fills all", 200, []p{{2, 100, false, true}, {3, 100, false, true}, {4, 100, false, false}, {1, 100, false, true}}, 300, false},
		{"the end", 1000, []p{{1, 100, false, true}, {2, 0, true, true}, {2, 0, true, false}, {3, 100, false, false}}, 100, true},
		{"the end early", 1000, []p{{3, 0, true, true}, {2, 100, false, true}, {4, 100, false, false}, {1, 100, false, true}}, 200, true},
		{"another end", 1000, []p{{3, 0, true, true}, {2, 0, true, false}, {5, 0, true, false}, {3, 100, false, false}}, 0, false},
		{"an end before what is there", 1000, []p{{4, 100, false, true}, {2, 0, true, false}}, 0, false},
		{"the end of a full buffer", 100, []p{{1, 100, false, true}, {2, 0, true, true}}, 100, true},
		{"nothing", 1000, []p{{1, 0, false, true}, {3, 0, false, true}, {2, 10, false, true}}, 10, false},
		{"large packets", 1 << 20, []p{{2, 60000, false, true}, {1, 60000, false, true}}, 120000, false},
	} {
		in, memory := newIncoming(c.capacity)
		first := in.ack
		for i, p := range c.packets {
			require.Equal(t, p.ok, in.accept(first+uint16(p.off), zeros[:p.bytes], p.fin), "%s: %d", c.name, i)
		}
		require.Equal(t, c.ready, in.ready, c.name)
		require.Equal(t, c.complete, in.complete, c.name)
		require.Equal(t, c.ready, in.take(make([]byte, 1<<20)), c.name)
		in.dropEarly()
		require.Zero(t, memory.lent, c.name)
	}
}

// A reader that waits gets what comes in order where it wants it, and no octet is lost or moved by that.
func TestAwait(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	in, memory := newIncoming(1 << 20)
	written, read := 0, 0
	check := func(p []byte) {
		for _, b := range p {
			require.Equal(t, byte(read*7), b)
			read++
		}
	}
	for range 2000 {
		buf := make([]byte, r.IntN(5000))
		if r.IntN(2) == 0 {
			check(buf[:in.take(buf)])
		}
		waits := len(buf) > 0 && in.await(buf)
		require.False(t, waits && in.await(buf), "one at a time")
		for range r.IntN(4) {
			p := make([]byte, r.IntN(1500))
			for i := range p {
				p[i] = byte(written * 7)
				written++
			}
			require.True(t, in.accept(in.ack+1, p, false))
		}
		if waits {
			check(buf[:in.awaited()])
		}
		if in.window() < 10_000 {
			buf := make([]byte, 1<<20)
			check(buf[:in.take(buf)])
		}
	}
	buf := make([]byte, 1<<20)
	check(buf[:in.take(buf)])
	require.Equal(t, written, read)
	require.Zero(t, memory.lent)
}

func TestReceiveBufferGrowsWithTheReader(t *testing.T) {
	in, _ := newIncoming(firstReceive)
	now := time.Hour
	in.measured = now
	step := func(bytes int) {
		in.read += bytes
		now += 10 * time.Millisecond
		in.widen(100*time.Millisecond, now)
	}
	for range 100 {
		step(20_000) // 2 MB/s over 100 ms
	}
	require.Equal(t, firstReceive, in.capacity)
	for range 100 {
		step(250_000)
	}
	require.InDelta(t, 3*2_500_000, in.capacity, 600_000)
	for range 100 {
		step(10_000_000)
	}
	require.Equal(t, largestReceive, in.capacity)
}
