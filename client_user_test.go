package torrent

import (
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
