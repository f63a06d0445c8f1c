package torrent_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

// What happens between the call of Events and the first look at what it yields is not lost.
func TestEventsFromTheCallOn(t *testing.T) {
	tor, seed := torrenttest.Seed(t, map[string]string{"tide.txt": "neap"})
	client := &torrent.Client{Listen: "127.0.0.1:0", NoDHT: true, NoUTP: true}
	t.Cleanup(func() { client.Close() })
	d, err := tor.Start(t.Context(), &torrent.Options{Client: client})
	require.NoError(t, err)
	events := d.Events(t.Context())
	d.AddPeers(seed)
	files, err := d.Wait()
	require.NoError(t, err)
	require.NoError(t, files.Close())
	verified := 0
	for e := range events {
		if e.Kind == torrent.FileVerified {
			verified++
		}
	}
	require.Equal(t, 1, verified)
}
