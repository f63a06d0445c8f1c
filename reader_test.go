package torrent

import (
	"io/fs"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// Close of a reader ends its Read that waits, though no other reader is open.
func TestCloseEndsTheOnlyRead(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 16<<10, 64<<10)
		d := simLeech(t, simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil), content)
		var path string
		for f := range content.Files() {
			path = f.Path
		}
		r, err := d.Open(t.Context(), path)
		require.NoError(t, err)
		read := make(chan error, 1)
		go func() {
			_, err := r.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait()
		require.NoError(t, r.Close())
		require.ErrorIs(t, <-read, fs.ErrClosed)
	})
}
