package storage_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// As long as a file is mapped no other download has it, also if its own has ended: if the other truncated it, the map would crash
// the program.
func TestMapsKeepTheirFiles(t *testing.T) {
	forClients(t, func(t *testing.T, open opener) {
		tor, content := testContent(16<<10, 40<<10)
		rival := tor
		rival.InfoHash[0]++
		dir := t.TempDir()
		s := open(t, tor, dir)
		require.NoError(t, s.SetWanted(all(tor)))
		require.NoError(t, s.WriteBlocks([][]byte{content}, 0))
		require.NoError(t, s.Finish())
		claim := func() error {
			r := open(t, rival, dir)
			defer r.Close()
			return r.SetWanted(all(rival))
		}

		b, release, err := s.Bytes(0)
		require.NoError(t, err)
		require.NoError(t, s.Rest())
		require.ErrorIs(t, claim(), storage.ErrInUse)
		require.NoError(t, s.Wake())
		require.ErrorIs(t, claim(), storage.ErrInUse)
		require.NoError(t, s.Close())
		require.ErrorIs(t, claim(), storage.ErrInUse)
		again := open(t, tor, dir) // the same download may have it
		require.NoError(t, again.SetWanted(all(tor)))
		require.NoError(t, again.Close())
		require.Equal(t, content, b)
		require.NoError(t, release())
		require.NoError(t, claim())
	})
}

// Many stores in one process, which do not know of each other, leave maps for the rest of the program.
func TestMapsOfManyStores(t *testing.T) {
	const stores, files, most = 60, 40, 1200
	lengths := make([]int64, files)
	for i := range lengths {
		lengths[i] = 16<<10 + 1
	}
	tor, content := testContent(16<<10, lengths...)
	d := disktest.New()
	filled := openForgetful(t, tor, d)
	require.NoError(t, filled.SetWanted(all(tor)))
	require.NoError(t, filled.WriteBlocks([][]byte{content}, 0))
	require.NoError(t, filled.Finish())
	require.NoError(t, filled.Close())

	total, looks := 0, 0
	many := func() bool {
		looks++
		return total > most/2
	}
	open := make([]storage.Store, stores)
	releases := make([][]func() error, stores)
	for i := range open {
		open[i] = openForgetful(t, tor, d)
		require.NoError(t, open[i].SetWanted(all(tor)))
		storage.SetMapsAreMany(open[i], many)
	}
	take := func(i int) bool { // another map for store i
		b, release, err := open[i].Bytes(len(releases[i]))
		if err != nil {
			require.ErrorIs(t, err, storage.ErrTooLarge)
			return false
		}
		require.Len(t, b, 16<<10+1)
		releases[i] = append(releases[i], release)
		total++
		return true
	}
	for i := range open {
		for range 8 {
			require.True(t, take(i))
		}
	}
	require.Less(t, looks, total, "it is not looked for each")
	for i := range open {
		for len(releases[i]) < files && take(i) {
		}
	}
	require.Greater(t, total, most/2)
	require.LessOrEqual(t, total, most*3/4)

	for i := range open { // maps that are released no longer count
		for _, release := range releases[i] {
			require.NoError(t, release())
			total--
		}
		releases[i] = nil
	}
	for i := range open {
		for len(releases[i]) < files && take(i) {
		}
	}
	require.LessOrEqual(t, total, most*3/4)
	for i := range open {
		for _, release := range releases[i] {
			require.NoError(t, release())
		}
		require.NoError(t, open[i].Close())
	}
}
