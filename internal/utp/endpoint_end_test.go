package utp

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestResetHasToBePlausible(t *testing.T) {
	r := dialed(t)
	r.write(2 * 1232)
	r.sent = nil
	for _, ack := range []int{-1, 4, 5, 1000, -1000, 32000} {
		r.in(fmt.Sprintf("RESET 1 ack %d", ack))
		require.Equal(t, connected, r.e.state, "ack %d", ack)
	}
	r.wants()
	r.in("RESET 1 ack 2")
	require.Equal(t, closed, r.e.state)
	require.ErrorIs(t, r.e.err, syscall.ECONNRESET)
	r.wants()
	require.Zero(t, r.memory.lent)
}

func TestAcknowledgementOfWhatWasNeverSent(t *testing.T) {
	r := dialed(t)
	r.write(1232)
	r.sent = nil
	r.in("DATA 1 ack 2 10 bytes", "STATE 1 ack 900", "DATA 2 ack -20000 10 bytes")
	r.later(ackDelay)
	r.wants()
	require.Equal(t, 1232, r.e.out.underway)
	require.Zero(t, r.e.in.ready)
}

func TestFinWithDataUnderWay(t *testing.T) {
	r := dialed(t)
	r.write(2 * 1232)
	r.e.closeWrite()
	r.step()
	r.wants("DATA 1 ack 0 1232 bytes", "DATA 2 ack 0 1232 bytes", "FIN 3 ack 0")
	require.Zero(t, r.e.write(zeros[:10], r.now))
	// The other end's end comes before what it wrote last.
	r.in("FIN 3 ack 0", "DATA 1 ack 0 10 bytes")
	require.False(t, r.e.eof())
	r.in("DATA 4 ack 0 10 bytes") // nothing comes after the end
	r.sent = nil
	r.in("DATA 2 ack 3 10 bytes")
	r.wants("STATE 4 ack 3")
	require.Equal(t, 20, r.e.read(make([]byte, 100), r.now))
	require.True(t, r.e.eof())
	r.e.close(r.now)
	r.in("FIN 3 ack 3") // our acknowledgement was lost
	r.wants("STATE 4 ack 3")
	r.later(2 * time.Second)
	r.wants()
	require.Equal(t, closed, r.e.state)
	require.NoError(t, r.e.err)
}

func TestCloseDeliversWhatWasWritten(t *testing.T) {
	r := dialed(t)
	r.write(1232)
	r.e.close(r.now)
	r.step()
	r.wants("DATA 1 ack 0 1232 bytes", "FIN 2 ack 0")
	r.in("DATA 1 ack 0 1000 bytes") // dropped, but acknowledged
	r.later(ackDelay)
	r.wants("STATE 3 ack 1")
	r.in("STATE 2 ack 2")
	require.Equal(t, connected, r.e.state)
	// Now all has arrived, and more makes no sense.
	r.in("DATA 2 ack 2 1000 bytes")
	r.wants("RESET 3 ack 1")
	require.Equal(t, closed, r.e.state)
	require.Zero(t, r.memory.lent)
}

func TestCloseGivesUp(t *testing.T) {
	r := dialed(t)
	r.write(1232)
	r.e.close(r.now)
	r.step()
	r.sent = nil
	r.later(lingerFor)
	require.Equal(t, closed, r.e.state)
	require.Equal(t, "RESET 3 ack 0", r.sent[len(r.sent)-1])
}

// An end that takes a little data now and then cannot keep a closed connection forever.
func TestCloseGivesUpOnATrickle(t *testing.T) {
	r := dialed(t)
	r.write(50 * 1232)
	r.e.close(r.now)
	began := r.now
	for i := 1; i <= 50 && r.e.state == connected; i++ {
		r.later(lingerFor / 2)
		r.in(fmt.Sprintf("STATE 1 ack %d", i))
	}
	require.Equal(t, closed, r.e.state)
	require.InDelta(t, longestLinger.Seconds(), (r.now - began).Seconds(), 1)
	require.Equal(t, "RESET 52 ack 0", r.sent[len(r.sent)-1])
	require.Zero(t, r.memory.lent)
}
