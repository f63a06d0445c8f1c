package storage_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// acceptChanged has s accept what changed of the files of a piece, as a download does that hashes their pieces then.
func acceptChanged(t *testing.T, tor storage.Content, s storage.Store, piece int) {
	t.Helper()
	doubted := bits.New(tor.NumPieces())
	for {
		before := doubted.Count()
		changed, err := s.Refresh(piece, doubted)
		require.NoError(t, err)
		if doubted.AddAll(&changed); doubted.Count() == before {
			return
		}
	}
}

// A disk that was mounted again is read again. What had not been synced may be lost: nothing of a file that was written since is
// read before the store accepted the file, also if it looks as it did.
func TestDiskThatIsMountedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read, inDoubt, other := 0, 0, 0
		for seed := range uint64(300) {
			rng := rand.New(rand.NewPCG(seed, 1))
			tor, content := testContent(50, 200, 100, 130, 20)
			disk := disktest.New()
			chosen := only(tor, func(i int) bool { return seed%2 == 0 || i != 2 })
			open := func() storage.Store {
				s, err := disk.OpenFiles(tor, "disk", nil)
				require.NoError(t, err)
				require.NoError(t, s.SetWanted(chosen))
				require.NoError(t, s.Settle(t.Context(), verified(t, tor, s)))
				return s
			}
			s := open()
			have := bits.New(tor.NumPieces())
			write := func(n int) {
				for _, i := range rng.Perm(tor.NumPieces())[:n] {
					if slices.ContainsFunc(slices.Collect(tor.FilesOf(i)), func(k int) bool { return chosen[k] }) {
						writePiece(t, tor, s, content, i)
						have.Add(i)
					}
				}
			}
			write(rng.IntN(tor.NumPieces()))
			if rng.IntN(4) > 0 {
				require.NoError(t, s.SaveResume(have, nil))
			}
			if rng.IntN(4) == 0 { // the end of the process
				require.NoError(t, s.Close())
				s = open()
			}
			write(rng.IntN(3))
			if rng.IntN(4) == 0 {
				disk.FailSyncs(syscall.EIO)
				s.Sync() // which loses what was written since the last
				disk.FailSyncs(nil)
			}
			disk.Unmount()
			require.ErrorIs(t, s.Changed(have.Next(0)%tor.NumPieces()), storage.ErrUnexamined)
			time.Sleep(time.Minute)
			disk.Mount(rng)
			if errors.Is(s.Changed(0), storage.ErrUnexamined) { // no file is as it was left: it may be another directory
				other++
				s.Close()
				continue
			}
			for i := range have.All() {
				b := make([]byte, tor.PieceSize(i))
				off := tor.PieceOffset(i)
				_, err := s.ReadAt(b, off)
				if err == nil {
					require.Equal(t, content[off:off+int64(len(b))], b, "seed %d, piece %d", seed, i)
					read++
				} else if s.Changed(i) != nil {
					inDoubt++
					require.ErrorIs(t, s.Changed(i), storage.ErrChanged, "seed %d, piece %d: %v", seed, i, err)
				}
			}
			for i := range have.All() {
				acceptChanged(t, tor, s, i)
			}
			have = verified(t, tor, s)
			require.NoError(t, s.Sync(), seed)
			require.NoError(t, s.SaveResume(have, nil))
			require.NoError(t, s.Close())
			require.Empty(t, disk.Held())
			s = openForgetful(t, tor, disk.Crash(rng))
			claimed, _ := s.LoadResume()
			found := verified(t, tor, s)
			for i := range claimed.All() {
				require.True(t, found.Has(i), "seed %d: piece %d is claimed falsely", seed, i)
			}
			require.NoError(t, s.Close())
		}
		require.Greater(t, read, 300)
		require.Greater(t, inDoubt, 300)
		require.Less(t, other, 100)
	})
}
