package torrent

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
	"github.com/stretchr/testify/require"
)

// A client that is told of its own address calls it once, and never again.
func TestOwnAddressIsCalledOnce(t *testing.T) {
	for _, policy := range []EncryptionPolicy{PreferEncryption, RequireEncryption, DisableEncryption} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, 16<<10, 256<<10)
			us := n.NewHost("80.0.0.1", 0, 0, 0)
			c := simClient(t, us, nil)
			c.Encryption = policy
			calls := 0
			c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				calls++
				return us.Dial(ctx, network, addr)
			}
			simLeech(t, c, content, netip.MustParseAddrPort("80.0.0.1:6881"))
			simnet.Sleep(10 * time.Minute)
			require.Equal(t, 1, calls, policy)
		})
	}
}

// What a client shows of itself in one swarm says nothing of the others that it is in, and it stays silent on torrents
// that it does not have.
func TestIdentityIsOfOneTorrent(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, other := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		one, two, none := newSimContent(1, 16<<10, 64<<10), newSimContent(2, 16<<10, 64<<10), newSimContent(3, 16<<10, 64<<10)
		c := simClient(t, us, nil)
		first := simSeed(t, c, one)
		simSeed(t, c, two)

		// answer is what the client says to a handshake for an info hash.
		answer := func(h Hash, id [20]byte) []byte {
			conn, err := other.Dial(t.Context(), "tcp", "80.0.0.1:6881")
			require.NoError(t, err)
			defer conn.Close()
			conn.Write((&wire.Handshake{InfoHash: h, PeerID: id}).Append(nil))
			conn.SetReadDeadline(time.Now().Add(2 * handshakeTimeout))
			b := make([]byte, wire.HandshakeSize)
			k, _ := io.ReadFull(conn, b)
			return b[:k]
		}
		id := func(h Hash) [20]byte {
			theirs, err := wire.ParseHandshake(answer(h, [20]byte{1}))
			require.NoError(t, err)
			return theirs.PeerID
		}
		seen := id(one.infoHash)
		require.Equal(t, peerIDPrefix, string(seen[:len(peerIDPrefix)]))
		require.NotEqual(t, seen, id(two.infoHash))
		require.Equal(t, c.identity(one.infoHash).id, seen, "as trackers are told")
		require.NotEqual(t, c.identity(one.infoHash).key, c.identity(two.infoHash).key)
		require.Empty(t, answer(none.infoHash, [20]byte{1}))
		require.Empty(t, answer(none.infoHash, seen), "not even to a peer that says it is ourselves")

		require.NoError(t, first.Close())
		simSeed(t, c, one)
		require.Equal(t, seen, id(one.infoHash), "in one run a torrent keeps its own")
		next := &Client{NoDHT: true, NoListen: true}
		require.NoError(t, next.Open())
		defer next.Close()
		require.NotEqual(t, seen, next.identity(one.infoHash).id, "and another run has another")
	})
}
