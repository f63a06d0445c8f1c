//go:build unix

package storage_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// narrowDisk is a file system that allows neither reserved characters nor long names, like exFAT and some that encrypt.
type narrowDisk struct {
	storage.Disk
	most    int
	refusal error // for a name with a reserved character
}

func (d narrowDisk) check(name string) error {
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > d.most {
			return &fs.PathError{Op: "open", Path: name, Err: unix.ENAMETOOLONG}
		}
	}
	if strings.ContainsAny(name, ":?") {
		return &fs.PathError{Op: "open", Path: name, Err: d.refusal}
	}
	return nil
}

func (d narrowDisk) Open(name string, flag int) (storage.DiskFile, error) {
	if err := d.check(name); err != nil {
		return nil, err
	}
	return d.Disk.Open(name, flag)
}

func (d narrowDisk) Stat(name string) (storage.FileInfo, error) {
	if err := d.check(name); err != nil {
		return storage.FileInfo{}, err
	}
	return d.Disk.Stat(name)
}

func (d narrowDisk) MkdirAll(name string) error {
	if err := d.check(name); err != nil {
		return err
	}
	return d.Disk.MkdirAll(name)
}

func TestNamesThatAFileSystemDoesNotAllow(t *testing.T) {
	long := strings.Repeat("x", 250)
	for _, c := range []struct {
		most    int
		refusal error
	}{{255, unix.EINVAL}, {245, unix.EINVAL}, {143, unix.EINVAL}, {255, unix.ENOENT}} { // exFAT over FUSE returns the last
		tor, content := named(1, "d: e/a?", "d: e/b", "d/a:b", "d/a_b", "d/a?b", "d/"+long+".mkv", "d/"+long+".txt", "d/"+long+"y.txt")
		dir := t.TempDir()
		open := func() storage.Store {
			disk, err := storage.OpenRoot(dir)
			require.NoError(t, err)
			s, err := storage.OpenDisk(tor, narrowDisk{disk, c.most, c.refusal}, dir, nil)
			require.NoError(t, err)
			t.Cleanup(func() { s.Close() })
			require.NoError(t, s.SetWanted(all(tor)))
			return s
		}
		s := open()
		require.NoError(t, s.Settle(t.Context(), bits.New(tor.NumPieces())))
		download(t, tor, s, content)
		require.NoError(t, s.Finish())
		require.NoError(t, s.Close())
		require.Len(t, listing(t, dir), tor.NumFiles())
		require.Contains(t, listing(t, dir), "d_ e/a_")
		s = open()
		require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s), "the next run finds all of them: %q", listing(t, dir))
		require.NoError(t, s.Settle(t.Context(), bits.Full(tor.NumPieces())))
		require.NoError(t, s.Finish())
		require.Len(t, listing(t, dir), tor.NumFiles())
		require.NoError(t, s.Close())
	}
}

// A file that another client stored under a name of its own is read there and stays there.
func TestContentOfOtherClientsIsFound(t *testing.T) {
	long := strings.Repeat("l", 245)
	for name, c := range map[string]struct{ path, there string }{
		"as the author said":          {"d/zero\u200Bwidth\uFEFF.txt", "d/zero\u200Bwidth\uFEFF.txt"},
		"a long name":                 {"d/" + long + ".mkv", "d/" + long + ".mkv"},
		"a long name, cut":            {"d/" + long + ".mkv", "d/" + long[:236] + ".mkv"},
		"reserved by Windows":         {"d: e/a?.txt", "d_ e/a_.txt"},
		"dots and spaces at the end":  {"d./a. ", "d/a"},
		"marks taken out":             {"d/a\u200Eb", "d/ab"},
		"not complete":                {"d/a:b", "d/a_b.part"},
		"of an earlier version of us": {"d/a\u200Bb", "d/ab"},
	} {
		t.Run(name, func(t *testing.T) {
			tor, content := named(1, c.path, "d/other")
			dir := t.TempDir()
			for path, b := range map[string][]byte{c.there: content[:100], "d/other": content[100:]} {
				path = filepath.Join(dir, path)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
				require.NoError(t, os.WriteFile(path, b, 0o666))
			}
			have, err := storage.VerifyDir(t.Context(), tor, dir)
			require.NoError(t, err)
			require.Equal(t, bits.Full(4), have)
			s := openDirectory(t, tor, dir)
			require.NoError(t, s.SetWanted(all(tor)))
			require.NoError(t, s.Settle(t.Context(), verified(t, tor, s)))
			require.NoError(t, s.Finish())
			require.Contains(t, listing(t, dir), strings.TrimSuffix(c.there, ".part"))
			require.Len(t, listing(t, dir), 2)
			writePiece(t, tor, s, content, 1)
			require.NoError(t, s.Finish())
			require.Len(t, listing(t, dir), 2)
		})
	}
}
