package utp

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rig is one endpoint whose packets are played in and out by hand. Sequence numbers are told relative to
// the first of data, 1, of each side.
type rig struct {
	t      *testing.T
	e      *endpoint
	now    time.Duration
	memory plain
	theirs uint16 // number of the packet before the other end's first of data
	sent   []string
	last   []byte
	room   uint32 // that the other end tells of
	full   bool   // nothing can be sent for now
	probes error
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, e: new(endpoint), now: time.Hour, theirs: 65533, room: 1 << 20, probes: errors.ErrUnsupported}
	r.e.init(&r.memory, new(guesses), false, r.now)
	return r
}

const (
	ours          = 65530 // the number before our first of data: all tests go round soon
	roundTripTime = 40 * time.Millisecond
)

// dialed is the end that began a connection.
func dialed(t *testing.T) *rig {
	r := newRig(t)
	r.e.dial(100, ours, r.now)
	r.step()
	r.wants("SYN")
	r.now += roundTripTime
	r.in("STATE 1 ack 0")
	require.Equal(t, connected, r.e.state)
	r.later(confirmDelay)
	r.wants("STATE 1 ack 0")
	r.e.mtu.stop()
	return r
}

// answered is the end that answered a SYN.
func answered(t *testing.T) *rig {
	r := newRig(t)
	r.e.answer(&packet{header: header{kind: typeSyn, id: 99, seq: r.theirs, stamp: stamp(r.now)}}, ours+1, r.now)
	r.step()
	r.wants("STATE 1 ack 0")
	r.now += roundTripTime
	r.in("STATE 1 ack 0")
	require.Equal(t, connected, r.e.state)
	r.wants()
	r.e.mtu.stop()
	return r
}

func (r *rig) send(p []byte, segment int) (int, error) {
	if r.full {
		return 0, nil
	}
	if segment == 0 {
		segment = len(p)
	}
	for b := p; len(b) > 0; {
		n := min(segment, len(b))
		r.sent = append(r.sent, r.describe(b[:n]))
		r.last = append([]byte(nil), b[:n]...)
		b = b[n:]
	}
	return len(p), nil
}

func (r *rig) probe(p []byte) error {
	if r.probes == nil {
		r.sent = append(r.sent, "probe "+r.describe(p))
	}
	return r.probes
}

func (r *rig) describe(b []byte) string {
	var p packet
	require.True(r.t, p.parse(b))
	if p.kind == typeSyn {
		require.Equal(r.t, r.e.recvID, p.id)
		return "SYN"
	}
	require.Equal(r.t, r.e.sendID, p.id)
	kind := [...]string{"DATA", "FIN", "STATE", "RESET"}[p.kind]
	s := fmt.Sprintf("%s %d ack %d", kind, p.seq-ours, p.ack-r.theirs)
	for first, mask := range p.ext.masks() {
		var bits []string
		for i := range 8 * len(mask) {
			if mask[i/8]>>(i%8)&1 != 0 {
				bits = append(bits, fmt.Sprint(p.ack-r.theirs+2+uint16(first+i)))
			}
		}
		s += " and " + strings.Join(bits, ",")
	}
	if len(p.payload) > 0 {
		s += fmt.Sprintf(" %d bytes", len(p.payload))
	}
	return s
}

// in has packets arrive at once, told as describe tells them.
func (r *rig) in(packets ...string) {
	r.t.Helper()
	for _, s := range packets {
		p := packet{header: header{id: r.e.recvID, window: r.room, stamp: stamp(r.now), diff: 1000}}
		word := strings.Fields(s)
		p.kind = map[string]packetType{"DATA": typeData, "FIN": typeFin, "STATE": typeState, "RESET": typeReset, "SYN": typeSyn}[word[0]]
		var seq, ack int
		fmt.Sscan(word[1], &seq)
		fmt.Sscan(word[3], &ack)
		p.seq, p.ack = r.theirs+uint16(seq), ours+uint16(ack)
		for word = word[4:]; len(word) > 0; word = word[2:] {
			switch {
			case word[0] == "and":
				mask := make([]byte, 32)
				for _, bit := range strings.Split(word[1], ",") {
					var n int
					fmt.Sscan(bit, &n)
					n -= ack + 2
					mask[n/8] |= 1 << (n % 8)
				}
				p.ext = extensions{extensionSelective, append([]byte{0, byte(len(mask))}, mask...)}
			default:
				var n int
				fmt.Sscan(word[0], &n)
				p.payload = zeros[:n]
			}
		}
		r.e.receive(&p, r.now)
	}
	r.step()
}

func (r *rig) step() { r.e.transmit(r.now, r) }

// later lets time pass, with all that is due in it.
func (r *rig) later(d time.Duration) {
	end := r.now + d
	for {
		due := r.e.due()
		if due == 0 || due > end {
			break
		}
		r.now = max(due, r.now)
		r.e.tick(r.now)
		r.step()
	}
	r.now = end
}

// wants has the packets that were sent since it was called last compared.
func (r *rig) wants(packets ...string) {
	r.t.Helper()
	sent := r.sent
	r.sent = nil
	if len(packets) == 0 {
		require.Empty(r.t, sent)
		return
	}
	require.Equal(r.t, packets, sent)
}

func (r *rig) write(n int) {
	r.t.Helper()
	require.Equal(r.t, n, r.e.write(zeros[:n], r.now))
	r.step()
}

func TestSynIsRepeatedTwice(t *testing.T) {
	r := newRig(t)
	r.e.dial(100, ours, r.now)
	r.step()
	r.wants("SYN")
	r.later(3*time.Second - 1)
	r.wants()
	r.later(1)
	r.wants("SYN")
	r.later(6 * time.Second)
	r.wants("SYN")
	r.later(12 * time.Second)
	r.wants()
	require.Equal(t, closed, r.e.state)
	require.ErrorIs(t, r.e.err, syscall.ETIMEDOUT)
}

func TestDialingTakesOnlyTheAnswerToItsSyn(t *testing.T) {
	r := newRig(t)
	r.e.dial(100, ours, r.now)
	r.step()
	r.wants("SYN")
	r.in("STATE 1 ack 1", "STATE 1 ack -1", "DATA 1 ack 0 10 bytes", "FIN 1 ack 0", "RESET 1 ack 5")
	require.Equal(t, dialing, r.e.state)
	r.wants()
	r.in("RESET 1 ack 0")
	require.Equal(t, closed, r.e.state)
	require.ErrorIs(t, r.e.err, syscall.ECONNREFUSED)
	r.wants()
}

func TestAnswerIsRepeatedForEachSyn(t *testing.T) {
	r := newRig(t)
	r.e.answer(&packet{header: header{kind: typeSyn, id: 99, seq: r.theirs, stamp: stamp(r.now)}}, ours+1, r.now)
	r.step()
	r.wants("STATE 1 ack 0")
	r.later(5 * time.Second)
	r.wants() // one answer a SYN
	r.in("SYN 0 ack 0")
	r.wants("STATE 1 ack 0")
	r.in("SYN 7 ack 0") // another's
	r.wants()
	r.in("STATE 1 ack 3") // proves nothing
	require.Equal(t, answering, r.e.state)
	r.in("DATA 1 ack 0 10 bytes")
	require.Equal(t, connected, r.e.state)
	r.in("SYN 0 ack 0")
	r.later(ackDelay)
	r.wants("STATE 1 ack 1")
}

func TestUnconfirmedEnds(t *testing.T) {
	r := newRig(t)
	r.e.answer(&packet{header: header{kind: typeSyn, id: 99, seq: r.theirs, stamp: stamp(r.now)}}, ours+1, r.now)
	r.step()
	r.wants("STATE 1 ack 0")
	r.later(unconfirmedFor)
	require.Equal(t, closed, r.e.state)
	r.wants()
}

// One who dials and then only listens says again and again that the connection stands, until it hears
// something.
func TestConfirmationIsRepeated(t *testing.T) {
	r := dialed(t)
	for _, wait := range []time.Duration{1, 2, 4, 8} {
		r.later(wait*time.Second - confirmDelay)
		r.wants()
		r.later(confirmDelay)
		r.wants("STATE 1 ack 0")
	}
	r.in("DATA 1 ack 0 10 bytes")
	r.later(ackDelay)
	r.wants("STATE 1 ack 1")
	r.later(keepAlive - 1)
	r.wants()
	r.later(1)
	r.wants("STATE 1 ack 1")
}

func TestAcknowledgements(t *testing.T) {
	r := answered(t)
	r.in("DATA 1 ack 0 10 bytes")
	r.wants() // waits for company
	r.later(ackDelay)
	r.wants("STATE 1 ack 1")
	r.in("DATA 2 ack 0 10 bytes", "DATA 3 ack 0 10 bytes", "DATA 4 ack 0 10 bytes")
	r.wants("STATE 1 ack 4") // one for all that came at once
	r.in("DATA 5 ack 0 10 bytes")
	r.write(100)
	r.wants("DATA 1 ack 5 100 bytes") // goes along
	r.later(ackDelay)
	r.wants()
	r.in("DATA 3 ack 1 10 bytes")
	r.wants("STATE 2 ack 5") // known: the other end wants to hear that
}

func TestSelectiveAcknowledgement(t *testing.T) {
	r := answered(t)
	r.in("DATA 2 ack 0 10 bytes")
	r.wants("STATE 1 ack 0 and 2")
	r.in("DATA 4 ack 0 10 bytes", "DATA 7 ack 0 10 bytes")
	r.wants("STATE 1 ack 0 and 2,4,7")
	r.in("DATA 1 ack 0 10 bytes")
	r.wants("STATE 1 ack 2 and 4,7")
	r.in("DATA 6 ack 0 10 bytes", "DATA 5 ack 0 10 bytes", "DATA 3 ack 0 10 bytes")
	r.wants("STATE 1 ack 7")
	require.Equal(t, 70, r.e.read(make([]byte, 100), r.now))
}

// A gap is told of from end to end, however long it is.
func TestSelectiveAcknowledgementOverALongGap(t *testing.T) {
	r := answered(t)
	r.e.in.capacity = 16 << 20
	r.in("DATA 5000 ack 0 10 bytes")
	r.wants("STATE 1 ack 0 and  and  and 5000")
}

// A packet that acknowledges what was under way long ago, or never, is of one who does not see the packets.
func TestAcknowledgementsThatAreGuessed(t *testing.T) {
	r := dialed(t)
	r.in("DATA 1 ack -1 10 bytes", "DATA 1 ack 1 10 bytes")
	r.wants()
	for range 10 {
		r.write(2 * 1232)
		r.sent = nil
		r.in(fmt.Sprintf("STATE 1 ack %d", r.e.out.nxt-1-ours))
	}
	r.in("DATA 1 ack 5 10 bytes", "DATA 1 ack 11 10 bytes")
	require.Zero(t, r.e.in.ready)
	r.in("DATA 1 ack 6 10 bytes")
	require.Equal(t, 10, r.e.in.ready, "overtaken by two round trips")
}

// An end that has long had no room is given as much time as any other when the path fails.
func TestPathFailsBesideAPeerWithoutRoom(t *testing.T) {
	r := dialed(t)
	r.room = 0
	r.write(1232)
	r.in("STATE 1 ack 0")
	began := r.now
	for r.now-began < 10*time.Minute {
		r.sent = nil
		for len(r.sent) == 0 {
			r.later(50 * time.Millisecond)
		}
		r.in("STATE 1 ack 0")
	}
	began = r.now
	for r.e.state == connected {
		r.later(50 * time.Millisecond)
	}
	require.Greater(t, r.now-began, giveUp)
}

func TestPeerWithoutRoom(t *testing.T) {
	r := dialed(t)
	r.room = 2 * 1232
	r.in("STATE 1 ack 0")
	r.write(6 * 1232)
	r.wants("DATA 1 ack 0 1232 bytes", "DATA 2 ack 0 1232 bytes")
	r.later(30 * time.Millisecond)
	r.room = 0
	r.in("STATE 1 ack 2")
	r.wants()
	window := r.e.cong.allowed()
	// It is asked again whether there is room, ever more seldom, but never given up while it answers.
	for range 200 {
		began := r.now
		for len(r.sent) == 0 {
			r.later(50 * time.Millisecond)
		}
		r.wants("DATA 3 ack 0 1232 bytes")
		require.LessOrEqual(t, r.now-began, longestPersist+50*time.Millisecond)
		r.in("STATE 1 ack 2")
	}
	require.Equal(t, connected, r.e.state)
	require.Equal(t, window, r.e.cong.allowed(), "it says nothing about the path")
	r.sent = nil
	r.room = 1 << 20
	r.in("STATE 1 ack 2")
	require.Contains(t, r.sent, "DATA 4 ack 0 1232 bytes", "room is used at once")
}

func TestRoomIsToldWhenThereIsSomeAgain(t *testing.T) {
	r := answered(t)
	r.e.in.capacity, r.e.in.told = 3000, 3000
	r.in("DATA 1 ack 0 1400 bytes", "DATA 2 ack 0 1400 bytes")
	r.wants("STATE 1 ack 2")
	require.Equal(t, 200, r.e.in.told)
	r.in("DATA 3 ack 0 1400 bytes") // more than was allowed, but there is room as long as not all is full
	r.later(ackDelay)
	r.wants("STATE 1 ack 3")
	r.in("DATA 4 ack 0 1400 bytes")
	r.wants("STATE 1 ack 3")
	r.e.read(make([]byte, 1000), r.now)
	r.step()
	r.wants() // hardly worth it
	r.e.read(make([]byte, 3000), r.now)
	r.step()
	r.wants("STATE 1 ack 3")
	require.Equal(t, 2800, r.e.in.told)
}

// A packet that is not full waits for more data while the next acknowledgement is near, and not otherwise.
func TestSmallWrites(t *testing.T) {
	r := dialed(t)
	r.write(10)
	r.write(20)
	r.wants("DATA 1 ack 0 10 bytes", "DATA 2 ack 0 20 bytes")
	r.write(8 * 1232)
	r.sent = nil
	r.write(100)
	r.write(200)
	r.wants()
	r.in("STATE 1 ack 9")
	r.wants("DATA 11 ack 0 300 bytes")
}

func TestNoRoomInTheSystem(t *testing.T) {
	r := dialed(t)
	r.full = true
	r.write(3 * 1232)
	require.Zero(t, r.e.out.underway)
	r.later(10 * time.Millisecond)
	r.wants()
	r.full = false
	r.later(stallPause)
	r.wants("DATA 1 ack 0 1232 bytes", "DATA 2 ack 0 1232 bytes", "DATA 3 ack 0 1232 bytes")
}

func TestProbe(t *testing.T) {
	r := dialed(t)
	r.e.mtu = newMTUSearch(false)
	r.probes = nil
	r.write(5000)
	r.wants("probe DATA 1 ack 0 1452 bytes", "DATA 2 ack 0 1232 bytes", "DATA 3 ack 0 1232 bytes", "DATA 4 ack 0 1084 bytes")
	r.later(roundTripTime)
	window := r.e.cong.allowed()
	r.in("STATE 1 ack 0 and 2,3,4")
	r.wants("DATA 1 ack 0 1452 bytes") // may be fragmented now
	require.GreaterOrEqual(t, r.e.cong.allowed(), window, "a lost probe is no congestion")
	require.EqualValues(t, safeIPv4, r.e.mtu.size)
	r.in("STATE 1 ack 4")
	require.EqualValues(t, safeIPv4, r.e.mtu.size, "what was fragmented proves nothing")
	r.later(time.Second)
	r.write(5000)
	require.Equal(t, "probe DATA 5 ack 0 1452 bytes", r.sent[0])
	r.in("STATE 1 ack 8")
	require.EqualValues(t, largestIPv4, r.e.mtu.size)
}

// A probe that was sent twice, as the tail, proves nothing, and another follows.
func TestProbeThatWasTheTail(t *testing.T) {
	r := dialed(t)
	r.e.mtu = newMTUSearch(false)
	r.probes = nil
	r.write(2 * largestIPv4)
	require.Equal(t, "probe DATA 1 ack 0 1452 bytes", r.sent[0])
	r.in("STATE 1 ack 0 and 2")
	r.in("STATE 1 ack 0 and 2,3") // the probe alone is still under way
	r.sent = nil
	r.later(400 * time.Millisecond)
	require.Contains(t, r.sent, "DATA 1 ack 0 1452 bytes")
	r.in("STATE 1 ack 3")
	require.EqualValues(t, safeIPv4, r.e.mtu.size)
	r.later(time.Second)
	r.sent = nil
	r.write(2 * largestIPv4)
	require.Equal(t, "probe DATA 4 ack 0 1452 bytes", r.sent[0])
}

func TestProbeThatTheSystemRefuses(t *testing.T) {
	r := dialed(t)
	r.e.mtu = newMTUSearch(false)
	r.probes = syscall.EMSGSIZE
	r.write(5000)
	require.Equal(t, "DATA 1 ack 0 1452 bytes", r.sent[0])
	require.Less(t, int(r.e.mtu.ceiling), 1472)
	require.NotZero(t, r.e.mtu.probe(r.now+time.Second))

	r = dialed(t)
	r.e.mtu = newMTUSearch(false)
	r.write(5000)
	require.Equal(t, "DATA 1 ack 0 1452 bytes", r.sent[0])
	require.Zero(t, r.e.mtu.probe(r.now+time.Second), "it cannot be done here")
}

func TestBlackHole(t *testing.T) {
	r := dialed(t)
	r.write(2 * 1232)
	r.later(10 * time.Second)
	require.EqualValues(t, smallestIPv4, r.e.mtu.size)
}

// An idle connection holds no memory but its own.
func TestIdleHoldsNothing(t *testing.T) {
	r := dialed(t)
	for seq := 1; seq < 200; seq += 2 {
		r.write(3000)
		r.later(roundTripTime)
		ack := r.e.out.nxt - 1 - ours
		r.in(fmt.Sprintf("DATA %d ack %d 1000 bytes", seq+1, ack), fmt.Sprintf("DATA %d ack %d 1000 bytes", seq, ack))
		r.e.read(make([]byte, 5000), r.now)
	}
	r.in(fmt.Sprintf("STATE 1 ack %d", r.e.out.nxt-1-ours))
	r.later(time.Minute)
	require.Zero(t, r.memory.lent)
	require.LessOrEqual(t, cap(r.e.out.ring), 16)
	require.LessOrEqual(t, cap(r.e.in.ring), 16)
	require.LessOrEqual(t, cap(r.e.in.queue), 8)
}
