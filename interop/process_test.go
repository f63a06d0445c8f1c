//go:build linux

package interop

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// patience is how long a program may take for any one step, such as to get ready or to download
	// a few megabytes. It only bounds a failure: nothing waits for it otherwise, so it allows for a machine
	// that is busy with other things.
	patience = 3 * time.Minute
	// farewell is how long a program may take to end once it is asked to. Then it is killed, and what it had
	// not written is lost.
	farewell = 20 * time.Second
)

//go:embed peer.py
var libtorrentScript []byte

// output runs a program to its end and returns what it printed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	path := program(t, name)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	require.NoErrorf(t, err, "%s %q: %s", name, args, out)
	return string(out)
}

// process is another client, or another program, that runs. It is ended with its test, and what it printed is
// logged if the test failed.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	line *line         // that it is on, or nil

	mu      sync.Mutex
	log     bytes.Buffer
	printed chan struct{} // closed, and replaced, when log grows
}

// run starts a program in a directory and process group of its own.
func run(t *testing.T, name string, args ...string) *process {
	t.Helper()
	path := program(t, name)
	p := &process{name: name, cmd: exec.Command(path, args...), done: make(chan struct{}), printed: make(chan struct{})}
	p.cmd.Dir = t.TempDir()
	p.cmd.Env = append(os.Environ(), "HOME="+p.cmd.Dir, "TERM=dumb", "PYTHONUNBUFFERED=1")
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = time.Second
	require.NoError(t, p.cmd.Start())
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s %q ended with %v and printed:\n%s", name, args, p.cmd.ProcessState, tail(p.text(), 4000))
		}
	})
	return p
}

// Write takes what the program prints.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.printed)
	p.printed = make(chan struct{})
	return p.log.Write(b)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// awaitText waits until the program has printed s.
func (p *process) awaitText(t *testing.T, s string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		there, more := strings.Contains(p.log.String(), s), p.printed
		p.mu.Unlock()
		if there {
			return
		}
		select {
		case <-more:
		case <-p.done:
			if strings.Contains(p.text(), s) {
				return
			}
			t.Fatalf("%s ended before it printed %q", p.name, s)
		case <-deadline:
			if p.line != nil && p.line.carries() {
				deadline = time.After(patience)
				continue
			}
			t.Fatalf("%s did not print %q within %v", p.name, s, patience)
		}
	}
}

// stop asks the program and all that it started to end, and kills what does not.
func (p *process) stop() {
	group := -p.cmd.Process.Pid
	syscall.Kill(group, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(farewell):
	}
	syscall.Kill(group, syscall.SIGKILL)
	<-p.done
}

// scratch writes a file of the test's own and returns its path.
func scratch(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, content, 0o644))
	return path
}

func tail(s string, n int) string {
	if len(s) > n {
		return fmt.Sprintf("(%d bytes before) …%s", len(s)-n, s[len(s)-n:])
	}
	return s
}
