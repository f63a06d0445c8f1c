package interop

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// pythonLibtorrent stands for a Python that has libtorrent, by the name of Debian's package.
const pythonLibtorrent = "python3-libtorrent"

// findPython looks for it once. Debian's module belongs to Debian's interpreter, which need not be the
// first in PATH.
var findPython = sync.OnceValues(func() (string, error) {
	for _, path := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(path, "-c", "import libtorrent").Run() == nil {
			return path, nil
		}
	}
	return "", errors.New("no Python with libtorrent")
})

// npmDHT stands for the directory of the npm package bittorrent-dht, which has no command.
const npmDHT = "bittorrent-dht"

// findDHT looks beside the package bittorrent-tracker, whose command is in PATH.
func findDHT() (string, error) {
	command, err := exec.LookPath("bittorrent-tracker")
	if err != nil {
		return "", err
	}
	command, err = filepath.EvalSymlinks(command) // which is bin/cmd.js of its package
	if err != nil {
		return "", err
	}
	dir := filepath.Join(command, "../../../", npmDHT)
	_, err = os.Stat(dir)
	return dir, err
}

func findProgram(name string) (string, error) {
	switch name {
	case pythonLibtorrent:
		return findPython()
	case npmDHT:
		return findDHT()
	}
	return exec.LookPath(name)
}

// program is the path of a program that the test needs. Where it is missing the test is skipped, or
// fails under REQUIRE_INTEROP=1.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := findProgram(name)
	if err != nil {
		missing(t, name+", which is not installed")
	}
	return path
}

// missing ends a test that cannot run here.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("REQUIRE_INTEROP") == "1" {
		t.Fatalf("REQUIRE_INTEROP is set, and this test needs %s", what)
	}
	t.Skipf("needs %s", what)
}
