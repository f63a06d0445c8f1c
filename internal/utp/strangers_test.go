package utp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/utp"
)

// A flood of SYNs from addresses that are not theirs costs an answer each and a bounded number of
// connections, and others still get through.
func TestSynFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s1, s2 := n.socket(t, here, 0), n.socket(t, there, 40)
		l, err := s2.Listen()
		require.NoError(t, err)
		answers := 0
		n.set(func() {
			n.tap = func(_ []byte, from, _ netip.AddrPort) {
				if from == thereAddr {
					answers++
				}
			}
		})
		before := runtime.NumGoroutine()
		const flood = 20_000
		for i := range flood {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{1, byte(i >> 16), byte(i >> 8), byte(i)}), 1)
			s2.Receive(synPacket(uint16(i), uint16(i)), 20, from)
			s2.Flush()
		}
		synctest.Wait()
		require.Equal(t, flood, answers)
		require.LessOrEqual(t, runtime.NumGoroutine(), before+1)
		require.Equal(t, 40, utp.Connections(s2))
		c, err := s1.Dial(t.Context(), thereAddr)
		require.NoError(t, err)
		accepted, err := l.Accept()
		require.NoError(t, err)
		exchange(t, c, accepted, 1000)
		time.Sleep(time.Minute)
		require.Equal(t, 1, utp.Connections(s2), "the others are forgotten")
	})
}

// A flood of SYNs from addresses of all networks, as many as a line of 1 Mbit/s carries, keeps few from connecting whose packets take
// long.
func TestSynFloodFromEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.delay = 50 * time.Millisecond
		s1, s2 := n.socket(t, here, 0), n.socket(t, there, 0)
		l, err := s2.Listen()
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			random := rand.New(rand.NewPCG(1, 2))
			for i := uint16(0); ctx.Err() == nil; i++ {
				v := random.Uint32()
				from := netip.AddrFrom4([4]byte{11 + byte(v>>24)%200, byte(v >> 16), byte(v >> 8), byte(v)})
				s2.Receive(synPacket(i, i), 20, netip.AddrPortFrom(from, 1))
				s2.Flush()
				time.Sleep(time.Second / 2600)
			}
		}()
		time.Sleep(2 * time.Second)
		const dials = 50
		connected := 0
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go io.Copy(c, c)
			}
		}()
		for range dials {
			c, err := s1.Dial(ctx, thereAddr)
			if err != nil {
				continue
			}
			c.Write([]byte("hello"))
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.ReadFull(c, make([]byte, 5)); err == nil {
				connected++
			}
			c.Close()
		}
		cancel()
		assert.Greater(t, connected, dials/2)
		l.Close()
		time.Sleep(time.Minute)
	})
}

// A flood of SYNs from one network takes no place of others, however much faster it is than their round trips.
func TestSynFloodOfOneNetwork(t *testing.T) {
	for name, from := range map[string]func(i int) netip.Addr{
		"one address": func(int) netip.Addr { return netip.MustParseAddr("1.2.3.4") },
		"a /16":       func(i int) netip.Addr { return netip.AddrFrom4([4]byte{1, 2, byte(i >> 8), byte(i)}) },
		"a /48": func(i int) netip.Addr {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 0, byte(i >> 8), byte(i), 15: byte(i)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				n.delay = 150 * time.Millisecond
				s1, s2 := n.socket(t, here, 0), n.socket(t, there, 40)
				l, err := s2.Listen()
				require.NoError(t, err)
				over := make(chan struct{})
				defer close(over)
				go func() {
					for i := 0; ; i++ {
						s2.Receive(synPacket(uint16(i), uint16(i)), 20, netip.AddrPortFrom(from(i), uint16(1+i%60_000)))
						s2.Flush()
						select {
						case <-over:
							return
						case <-time.After(time.Second / 5000):
						}
					}
				}()
				time.Sleep(100 * time.Millisecond)
				time.AfterFunc(time.Minute, func() { l.Close() })
				for range 5 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					c, err := s1.Dial(ctx, thereAddr)
					cancel()
					require.NoError(t, err)
					accepted, err := l.Accept()
					require.NoError(t, err)
					exchange(t, c, accepted, 1000)
				}
			})
		})
	}
}

// A sender with a forged address does not see the answers to its SYNs, and cannot make a connection. It may guess the number
// that it has to acknowledge, even try them all, and see the clock of a connection of its own.
func TestForgedConfirmation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := n.socket(t, there, 0)
		l, err := s.Listen()
		require.NoError(t, err)
		time.Sleep(time.Hour)
		from := netip.MustParseAddrPort("10.1.0.1:1")
		s.Receive(synPacket(100, 7), 20, from)
		s.Flush()
		for ack := range 1 << 16 {
			b := synPacket(101, 8)
			b[0] = 0x21
			binary.BigEndian.PutUint32(b[4:], uint32(ack))
			binary.BigEndian.PutUint16(b[18:], uint16(ack))
			s.Receive(b, len(b), from)
		}
		// Who receives our answers still gets a connection.
		other := n.socket(t, here, 0)
		c, err := other.Dial(t.Context(), thereAddr)
		require.NoError(t, err)
		accepted, err := l.Accept()
		require.NoError(t, err)
		require.Equal(t, c.LocalAddr().String(), accepted.RemoteAddr().String())
		exchange(t, c, accepted, 1000)
		time.AfterFunc(time.Minute, func() { l.Close() })
		_, err = l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

// A RESET that only guesses harms nothing, and neither does any other packet.
func TestForgedPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		from := netip.MustParseAddrPort(here)
		r := rand.New(rand.NewPCG(3, 3))
		go func() {
			for range 2000 {
				b := make([]byte, r.IntN(60))
				for i := range b {
					b[i] = byte(r.Uint32())
				}
				if len(b) > 1 {
					b[0], b[1] = byte(r.IntN(5))<<4|1, byte(r.IntN(2))
				}
				p.s2.Receive(b, max(len(b), 1), from)
				p.s2.Flush()
				time.Sleep(time.Millisecond)
			}
		}()
		exchange(t, p.c1, p.c2, 1_000_000)
		time.Sleep(10 * time.Second)
	})
}

// nextPacket is a packet behind synPacket(100, 7), whose answer had the number theirs.
func nextPacket(kind byte, seq uint16, theirs []byte, size int) []byte {
	b := append(synPacket(101, seq), make([]byte, size)...)
	b[0] = kind<<4 | 1
	binary.BigEndian.PutUint16(b[18:], binary.BigEndian.Uint16(theirs)-1)
	return b
}

// A connection that makes room for another just after it was confirmed is not accepted, as no packet would reach it.
func TestConfirmedAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := n.socket(t, there, 1)
		l, err := s.Listen()
		require.NoError(t, err)
		from := netip.MustParseAddrPort(here)
		var theirs []byte
		n.tap = func(p []byte, _, to netip.AddrPort) {
			if to == from {
				theirs = append(theirs, p[16:18]...)
			}
		}
		s.Receive(synPacket(100, 7), 20, from)
		s.Flush()
		require.Len(t, theirs, 2)
		s.Receive(nextPacket(0, 8, theirs, 10), 30, from)
		s.Receive(synPacket(200, 7), 20, netip.MustParseAddrPort("10.0.0.3:6881"))
		s.Flush()
		time.AfterFunc(time.Second, func() { l.Close() })
		_, err = l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

// A connection that is confirmed, sends data and is reset before it could be accepted leaves nothing behind.
func TestResetAlongWithTheFirstData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.held = account.New(0)
		s := n.socket(t, there, 0)
		l, err := s.Listen()
		require.NoError(t, err)
		from := netip.MustParseAddrPort(here)
		var theirs []byte // their number, as the answer to the SYN has it
		n.tap = func(p []byte, _, _ netip.AddrPort) { theirs = append(theirs, p[16:18]...) }
		s.Receive(synPacket(100, 7), 20, from)
		s.Flush()
		require.Len(t, theirs, 2)
		for k := range uint16(100) {
			s.Receive(nextPacket(0, 8+k, theirs, 1000), 1020, from)
		}
		s.Receive(nextPacket(3, 108, theirs, 0), 20, from)
		s.Flush()
		time.AfterFunc(time.Second, func() { l.Close() })
		_, err = l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		require.Zero(t, utp.Connections(s))
		held, _ := n.held.Held()
		require.Zero(t, held)
	})
}

// A packet that belongs to no connection is answered with a reset, but not too often, and never if it is a reset.
func TestStrayPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := n.socket(t, there, 0)
		var resets [][]byte
		n.set(func() {
			n.tap = func(p []byte, _, _ netip.AddrPort) { resets = append(resets, bytes.Clone(p)) }
		})
		stray := synPacket(7, 99)
		for _, kind := range []byte{0x01, 0x11, 0x21, 0x31, 0x41} {
			stray[0] = kind
			s.Receive(stray, 20, netip.MustParseAddrPort(here))
		}
		require.Len(t, resets, 4)
		for _, p := range resets {
			require.EqualValues(t, 0x31, p[0])
			require.Equal(t, []byte{0, 7}, p[2:4])
			require.Equal(t, []byte{0, 99}, p[18:20])
		}
		for range 1000 {
			s.Receive(stray, 20, netip.MustParseAddrPort(here))
		}
		require.Len(t, resets, 20)
		time.Sleep(time.Second)
		for range 1000 {
			s.Receive(stray, 20, netip.MustParseAddrPort(here))
		}
		require.Len(t, resets, 40)
	})
}
