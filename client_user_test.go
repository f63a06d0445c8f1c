package torrent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// A listener that another goroutine passes to Serve while the client is being closed, and has closed its listeners, is closed, too.
func TestServeDuringClose(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		h := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, h, nil)
		require.NoError(t, c.Open())
		c.transport.close() // the part of Close that may come between two steps of Serve
		l, err := h.Listen("tcp", ":7000")
		require.NoError(t, err)
		require.NoError(t, c.Serve(l))
		_, listeners := h.Open()
		require.Zero(t, listeners, "which Close would wait for")
		require.NoError(t, c.Close())
	})
}

// A function Select that panics, which a caller such as an HTTP server recovers from, leaves nothing behind.
func TestSelectPanics(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 16<<10, 64<<10)
		c := simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil)
		o := &Options{Client: c, Storage: newSimStorage(content).open, Select: func(File) Priority { panic("of the user") }}
		require.Panics(t, func() { content.Start(t.Context(), o) })
		o.Select = nil
		d, err := content.Start(t.Context(), o)
		require.NoError(t, err)
		require.Panics(t, func() { d.Select(func(File) Priority { panic("of the user") }) })
		d.Select(nil)
		require.NoError(t, d.Close())
	})
}

// mutedListener returns neither a connection nor an error, the first time.
type mutedListener struct {
	net.Listener
	asked atomic.Bool
}

func (l *mutedListener) Accept() (net.Conn, error) {
	if !l.asked.Swap(true) {
		return nil, nil
	}
	return l.Listener.Accept()
}

// Functions of the user's that return neither a connection nor an error, the first times, have failed, and are called again.
func TestNeitherConnectionNorError(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 16<<10, 64<<10)
		seeds, leeches := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		seed := simClient(t, seeds, nil)
		l, err := seeds.Listen("tcp", ":7000")
		require.NoError(t, err)
		require.NoError(t, seed.Serve(&mutedListener{Listener: l}))
		simSeed(t, seed, content)

		leech := simClient(t, leeches, nil)
		leech.NoUTP, leech.NoDHT = false, false
		dial, listen := leech.Dial, leech.ListenPacket
		var dials, opens atomic.Int32
		leech.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials.Add(1) == 1 {
				return nil, nil
			}
			return dial(ctx, network, addr)
		}
		leech.ListenPacket = func(ctx context.Context, network, addr string) (net.PacketConn, error) {
			if opens.Add(1) <= 2 {
				return nil, nil
			}
			return listen(ctx, network, addr)
		}
		d, err := content.Start(t.Context(), &Options{Client: leech, Peers: []netip.AddrPort{seeds.Addr(7000)}})
		require.NoError(t, err)
		_, err = d.Wait()
		require.NoError(t, err)
		require.Greater(t, dials.Load(), int32(1))
		require.Greater(t, opens.Load(), int32(2))
	})
}

// A function Progress that panics does so where Create was called, which may recover from it.
func TestProgressPanics(t *testing.T) {
	dir := writeContent(t, mixedContent)
	why := errors.New("of the user")
	for _, ctx := range []context.Context{t.Context(), context.Background()} {
		require.PanicsWithValue(t, why, func() {
			CreateContext(ctx, dir, &CreateOptions{Progress: func(done, total int64) { panic(why) }})
		})
	}
}
