package storage_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// set is a set of n pieces with some of them in it.
func set(n int, pieces ...int) bits.Set {
	b := bits.New(n)
	for _, i := range pieces {
		b.Add(i)
	}
	return b
}

func pieces(b bits.Set) []int { return slices.Collect(b.All()) }

const sidecarName = ".0102030000000000000000000000000000000000.resume"

func TestResumeSidecar(t *testing.T) {
	const pieceLength = 4 * layout.BlockSize
	tor, content := testContent(pieceLength, 3*pieceLength, 2*pieceLength-5, 0)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	have, partial := s.LoadResume()
	require.Zero(t, have.Count())
	require.Empty(t, partial)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.Settle(t.Context(), have))
	for _, i := range []int{0, 2, 3} {
		writePiece(t, tor, s, content, i)
	}
	block := content[4*pieceLength+layout.BlockSize : 4*pieceLength+2*layout.BlockSize]
	require.NoError(t, s.WriteBlocks([][]byte{block}, 4*pieceLength+layout.BlockSize))
	require.NoError(t, s.SaveResume(set(5, 0, 2, 3), map[int]bits.Set{4: set(4, 1)}))
	require.Equal(t, []string{".0102030000000000000000000000000000000000.lock", sidecarName, "d/0", "d/1", "d/2"}, listing(t, dir))
	require.NoError(t, s.Close())
	require.Equal(t, []string{sidecarName, "d/0", "d/1", "d/2"}, listing(t, dir))

	t.Run("is believed", func(t *testing.T) {
		s := openDirectory(t, tor, dir)
		defer s.Close()
		have, partial := s.LoadResume()
		require.Equal(t, []int{0, 2, 3}, pieces(have))
		require.Equal(t, map[int]bits.Set{4: set(4, 1)}, partial)
		require.NoError(t, s.SetWanted(all(tor)))
		require.Subset(t, pieces(s.Present(t.Context())), []int{0, 2, 3})
	})
	t.Run("file by file", func(t *testing.T) {
		other := t.TempDir()
		require.NoError(t, os.CopyFS(other, os.DirFS(dir)))
		for _, name := range []string{"d/0", "d/1"} {
			info, err := os.Stat(filepath.Join(dir, name))
			require.NoError(t, err)
			require.NoError(t, os.Chtimes(filepath.Join(other, name), info.ModTime(), info.ModTime()))
		}
		s := openDirectory(t, tor, other)
		have, partial := s.LoadResume()
		require.Equal(t, []int{0, 2, 3}, pieces(have), "a copy that keeps the times is as good")
		require.Len(t, partial, 1)
		require.NoError(t, s.Close())

		require.NoError(t, os.Chtimes(other+"/d/1", time.Time{}, time.Now().Add(time.Hour)))
		s = openDirectory(t, tor, other)
		have, partial = s.LoadResume()
		require.Equal(t, []int{0, 2}, pieces(have))
		require.Empty(t, partial)
		require.NoError(t, s.SetWanted(all(tor)))
		require.Contains(t, pieces(s.Present(t.Context())), 3, "what is not believed is worth hashing")
		require.NoError(t, s.Close())

		require.NoError(t, os.Truncate(other+"/d/0", 10))
		s = openDirectory(t, tor, other)
		have, _ = s.LoadResume()
		require.Empty(t, pieces(have))
	})
	t.Run("is removed when the content is complete", func(t *testing.T) {
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted(all(tor)))
		for i := range 5 {
			writePiece(t, tor, s, content, i)
		}
		require.NoError(t, s.SaveResume(bits.Full(5), nil))
		require.NoError(t, s.Finish())
		require.NoError(t, s.SaveResume(set(5, 1), nil))
		require.Equal(t, []string{"d/0", "d/1", "d/2"}, listing(t, dir))
	})
}

func TestResumeSidecarIsSetAside(t *testing.T) {
	tor, content := testContent(50, 200)
	other := tor
	other.InfoHash[19]++
	valid := func(tor storage.Content) []byte {
		dir := t.TempDir()
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted(all(tor)))
		require.NoError(t, s.SaveResume(set(4, 1), nil))
		b, err := os.ReadFile(filepath.Join(dir, sidecar(tor, ".resume")))
		require.NoError(t, err)
		return b
	}
	for _, c := range []struct {
		name   string
		bytes  []byte
		reason string
	}{
		{"empty", nil, "not a resume sidecar"},
		{"foreign", []byte("d10:file-format22:libtorrent resume filee"), "not a resume sidecar"},
		{"cut", valid(tor)[:40], "checksum"},
		{"cut to its magic", []byte(storage.ResumeMagic), "too short"},
		{"a bit wrong", func() []byte { b := valid(tor); b[100] ^= 4; return b }(), "checksum"},
		{"newer", func() []byte { b := valid(tor); b[len(storage.ResumeMagic)+1] = 3; return b }(), "version 3"},
		{"of another torrent", valid(other), "another torrent"},
		{"too large", make([]byte, 1<<20), "bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.MkdirAll(dir+"/d", 0o777))
			require.NoError(t, os.WriteFile(dir+"/d/0", content, 0o666))
			require.NoError(t, os.WriteFile(filepath.Join(dir, sidecarName), c.bytes, 0o666))
			var log bytes.Buffer
			s, err := storage.OpenFiles(tor, dir, slog.New(slog.NewTextHandler(&log, nil)))
			require.NoError(t, err)
			defer s.Close()
			require.Contains(t, log.String(), c.reason)
			have, _ := s.LoadResume()
			require.Zero(t, have.Count())
			require.NoError(t, s.SetWanted(all(tor)))
			require.Equal(t, 4, verified(t, tor, s).Count())
			kept, err := os.ReadFile(filepath.Join(dir, sidecarName+".bad"))
			require.NoError(t, err)
			require.Equal(t, len(c.bytes), len(kept))
			require.NoError(t, s.Finish())
			require.Equal(t, []string{"d/0"}, listing(t, dir))
		})
	}
}

// keptHashes implements storage.Hashes.
type keptHashes struct {
	learned  []byte
	recalled []byte
}

func (k *keptHashes) AppendLearned(b []byte, most int) []byte {
	return append(b, k.learned[:min(most, len(k.learned))]...)
}
func (k *keptHashes) Recall(b []byte) { k.recalled = slices.Clone(b) }

// Hashes that the torrent did not contain stay in the sidecar, whatever happens to the files.
func TestResumeSidecarKeepsHashes(t *testing.T) {
	tor, content := testContent(50, 200)
	hashes := &keptHashes{learned: bytes.Repeat([]byte("hash"), 100_000)}
	tor.Hashes = hashes
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.Empty(t, hashes.recalled)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.Settle(t.Context(), set(4)))
	writePiece(t, tor, s, content, 1)
	require.NoError(t, s.SaveResume(set(4, 1), nil))
	to := t.TempDir()
	require.NoError(t, s.Move(t.Context(), to, func() (bits.Set, map[int]bits.Set) { return set(4, 1), nil }, func(int64, int64) {}))
	require.NoError(t, s.Close())
	for _, claimed := range [][]int{{1}, nil} {
		hashes.recalled = nil
		s = openDirectory(t, tor, to)
		have, _ := s.LoadResume()
		require.Equal(t, claimed, pieces(have))
		require.Equal(t, hashes.learned, hashes.recalled)
		require.NoError(t, s.Close())
		require.NoError(t, os.WriteFile(filepath.Join(to, "d", "0"), content, 0o666))
	}
	b, err := os.ReadFile(filepath.Join(to, sidecarName))
	require.NoError(t, err)
	require.EqualValues(t, 2, b[len(storage.ResumeMagic)+1])

	// Version 1, which has no hashes, is read for a torrent that could have some.
	tor.Hashes = nil
	plain := t.TempDir()
	s = openDirectory(t, tor, plain)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.SaveResume(set(4, 1), nil))
	require.NoError(t, s.Close())
	b, err = os.ReadFile(filepath.Join(plain, sidecarName))
	require.NoError(t, err)
	require.EqualValues(t, 1, b[len(storage.ResumeMagic)+1])
	hashes.recalled = nil
	tor.Hashes = hashes
	s = openDirectory(t, tor, plain)
	require.Empty(t, hashes.recalled)
	require.NoFileExists(t, filepath.Join(plain, sidecarName+".bad"))
	require.NoError(t, s.Close())
}

// A file that an earlier run found through a symbolic link, and that therefore cannot be opened for writing, is synced and
// claimed by the next run as well.
func TestAFoundFileIsClaimedByTheNextRun(t *testing.T) {
	needSymlinks(t)
	tor, content := testContent(50, 100, 100)
	dir, outside := t.TempDir(), t.TempDir()
	fill(t, tor, outside, content)
	require.NoError(t, os.Mkdir(dir+"/d", 0o777))
	require.NoError(t, os.Symlink(outside+"/d/0", dir+"/d/0"))
	for run := range 3 {
		require.NoError(t, os.Chtimes(outside+"/d/0", time.Time{}, time.Unix(int64(1e9+run), 0)))
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted(all(tor)))
		have := verified(t, tor, s)
		require.Equal(t, []int{0, 1}, pieces(have)[:2])
		require.NoError(t, s.Settle(t.Context(), have))
		if run == 0 {
			writePiece(t, tor, s, content, 2)
			have.Add(2)
		}
		require.NoError(t, s.SaveResume(have, nil))
		require.NoError(t, s.Close())
	}
	long := append(content[:100:100], "appended"...)
	require.NoError(t, os.WriteFile(outside+"/d/0", long, 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 3)
	require.NoError(t, s.Finish(), "nor is it cut")
	require.NoError(t, s.Close())
	b, err := os.ReadFile(outside + "/d/0")
	require.NoError(t, err)
	require.Equal(t, long, b)
}

// The user may have linked a directory of the content to another place.
func TestFilesInALinkedDirectoryAreClaimed(t *testing.T) {
	needSymlinks(t)
	tor, content := testContent(50, 40, 60, 50)
	dir, outside := t.TempDir(), t.TempDir()
	fill(t, tor, outside, content)
	require.NoError(t, os.Symlink(outside+"/d", dir+"/d"))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	have := verified(t, tor, s)
	require.NoError(t, s.Settle(t.Context(), have))
	require.NoError(t, s.Keep(have, nil))
	require.NoError(t, s.Sync())
	require.NoError(t, s.Close())
	s = openDirectory(t, tor, dir)
	have, _ = s.LoadResume()
	require.True(t, have.Full())
	require.NoError(t, s.Close())
}

// A sidecar that cannot be read at once is read again. If the system is out of handles, the store does not open: later, it can be read.
func TestSidecarThatCannotBeReadAtOnce(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	d := disktest.New()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 3)
	require.NoError(t, s.SaveResume(set(6, 3), nil))
	require.NoError(t, s.Close())
	for _, call := range []string{"open", "fstat", "read"} {
		failed := false
		d.Fail = func(at, name string) error {
			if at != call || name != sidecarName || failed {
				return nil
			}
			failed = true
			return syscall.EIO
		}
		s := openForgetful(t, tor, d)
		require.True(t, failed)
		have, _ := s.LoadResume()
		require.Equal(t, []int{3}, pieces(have), call)
		require.NoError(t, s.Close())
	}
	if !storage.Exhausted(syscall.EMFILE) {
		return
	}
	d.Fail = func(call, name string) error {
		if call == "open" && name == sidecarName {
			return syscall.EMFILE
		}
		return nil
	}
	_, err := storage.OpenDisk(tor, d, "disk", nil)
	require.ErrorIs(t, err, syscall.EMFILE)
	d.Fail = nil
	s = openForgetful(t, tor, d)
	have, _ := s.LoadResume()
	require.Equal(t, []int{3}, pieces(have))
	require.NoError(t, s.Close())
}
