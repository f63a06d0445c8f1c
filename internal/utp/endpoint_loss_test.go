package utp

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLossByLaterPackets(t *testing.T) {
	r := dialed(t)
	r.write(10 * 1232)
	r.sent = nil
	r.later(roundTripTime)
	r.in("STATE 1 ack 1")
	r.sent = nil
	r.in("STATE 1 ack 1 and 3")
	r.in("STATE 1 ack 1 and 3,4")
	r.wants() // two later packets prove nothing
	r.in("STATE 1 ack 1 and 3,4,5")
	r.wants("DATA 2 ack 0 1232 bytes")
	r.in("STATE 1 ack 1 and 3,4,5,6,7,8")
	r.wants() // once
	r.in("STATE 1 ack 8")
	require.Equal(t, 2*1232, r.e.out.underway)
}

func TestLossByTime(t *testing.T) {
	r := dialed(t)
	r.write(3 * 1232)
	r.later(roundTripTime)
	r.sent = nil
	r.in("STATE 1 ack 0 and 2")
	r.wants()
	due := r.e.rtt.smoothed * 5 / 4
	r.later(due - roundTripTime - 1)
	r.wants()
	r.later(1)
	r.wants("DATA 1 ack 0 1232 bytes")
}

// The loss of a retransmission is detected by packets that were sent after it.
func TestLossOfARepetition(t *testing.T) {
	r := dialed(t)
	r.write(6 * 1232)
	r.later(roundTripTime)
	r.sent = nil
	r.in("STATE 1 ack 0 and 2,3,4")
	r.wants("DATA 1 ack 0 1232 bytes")
	r.write(4 * 1232)
	r.sent = nil
	r.later(roundTripTime)
	r.in("STATE 1 ack 0 and 2,3,4,5,6,7,8,9")
	r.wants("DATA 1 ack 0 1232 bytes")
}

func TestTailIsProbedBeforeTheTimeout(t *testing.T) {
	r := dialed(t)
	r.write(3 * 1232)
	r.later(roundTripTime)
	r.sent = nil
	r.in("STATE 1 ack 1")
	r.wants()
	before := r.e.cong.allowed()
	r.later(r.e.rtt.probeTimeout())
	r.wants("DATA 3 ack 0 1232 bytes")
	require.Less(t, r.now, r.e.timers.retransmit)
	r.later(roundTripTime)
	r.in("STATE 1 ack 1 and 3")
	r.wants("DATA 2 ack 0 1232 bytes") // sent long before the probe
	require.Equal(t, before, r.e.cong.allowed(), "one packet is the line's fault")
}

func TestTimeouts(t *testing.T) {
	r := dialed(t)
	r.write(8 * 1232)
	r.later(roundTripTime)
	r.in("STATE 1 ack 1")
	r.later(200 * time.Millisecond)
	r.sent = nil
	wait := r.e.timers.retransmit - r.now
	r.later(wait)
	r.wants("DATA 2 ack 0 1232 bytes", "DATA 3 ack 0 1232 bytes") // as far as the smallest window goes
	r.later(2*minTimeout - 1)
	r.wants()
	r.later(1)
	r.wants("DATA 2 ack 0 1232 bytes", "DATA 3 ack 0 1232 bytes")
	r.later(4 * minTimeout)
	require.Equal(t, 2, len(r.sent))
	r.sent = nil
	// A sign of life, and it is tried again soon.
	r.in("STATE 1 ack 1")
	r.wants()
	r.later(minTimeout)
	r.wants("DATA 2 ack 0 1232 bytes", "DATA 3 ack 0 1232 bytes")
	r.later(4 * minTimeout) // not as late as after all those before
	r.wants("DATA 2 ack 0 1232 bytes", "DATA 3 ack 0 1232 bytes")
	r.later(giveUp + longestTimeout)
	require.Equal(t, closed, r.e.state)
	require.ErrorIs(t, r.e.err, syscall.ETIMEDOUT)
	require.Zero(t, r.memory.lent)
}

// A pause of the whole path looks like a loss of everything, until what was under way arrives all the same.
func TestTimeoutThatWasNone(t *testing.T) {
	r := dialed(t)
	r.write(8 * 1232)
	r.later(roundTripTime)
	r.in("STATE 1 ack 1")
	before := r.e.cong.allowed()
	r.later(600 * time.Millisecond)
	r.sent = nil
	require.Less(t, r.e.cong.allowed(), before)
	r.in("STATE 1 ack 5")
	require.GreaterOrEqual(t, r.e.cong.allowed(), before)
	r.wants() // the rest will come, too
	r.in("STATE 1 ack 8")
	require.Zero(t, r.e.out.underway)
}

func TestReorderingIsNoLoss(t *testing.T) {
	r := dialed(t)
	r.write(8 * 1232)
	r.later(roundTripTime)
	r.in("STATE 1 ack 0 and 2,3,4")
	r.sent = nil
	r.later(2 * time.Millisecond)
	r.in("STATE 1 ack 4") // sooner than anything sent again could
	require.True(t, r.e.loss.patient)
	r.in("STATE 1 ack 4 and 6,7,8")
	r.wants() // another time it is given time
}

// withholding11 is an end that has withheld its eleventh packet.
func withholding11(t *testing.T) *rig {
	r := dialed(t)
	r.e.withheld = withholding{lot: 1, due: r.e.out.order + 10}
	r.write(40 * 1232)
	r.later(roundTripTime)
	r.sent = nil
	r.in("STATE 1 ack 2")
	r.wants("DATA 12 ack 0 1232 bytes", "DATA 13 ack 0 1232 bytes", "DATA 14 ack 0 1232 bytes", "DATA 15 ack 0 1232 bytes")
	return r
}

// A packet that was withheld is sent before all others once a later one has arrived, or somewhat later than that could be if the other
// end does not tell of packets out of order. To acknowledge it before, alone or with others, is a lie.
func TestWithheldPacket(t *testing.T) {
	const packet = "DATA 11 ack 0 1232 bytes"
	r := withholding11(t)
	r.later(roundTripTime)
	r.in("STATE 1 ack 10")
	require.NotContains(t, r.sent, packet)
	r.later(time.Millisecond)
	require.NotContains(t, r.sent, packet)
	r.sent = nil
	window := r.e.cong.window
	r.in("STATE 1 ack 10 and 12")
	r.later(5 * time.Millisecond)
	require.Equal(t, packet, r.sent[0])
	require.GreaterOrEqual(t, r.e.cong.window, window, "nothing was lost")
	r.in("STATE 1 ack 15")
	require.Equal(t, connected, r.e.state)

	r = withholding11(t)
	r.later(roundTripTime * 3 / 2)
	require.NotContains(t, r.sent, packet)
	r.later(roundTripTime)
	require.Contains(t, r.sent, packet)
	r.in("STATE 1 ack 15")
	require.Equal(t, connected, r.e.state)

	for _, lie := range []string{"STATE 1 ack 11", "STATE 1 ack 15", "STATE 1 ack 9 and 11", "DATA 1 ack 12 100 bytes"} {
		r = withholding11(t)
		r.in(lie)
		r.wants("RESET 41 ack 0")
		require.Equal(t, errNotSent, r.e.err)
		require.Zero(t, r.memory.lent)
	}
}
