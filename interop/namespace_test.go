//go:build linux

package interop

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

const (
	// insideEnv marks the second start of the test binary, the one inside the namespaces.
	insideEnv = "TORRENT_INTEROP_INSIDE"
	hosts     = 250 // addresses of the namespace, 10.77.0.1 and fd77::1 up
)

// outside is what it takes to run the tests inside of the namespaces; empty if they do.
var outside string

func TestMain(m *testing.M) {
	if os.Getenv(leechEnv) != "" {
		if err := leech(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	// The programs wait for their own timers more than they work.
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		parallel.Value.Set("8")
	}
	if os.Getenv(insideEnv) == "" {
		code, err := runInside()
		if err == nil {
			os.Exit(code)
		}
		outside = err.Error()
	} else if os.Getenv(networkEnv) != "" {
		// The test furnishes its network itself.
	} else if err := furnish(); err != nil {
		fmt.Fprintln(os.Stderr, "interop: furnish the namespace:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// runInside runs this test binary again, with the same arguments, in new network, mount and process
// namespaces. As the first process of its process namespace it takes every program that it started
// with it when it ends, however it ends.
func runInside() (int, error) {
	switch {
	case testing.Short():
		return 0, errors.New("a run without -short")
	case os.Getenv("REQUIRE_INTEROP") == "0":
		return 0, errors.New("a run without REQUIRE_INTEROP=0")
	case os.Geteuid() != 0:
		return 0, errors.New("root, to make a network namespace")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return 0, errors.New("ip (Debian's iproute2), to make a network namespace")
	}
	runtime.LockOSThread() // the death signal is sent when the thread that started the child ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("a network namespace, which cannot be made here: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range stop {
			cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 1, nil
	}
	return max(cmd.ProcessState.ExitCode(), 0), killed(cmd.ProcessState)
}

// killed is an error if a signal ended the process, whose exit code then says nothing.
func killed(s *os.ProcessState) error {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		fmt.Fprintln(os.Stderr, "interop: ended by", ws.Signal())
		os.Exit(1)
	}
	return nil
}

// furnish gives the new namespaces a /proc of their own and addresses on the loopback.
func furnish() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	var script strings.Builder
	script.WriteString("link set lo up multicast on\nroute add 224.0.0.0/4 dev lo\nroute add local 10.128.0.0/9 dev lo\n")
	for i := 1; i <= hosts; i++ {
		fmt.Fprintf(&script, "addr add 10.77.0.%d/24 dev lo\naddr add fd77::%x/64 dev lo nodad\n", i, i)
	}
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// need ends the test, as missing does, unless it runs inside the namespaces and has these programs.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if outside != "" {
		missing(t, outside)
	}
	for _, name := range programs {
		program(t, name)
	}
}
