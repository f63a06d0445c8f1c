package torrent

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/storage"
)

// A client may be closed, and asked for its downloads, while another goroutine is about to start one.
func TestClientClosedDuringStart(t *testing.T) {
	tor, _ := testContent(blockSize, 3*blockSize)
	c := &Client{NoDHT: true, NoListen: true}
	closed := make(chan error)
	_, err := tor.Start(t.Context(), &Options{Client: c, Storage: func(t *Torrent) (Storage, error) {
		for d := range c.Downloads() {
			d.Stats()
		}
		go func() { closed <- c.Close() }()
		<-closed
		return storage.NewMemory(t.content(), 1<<20), nil
	}})
	require.ErrorIs(t, err, ErrClosed)
	require.Empty(t, c.registry.downloads)
}
