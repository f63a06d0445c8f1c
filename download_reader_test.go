package torrent

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

// Pieces may have a byte each. Of these, not all that are within the reach of a reader are fetched first, which would be a million to
// look at whenever it reads a byte.
func TestReaderOfTinyPieces(t *testing.T) {
	const pieces = 100_000
	synctest.Test(t, func(t *testing.T) {
		for length, most := range map[int64]int{1: pieceNow - pieceUrgent, 1 << 10: pieceNow - pieceUrgent, blockSize: minReadAhead / blockSize, 1 << 20: 2} {
			tor := plainTorrent(pieces)
			tor.length = pieces * length
			tor.layout = layout.New(length, layout.File{Path: "large", Length: tor.length})
			d := crowded(t, tor, 0)
			r, err := d.Open(t.Context(), "large")
			require.NoError(t, err)
			d.mu.Lock()
			ahead := len(d.reading.urgent)
			d.mu.Unlock()
			require.GreaterOrEqual(t, ahead, min(most, minReadAhead/int(length)), "pieces of %d bytes", length)
			require.LessOrEqual(t, ahead, most+1, "pieces of %d bytes", length)
			require.NoError(t, r.Close())
			d.Close()
		}
	})
}
