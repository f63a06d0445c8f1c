// Package examples_test runs the example programs as people do.
package examples_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

var programs string // the directory that they are built into

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "examples")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if out, err := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./...").CombinedOutput(); err != nil {
			fmt.Printf("%s", out)
			panic(err)
		}
		programs = dir
		return m.Run()
	}())
}

// command is one of the programs, which ends with the test.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, name), args...)
	cmd.WaitDelay = 2 * time.Minute
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir(), "TMP="+t.TempDir())
	return cmd
}

// output runs one that succeeds, and returns what it prints.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := command(t, name, args...).CombinedOutput()
	require.NoErrorf(t, err, "%s", out)
	return string(out)
}

// failure runs one that fails, and returns what it says.
func failure(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := command(t, name, args...).CombinedOutput()
	require.Errorf(t, err, "%s", out)
	return string(out)
}

var tide = map[string]string{"tide/ebb.txt": strings.Repeat("out ", 200_000), "tide/flood.txt": "in"}

// write writes the .torrent file into the test's directory.
func write(t *testing.T, tor *torrent.Torrent) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "x.torrent")
	require.NoError(t, os.WriteFile(path, tor.Bytes(), 0o666))
	return path
}

func TestDownloadSaysWhatCameFromWhom(t *testing.T) {
	tor, seed := torrenttest.Seed(t, tide)
	file, dir := write(t, tor), t.TempDir()
	out := output(t, "download", "-dir", dir, "-peers", seed.String(), "-dht", "off", file)
	require.Contains(t, out, "781 KiB here after ")
	require.Contains(t, out, "KiB from "+seed.String()+" (")
	require.Contains(t, out, "100.0 %  complete\n")
	got, err := os.ReadFile(filepath.Join(dir, "tide", "ebb.txt"))
	require.NoError(t, err)
	require.Equal(t, tide["tide/ebb.txt"], string(got))

	out = output(t, "download", "-dir", dir, "-dht", "off", file)
	require.Contains(t, out, "nothing had to come")
}

func TestDownloadFromAWebSeed(t *testing.T) {
	files := fstest.MapFS{"tide/ebb.txt": {Data: []byte(tide["tide/ebb.txt"])}, "tide/flood.txt": {Data: []byte("in")}}
	server := httptest.NewServer(http.FileServerFS(files))
	t.Cleanup(server.Close)
	file, dir := write(t, torrenttest.Make(t, tide)), t.TempDir()
	out := output(t, "download", "-dir", dir, "-dht", "off", "-webseed", server.URL+"/", file)
	require.Regexp(t, `[78]\d\d KiB from `+server.URL+"/(; .* came in vain)?\n", out, "some blocks may come twice")
}

func TestDownloadOnly(t *testing.T) {
	tor, seed := torrenttest.Seed(t, tide)
	file, dir := write(t, tor), t.TempDir()
	peer := seed.String()
	out := failure(t, "download", "-dir", dir, "-peers", peer, "-dht", "off", "-only", "*.txt", "-only", "*.srt", file)
	require.Contains(t, out, `-only "*.srt": no file matches`)
	require.Empty(t, names(t, dir), "nothing was fetched")
	require.Contains(t, failure(t, "download", "-only", "[", file), "syntax error in pattern")
	output(t, "download", "-dir", dir, "-peers", peer, "-dht", "off", "-only", "flood*", file)
	require.Equal(t, []string{"flood.txt"}, names(t, filepath.Join(dir, "tide")))
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A link to a swarm that is gone does not keep the others waiting.
func TestDownloadResolvesSideBySide(t *testing.T) {
	tor, seed := torrenttest.Seed(t, tide)
	m := tor.Magnet()
	m.Peers = []string{seed.String()}
	gone := &torrent.Magnet{InfoHash: torrent.Hash{1}, Peers: []string{"127.0.0.1:9"}}
	dir := t.TempDir()
	cmd := command(t, "download", "-dir", dir, "-dht", "off", "-transport", "tcp", gone.String(), m.String())
	var out safeBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		got, err := os.ReadFile(filepath.Join(dir, "tide", "ebb.txt"))
		return err == nil && string(got) == tide["tide/ebb.txt"]
	}, 2*time.Minute, 20*time.Millisecond)
	if runtime.GOOS == "windows" {
		cmd.Process.Kill()
		cmd.Wait()
		return // there is no Ctrl-C to send
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Error(t, cmd.Wait())
	require.Equal(t, 130, cmd.ProcessState.ExitCode())
	require.Contains(t, out.String(), "the same command goes on from there")
}

// Nothing is left behind, and nothing said, when the reader of the output leaves.
func TestOutputIsNotRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("pipes end otherwise there")
	}
	tor, seed := torrenttest.Seed(t, tide)
	file := write(t, tor)
	for name, args := range map[string][]string{
		"cat":      {"-peers", seed.String(), file, "ebb.txt"},
		"download": {"-dir", t.TempDir(), "-dht", "off", "-peers", seed.String(), file},
	} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			require.NoError(t, err)
			require.NoError(t, r.Close())
			cmd := command(t, name, args...)
			tmp := t.TempDir()
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
			cmd.Stdout = w
			var said bytes.Buffer
			cmd.Stderr = &said
			require.Error(t, cmd.Run())
			require.NoError(t, w.Close())
			require.Equal(t, 1, cmd.ProcessState.ExitCode(), "it ended by itself: %s", said.String())
			require.NotContains(t, said.String(), "pipe")
			require.Empty(t, names(t, tmp))
		})
	}
}

func TestSeedWithoutItsDirectory(t *testing.T) {
	file := write(t, torrenttest.Make(t, tide))
	gone := filepath.Join(t.TempDir(), "gone")
	require.Contains(t, failure(t, "seed", "-dir", gone, "-dht", "off", file), gone)
	require.NoDirExists(t, gone)
	require.Contains(t, failure(t, "seed", "-dir", file, "-dht", "off", file), "is not a directory")
}

func TestCreateLooksAtItsOutputFirst(t *testing.T) {
	dir := t.TempDir()
	content := filepath.Join(dir, "tide.txt")
	require.NoError(t, os.WriteFile(content, []byte("neap"), 0o666))
	taken := filepath.Join(dir, "taken")
	require.NoError(t, os.WriteFile(taken, nil, 0o666))
	require.Contains(t, failure(t, "create", "-o", taken, filepath.Join(dir, "gone")), "there already", "before it looks at the content")
	require.Contains(t, failure(t, "create", "-o", filepath.Join(dir, "none", "x"), content), "none")
	made := filepath.Join(dir, "made.torrent")
	require.Contains(t, output(t, "create", "-o", made, content), "magnet:?xt=")
	_, err := torrent.Read(made)
	require.NoError(t, err)

	cmd := command(t, "create", content)
	cmd.Dir = dir
	require.NoError(t, cmd.Run())
	again := command(t, "create", content)
	again.Dir = dir
	out, err := again.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "tide.txt.torrent is there already")
}

// safeBuffer may be read while a program writes to it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
