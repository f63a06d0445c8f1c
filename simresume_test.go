package torrent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

// One small file of a large torrent costs its own pieces, and makes no other file.
func TestOneFileOfFiveGigabytes(t *testing.T) {
	dir := t.TempDir()
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimRepeating(1, 1<<20, 5e9)
		content.multi = true
		content.layout = layout.New(1<<20, layout.File{Path: "d/a", Length: 2_100_000_001},
			layout.File{Path: "d/b/wanted", Length: 1e6}, layout.File{Path: "d/c", Length: 5e9 - 2_100_000_001 - 1e6})
		m := &simMeeting{net: n, content: content}
		defer m.end(t)
		peer := m.meet(t, 1e6, simpeer.Script{Fast: true})
		o := &Options{Dir: dir, Select: Glob("wanted"), Peers: []netip.AddrPort{peer.Addr()}}
		m.client = simStart(t.Context(), t, n.NewHost("81.0.0.1", 0, 0, 0), content, nil, o, nil)
		simWait(time.Minute, m.client)
		require.NoError(t, m.client.compare(o.Select))
		require.Empty(t, m.client.account(peer))

		first, end := content.layout.PiecesOf(1)
		got := m.client.ledger.Account().Received
		require.EqualValues(t, (end-first)<<20, got)
		for i := range end - first {
			require.True(t, m.client.verified().Has(first+i))
		}
		var files []string
		for _, name := range listing(t, dir) {
			if !strings.HasPrefix(name, ".") {
				files = append(files, name)
			}
		}
		require.Equal(t, []string{"d/b/wanted"}, files)
		t.Logf("1000000 of 5000000000 bytes chosen: %d bytes of %d pieces fetched", got, end-first)
	})
}

// Closing in the midst of pieces of 16 MiB costs no more than the block that was just coming.
func TestCloseInMidPiece(t *testing.T) {
	dir := t.TempDir()
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		rng := rand.New(rand.NewPCG(1, 1))
		content := newSimContent(1, 16<<20, 20<<20, 9<<20, 10<<20+77)
		peer := simpeer.New("seed", n.NewHost("80.0.0.1", 1e6, 0, 10*time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
		require.NoError(t, peer.Arrive())
		defer peer.Stop()
		var received, wire int64
		closes := int64(0)
		for whole := false; !whole; closes++ {
			host := n.NewHost(fmt.Sprintf("81.0.0.%d", closes+1), 0, 0, 0)
			d := simStart(t.Context(), t, host, content, nil, &Options{Dir: dir, Peers: []netip.AddrPort{peer.Addr()}}, nil)
			simWait(time.Duration(rng.IntN(8000))*time.Millisecond, d)
			wire += host.UnderWay()
			whole = d.done()
			d.end(t)
			received += d.ledger.Account().Received
			require.Empty(t, d.account(peer))
		}
		again := received - content.layout.Size()
		t.Logf("%d closes: %d bytes were on the wire, %d of content came twice", closes-1, wire, again)
		require.LessOrEqual(t, again, (closes-1)*blockSize)
	})
	have, err := newSimContent(1, 16<<20, 20<<20, 9<<20, 10<<20+77).Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, have.Len(), have.Count())
}
