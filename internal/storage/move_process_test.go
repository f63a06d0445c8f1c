//go:build linux

package storage_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/proctest"
	"github.com/shoal-go/torrent/internal/storage"
)

// A Move that is killed at any step leaves all of the content in the old directory or in the new one. From the old one it can be
// moved again.
func TestKillInAMove(t *testing.T) {
	tor, content := testContent(3*layout.BlockSize/2, 10_000, 150_000, 0, 100)
	have := bits.Full(tor.NumPieces())
	if where, ok := proctest.InChild(); ok {
		words := strings.Split(where, " ")
		steps, err := strconv.Atoi(words[0])
		require.NoError(t, err)
		disks := onDisks(t, words[1] == "copy", func() {
			if steps--; steps == 0 {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}, words[2]+"/old", words[2]+"/new")
		s, err := storage.OpenDisk(tor, disks[0], words[2]+"/old", nil)
		require.NoError(t, err)
		require.NoError(t, s.SetWanted(all(tor)))
		require.NoError(t, storage.MoveTo(t.Context(), s, disks[1], words[2]+"/new", claim(have)))
		require.NoError(t, s.Close())
		return
	}
	for _, way := range []string{"link", "copy"} {
		for steps := 1; ; steps++ {
			root := t.TempDir()
			old, dir := filepath.Join(root, "old"), filepath.Join(root, "new")
			fill(t, tor, old, content)
			s := openDirectory(t, tor, old)
			require.NoError(t, s.SetWanted(all(tor)))
			require.NoError(t, s.Keep(have, nil))
			require.NoError(t, s.Close())

			err := proctest.Child(t, strconv.Itoa(steps)+" "+way+" "+root, nil).Run()
			if err == nil {
				require.Empty(t, listing(t, old))
				require.Equal(t, []string{sidecarName, "d/0", "d/1", "d/2", "d/3"}, listing(t, dir))
				require.Greater(t, steps, 20)
				t.Logf("%d steps by %s", steps-1, way)
				break
			}
			require.ErrorContains(t, err, "killed")
			whole(t, tor, steps, func(dir string) storage.Store { return openDirectory(t, tor, dir) }, old, dir)

			s = openDirectory(t, tor, old)
			require.NoError(t, s.SetWanted(all(tor)))
			if verified(t, tor, s).Count() == tor.NumPieces() {
				require.NoError(t, s.Move(t.Context(), dir, claim(have), func(int64, int64) {}), "step %d by %s", steps, way)
				require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
				require.Empty(t, listing(t, old))
			}
			require.NoError(t, s.Close())
		}
	}
}
