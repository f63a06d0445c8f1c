package interop

import (
	"errors"
	"os"
	"os/exec"
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

func findProgram(name string) (string, error) {
	if name == pythonLibtorrent {
		return findPython()
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
