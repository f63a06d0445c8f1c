package torrent

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// Blocks that no hash has proved do not get into a file of the user's own that has the path of one of the torrent, whether their piece
// is too long for memory, waits for long, or is unfinished at the end. Once a piece is verified, it does.
func TestUnverifiedBlocksSpareTheUsersFile(t *testing.T) {
	for _, c := range []struct {
		pieceLength int64
		wait        time.Duration
	}{{4 * blockSize, time.Second}, {4 * blockSize, time.Minute}, {maxHeldPiece + blockSize, time.Second}} {
		t.Run(fmt.Sprintf("pieces of %d bytes, %v", c.pieceLength, c.wait), func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, c.pieceLength, c.pieceLength+100)
				dir := t.TempDir()
				path := filepath.Join(dir, filepath.FromSlash(content.file(0).Path))
				mine := bytes.Repeat([]byte("my own letter. "), int(c.pieceLength/15))
				require.NoError(t, os.WriteFile(path, mine, 0o666))
				start := func(ip string, s simpeer.Script) *Download {
					p := simpeer.New("peer", n.NewHost("80.0.0."+ip, 0, 0, 0), 6881, content.truth, s)
					require.NoError(t, p.Arrive())
					t.Cleanup(p.Stop)
					d, err := content.Start(t.Context(), &Options{Dir: dir, Client: simClient(t, n.NewHost("81.0.0."+ip, 0, 0, 0), nil), Peers: []netip.AddrPort{p.Addr()}})
					require.NoError(t, err)
					return d
				}
				d := start("1", simpeer.Script{Fast: true, Corrupt: 1, StallAfter: 2})
				simnet.Sleep(c.wait)
				require.NotZero(t, d.Stats().Downloaded)
				require.NoError(t, d.Close())
				b, err := os.ReadFile(path)
				require.NoError(t, err)
				require.True(t, bytes.Equal(mine, b), "the file is not the user's any more")

				d = start("2", simpeer.Script{Fast: true})
				_, err = d.Wait()
				require.NoError(t, err)
				require.NoError(t, d.Close())
				b, err = os.ReadFile(path)
				require.NoError(t, err)
				require.True(t, content.truth.Equal(0, b))
				entries, err := os.ReadDir(dir)
				require.NoError(t, err)
				require.Len(t, entries, 1, "nothing is left beside the content")
			})
		})
	}
}
