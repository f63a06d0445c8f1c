package storage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// The links that an earlier run made are claimed as well: a torrent of very many files, which claims directories by name alone,
// would write through them to the files of the torrent that has the links.
func TestLinksOfAnEarlierRunAreClaimed(t *testing.T) {
	needSymlinks(t)
	linuxOnly(t)
	dir := t.TempDir()
	mine, content := linkedContent("d/a/f", "d/sub > d/a")
	earlier := openDirectory(t, mine, dir)
	fetch(t, mine, earlier, content, func(int) bool { return true })
	require.NoError(t, earlier.Finish())
	require.NoError(t, earlier.Close())

	first := openDirectory(t, mine, dir)
	require.NoError(t, first.SetWanted(all(mine)))
	require.NoError(t, first.Settle(t.Context(), bits.Full(mine.NumPieces())))
	paths := []string{"d/sub/f"}
	for i := range 1100 {
		paths = append(paths, fmt.Sprintf("d/sub/%d", i))
	}
	theirs, other := named(9, paths...)
	try := func() {
		second := openDirectory(t, theirs, dir)
		err := second.SetWanted(all(theirs))
		if err == nil {
			require.NoError(t, second.Settle(t.Context(), bits.New(theirs.NumPieces())))
			writePiece(t, theirs, second, other, 0)
			require.NoError(t, first.Changed(0), "the other torrent wrote to it")
		}
		require.ErrorIs(t, err, storage.ErrInUse)
	}
	try()
	require.NoError(t, first.Rest())
	require.NoError(t, first.Wake())
	try()
}

// Users share content among torrents by symbolic links too. A linked file is copied before it is written to, so the torrents do
// not share a file that is written.
func TestLinksBetweenTorrents(t *testing.T) {
	for _, linkFirst := range []bool{false, true} {
		forClients(t, func(t *testing.T, open opener) {
			dir := t.TempDir()
			target, content := named(1, "a/x")
			linked, other := named(2, "b/x")
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "a"), 0o777))
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "b"), 0o777))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "a", "x"), content, 0o666))
			require.NoError(t, os.Symlink("../a/x", filepath.Join(dir, "b", "x")))
			var s storage.Store
			for _, isLink := range []bool{linkFirst, !linkFirst} {
				if isLink {
					s = open(t, linked, dir)
					require.NoError(t, s.SetWanted(all(linked)))
				} else {
					require.NoError(t, open(t, target, dir).SetWanted(all(target)))
				}
			}
			writePiece(t, linked, s, other, 0)
			now, err := os.ReadFile(filepath.Join(dir, "a", "x"))
			require.NoError(t, err)
			require.Equal(t, content, now)
		})
	}
}
