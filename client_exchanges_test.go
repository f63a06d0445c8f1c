package torrent

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// Peers that send a part of their key and fall silent do not use up the key exchanges that others of their network may have
// answered.
func TestUnfinishedKeysCostNoExchange(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us := n.NewHost("80.0.0.1", 0, 0, time.Millisecond)
		c := simClient(t, us, nil)
		c.Encryption = PreferEncryption
		simSeed(t, c, newSimContent(1, blockSize, 4*blockSize))
		simnet.Sleep(time.Second)
		for k := range 20 {
			h := n.NewHost(fmt.Sprintf("2001:db8::%x", k+1), 0, 0, time.Millisecond)
			conn, err := h.Dial(t.Context(), "tcp", us.Addr(6881).String())
			require.NoError(t, err)
			defer conn.Close()
			conn.Write(bytes.Repeat([]byte{7}, 95))
		}
		simnet.Sleep(100 * time.Millisecond)
		c.mu.Lock()
		defer c.mu.Unlock()
		_, ok := c.exchanges.Answer(netip.MustParseAddr("2001:db8::1"), time.Now())
		require.True(t, ok)
	})
}

// A peer that sends a part of its key makes room for a newcomer like one that sends nothing, before others of its network
// that began a handshake.
func TestUnfinishedKeysAreShed(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us := n.NewHost("80.0.0.1", 0, 0, time.Millisecond)
		c := simClient(t, us, nil)
		c.Encryption = PreferEncryption
		simSeed(t, c, newSimContent(1, blockSize, 4*blockSize))
		simnet.Sleep(time.Second)
		var all []net.Conn
		for k := range maxHandshakes + 1 {
			h := n.NewHost(fmt.Sprintf("2001:db8::%x", k+1), 0, 0, time.Millisecond)
			conn, err := h.Dial(t.Context(), "tcp", us.Addr(6881).String())
			require.NoError(t, err)
			defer conn.Close()
			all = append(all, conn)
			if k == 50 {
				conn.Write(bytes.Repeat([]byte{7}, 95))
			} else {
				conn.Write([]byte("\x13BitTorrent protocol"))
			}
			simnet.Sleep(10 * time.Millisecond)
		}
		for k, conn := range all {
			conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := conn.Read(make([]byte, 1))
			require.Equal(t, k != 50, errors.Is(err, os.ErrDeadlineExceeded), "%d: %v", k, err)
		}
	})
}
