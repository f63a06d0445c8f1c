package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
