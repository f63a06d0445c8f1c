package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a running program.
type process struct {
	cmd   *exec.Cmd
	began time.Time
	ready chan struct{} // closed once it has printed "ready"
	done  chan struct{} // closed once it has ended
	wall  time.Duration // once done
	err   error         // once done

	mu   sync.Mutex
	text bytes.Buffer // what it printed
	peak int64        // of its anonymous memory, in bytes
}

const sampling = 20 * time.Millisecond

// running are the programs that were started and have not ended, which not every system ends with us.
var running struct {
	sync.Mutex
	all map[*process]bool
}

func start(cmd *exec.Cmd) (*process, error) {
	running.Lock()
	defer running.Unlock()
	p := &process{cmd: cmd, ready: make(chan struct{}), done: make(chan struct{})}
	inGroup(cmd)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	p.began = time.Now()
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	if running.all == nil {
		running.all = make(map[*process]bool)
	}
	running.all[p] = true
	go p.read(r)
	go func() {
		p.err = cmd.Wait()
		p.wall = time.Since(p.began)
		close(p.done)
		running.Lock()
		defer running.Unlock()
		delete(running.all, p)
	}()
	go p.sample()
	return p, nil
}

// endAll ends all programs, and has none be started any more.
func endAll() {
	running.Lock()
	for p := range running.all {
		p.cmd.Process.Kill()
		signalGroup(p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

func (p *process) read(r io.ReadCloser) {
	defer r.Close()
	ready := false
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		p.mu.Lock()
		p.text.WriteString(line)
		p.mu.Unlock()
		if line == "ready\n" && !ready {
			ready = true
			close(p.ready)
		}
		if err != nil {
			return
		}
	}
}

func (p *process) sample() {
	tick := time.NewTicker(sampling)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-tick.C:
			n := anonymous(p.cmd.Process.Pid)
			p.mu.Lock()
			p.peak = max(p.peak, n)
			p.mu.Unlock()
		}
	}
}

func (p *process) peakMemory() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peak
}

// value is the number that follows a name in what the program printed.
func (p *process) value(name string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range strings.Lines(p.text.String()) {
		fmt.Sscanf(line, name+" %d", &n)
	}
	return n
}

func (p *process) awaitReady(patience time.Duration) error {
	select {
	case <-p.ready:
		return nil
	case <-p.done:
		return p.failure("ended before it was ready")
	case <-time.After(patience):
		return p.failure("not ready in time")
	}
}

// await waits until the program has ended, and ends it if that takes too long.
func (p *process) await(patience time.Duration) error {
	select {
	case <-p.done:
		if p.err != nil {
			return p.failure(p.err.Error())
		}
		return nil
	case <-time.After(patience):
		p.end()
		return p.failure(fmt.Sprintf("not done in %v", patience))
	}
}

// failure is an error that ends in the last that the program printed.
func (p *process) failure(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := strings.TrimSpace(p.text.String())
	return errors.New(strings.TrimRight(what+": "+text[max(0, len(text)-300):], ": "))
}

func (p *process) end() {
	signalGroup(p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(3 * time.Second):
		p.cmd.Process.Kill()
	}
	signalGroup(p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// cpu is the CPU time that the program took, once it has ended.
func (p *process) cpu() time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

func describe(cpu, system string) string {
	return fmt.Sprintf("%s: %d × %s, %s, %s", time.Now().Format(time.DateOnly), runtime.NumCPU(), cpu, system, runtime.Version())
}
