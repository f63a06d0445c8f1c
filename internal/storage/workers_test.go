package storage_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// Thousands of downloads may begin to check their content at once. Each read that waits for the disk takes a thread, without which a
// program cannot go on, and a buffer. Those of one disk, which may hang, leave some for others.
func TestWorkersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 400
		tor, content := testContent(256<<10, 1<<20)
		w := storage.NewWorkers()
		var reads, over, done atomic.Int64
		gate := make(chan struct{})
		hung := readerAt(func(p []byte, off int64) (int, error) {
			if reads.Add(1) > 256 {
				over.Add(1)
			}
			<-gate
			reads.Add(-1)
			return copy(p, content[off:]), nil
		})
		var running sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		verify := func(ctx context.Context, at storage.Place) {
			running.Go(func() {
				if w.Verify(ctx, at, tor, hung, bits.Full(tor.NumPieces()), func(int, bool) {}, nil) == nil {
					done.Add(1)
				}
			})
		}
		verify(t.Context(), "a")
		synctest.Wait()
		require.EqualValues(t, min(runtime.GOMAXPROCS(0), tor.NumPieces()), reads.Load(), "alone, it has all cores")
		for _, after := range []struct {
			at    storage.Place
			reads int
		}{{"a", 128}, {"b", 192}, {"c", 224}} {
			for range many {
				verify(ctx, after.at)
			}
			synctest.Wait()
			require.EqualValues(t, after.reads, reads.Load())
			require.NoError(t, w.Verify(t.Context(), "elsewhere", tor, readerAt(func(p []byte, off int64) (int, error) {
				return copy(p, content[off:]), nil
			}), bits.Full(tor.NumPieces()), func(int, bool) {}, nil))
		}
		cancel() // those that wait end at once
		synctest.Wait()
		require.EqualValues(t, 224, reads.Load())
		for range many {
			verify(t.Context(), "a")
		}
		close(gate)
		running.Wait()
		require.EqualValues(t, 1+many, done.Load())
		require.Zero(t, over.Load())
	})
}
