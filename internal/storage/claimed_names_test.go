package storage_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/storage"
)

// A claim is refused exactly if another owner has claimed the path, a directory that holds it or something below it.
func TestClaimsOnPathsThatSortClosely(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	elements := []string{"a", "a-", "a0", "aa", "b"} // "-" sorts before "/", and "0" after it
	claims, dir := new(storage.Claims), t.TempDir()
	var disks []storage.Disk
	var held [3]map[string]bool
	for k := range held {
		disk, err := claims.OpenRoot(dir)
		require.NoError(t, err)
		t.Cleanup(func() { disk.Close() })
		disks, held[k] = append(disks, disk), make(map[string]bool)
	}
	refused := 0
	for range 1000 {
		k := rng.IntN(len(held))
		files := make([]storage.Claim, 1+rng.IntN(2))
		free := true
		for i := range files {
			path := make([]string, 1+rng.IntN(4))
			for j := range path {
				path[j] = elements[rng.IntN(len(elements))]
			}
			files[i].Path = strings.Join(path, "/")
			for other, paths := range held {
				for p := range paths {
					overlap := strings.HasPrefix(p+"/", files[i].Path+"/") || strings.HasPrefix(files[i].Path+"/", p+"/")
					free = free && !(overlap && other != k)
				}
			}
		}
		undo, err := disks[k].Claim([20]byte{byte(k)}, files)
		require.Equal(t, free, err == nil, "%v by %d: %v", files, k, err)
		if err != nil {
			refused++
		} else if rng.IntN(4) > 0 {
			undo()
		} else {
			for _, f := range files {
				held[k][f.Path] = true
			}
		}
		if rng.IntN(50) == 0 {
			require.NoError(t, disks[k].Close())
			disks[k], err = claims.OpenRoot(dir)
			require.NoError(t, err)
			clear(held[k])
		}
	}
	require.Greater(t, refused, 100)
}

// A torrent of 14 MB may have four million directories, many for each file.
func TestClaimsHoldLittleForManyDirectories(t *testing.T) {
	var paths []string
	for i := range 500 {
		paths = append(paths, fmt.Sprintf("x/%d/%sf", i, strings.Repeat("a/", 120)))
	}
	tor, _ := named(1, paths...)
	require.Less(t, testing.AllocsPerRun(1, func() {
		s, err := new(storage.Claims).OpenFiles(tor, t.TempDir(), nil)
		require.NoError(t, err)
		require.NoError(t, s.SetWanted(all(tor)))
		require.NoError(t, s.Close())
	}), 30_000.0)
}
