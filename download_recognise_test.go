package torrent

import (
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/hashfetch"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// Of a file of version 2 whose hashes are not known yet, pieces are found at the start by their roots. If the file is not chosen then,
// and changes or goes away before it is, they do not count as verified once their hashes come.
func TestPiecesFoundByRootsAreHashedAgain(t *testing.T) {
	for name, meddle := range map[string]func(path string, rest []byte) error{
		"changed":   func(path string, rest []byte) error { return os.WriteFile(path, make([]byte, len(rest)), 0o666) },
		"removed":   func(path string, rest []byte) error { return os.Remove(path) },
		"as it was": func(path string, rest []byte) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimVersion(V2, true, 1, blockSize, 100, 5*blockSize)
				at := 0 // the index of the long file
				for content.file(at).Length != 5*blockSize {
					at++
				}
				f := content.layout.File(at)
				dir := t.TempDir()
				path := filepath.Join(dir, filepath.FromSlash(f.Path))
				there := append(make([]byte, blockSize), content.truth.Run(f.Offset+blockSize, 4*blockSize)...)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
				require.NoError(t, os.WriteFile(path, there, 0o666))
				p := simpeer.New("peer", n.NewHost("80.0.0.1", 0, 0, 0), 6881, content.truth, simpeer.Script{Fast: true})
				require.NoError(t, p.Arrive())
				t.Cleanup(p.Stop)
				d, err := content.own().Start(t.Context(), &Options{Dir: dir, Seed: true, Select: butFile(at), Client: simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil), Peers: []netip.AddrPort{p.Addr()}})
				require.NoError(t, err)
				t.Cleanup(func() { d.Close() })
				_, err = d.Wait()
				require.NoError(t, err)
				require.NoError(t, meddle(path, there))
				d.Select(nil)
				files, err := d.Wait()
				require.NoError(t, err)
				b, err := files.ReadFile(f.Path)
				require.NoError(t, err)
				require.True(t, content.truth.Equal(f.Offset, b))
				b, err = os.ReadFile(path)
				require.NoError(t, err)
				require.True(t, content.truth.Equal(f.Offset, b))
			})
		})
	}
}

// The hashes of very many files may come faster than their pieces are hashed again, as while the disk is busy with another download. One
// task takes all pieces that wait then: for each file, another one would hold memory for all pieces.
func TestPiecesFoundByRootsAreTakenTogether(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const files = 100
		lengths := make([]int64, files)
		for i := range lengths {
			lengths[i] = 2 * blockSize
		}
		content := newSimVersion(V2, true, 1, blockSize, lengths...)
		dir := t.TempDir()
		for _, f := range content.layout.Files() {
			path := filepath.Join(dir, filepath.FromSlash(f.Path))
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
			half := append(content.truth.Run(f.Offset, blockSize), make([]byte, blockSize)...)
			require.NoError(t, os.WriteFile(path, half, 0o666))
		}
		d, err := content.own().Start(t.Context(), &Options{Dir: dir, Client: simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil)})
		require.NoError(t, err)
		t.Cleanup(func() { d.Close() })
		synctest.Wait()
		require.Equal(t, Downloading, d.Stats().State)
		d.mu.Lock()
		before, now := runtime.NumGoroutine(), time.Now()
		for i := range files {
			d.learned(hashfetch.Found{Target: hashfetch.Target{File: i, Piece: -1}, Layer: content.truth.PieceLayer(i)})
		}
		tasks, waiting := runtime.NumGoroutine()-before, d.hashing.waiting
		d.unlock(now)
		require.Less(t, tasks, files/2)
		require.True(t, waiting)
		synctest.Wait()
		require.Equal(t, files, d.Stats().PiecesVerified)
		d.mu.Lock()
		waiting = d.hashing.waiting
		d.mu.Unlock()
		require.False(t, waiting)
	})
}

// A user's own storage that cannot be read at the start ends the download also where hashes are missing, which the files may show.
func TestStorageFailsWhileHashesAreMissing(t *testing.T) {
	for _, later := range []bool{false, true} { // once the hashes have come
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimVersion(V2, true, 1, blockSize, 4*blockSize)
			store := unreadableStorage{newSimStorage(content).fill(), new(atomic.Int32)}
			if !later {
				store.fails.Store(1000)
			} else {
				store.written.Remove(0) // so that the file does not prove its layer
			}
			d, err := content.own().Start(t.Context(), &Options{
				Storage: func(*Torrent) (Storage, error) { return store, nil },
				Client:  simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil),
			})
			require.NoError(t, err)
			t.Cleanup(func() { d.Close() })
			synctest.Wait()
			if later {
				require.Equal(t, Downloading, d.Stats().State)
				store.fails.Store(1000)
				now := time.Now()
				d.mu.Lock()
				d.learned(hashfetch.Found{Target: hashfetch.Target{File: 0, Piece: -1}, Layer: content.truth.PieceLayer(0)})
				d.unlock(now)
				synctest.Wait()
			}
			require.Equal(t, Stopped, d.Stats().State, "later: %v", later)
			_, err = d.Wait()
			require.ErrorIs(t, err, syscall.EIO)
			require.ErrorIs(t, d.Stats().StorageError, syscall.EIO)
		})
	}
}

// unreadableStorage fails to read that many times.
type unreadableStorage struct {
	*simStorage
	fails *atomic.Int32
}

func (s unreadableStorage) ReadAt(p []byte, off int64) (int, error) {
	if s.fails.Add(-1) >= 0 {
		return 0, syscall.EIO
	}
	return s.simStorage.ReadAt(p, off)
}
