package storage_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/proctest"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// Of few handles that a program may have, files that are not in use leave most for its connections.
func TestIdleFilesOfFewHandles(t *testing.T) {
	if _, ok := proctest.InChild(); !ok {
		out, err := proctest.Child(t, t.TempDir(), nil).CombinedOutput()
		t.Logf("%s", out)
		require.NoError(t, err)
		return
	}
	const most = 128
	limit := syscall.Rlimit{Cur: most, Max: most}
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	var claims storage.Claims
	s, _, _ := storeIn(t, &claims, disktest.New(), 0, 60)
	require.Equal(t, most/4, storage.OpenHandles(s))
	require.NoError(t, s.Close())
}
