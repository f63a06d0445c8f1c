package torrent_test

import (
	"testing"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/storagetest"
)

func TestStorageSuite(t *testing.T) {
	t.Run("memory", func(t *testing.T) { storagetest.Run(t, torrent.OpenMemory) })
	t.Run("files", func(t *testing.T) { storagetest.Run(t, torrent.OpenFilesIn(t.TempDir)) })
}
