//go:build linux

package interop

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent"
)

// A directory that another client made is taken over as it is: what it holds is verified and not fetched,
// whether it is all of the content or what a download that was broken off had come to.
func TestTakeOver(t *testing.T) {
	complete, partial := "complete", "broken off"
	tb := newTable(t, "we take over the directory of", complete, partial)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			need(t, append(c.programs, "mktorrent")...)
			row := tb.row(c.name + " " + c.version(t))
			t.Parallel()
			t.Run("complete", func(t *testing.T) {
				t.Parallel()
				defer row.record(t, complete)
				takeOver(t, c, false)
			})
			t.Run("partial", func(t *testing.T) {
				t.Parallel()
				defer row.record(t, partial)
				takeOver(t, c, true)
			})
		})
	}
}

func takeOver(t *testing.T, c client, partial bool) {
	s := newSwarm(t, mktorrent)
	tor, err := torrent.Read(s.torrent)
	require.NoError(t, err)
	host := newAddr(t)
	seeder := newClient(t, host, "")
	seeder.UploadLimit = rate.NewLimiter(rate.Inf, 64<<10)
	if partial {
		seeder.UploadLimit.SetLimit(1 << 20)
	}
	seed, err := tor.Start(t.Context(), &torrent.Options{Dir: s.content, Seed: true, Client: seeder})
	require.NoError(t, err)
	t.Cleanup(func() { seed.Close(); seeder.Close() })

	dir := t.TempDir()
	p := c.start(t, role{what: s.torrent, dir: dir})
	if partial {
		require.Eventually(t, func() bool { return seed.Stats().Uploaded > tor.Length()/3 }, patience, time.Millisecond)
		seeder.UploadLimit.SetLimit(0) // however long it takes to write that and to end, no more comes
		require.Eventually(t, func() bool {
			have, err := tor.Verify(t.Context(), dir)
			return err == nil && have.Count() > tor.NumPieces()/8
		}, patience, 50*time.Millisecond, "it writes what came")
	} else {
		p.awaitComplete(t)
	}
	p.stop()
	have, err := tor.Verify(t.Context(), dir)
	require.NoError(t, err)
	if partial {
		require.Greater(t, have.Count(), tor.NumPieces()/8, "it kept something")
		require.Less(t, have.Count(), tor.NumPieces(), "or it was not broken off")
	} else {
		require.Equal(t, tor.NumPieces(), have.Count())
	}

	seeder.UploadLimit.SetLimit(rate.Inf)
	ours := startLibrary(t, role{what: s.torrent, dir: dir})
	ours.awaitComplete(t)
	require.LessOrEqual(t, ours.Stats().Downloaded, int64(tor.NumPieces()-have.Count())*tor.PieceLength(), "what was there came again")
	ours.stop()
	requireSame(t, s.content, dir)
}
