package torrent_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// lazyStorage takes a while for each write.
type lazyStorage struct{ torrent.Storage }

func (s lazyStorage) WriteAt(p []byte, off int64) (int, error) {
	time.Sleep(100 * time.Millisecond)
	return s.Storage.WriteAt(p, off)
}

// A context ends a download soon, whatever waits for a slow disk.
func TestContextEndsASlowDisk(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 1 << 20}, part{"a.bin", 20 << 20})
	seed := s.gated(t)
	seed.give()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := local()
	defer c.Close()
	d, err := s.Start(ctx, &torrent.Options{Client: c, Peers: []netip.AddrPort{seed.addr}, Storage: func(tor *torrent.Torrent) (torrent.Storage, error) {
		st, err := new(mapStorage).open(tor)
		return lazyStorage{st}, err
	}})
	require.NoError(t, err)
	until(t, "much is waiting", func() bool { return d.Stats().Downloaded > 10<<20 })
	cancel()
	began := time.Now()
	_, err = d.Wait()
	require.ErrorIs(t, err, context.Canceled)
	t.Log("Wait came back after", time.Since(began))
	require.NoError(t, d.Close())
	t.Log("Close came back after", time.Since(began))
	require.Less(t, time.Since(began), 5*time.Second, "the writes that waited would take longer")
	require.Zero(t, d.Stats().StorageErrors)
}
