package interop

import (
	"archive/zip"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

const consumerModule = `module example.com/consumer

go 1.26.0

require github.com/shoal-go/torrent v0.0.0

replace github.com/shoal-go/torrent => `

const consumerProgram = `package main

import (
	"fmt"
	"log"
	"os"

	"github.com/shoal-go/torrent"
)

func main() {
	t, err := torrent.Read(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(t.InfoHash(), t.Length())
}
`

// A program in a module of its own, outside of this repository, builds and runs with nothing but a
// go.mod that names the package.
func TestConsumer(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte(consumerModule+root+"\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(consumerProgram), 0o644))
	content := writeFiles(t, plain)
	made, err := torrent.Create(content, nil)
	require.NoError(t, err)
	writeTorrent(t, filepath.Join(dir, "x.torrent"), made)

	cmd := exec.CommandContext(t.Context(), "go", "run", ".", "x.torrent")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOSUMDB=off") // nothing is fetched that could be checked
	out, err := cmd.CombinedOutput()
	require.NoErrorf(t, err, "%s", out)
	require.Equal(t, fmt.Sprintln(made.InfoHash(), made.Length()), string(out))
}

// The examples install as README.md says, with nothing but the Go command: from a module proxy, as a stranger has them.
func TestInstall(t *testing.T) {
	const module, version = "github.com/shoal-go/torrent", "v0.0.1"
	proxy := t.TempDir()
	at := filepath.Join(proxy, filepath.FromSlash(module), "@v")
	require.NoError(t, os.MkdirAll(at, 0o777))
	goMod, err := os.ReadFile("../go.mod")
	require.NoError(t, err)
	for name, content := range map[string]string{"list": version + "\n", version + ".info": `{"Version":"` + version + `"}`, version + ".mod": string(goMod)} {
		require.NoError(t, os.WriteFile(filepath.Join(at, name), []byte(content), 0o666))
	}
	archive, err := os.Create(filepath.Join(at, version+".zip"))
	require.NoError(t, err)
	z := zip.NewWriter(archive)
	root := os.DirFS("..")
	require.NoError(t, fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, nested := fs.Stat(root, path+"/go.mod") // another module, which a proxy leaves out
			if path != "." && (nested == nil || strings.HasPrefix(entry.Name(), ".")) {
				return fs.SkipDir
			}
			return nil
		}
		b, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		w, err := z.Create(module + "@" + version + "/" + path)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}))
	require.NoError(t, z.Close())
	require.NoError(t, archive.Close())

	// What this machine has of other modules is a proxy, too.
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	require.NoError(t, err)
	cached := filepath.Join(strings.TrimSpace(string(cache)), "cache", "download")
	bin := t.TempDir()
	// With -trimpath the directories are of no account, and what is compiled can be used again in the next run.
	for _, name := range []string{"download", "webui"} {
		cmd := exec.CommandContext(t.Context(), "go", "install", module+"/examples/"+name+"@latest")
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "GOPROXY=file://"+filepath.ToSlash(proxy)+",file://"+filepath.ToSlash(cached), "GOSUMDB=off", "GOWORK=off",
			"GOFLAGS=-modcacherw -trimpath", "GOMODCACHE="+filepath.Join(bin, "modules"), "GOBIN="+bin)
		out, err := cmd.CombinedOutput()
		require.NoErrorf(t, err, "%s", out)
		require.FileExists(t, filepath.Join(bin, name))
	}
}
