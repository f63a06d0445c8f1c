//go:build linux

package interop

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// networkEnv marks a start of the test binary in a network of one test's own.
const networkEnv = "TORRENT_INTEROP_NETWORK"

func init() {
	if os.Getenv(networkEnv) != "" {
		// No test runs on the process's first thread, then, which is the one whose network /proc shows.
		runtime.LockOSThread()
	}
}

// ownNetwork reports whether this process is one that runs nothing but this test, in a network
// namespace that has nothing yet. If it is not, it runs one, and passes on how that ended.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(networkEnv) != "" {
		return true
	}
	var pattern []string
	for part := range strings.SplitSeq(t.Name(), "/") {
		pattern = append(pattern, "^"+regexp.QuoteMeta(part)+"$")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.count=1", "-test.run="+strings.Join(pattern, "/"))
	cmd.Env = append(os.Environ(), networkEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	said := regexp.MustCompile(`(?m)^\s*(===|---|PASS|FAIL|ok).*\n`).ReplaceAllString(string(out), "")
	t.Logf("on a network of its own:\n%s", said)
	require.NoError(t, err)
	return false
}

// A host is a network namespace beside this process's own.
type host struct {
	name string
	pid  string // of a process in it
}

// newHost makes a host with nothing but a loopback. It lasts as long as the test.
func newHost(t *testing.T, name string) *host {
	t.Helper()
	cmd := exec.Command(program(t, "sleep"), "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	h := &host{name, strconv.Itoa(cmd.Process.Pid)}
	h.ip(t, "link set lo up")
	return h
}

// here is the host that this process is on.
func here() *host { return &host{"here", strconv.Itoa(os.Getpid())} }

// run starts a program on the host.
func (h *host) run(t *testing.T, name string, args ...string) *process {
	t.Helper()
	return run(t, "nsenter", append([]string{"--target", h.pid, "--net", program(t, name)}, args...)...)
}

// output runs a program on the host to its end.
func (h *host) output(t *testing.T, name string, args ...string) string {
	t.Helper()
	program(t, name)
	return output(t, "nsenter", append([]string{"--target", h.pid, "--net", name}, args...)...)
}

// ip configures the host's network by lines of "ip".
func (h *host) ip(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		h.output(t, "ip", strings.Fields(line)...)
	}
}

// nft adds to the host's firewall.
func (h *host) nft(t *testing.T, rules string) {
	t.Helper()
	h.output(t, "nft", "-f", scratch(t, "rules", []byte(rules+"\n")))
}

// write sets a kernel parameter.
func (h *host) write(t *testing.T, path, value string) {
	t.Helper()
	h.output(t, "sh", "-c", fmt.Sprintf("echo %s >%s", value, path))
}

// link joins an interface of the host to one of another.
func (h *host) link(t *testing.T, name string, other *host, otherName string) {
	t.Helper()
	h.ip(t, fmt.Sprintf("link add %s type veth peer name %s netns %s", name, otherName, other.pid), "link set "+name+" up")
	other.ip(t, "link set "+otherName+" up")
}

// do has f open sockets on the host. They stay there; f must start no goroutine that opens others.
func (h *host) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and not unlocked, so that the thread ends with the goroutine
		ns, err := os.Open("/proc/" + h.pid + "/ns/net")
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// dial connects from the host, to an IP address.
func (h *host) dial(network, addr string) (conn net.Conn, err error) {
	err = h.do(func() error {
		conn, err = (&net.Dialer{Timeout: patience}).Dial(network, addr)
		return err
	})
	return conn, err
}

// listen listens on the host.
func (h *host) listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	var l net.Listener
	require.NoError(t, h.do(func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	}))
	t.Cleanup(func() { l.Close() })
	return l
}

// listenPacket listens for UDP on the host.
func (h *host) listenPacket(t *testing.T, addr string) net.PacketConn {
	t.Helper()
	var c net.PacketConn
	require.NoError(t, h.do(func() (err error) {
		c, err = net.ListenPacket("udp", addr)
		return err
	}))
	t.Cleanup(func() { c.Close() })
	return c
}

// isRefused reports whether a connection was refused, or the host was said to be out of reach.
func isRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EACCES)
}
