package torrent

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/mse"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// BEP 3 puts the peer id last so that it can be left until the other end has said which torrent it is for.
// Trackers that check whether a peer can be reached never send theirs.
func TestHandshakeThatPauses(t *testing.T) {
	for name, encrypted := range map[string]bool{"plain": false, "encrypted": true} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, blockSize, 4*blockSize)
				us, them := n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond)
				client := simClient(t, us, nil)
				client.Encryption = PreferEncryption
				d := simSeed(t, client, content)
				hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte([]byte("-XX0000-abcdefghijkl"))}
				hello.SetExtended()
				ours := hello.Append(nil)
				head, id := ours[:wire.HandshakeHead], ours[wire.HandshakeHead:]

				begin := func() net.Conn {
					conn, err := them.Dial(t.Context(), "tcp", us.Addr(6881).String())
					require.NoError(t, err)
					if encrypted {
						conn, err = mse.Initiate(t.Context(), conn, content.infoHash, mse.Options{}, head)
					} else {
						_, err = conn.Write(head)
					}
					require.NoError(t, err)
					return conn
				}
				conn := begin()
				answer := make([]byte, wire.HandshakeSize)
				began := time.Now()
				_, err := io.ReadFull(conn, answer)
				require.NoError(t, err)
				require.Less(t, time.Since(began), time.Second)
				theirs, err := wire.ParseHandshake(answer)
				require.NoError(t, err)
				require.Equal(t, hello.InfoHash, theirs.InfoHash)
				require.Empty(t, d.Stats().Peers, "it has not said who it is")
				_, err = conn.Write(append(id, wire.AppendSimple(nil, wire.Interested)...))
				require.NoError(t, err)
				simnet.Sleep(time.Second)
				require.Len(t, d.Stats().Peers, 1)

				// One that does not go on is not waited for longer than any other.
				conn = begin()
				began = time.Now()
				_, err = io.Copy(io.Discard, conn)
				require.NoError(t, err)
				require.LessOrEqual(t, time.Since(began), handshakeTimeout+time.Second)
				require.Len(t, d.Stats().Peers, 1)
			})
		})
	}
}

// Nothing is said to one that asks for a torrent that is not shared.
func TestHandshakeForAnotherTorrent(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		simSeed(t, simClient(t, us, nil), content)
		conn, err := them.Dial(t.Context(), "tcp", us.Addr(6881).String())
		require.NoError(t, err)
		hello := wire.Handshake{InfoHash: [20]byte{1}}
		_, err = conn.Write(hello.Append(nil)[:wire.HandshakeHead])
		require.NoError(t, err)
		b, _ := io.ReadAll(conn)
		require.Empty(t, b)
	})
}
