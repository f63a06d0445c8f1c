package torrent

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A download that was complete for long has not stalled for as long when more is chosen.
func TestStallAfterWiderChoice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tor, content := testContent(blockSize, blockSize, blockSize)
		first := func(f File) Priority {
			if f.Path == tor.files[0].Path {
				return Normal
			}
			return Skip
		}
		st := &memory{t: tor, max: 1 << 20, files: make([]memoryFile, len(tor.files))}
		require.NoError(t, st.setWanted([]bool{true, true}))
		_, err := st.WriteAt(content[:blockSize], 0)
		require.NoError(t, err)
		d, err := tor.Start(t.Context(), &Options{
			Client:       &Client{NoListen: true},
			Storage:      func(*Torrent) (Storage, error) { return st, nil },
			Select:       first,
			Seed:         true,
			StallTimeout: time.Minute,
		})
		require.NoError(t, err)
		defer d.Close()
		_, err = d.Wait()
		require.NoError(t, err)
		time.Sleep(time.Hour)
		d.Select(nil)
		time.Sleep(50 * time.Second)
		require.NoError(t, d.ctx.Err())
		time.Sleep(20 * time.Second)
		require.Error(t, d.ctx.Err(), "nobody has the second file")
	})
}

// A file that another program changed once all was complete is not passed over in silence.
func TestCompletedTellsOfAChangedFile(t *testing.T) {
	tor, content := testContent(blockSize, blockSize, blockSize)
	dir := t.TempDir()
	fill(t, tor, dir, content)
	d, err := tor.Start(t.Context(), &Options{Dir: dir, Client: &Client{NoListen: true}})
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Wait()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "1"), []byte("short"), 0o666))
	var whole []string
	err = nil
	for f, e := range d.Completed() {
		if err = e; err == nil {
			whole = append(whole, f.Path())
		}
	}
	require.Equal(t, []string{"d/0"}, whole)
	require.ErrorIs(t, err, errChanged)
}
