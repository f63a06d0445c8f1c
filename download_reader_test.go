package torrent

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

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

// Of very many readers, each of which moves from piece to piece, what is ahead of all is not looked at for each move, but soon.
func TestManyReadersAreFollowedTogether(t *testing.T) {
	const readers, pieces = 300, 10_000
	synctest.Test(t, func(t *testing.T) {
		tor := plainTorrent(pieces)
		tor.length = pieces * blockSize
		tor.layout = layout.New(blockSize, layout.File{Path: "large", Length: tor.length})
		d := crowded(t, tor, 0)
		defer d.Close()
		var all []*reader
		for range readers {
			r, err := d.Open(t.Context(), "large")
			require.NoError(t, err)
			all = append(all, r.(*reader))
		}
		passes := 0
		var last map[int]uint8
		move := func(to func(k int) int64) {
			for k, r := range all {
				d.mu.Lock()
				r.at = to(k)
				d.readerMoved(time.Now())
				if len(last) == 0 || reflect.ValueOf(last).Pointer() != reflect.ValueOf(d.reading.urgent).Pointer() {
					last = d.reading.urgent
					passes++
				}
				d.mu.Unlock()
			}
		}
		ahead := func(piece int) bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.reading.urgent[piece] == pieceNow
		}
		time.Sleep(time.Second)
		synctest.Wait()
		move(func(k int) int64 { return int64(k*10) * blockSize })
		require.LessOrEqual(t, passes, 2)
		time.Sleep(readers * followEach)
		synctest.Wait()
		for k := range readers {
			require.True(t, ahead(k*10), "of reader %d", k)
		}
	})
}
