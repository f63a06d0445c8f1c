package storage_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/storage"
)

// While a file is downloaded, another program gives it a second name, as a backup by hard links does, or another one, or puts a link
// to a file of the user in its place. The download goes on in a file of its own.
func TestAFileIsSharedMeanwhile(t *testing.T) {
	for _, c := range []struct {
		name  string
		share func(file, users string) error
	}{
		{"a backup", func(file, users string) error { return os.Link(file, users) }},
		{"a hard link in its place", func(file, users string) error { return replace(file, users, os.Link) }},
		{"a symbolic link in its place", func(file, users string) error {
			return replace(file, users, func(_, file string) error { return os.Symlink(filepath.Join("..", "users", "x"), file) })
		}},
		{"another name", os.Rename},
		{"another name, and a file in its place", func(file, users string) error {
			if err := os.Rename(file, users); err != nil {
				return err
			}
			return os.WriteFile(file, []byte("another"), 0o666)
		}},
		{"another name of its directory", func(file, users string) error {
			if err := os.Remove(filepath.Dir(users)); err != nil {
				return err
			}
			return os.Rename(filepath.Dir(file), filepath.Dir(users))
		}},
	} {
		for _, closed := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				needSymlinks(t)
				if runtime.GOOS == "windows" && c.name == "another name of its directory" {
					t.Skip("a directory with open files cannot be renamed here")
				}
				dir := t.TempDir()
				tor, content := named(1, "d/x")
				s := openDirectory(t, tor, dir)
				require.NoError(t, s.SetWanted(all(tor)))
				writePiece(t, tor, s, content, 0)
				if closed {
					storage.DropHandle(s, 0)
				}
				file, users := filepath.Join(dir, "d", "x"), filepath.Join(dir, "users", "x")
				require.NoError(t, os.Mkdir(filepath.Dir(users), 0o777))
				require.NoError(t, c.share(file, users))
				before, err := os.ReadFile(users)
				require.NoError(t, err)
				writePiece(t, tor, s, content, 1)
				now, err := os.ReadFile(users)
				require.NoError(t, err)
				require.Equal(t, before, now)
				if s.Changed(0) != nil {
					_, err := s.Refresh(0, set(2, 0, 1))
					require.NoError(t, err)
				}
				download(t, tor, s, content)
				now, err = os.ReadFile(users)
				require.NoError(t, err)
				require.Equal(t, before, now)
				require.NoError(t, s.Finish())
			})
		}
	}
}

func replace(file, users string, link func(string, string) error) error {
	if err := os.WriteFile(users, []byte("the user's"), 0o666); err != nil {
		return err
	}
	if err := os.Remove(file); err != nil {
		return err
	}
	return link(users, file)
}
