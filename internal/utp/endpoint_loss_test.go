package utp

import (
	"fmt"
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
	require.Positive(t, r.e.loss.patience)
	r.in("STATE 1 ack 4 and 6,7,8")
	r.wants() // another time it is given time
}

// withholding11 is an end that has withheld its eleventh packet.
func withholding11(t *testing.T) *rig {
	r := dialed(t)
	r.e.withheld = withholding{lot: 1 << 40, due: r.e.out.order + 10}
	r.write(40 * 1232)
	r.later(roundTripTime)
	r.sent = nil
	r.in("STATE 1 ack 2")
	r.wants("DATA 12 ack 0 1232 bytes", "DATA 13 ack 0 1232 bytes", "DATA 14 ack 0 1232 bytes", "DATA 15 ack 0 1232 bytes")
	return r
}

// A packet that was withheld is sent before all others once it counts as lost, or after a time-out if the other end does not tell of
// packets out of order. To acknowledge it before, alone or with others, is a lie.
func TestWithheldPacket(t *testing.T) {
	const packet = "DATA 11 ack 0 1232 bytes"
	r := withholding11(t)
	r.later(roundTripTime)
	r.in("STATE 1 ack 10")
	r.in("STATE 1 ack 10 and 12")
	r.in("STATE 1 ack 10 and 12,13")
	require.NotContains(t, r.sent, packet, "it does not count as lost yet")
	r.later(time.Millisecond)
	r.sent = nil
	window := r.e.cong.window
	r.in("STATE 1 ack 10 and 12,13,14")
	r.later(5 * time.Millisecond)
	require.Equal(t, packet, r.sent[0])
	require.GreaterOrEqual(t, r.e.cong.window, window, "nothing was lost")
	r.in("STATE 1 ack 15")
	require.Equal(t, connected, r.e.state)

	r = withholding11(t)
	r.later(roundTripTime)
	r.in("STATE 1 ack 10 and 12")
	r.later(roundTripTime / 2)
	require.Contains(t, r.sent, packet, "it is late")

	r = withholding11(t)
	r.later(roundTripTime)
	r.in("STATE 1 ack 10")
	window = r.e.cong.window
	r.later(2 * roundTripTime)
	require.NotContains(t, r.sent, packet)
	r.later(minTimeout)
	require.Contains(t, r.sent, packet)
	require.Equal(t, window, r.e.cong.window)
	r.in("STATE 1 ack 15")
	require.Equal(t, connected, r.e.state)

	for _, lie := range []string{"STATE 1 ack 11", "STATE 1 ack 15", "STATE 1 ack 9 and 11", "DATA 1 ack 12 100 bytes"} {
		for _, before := range []func(*rig){
			func(r *rig) {},
			func(r *rig) { r.in("STATE 1 ack 2 and 12"); r.later(10 * time.Millisecond) },
			func(r *rig) { r.later(firstTimeout); r.in("STATE 1 ack 2 and 15"); r.later(10 * time.Millisecond) },
			func(r *rig) { r.room = 0; r.in("STATE 1 ack 2"); r.later(2 * firstTimeout); r.room = 1 << 20 },
		} {
			r = withholding11(t)
			before(r)
			require.NotContains(t, r.sent, packet)
			r.sent = nil
			r.in(lie)
			r.wants("RESET 41 ack 0")
			require.Equal(t, errNotSent, r.e.err)
			require.Zero(t, r.memory.lent)
		}
	}
}

// That packets came late takes back what their loss had led to, but only a few times: one who lies could always say so. Instead we wait
// longer before packets count as lost.
func TestLateArrivalsAreBelievedAFewTimes(t *testing.T) {
	r := dialed(t)
	for round := range 3 * mostPatience {
		r.e.write(zeros[:40*1232], r.now)
		r.step()
		first, last := int(r.e.out.una-ours), int(r.e.out.nxt-ours)-1
		r.e.cong.undo = 0
		r.later(roundTripTime / 2)
		r.in(fmt.Sprintf("STATE 1 ack %d and %d,%d,%d", first-1, last-2, last-1, last))
		for r.e.cong.undo == 0 { // losses have not counted yet
			r.later(time.Millisecond)
		}
		before := r.e.cong.undo
		r.in(fmt.Sprintf("STATE 1 ack %d", last))
		require.Equal(t, round < mostPatience, r.e.cong.window >= before, round)
		require.Equal(t, min(round+1, mostPatience), r.e.loss.patience)
		for r.e.out.una != r.e.out.end { // the rest
			r.later(roundTripTime)
			r.in(fmt.Sprintf("STATE 1 ack %d", int(r.e.out.nxt-ours)-1))
		}
	}
}

// Some take no packet for which they have no room, not even the one that those after it wait for. So what is withheld keeps its room.
func TestWithheldPacketKeepsItsRoom(t *testing.T) {
	r := withholding11(t)
	r.write(20 * 1232)
	r.sent = nil
	r.later(roundTripTime)
	r.room = 5 * 1232 // for 11 to 15
	r.in("STATE 1 ack 10")
	r.wants()
	r.room = 1232
	r.in("STATE 1 ack 10 and 12,13,14,15")
	r.later(5 * time.Millisecond)
	r.wants("DATA 11 ack 0 1232 bytes")
}
