package utp_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/utp"
)

// blindAcker is the other end of a connection that we accepted, and acknowledges what was sent to it without a look at what came.
type blindAcker struct {
	s *utp.Socket
	n *network

	// Guarded by n.mu.
	sent   int    // bytes of data to it
	next   uint16 // the number after that of the last packet to it
	resets int

	said uint16 // to have arrived
}

// accept makes the connection, whose packets go nowhere.
func (l *blindAcker) accept(t *testing.T) net.Conn {
	l.n = newNetwork()
	l.s = l.n.socket(t, there, 0)
	l.n.set(func() {
		l.n.tap = func(p []byte, _, _ netip.AddrPort) {
			const data, state, reset = 0, 2, 3
			seq := binary.BigEndian.Uint16(p[16:])
			switch p[0] >> 4 {
			case data:
				l.sent += len(p)
				if int16(seq+1-l.next) > 0 {
					l.next = seq + 1
				}
			case state:
				l.next = seq
			case reset:
				l.resets++
			}
		}
	})
	listener, err := l.s.Listen()
	require.NoError(t, err)
	l.s.Receive(synPacket(100, 7), 20, netip.MustParseAddrPort(here))
	l.s.Flush()
	l.acknowledge(l.last())
	c, err := listener.Accept()
	require.NoError(t, err)
	return c
}

// acknowledge says that everything up to a packet has arrived.
func (l *blindAcker) acknowledge(last uint16) { l.send(l.packet(last)) }

// acknowledgeAlone says that of what is still missing only one packet has arrived.
func (l *blindAcker) acknowledgeAlone(last uint16) {
	if bit := int(last-l.said) - 2; bit >= 0 && bit < 8*252 {
		mask := make([]byte, bit/32*4+4)
		mask[bit/8] |= 1 << (bit % 8)
		b := l.packet(l.said)
		b[1] = 1
		l.send(append(append(b, 0, byte(len(mask))), mask...))
	}
}

func (l *blindAcker) last() (last uint16) {
	l.n.set(func() { last = l.next - 1 })
	return last
}

func (l *blindAcker) packet(ack uint16) []byte {
	b := synPacket(101, 8)
	b[0] = 0x21
	binary.BigEndian.PutUint32(b[4:], uint32(time.Now().UnixMicro()))
	binary.BigEndian.PutUint32(b[8:], 1000)
	binary.BigEndian.PutUint32(b[12:], 1<<30)
	binary.BigEndian.PutUint16(b[18:], ack)
	l.said = ack
	return b
}

func (l *blindAcker) send(b []byte) {
	l.s.Receive(b, len(b), netip.MustParseAddrPort(here))
	l.s.Flush()
}

// An end that acknowledges whatever was sent, although it did not arrive, gets few packets, whether it does so at once, or when
// what is missing would have been sent again to one that told the truth. No loss would ever tell us to send less.
func TestAcknowledgementsOfWhatDidNotArrive(t *testing.T) {
	for _, lie := range []struct {
		name      string
		lastFirst bool // the last packet, which did arrive, is acknowledged before the others
		wait      time.Duration
	}{{"at once", false, 0}, {"the last first", true, 15 * time.Millisecond}, {"late", false, 250 * time.Millisecond}} {
		t.Run(lie.name, func(t *testing.T) {
			for range 20 {
				synctest.Test(t, func(t *testing.T) {
					l := &blindAcker{}
					c := l.accept(t)
					written := make(chan error, 1)
					go func() {
						for {
							if _, err := c.Write(make([]byte, 64<<10)); err != nil {
								written <- err
								return
							}
						}
					}()
					began := time.Now()
					sent := 0
					for over := false; !over; {
						time.Sleep(20 * time.Millisecond)
						last := l.last()
						if lie.lastFirst {
							l.acknowledgeAlone(last)
						}
						time.Sleep(lie.wait)
						l.acknowledge(last)
						l.n.set(func() { sent, over = l.sent, l.resets > 0 || l.sent > 100<<20 })
					}
					require.Less(t, sent, 200<<10)
					require.ErrorContains(t, <-written, "not sent")
					require.Less(t, time.Since(began), 20*time.Second)
					require.Equal(t, 0, utp.Connections(l.s))
				})
			}
		})
	}
}
