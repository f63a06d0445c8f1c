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
	l.acknowledge()
	c, err := listener.Accept()
	require.NoError(t, err)
	return c
}

// acknowledge says that everything has arrived.
func (l *blindAcker) acknowledge() {
	b := synPacket(101, 8)
	b[0] = 0x21
	binary.BigEndian.PutUint32(b[4:], uint32(time.Now().UnixMicro()))
	binary.BigEndian.PutUint32(b[8:], 1000)
	binary.BigEndian.PutUint32(b[12:], 1<<30)
	l.n.set(func() { binary.BigEndian.PutUint16(b[18:], l.next-1) })
	l.s.Receive(b, len(b), netip.MustParseAddrPort(here))
	l.s.Flush()
}

// An end that acknowledges whatever was sent, although it did not arrive, gets few packets. No loss would ever tell us to send less.
func TestAcknowledgementsOfWhatDidNotArrive(t *testing.T) {
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
				l.acknowledge()
				l.n.set(func() { sent, over = l.sent, l.resets > 0 || l.sent > 100<<20 })
			}
			require.Less(t, sent, 200<<10)
			require.ErrorContains(t, <-written, "not sent")
			require.Less(t, time.Since(began), 10*time.Second)
			require.Equal(t, 0, utp.Connections(l.s))
		})
	}
}
