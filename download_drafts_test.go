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

// What another program has at the path of a file that is not chosen is not written to, although the piece at its edge is fetched, nor
// is that fetched again by the next run. Once the file is chosen, it is the torrent's.
func TestFilesThatAreNotChosenAreSpared(t *testing.T) {
	for _, size := range []int{300, 20_000, 50_000} {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, blockSize, 20_000, 20_000)
				dir := t.TempDir()
				path := filepath.Join(dir, filepath.FromSlash(content.file(1).Path))
				mine := bytes.Repeat([]byte("my own letter. "), size/15+1)[:size]
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
				require.NoError(t, os.WriteFile(path, mine, 0o666))
				run := func(ip string, sel func(File) Priority) *Download {
					p := simpeer.New("peer", n.NewHost("80.0.0."+ip, 0, 0, 0), 6881, content.truth, simpeer.Script{Fast: true})
					require.NoError(t, p.Arrive())
					t.Cleanup(p.Stop)
					d, err := content.Start(t.Context(), &Options{Dir: dir, Select: sel, Client: simClient(t, n.NewHost("81.0.0."+ip, 0, 0, 0), nil), Peers: []netip.AddrPort{p.Addr()}})
					require.NoError(t, err)
					_, err = d.Wait()
					require.NoError(t, err)
					require.NoError(t, d.Close())
					return d
				}
				first := func(f File) Priority {
					if f.Index > 0 {
						return Skip
					}
					return Normal
				}
				for _, fetched := range []int{2 * blockSize, 0} {
					d := run(fmt.Sprint(1+fetched/blockSize), first)
					require.EqualValues(t, fetched, d.Stats().Downloaded)
					b, err := os.ReadFile(path)
					require.NoError(t, err)
					require.True(t, bytes.Equal(mine, b), "the file is not the user's any more")
				}
				run("9", nil)
				b, err := os.ReadFile(path)
				require.NoError(t, err)
				require.True(t, content.truth.Equal(20_000, b[:20_000]))
			})
		})
	}
}

// startSharing starts to share what a peer has of content, beside which another program may write to dir.
func startSharing(t *testing.T, n *simnet.Network, content *simContent, dir string, sel func(File) Priority) *Download {
	p := simpeer.New("peer", n.NewHost("80.0.0.1", 0, 0, 0), 6881, content.truth, simpeer.Script{Fast: true})
	require.NoError(t, p.Arrive())
	t.Cleanup(p.Stop)
	d, err := content.Start(t.Context(), &Options{Dir: dir, Seed: true, Select: sel, Client: simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil), Peers: []netip.AddrPort{p.Addr()}})
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	_, err = d.Wait()
	require.NoError(t, err)
	return d
}

// butFile chooses all files but one.
func butFile(i int) func(File) Priority {
	return func(f File) Priority {
		if f.Index == i {
			return Skip
		}
		return Normal
	}
}

// A file that is no longer chosen and that another program replaces is not written to when the piece at its edge is fetched again.
func TestAFileThatIsNoLongerChosenIsSpared(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 20_000, 20_000)
		dir := t.TempDir()
		d := startSharing(t, n, content, dir, nil)
		d.Select(butFile(1))
		path := filepath.Join(dir, filepath.FromSlash(content.file(1).Path))
		mine := bytes.Repeat([]byte("my own letter. "), 1000)
		require.NoError(t, os.WriteFile(path, mine, 0o666))
		fetched := d.Stats().Downloaded
		require.NoError(t, d.Recheck(t.Context()))
		_, err := d.Wait()
		require.NoError(t, err)
		require.Equal(t, fetched+blockSize, d.Stats().Downloaded)
		require.True(t, d.Verified().Has(1))
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(mine, b), "the file is not the user's any more")
	})
}

// If a file is chosen of which all bytes are in the edges, the download does not become complete with what another program has at its
// path.
func TestAForeignFileIsChosenThatSeemsToBeWhole(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 20_000, 300, 20_000)
		dir := t.TempDir()
		path := filepath.Join(dir, filepath.FromSlash(content.file(1).Path))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("mine "), 60), 0o666))
		d := startSharing(t, n, content, dir, butFile(1))
		require.EqualValues(t, content.Length(), d.Stats().Downloaded)
		d.Select(nil)
		files, err := d.Wait()
		require.NoError(t, err)
		b, err := files.ReadFile(content.file(1).Path)
		require.NoError(t, err)
		require.True(t, content.truth.Equal(20_000, b))
		b, err = os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, content.truth.Equal(20_000, b))
	})
}
