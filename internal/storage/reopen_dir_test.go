//go:build unix

package storage_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// mountAgain puts a copy of dir, with the same modification times, in its place.
func mountAgain(t *testing.T, dir string) {
	t.Helper()
	away := dir + ".away"
	require.NoError(t, os.Rename(dir, away))
	require.NoError(t, os.CopyFS(dir, os.DirFS(away)))
	for _, name := range listing(t, away) {
		info, err := os.Stat(filepath.Join(away, name))
		require.NoError(t, err)
		require.NoError(t, os.Chtimes(filepath.Join(dir, name), info.ModTime(), info.ModTime()))
	}
}

// The directory that is at the path later is used only if the content is there, and if it can be claimed.
func TestDirectoryThatIsMountedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tor, content := testContent(40<<10, 80<<10, 200<<10, 40<<10)
		claims, dir := new(storage.Claims), filepath.Join(t.TempDir(), "mount")
		var log bytes.Buffer
		s, err := claims.OpenFiles(tor, dir, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		require.NoError(t, s.SetWanted(all(tor)))
		for i := range tor.NumPieces() - 1 {
			writePiece(t, tor, s, content, i)
		}
		have := bits.Full(tor.NumPieces())
		have.Remove(tor.NumPieces() - 1)
		require.NoError(t, s.SaveResume(have, nil))
		before, release, err := s.Bytes(1)
		require.NoError(t, err)
		copies := s.Copies(1)
		got := make([]byte, tor.File(2).Offset)
		fails := func() {
			t.Helper()
			time.Sleep(time.Second)
			_, err := s.ReadAt(got, 0)
			require.Error(t, err)
			require.ErrorIs(t, s.Changed(0), storage.ErrUnexamined)
			require.ErrorIs(t, s.ChangedFile(1), storage.ErrUnexamined)
		}

		storage.LoseDirectory(s)
		require.NoError(t, os.Rename(dir, dir+".away"))
		fails()
		require.NoError(t, os.Mkdir(dir, 0o777)) // what it was mounted on
		fails()
		require.Empty(t, listing(t, dir))
		require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o777))
		for _, name := range []string{"d/0", "d/1"} { // which an earlier run of the user's made
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), make([]byte, 80<<10), 0o666))
		}
		fails()
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.Rename(dir+".away", dir))

		// Another download has claimed a file meanwhile.
		mountAgain(t, dir)
		rival := tor
		rival.InfoHash[0]++
		other, err := claims.OpenFiles(rival, dir, nil)
		require.NoError(t, err)
		require.NoError(t, other.SetWanted(all(rival)))
		for range 150 {
			fails()
		}
		require.Equal(t, 3, strings.Count(log.String(), "WARN"), log.String())
		require.NoError(t, other.Close())
		time.Sleep(time.Minute)

		require.NoError(t, s.ChangedFile(1))
		_, err = s.ReadAt(got, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content[:len(got)], got))
		require.Greater(t, s.Copies(1), copies, "maps are made again")
		again, releaseAgain, err := s.Bytes(1)
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, again))
		require.NotSame(t, &before[0], &again[0])
		require.NoError(t, release())
		require.NoError(t, releaseAgain())
		other, err = claims.OpenFiles(rival, dir, nil)
		require.NoError(t, err)
		require.ErrorIs(t, other.SetWanted(all(rival)), storage.ErrInUse)
		require.NoError(t, other.Close())
		_, err = storage.OpenFiles(tor, dir, nil)
		require.ErrorIs(t, err, storage.ErrInUse, "the lock")

		// Another program writes a file meanwhile.
		storage.LoseDirectory(s)
		require.NoError(t, os.RemoveAll(dir+".away"))
		mountAgain(t, dir)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "1"), make([]byte, 200<<10), 0o666))
		time.Sleep(time.Second)
		_, err = s.ReadAt(got[:80<<10], 0)
		require.NoError(t, err)
		_, err = s.ReadAt(got, 0)
		require.ErrorIs(t, err, storage.ErrChanged)
		_, _, err = s.Bytes(1)
		require.ErrorIs(t, err, storage.ErrChanged)
		piece, err := s.AnyChanged(t.Context(), have)
		require.ErrorIs(t, err, storage.ErrChanged)
		acceptChanged(t, tor, s, piece)
		found := verified(t, tor, s)
		require.Equal(t, 2, found.Count())
		for i := range tor.NumPieces() {
			writePiece(t, tor, s, content, i)
		}
		require.NoError(t, s.SaveResume(bits.Full(tor.NumPieces()), nil))
		require.NoError(t, s.Finish())
		require.NoError(t, s.Close())
		require.Zero(t, claims.OpenDirectories())
		require.Zero(t, claims.Directories())
		require.Equal(t, []string{"d/0", "d/1", "d/2"}, listing(t, dir))
		b, err := os.ReadFile(filepath.Join(dir, "d", "1"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(content[80<<10:280<<10], b))
	})
}
