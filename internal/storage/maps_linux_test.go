package storage_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/shoal-go/torrent/internal/storage"
)

func TestMapsAreMany(t *testing.T) {
	limit, err := os.ReadFile("/proc/sys/vm/max_map_count")
	if err != nil || string(limit) != "65530\n" {
		t.Skip("another bound than the usual one")
	}
	require.False(t, storage.MapsAreMany())
	// Every second page has another protection, so that each page is a map of its own.
	page := os.Getpagesize()
	const n = 66_000 / 4
	b, err := unix.Mmap(-1, 0, 2*n*page, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	require.NoError(t, err)
	defer unix.Munmap(b)
	for i := range n {
		require.NoError(t, unix.Mprotect(b[2*i*page:(2*i+1)*page], unix.PROT_READ))
	}
	require.True(t, storage.MapsAreMany())
}
