package torrent_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// A download that is told of its only peer while it runs goes on from the bytes of earlier runs, says what is verified, and
// stops sharing when the user has seen enough.
func TestDownloadSharesUntil(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	seed := s.seed(t, torrent.Options{})
	enough := make(chan struct{})
	d := s.start(t, torrent.Options{
		Seed: true, Uploaded: 1000, Downloaded: 2000,
		SeedUntil: func(st torrent.Stats) bool {
			require.Equal(t, torrent.Seeding, st.State)
			select {
			case <-enough:
				return true
			default:
				return false
			}
		},
	})
	until(t, "it is checked", func() bool { return d.Stats().State == torrent.Downloading })
	for _, verified := range d.Files() {
		require.Zero(t, verified)
	}
	require.Zero(t, d.Verified().Count())
	d.AddPeers(seed)
	s.same(t, complete(t, d))
	require.Equal(t, s.NumPieces(), d.Verified().Count())
	for f, verified := range d.Files() {
		require.Equal(t, f.Length, verified, f.Path)
	}
	st := d.Stats()
	require.Equal(t, torrent.Seeding, st.State)
	require.EqualValues(t, 1000, st.Uploaded)
	require.EqualValues(t, 2000+len(s.raw), st.Downloaded)
	close(enough)
	until(t, "it ends", func() bool { return d.Stats().State == torrent.Stopped })
}

func TestFilesCountVerifiedBytes(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	seed := s.gated(t)
	seed.give(s.piecesOf("share/b/c.txt")...)
	d := s.start(t, torrent.Options{})
	d.AddPeers(seed.addr)
	until(t, "a piece is verified", func() bool { return d.Verified().Count() == 1 })
	total := int64(0)
	for f, verified := range d.Files() {
		require.LessOrEqual(t, verified, f.Length)
		total += verified
	}
	require.EqualValues(t, s.PieceLength(), total, "what is verified lies in several files")
}

func TestZeroTorrentIsNotStarted(t *testing.T) {
	_, err := new(torrent.Torrent).Start(t.Context(), nil)
	require.ErrorContains(t, err, "use Read")
	_, err = new(torrent.Torrent).DownloadAll(t.Context(), nil)
	require.ErrorContains(t, err, "use Read")
}

func TestStateAsText(t *testing.T) {
	b, err := json.Marshal([]torrent.State{torrent.Checking, torrent.Downloading, torrent.Seeding, torrent.Paused, torrent.Stopped, 9})
	require.NoError(t, err)
	require.JSONEq(t, `["checking", "downloading", "seeding", "paused", "stopped", "9"]`, string(b))
}
