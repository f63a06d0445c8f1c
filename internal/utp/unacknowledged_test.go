package utp_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/memtest"
	"github.com/shoal-go/torrent/internal/utp"
)

// Ends that take much and then fall silent have a socket hold no more than its bound and a part of it each. Another
// connection is served beside them, if more slowly, and what they held is let go of when they end.
func TestPeersThatFallSilent(t *testing.T) {
	const bound, silent = 4 << 20, 12
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.delay = 200 * time.Millisecond
		p := connectOver(t, n)
		synctest.Wait()
		utp.LimitUnacknowledged(p.s1, bound)
		for range silent {
			c1, c2 := p.another(t)
			go io.Copy(c1, zeros{})
			go io.Copy(io.Discard, c2)
		}
		most, sum, samples := int64(0), int64(0), int64(0)
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			most, sum, samples = max(most, utp.Unacknowledged(p.s1)), sum+utp.Unacknowledged(p.s1), samples+1
		}
		require.Less(t, most, int64(2*bound+(silent+1)*256<<10))
		require.Greater(t, sum/samples, int64(bound/2), "the bound is what keeps them")

		other := p.n.socket(t, "10.0.0.3:6881", 0)
		l, err := other.Listen()
		require.NoError(t, err)
		p.n.set(func() { delete(p.n.hosts, thereAddr) })
		time.Sleep(time.Second)
		require.Greater(t, utp.Unacknowledged(p.s1), int64(bound/2))
		c1, err := p.s1.Dial(t.Context(), l.Addr().(utp.Addr).AddrPort())
		require.NoError(t, err)
		c2, err := l.Accept()
		require.NoError(t, err)
		want := content(3, 5_000_000)
		began := time.Now()
		go c1.Write(want)
		got := make([]byte, len(want))
		_, err = io.ReadFull(c2, got)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
		t.Logf("most %d KiB, on average %d KiB; beside them %v", most>>10, sum/samples>>10, time.Since(began))
		require.Less(t, time.Since(began), 20*time.Second)
		time.Sleep(5 * time.Minute)
		require.Zero(t, utp.Unacknowledged(p.s1))
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// mutePeers connect to a socket whose unacknowledged data is bounded, and acknowledge nothing that comes later.
type mutePeers struct {
	n      *network
	s      *utp.Socket
	l      net.Listener
	addr   netip.AddrPort // of the last one
	answer []byte         // the last packet to it
}

func newMutePeers(t *testing.T, bound int64) *mutePeers {
	n := newNetwork()
	r := &mutePeers{n: n, s: n.socket(t, here, 0)}
	utp.LimitUnacknowledged(r.s, bound)
	var err error
	r.l, err = r.s.Listen()
	require.NoError(t, err)
	n.set(func() {
		n.tap = func(p []byte, _, to netip.AddrPort) {
			if to == r.addr {
				r.answer = bytes.Clone(p)
			}
		}
	})
	return r
}

// connect returns the connection that the k-th makes.
func (r *mutePeers) connect(t *testing.T, k uint16) net.Conn {
	r.n.set(func() { r.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{81, 0, byte(k >> 8), byte(k)}), 6881) })
	receive := func(p []byte) {
		r.s.Receive(p, len(p), r.addr)
		r.s.Flush()
	}
	receive(synPacket(7, 1))
	confirm := synPacket(8, 2)
	confirm[0] = 0x21
	binary.BigEndian.PutUint16(confirm[18:], binary.BigEndian.Uint16(r.answer[16:])-1)
	receive(confirm)
	c, err := r.l.Accept()
	require.NoError(t, err)
	return c
}

// Connections whose other ends acknowledge nothing hold little each, if they are many.
func TestManyConnectionsHoldLittle(t *testing.T) {
	const bound, many = 4 << 20, 1000
	synctest.Test(t, func(t *testing.T) {
		r := newMutePeers(t, bound)
		before := memtest.Heap()
		for k := range uint16(many) {
			c := r.connect(t, k)
			c.SetWriteDeadline(time.Now().Add(time.Millisecond))
			c.Write(make([]byte, 128<<10))
		}
		held, heap := utp.Unacknowledged(r.s), memtest.Heap()-before
		t.Logf("%d KiB held, heap %d KiB", held>>10, heap>>10)
		require.Less(t, held, int64(bound+many*36<<10))
		require.Less(t, heap, int64(bound+many*36<<10))
	})
}

// Connections that are closed while their other ends acknowledge hardly anything are not waited for by the thousand.
func TestClosedConnectionsHoldLittle(t *testing.T) {
	const bound = 4 << 20
	for _, written := range []int{100 << 10, 20 << 10, 0} {
		synctest.Test(t, func(t *testing.T) {
			r := newMutePeers(t, bound)
			most := int64(0)
			for k := range uint16(1500) {
				c := r.connect(t, k)
				_, err := c.Write(make([]byte, written))
				require.NoError(t, err)
				require.NoError(t, c.Close())
				time.Sleep(10 * time.Millisecond)
				most = max(most, utp.Unacknowledged(r.s))
			}
			t.Logf("%d bytes written: at most %d KiB of %d connections", written, most>>10, utp.Connections(r.s))
			require.LessOrEqual(t, most, int64(bound))
			time.Sleep(2 * time.Minute)
			require.Zero(t, utp.Unacknowledged(r.s))
			require.Zero(t, utp.Connections(r.s))
		})
	}
}
