package torrent

import (
	"crypto/sha1"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A symbolic link is listed, and is nothing that is downloaded, chosen, counted or made on disk.
func TestLinksAreListedOnly(t *testing.T) {
	const content = "content"
	sum := sha1.Sum([]byte(content))
	tor, err := parseDict(t, dict{"info": dict{"name": "dir", "piece length": 1 << 14, "pieces": string(sum[:]), "files": []any{
		dict{"attr": "l", "path": []string{"first"}, "symlink path": []string{"sub", "file"}},
		dict{"length": len(content), "path": []string{"sub", "file"}},
		dict{"attr": "l", "path": []string{"sub", "last"}, "symlink path": []string{"sub"}},
	}}})
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "dir", "sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "dir", "sub", "file"), []byte(content), 0o644))

	client := &Client{Listen: "127.0.0.1:0"}
	t.Cleanup(func() { client.Close() })
	var asked []string
	d, err := tor.Start(t.Context(), &Options{Client: client, Dir: dir, Select: func(f File) Priority {
		asked = append(asked, f.Path)
		return Normal
	}})
	require.NoError(t, err)
	files, err := d.Wait()
	require.NoError(t, err)
	defer files.Close()
	require.Equal(t, []string{"dir/sub/file"}, asked)

	var listed, verified []string
	for f := range tor.Files() {
		listed = append(listed, f.Path+" "+f.LinkTarget)
	}
	require.Equal(t, []string{"dir/first dir/sub/file", "dir/sub/file ", "dir/sub/last dir/sub"}, listed)
	for f, n := range d.Files() {
		require.Equal(t, f.Length, n)
		verified = append(verified, f.Path)
	}
	require.Len(t, verified, 3)
	var downloaded []string
	for f := range files.Files() {
		downloaded = append(downloaded, f.Path())
	}
	require.Equal(t, []string{"dir/sub/file"}, downloaded)
	_, err = d.Open(t.Context(), "dir/first")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = files.Open("dir/first")
	require.ErrorIs(t, err, fs.ErrNotExist)

	var onDisk []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if !e.IsDir() {
			onDisk = append(onDisk, filepath.ToSlash(path[len(dir)+1:]))
		}
		return err
	}))
	require.Equal(t, []string{"dir/sub/file"}, onDisk)
}
