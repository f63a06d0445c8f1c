//go:build unix

package storage_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// A directory that is mounted anew, so that no handle of before is of any use, is opened again and claimed. What had not been synced is in
// doubt. While something else is at its path, nothing is used there.
func TestDirectoryThatIsMountedAnew(t *testing.T) {
	for name, synced := range map[string]bool{"synced": true, "not synced": false} {
		t.Run(name, func(t *testing.T) {
			tor, content := testContent(50, 200, 100)
			full := bits.Full(tor.NumPieces())
			claims, dir := new(storage.Claims), filepath.Join(t.TempDir(), "mount")
			s, err := claims.OpenFiles(tor, dir, nil)
			require.NoError(t, err)
			require.NoError(t, s.SetWanted(all(tor)))
			for i := range tor.NumPieces() {
				writePiece(t, tor, s, content, i)
			}
			if synced {
				require.NoError(t, s.Sync())
			}
			present := listing(t, dir)
			storage.LoseDirectory(s)
			away := dir + ".away"
			require.NoError(t, os.Rename(dir, away))
			got := make([]byte, len(content))
			_, err = s.ReadAt(got, 0)
			require.Error(t, err)
			require.NoError(t, os.Mkdir(dir, 0o777)) // what it is mounted on
			_, err = s.ReadAt(got, 0)
			require.Error(t, err)
			require.ErrorIs(t, s.Changed(0), storage.ErrUnexamined)
			require.Empty(t, listing(t, dir))
			require.NoError(t, os.Remove(dir))
			require.NoError(t, os.Rename(away, dir))

			_, err = s.ReadAt(got, 0)
			require.NoError(t, err)
			require.Equal(t, content, got)
			require.Equal(t, present, listing(t, dir))
			piece, err := s.AnyChanged(t.Context(), full)
			if synced {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, storage.ErrChanged)
				for i := range tor.NumPieces() {
					_, err := s.Refresh(max(i, piece), full)
					require.NoError(t, err)
				}
				_, err = s.AnyChanged(t.Context(), full)
				require.NoError(t, err)
			}

			rival := tor
			rival.InfoHash[0]++
			other, err := claims.OpenFiles(rival, dir, nil)
			require.NoError(t, err)
			require.ErrorIs(t, other.SetWanted(all(tor)), storage.ErrInUse)
			require.NoError(t, other.Close())
			writePiece(t, tor, s, content, 1)
			require.NoError(t, s.SaveResume(full, nil))
			require.NoError(t, s.Finish())
			require.NoError(t, s.Close())
			require.Zero(t, claims.OpenDirectories())
			require.Len(t, listing(t, dir), tor.NumFiles())
		})
	}
}
