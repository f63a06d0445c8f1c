package torrent

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// A whole download on a disk that forgets what was not synced, with many losses of power. It takes no piece
// for verified that is not there, fetches none again that the sidecar claims, and ends with the content.
func TestDownloadLosesPower(t *testing.T) {
	losses, claims, stops, failures := 0, 0, 0, 0
	for seed := range uint64(20) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			rng := rand.New(rand.NewPCG(seed, 1))
			content := newSimContent(seed, 3*blockSize/2<<rng.IntN(3), 10_000, 700_000, 100, 100_000, 300_001, 60_000)
			peer := simpeer.New("seed", n.NewHost("80.0.0.1", 20e3, 0, 20*time.Millisecond), 6881, content.truth, simpeer.Script{Fast: rng.IntN(2) == 0})
			require.NoError(t, peer.Arrive())
			defer peer.Stop()
			disk := disktest.New()
			for life, whole := 1, false; !whole; life++ {
				claimed := claimedOn(t, content, disk.Crash(rng))
				claims += claimed.Count()
				o := &Options{Dir: "disk", Peers: []netip.AddrPort{peer.Addr()}}
				if life < 4 {
					o.Select = func(File) Priority { return Priority(rng.IntN(3) - 1) }
				}
				host := n.NewHost(fmt.Sprintf("81.0.0.%d", life), 0, 0, 0)
				d := simStart(t.Context(), t, host, content, nil, o, &Client{NoDHT: true, Encryption: DisableEncryption, hooks: hooks{openFiles: disk.OpenFiles}})
				synctest.Wait()
				for i := range d.verified().All() {
					require.Truef(t, holdsPiece(t, disk, content, i), "seed %d, life %d: piece %d is taken for verified", seed, life, i)
				}
				if rng.IntN(6) == 0 {
					disk.FailSyncs(syscall.EIO)
				}
				simWait(time.Duration(rng.IntN(60_000))*time.Millisecond, d)
				if rng.IntN(4) == 0 {
					stops++
					d.Close()
				}
				losses++
				after := disk.Crash(rng)
				if d.done() && d.result != nil && d.result != ErrClosed {
					require.ErrorIs(t, d.result, syscall.EIO)
					failures++
				}
				whole = d.verified().Full()
				d.Close()
				d.client.Close()
				for i := range claimed.All() {
					require.Falsef(t, d.ledger.Came(i), "seed %d, life %d: piece %d was claimed, and came again", seed, life, i)
				}
				require.Empty(t, d.account(peer))
				disk = after
			}
		})
	}
	require.Greater(t, claims, losses, "or this test shows nothing")
	t.Logf("%d losses of power, %d of them after a clean stop; %d downloads that the disk failed; %d claims, all true", losses, stops, failures, claims)
}

// claimedOn is the pieces that the sidecar on a disk claims. It requires that they are there.
func claimedOn(t *testing.T, content *simContent, disk *disktest.Disk) bits.Set {
	s, err := disk.OpenFiles(content.content(), "", nil)
	require.NoError(t, err)
	have, partial := s.LoadResume()
	for i := range have.All() {
		require.Truef(t, holdsPiece(t, disk, content, i), "piece %d is claimed", i)
	}
	for i, blocks := range partial {
		for k := range blocks.All() {
			at := content.layout.PieceOffset(i) + int64(k)*blockSize
			b := make([]byte, min(blockSize, content.layout.PieceSize(i)-int64(k)*blockSize))
			_, err := s.ReadAt(b, at)
			require.NoError(t, err)
			require.Truef(t, bytes.Equal(content.truth.Run(at, int64(len(b))), b), "block %d of piece %d is claimed", k, i)
		}
	}
	return have
}

// holdsPiece reports whether a disk holds a piece as it should be.
func holdsPiece(t *testing.T, disk *disktest.Disk, content *simContent, i int) bool {
	s, err := disk.OpenFiles(content.content(), "", nil)
	require.NoError(t, err)
	b := make([]byte, content.layout.PieceSize(i))
	at := content.layout.PieceOffset(i)
	_, err = s.ReadAt(b, at)
	return err == nil && bytes.Equal(content.truth.Run(at, int64(len(b))), b)
}

// verified is the pieces that the download takes for verified.
func (s *simDownload) verified() *bits.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.picker.Verified().Clone()
	return &have
}
