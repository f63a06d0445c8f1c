//go:build linux

package proctest

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const variable = "TORRENT_TEST_DIR"

// Child is the test that calls it, to be run in another process for which dir is given.
func Child(t *testing.T, dir string, attr *syscall.SysProcAttr) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+dir)
	cmd.SysProcAttr = attr
	return cmd
}

// InChild is the directory that Child gave, if this is the process that it made.
func InChild() (dir string, ok bool) { return os.LookupEnv(variable) }

// Alone runs the test that calls it as a child in namespaces of its own, with the user id given, and passes on what
// it prints. It skips the test where there are no namespaces.
func Alone(t *testing.T, dir string, uid int, flags uintptr) {
	t.Helper()
	cmd := Child(t, dir, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | flags,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getgid(), Size: 1}},
	})
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skip("no namespaces here:", err)
	}
	t.Logf("%s", out)
	require.NoError(t, err)
}
