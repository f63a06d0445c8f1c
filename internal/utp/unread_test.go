package utp_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/memtest"
)

const heldAtMost = 1 << 20

func boundedPair(t *testing.T) *pair {
	n := newNetwork()
	n.held = account.New(heldAtMost)
	return connectOver(t, n)
}

func requireBounded(t *testing.T, n *network) {
	held, limit := n.held.Held()
	require.LessOrEqual(t, held, limit)
}

// Connections that are not read hold no more than the account has room for. One that is read is as fast as without them.
func TestUnreadConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := boundedPair(t)
		want := content(1, 5_000_000)
		transfer := func() time.Duration {
			began := time.Now()
			go p.c1.Write(want)
			got := make([]byte, len(want))
			_, err := io.ReadFull(p.c2, got)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
			requireBounded(t, p.n)
			return time.Since(began)
		}
		alone := transfer()
		for range 20 {
			c, _ := p.another(t)
			go c.Write(make([]byte, 1<<20))
		}
		time.Sleep(10 * time.Second)
		requireBounded(t, p.n)
		require.Less(t, transfer(), 2*alone)
		time.Sleep(10 * time.Second)
	})
}

// Data refused for lack of room arrives once there is room: nothing is lost, and nothing waits forever.
func TestUnreadIsReadLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := boundedPair(t)
		want := content(2, 3_000_000)
		read := func(c io.Reader, n int) {
			got := make([]byte, n)
			_, err := io.ReadFull(c, got)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want[:n], got))
			want = want[n:]
		}
		hog := p.n.held.Join(func() { t.Error("it gave the most") })
		hog.Gave(1 << 40)
		require.True(t, hog.Set(account.Outgoing, account.Free+heldAtMost))
		go p.c1.Write(want)
		time.Sleep(time.Minute)
		read(p.c2, 1_000_000)
		requireBounded(t, p.n)
		time.Sleep(time.Minute)
		hog.Leave()
		read(p.c2, len(want))
	})
}

// Where the account is full of what others hold, a connection that is read at once goes on, if more slowly.
func TestReadersGoOnBesideHogs(t *testing.T) {
	const each, chunk, most = 5_000_000, 16 << 10, 20 * time.Second // a window in a round trip, more or less
	synctest.Test(t, func(t *testing.T) {
		p := boundedPair(t)
		hog := p.n.held.Join(func() { t.Error("it gave the most") })
		hog.Gave(1 << 40)
		require.True(t, hog.Set(account.Outgoing, account.Free+heldAtMost))
		go p.c1.Write(make([]byte, each))
		began := time.Now()
		for read := 0; read < each; {
			n, err := io.ReadFull(p.c2, make([]byte, min(chunk, each-read)))
			require.NoError(t, err)
			read += n
			time.Sleep(time.Duration(n) * time.Second / (20 << 20))
		}
		t.Log(time.Since(began))
		require.Less(t, time.Since(began), most)
		requireBounded(t, p.n)
	})
}

// Packets of one byte each that come out of order take a block each.
func TestTinyPacketsOutOfOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := boundedPair(t)
		var last []byte
		p.n.set(func() {
			p.n.tap = func(b []byte, _, to netip.AddrPort) {
				if to == thereAddr && b[0] == 0x01 {
					last = bytes.Clone(b)
				}
			}
		})
		connections := [][]byte{}
		for range 30 {
			c, _ := p.another(t)
			_, err := c.Write([]byte("x"))
			require.NoError(t, err)
			time.Sleep(time.Second)
			p.n.set(func() { connections = append(connections, last[:21:21]) })
		}
		before := memtest.Heap()
		for _, b := range connections {
			seq := binary.BigEndian.Uint16(b[16:])
			for k := range uint16(1000) {
				binary.BigEndian.PutUint16(b[16:], seq+2+k)
				p.s2.Receive(b, len(b), netip.MustParseAddrPort(here))
			}
		}
		p.s2.Flush()
		time.Sleep(time.Second)
		after := memtest.Heap() // its collections leave blocks that were given back to be lent again
		requireBounded(t, p.n)
		require.Less(t, after-before, int64(heldAtMost+31*2*account.Free), "of 62 MB")
		_, err := p.c1.Write(make([]byte, 10_000))
		require.NoError(t, err)
		_, err = io.ReadFull(p.c2, make([]byte, 10_000))
		require.NoError(t, err)
	})
}

// Data that will never be read is released, and so is the place in the account.
func TestUnreadIsLetGoOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := boundedPair(t)
		held := func() int64 {
			time.Sleep(time.Second)
			n, _ := p.n.held.Held()
			return n
		}
		_, err := p.c1.Write(make([]byte, 100_000))
		require.NoError(t, err)
		require.Positive(t, held())
		require.NoError(t, p.s1.Close())
		require.Positive(t, held(), "after a reset it may still be read")
		require.NoError(t, p.c2.Close())
		require.Zero(t, held())
	})
	synctest.Test(t, func(t *testing.T) {
		p := boundedPair(t)
		c, err := p.s1.Dial(t.Context(), thereAddr)
		require.NoError(t, err)
		_, err = c.Write(make([]byte, 100_000))
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.NoError(t, p.l.Close(), "before it was accepted")
		held, _ := p.n.held.Held()
		require.Zero(t, held)
	})
}

// A connection that gives way ends in an error even if the end of what its other end wrote has come.
func TestUnreadThatGivesWayIsNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := boundedPair(t)
		_, err := p.c1.Write(make([]byte, 200_000))
		require.NoError(t, err)
		require.NoError(t, p.c1.Close())
		time.Sleep(time.Second)
		useful := p.n.held.Join(func() { t.Error("it gave the most") })
		useful.Gave(1 << 40)
		require.True(t, useful.Set(account.Outgoing, account.Free+heldAtMost))
		time.Sleep(time.Second)
		_, err = p.c2.Read(make([]byte, 10))
		require.ErrorContains(t, err, "too much waits to be read")
	})
}
