package torrent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// logged is a log handler that calls a function with each message.
type logged func(message string)

func (f logged) Enabled(context.Context, slog.Level) bool { return true }
func (f logged) Handle(_ context.Context, r slog.Record) error {
	f(r.Message)
	return nil
}
func (f logged) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f logged) WithGroup(string) slog.Handler      { return f }

// A log handler may call Stats, as a program that shows both does, whatever is logged.
func TestLogHandlersMayCallStats(t *testing.T) {
	logger := func(c *Client) (seen map[string]bool) {
		seen = make(map[string]bool)
		c.Logger = slog.New(logged(func(message string) {
			seen[message] = true
			c.Stats()
		}))
		return seen
	}
	t.Run("a peer lies about the metadata", func(t *testing.T) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimResolvable(t, 10, false)
			liar := speakMetadata(t, n.NewHost("80.0.0.1", 0, 0, 0), content, metadataScript{answer: flipped})
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil)
			seen := logger(c)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			m := &Magnet{InfoHash: content.infoHash}
			_, err := m.Resolve(ctx, &Options{Client: c, Peers: []netip.AddrPort{liar.addr()}})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Less(t, n.Now(), 62*time.Second)
			require.True(t, seen["banned"])
		})
	})
	t.Run("some sockets cannot be opened", func(t *testing.T) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			refused := errors.New("refused")
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil)
			c.NoUTP, c.LocalDiscovery = false, true
			c.ListenPacket = func(context.Context, string, string) (net.PacketConn, error) { return nil, refused }
			c.hooks.listenMulticast = func(string, netip.AddrPort) (net.PacketConn, error) { return nil, refused }
			seen := logger(c)
			require.NoError(t, c.Open())
			require.True(t, seen["no uTP"])
			require.True(t, seen["local discovery"])
		})
	})
}
