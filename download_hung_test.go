package torrent

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/storage"
)

// hungStorage waits with each write until its channel is closed.
type hungStorage struct {
	Storage
	hung <-chan struct{}
}

func (s *hungStorage) WriteAt(p []byte, off int64) (int, error) {
	<-s.hung
	return s.Storage.WriteAt(p, off)
}

func (c *simContent) openHung(hung <-chan struct{}) func(*Torrent) (Storage, error) {
	return func(t *Torrent) (Storage, error) {
		st, err := newSimStorage(c).open(t)
		return &hungStorage{st, hung}, err
	}
}

// A disk that hangs holds up no download that is elsewhere, however long the pieces are.
func TestAHungDiskHoldsUpNoOther(t *testing.T) {
	for name, pieceLength := range map[string]int64{"short": 64 << 10, "long": 8 << 20} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				host := n.NewHost("80.0.0.1", 0, 0, 0)
				seed, leech := simClient(t, host, nil), simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil)
				hung := make(chan struct{})
				release := sync.OnceFunc(func() { close(hung) })
				defer release()
				stuck, other := newSimContent(1, pieceLength, 16<<20), newSimContent(2, pieceLength, 16<<20)
				simSeed(t, seed, stuck)
				simSeed(t, seed, other)
				slow, err := stuck.own().Start(t.Context(), &Options{Client: leech, Peers: []netip.AddrPort{host.Addr(6881)}, Storage: stuck.openHung(hung)})
				require.NoError(t, err)
				simnet.Sleep(time.Minute)
				d := simLeech(t, leech, other, host.Addr(6881))
				simnet.Sleep(time.Minute)
				require.True(t, d.Stats().Complete)
				require.Zero(t, slow.Stats().Verified)
				release()
				_, err = slow.Wait()
				require.NoError(t, err)
			})
		})
	}
}

// deadDisk waits with each read until its channel is closed, and counts those that wait.
type deadDisk struct {
	Storage
	hung    <-chan struct{}
	waiting *atomic.Int64
}

func (s deadDisk) ReadAt(p []byte, off int64) (int, error) {
	s.waiting.Add(1)
	<-s.hung
	s.waiting.Add(-1)
	return s.Storage.ReadAt(p, off)
}

// Each call that waits for a disk takes a thread, of which a program may have 10,000. Those of one disk leave some for others.
func TestAHungDiskTakesFewThreads(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		host := n.NewHost("80.0.0.1", 0, 0, 0)
		seed, leech := simClient(t, host, nil), simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil)
		hung := make(chan struct{})
		release := sync.OnceFunc(func() { close(hung) })
		defer release()
		var waiting atomic.Int64
		var readers sync.WaitGroup
		for k := range uint64(3) {
			content := newSimContent(k, 64<<10, 1<<20)
			d, err := content.own().Start(t.Context(), &Options{Client: leech, Storage: func(*Torrent) (Storage, error) {
				return deadDisk{memory{make([]byte, 1<<20)}, hung, &waiting}, nil
			}})
			require.NoError(t, err)
			for range 1500 {
				readers.Go(func() {
					_, err := d.store.ReadAt(make([]byte, 1), 0)
					require.NoError(t, err)
				})
			}
		}
		synctest.Wait()
		require.LessOrEqual(t, waiting.Load(), int64(storage.MaxCalls/2))
		other := newSimContent(3, 64<<10, 1<<20)
		simSeed(t, seed, other)
		d, err := other.own().Start(t.Context(), &Options{Client: leech, Peers: []netip.AddrPort{host.Addr(6881)}})
		require.NoError(t, err)
		simnet.Sleep(time.Minute)
		require.True(t, d.Stats().Complete)
		release()
		readers.Wait()
		synctest.Wait() // for what else reads there
		require.Zero(t, waiting.Load())
	})
}
