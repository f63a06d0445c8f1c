package storage_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// A file that another program removed, and that is made again, may get the identity of one that was removed as well, of the same torrent
// or of another download. So may a file that another program puts in its place.
func TestAnIdentityOfARemovedFile(t *testing.T) {
	forDisks(t, func(t *testing.T, openRoot func(dir string) storage.Disk) {
		for name, replaced := range map[string]bool{"made again": false, "replaced": true} {
			t.Run(name, func(t *testing.T) {
				dir, inode := t.TempDir(), new(uint64)
				open := func(tor storage.Content) storage.Store {
					s, err := storage.OpenDisk(tor, sameDisk{openRoot(dir), inode}, dir, nil)
					require.NoError(t, err)
					t.Cleanup(func() { s.Close() })
					require.NoError(t, s.SetWanted(all(tor)))
					return s
				}
				tor, content := named(1, "a", "b")
				other, theirs := named(2, "c")
				s, second := open(tor), open(other)
				*inode = 1
				writePiece(t, tor, s, content, 0)
				*inode = 2
				writePiece(t, tor, s, content, 2)
				if !replaced {
					*inode = 3
					writePiece(t, other, second, theirs, 0)
				}
				for _, used := range []uint64{2, 3} {
					for _, p := range listing(t, dir) {
						if p[0] != '.' {
							require.NoError(t, os.Remove(filepath.Join(dir, p)))
						}
					}
					storage.DropHandle(s, 0)
					if replaced {
						_, err := s.Refresh(0, bits.Full(tor.NumPieces()))
						require.NoError(t, err)
						require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("another"), 0o666))
						used = 2
					}
					*inode = used
					writePiece(t, tor, s, content, 0)
				}
				*inode = 4
				_, err := s.Refresh(0, bits.Full(tor.NumPieces()))
				require.NoError(t, err)
				_, err = s.Refresh(2, bits.Full(tor.NumPieces()))
				require.NoError(t, err)
				download(t, tor, s, content)
				require.NoError(t, s.Finish())
				require.NoError(t, s.Close())
				require.NoError(t, second.Close())
				require.Equal(t, []string{"a", "b"}, listing(t, dir))
				b, err := os.ReadFile(filepath.Join(dir, "a"))
				require.NoError(t, err)
				require.Equal(t, content[:100], b)
			})
		}
	})
}
