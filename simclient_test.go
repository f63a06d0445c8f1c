package torrent

import (
	"context"
	"hash/crc64"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/stretchr/testify/require"
)

// simClient is a Client on a simulated host, whose lots are drawn from its address. It lives until
// the test ends, or its Close.
func simClient(t *testing.T, h *simnet.Host, tracker *simtracker.Tracker) *Client {
	c := &Client{
		Listen: ":6881", Encryption: DisableEncryption,
		Dial: h.Dial, ListenPacket: simPackets(h),
		hooks: hooks{
			listen: h.Listen,
			seed:   1 + crc64.Checksum(h.IP().AsSlice(), crc64.MakeTable(crc64.ISO)),
		},
	}
	if testing.Verbose() {
		c.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", h)
	}
	if tracker != nil {
		c.HTTPClient = tracker.Client(h)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// simSeed has a client share content, all of which it has.
func simSeed(t *testing.T, c *Client, content *simContent, peers ...netip.AddrPort) *Download {
	d, err := content.Start(t.Context(), &Options{Client: c, Seed: true, Peers: peers, Storage: newSimStorage(content).fill().open})
	require.NoError(t, err)
	<-d.Done()
	return d
}

// simLeech has a client fetch content, and share it until the test ends.
func simLeech(t *testing.T, c *Client, content *simContent, peers ...netip.AddrPort) *Download {
	d, err := content.Start(t.Context(), &Options{Client: c, Seed: true, Peers: peers, Storage: newSimStorage(content).open})
	require.NoError(t, err)
	return d
}

// simPackets opens the UDP sockets of a client on a simulated host.
func simPackets(h *simnet.Host) func(ctx context.Context, network, addr string) (net.PacketConn, error) {
	return func(_ context.Context, network, addr string) (net.PacketConn, error) {
		return h.ListenPacket(network, addr)
	}
}
