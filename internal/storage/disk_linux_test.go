package storage

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A sidecar claims what was synced. A FUSE server never hears of syncfs, for example, so there each file is synced.
func TestSyncAllWhereItReachesTheDisk(t *testing.T) {
	for _, fsType := range []int64{unix.FUSE_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.ECRYPTFS_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.V9FS_MAGIC, 0} {
		require.False(t, reachesDisk(fsType), "%#x", fsType)
	}
	for _, fsType := range []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC} {
		require.True(t, reachesDisk(fsType), "%#x", fsType)
	}
	require.True(t, reachesDisk(int64(int32(-1859950530))), "btrfs, where the type has 32 bits and a sign")
}
