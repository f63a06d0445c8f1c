package torrent

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// Who is connected to us is dialled once at most, wherever it is named: the two connections then show
// that they are to the same peer.
func TestPeerNamedWhileItIsConnected(t *testing.T) {
	for _, c := range []struct {
		name string
		id   string // against ours, which begins with -SL
		port int    // that it says it listens at
	}{
		{"lower, says nothing", "-AA", 0}, {"higher, says nothing", "-ZZ", 0},
		{"lower, says where", "-AA", 6881}, {"higher, says where", "-ZZ", 6881},
		{"lower, says elsewhere", "-AA", 77}, {"higher, says elsewhere", "-ZZ", 77},
	} {
		t.Run(c.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, blockSize, 4*blockSize)
				us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
				d := simLeech(t, simClient(t, us, nil), content)
				simnet.Sleep(time.Second)
				hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte(fmt.Appendf(nil, "%-20s", c.id))}
				hello.SetExtended()
				ours := wire.ExtHandshake{P: c.port}
				b := wire.AppendExtended(hello.Append(nil), 0, ours.Append(nil))

				var mu sync.Mutex
				var conns []net.Conn // the first is the one that they made
				talk := func(conn net.Conn) {
					mu.Lock()
					conns = append(conns, conn)
					mu.Unlock()
					conn.Write(b)
					io.Copy(io.Discard, conn)
					conn.Close()
				}
				l, err := them.Listen("tcp", ":6881")
				require.NoError(t, err)
				go func() {
					for {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						time.AfterFunc(time.Second, func() { talk(conn) }) // meanwhile the one that they made arrives
					}
				}()
				d.found(peerlist.FromTracker, "http://tracker.sim/", them.Addr(6881))
				conn, err := them.Dial(t.Context(), "tcp", us.Addr(6881).String())
				require.NoError(t, err)
				go talk(conn)
				for range 9 { // later it is of no use
					simnet.Sleep(time.Minute)
					mu.Lock()
					for _, conn := range conns {
						conn.Write(wire.AppendKeepAlive(nil))
					}
					mu.Unlock()
				}
				require.Len(t, d.Stats().Peers, 1)
				require.LessOrEqual(t, len(conns)-1, 3)
			})
		})
	}
}
