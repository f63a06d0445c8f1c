package storage_test

import (
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// storeIn opens a store of n files in a registry, and writes them.
func storeIn(t *testing.T, r *storage.Claims, disk storage.Disk, number, n int) (storage.Store, storage.Content, []byte) {
	paths := make([]string, n)
	for i := range paths {
		paths[i] = strconv.Itoa(i)
	}
	tor, content := named(byte(number), paths...)
	s, err := r.OpenDisk(tor, disk, "", nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	download(t, tor, s, content)
	return s, tor, content
}

// However many torrents a client has, few files that are not in use stay open.
func TestIdleFilesOfManyTorrents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var claims storage.Claims
		var stores []storage.Store
		count := func() (n int) {
			synctest.Wait()
			for _, s := range stores {
				n += storage.OpenHandles(s)
			}
			return n
		}
		for i := range 20 {
			s, tor, content := storeIn(t, &claims, disktest.New(), i, 40)
			stores = append(stores, s)
			require.LessOrEqual(t, count(), storage.MaxIdle)
			require.NoError(t, s.Finish())
			got := make([]byte, len(content))
			_, err := s.ReadAt(got, 0)
			require.NoError(t, err)
			require.Equal(t, content, got)
			require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s))
			require.LessOrEqual(t, count(), storage.MaxIdle)
		}
		require.Equal(t, storage.MaxIdle, count(), "that are kept")
		for _, s := range stores {
			require.NoError(t, s.Close())
		}
		require.Zero(t, count())
	})
}

// Files on a disk that hangs when they are closed keep no other from making room.
func TestIdleFilesOnAHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var claims storage.Claims
		var hangs atomic.Bool
		goOn := make(chan struct{})
		disk := disktest.New()
		disk.Fail = func(call, _ string) error {
			if call == "close" && hangs.Load() {
				<-goOn
			}
			return nil
		}
		hung, _, _ := storeIn(t, &claims, disk, 0, 40)
		hangs.Store(true)
		var stores []storage.Store
		for i := range 10 {
			s, _, _ := storeIn(t, &claims, disktest.New(), i+1, 40)
			stores = append(stores, s)
		}
		hangs.Store(false)
		close(goOn)
		synctest.Wait()
		require.Zero(t, storage.OpenHandles(hung), "the others were used later")
		for _, s := range append(stores, hung) {
			require.NoError(t, s.Close())
		}
	})
}

// A store that gets no handle because the files of another have taken all has one of them closed.
func TestIdleFilesMakeRoomForAnother(t *testing.T) {
	if !storage.Exhausted(syscall.EMFILE) {
		t.Skip("no such error here")
	}
	synctest.Test(t, func(t *testing.T) {
		var claims storage.Claims
		left := new(atomic.Int64)
		left.Store(3)
		first, _, _ := storeIn(t, &claims, scantDisk{disktest.New(), left}, 1, 10)
		require.Zero(t, left.Load())
		tor, content := named(2, "a", "b")
		second, err := claims.OpenDisk(tor, scantDisk{disktest.New(), left}, "", nil)
		require.NoError(t, err)
		again := func(do func() error) {
			for range 10 {
				if err = do(); !storage.Exhausted(err) {
					break
				}
				synctest.Wait()
			}
			require.NoError(t, err)
		}
		again(func() error { return second.SetWanted(all(tor)) })
		again(func() error { return second.WriteBlocks([][]byte{content[:50]}, 0) })
		require.NoError(t, second.Close())
		require.NoError(t, first.Close())
	})
}
