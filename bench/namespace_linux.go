package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

const insideEnv = "TORRENT_BENCH_INSIDE"

// enterNamespace runs this command again in a network namespace of its own, if it may make one: some
// clients treat peers on 127.0.0.0/8 in ways of their own. It returns in the namespace, or where there
// can be none.
func enterNamespace() {
	if os.Getenv(insideEnv) != "" {
		if err := furnish(); err != nil {
			log.Fatal(err)
		}
		network = "10.77.0"
		return
	}
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		return
	}
	runtime.LockOSThread() // the death signal is sent when the thread that started the child ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// As the first process of its own process namespace it takes every program that it started with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGTERM,
	}
	if cmd.Start() != nil {
		return
	}
	signal.Ignore(os.Interrupt) // the child gets it as well, and tidies up
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		os.Exit(max(1, exit.ExitCode()))
	}
	os.Exit(0)
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
	script.WriteString("link set lo up\n")
	for i := 1; i < 250; i++ {
		fmt.Fprintf(&script, "addr add 10.77.0.%d/24 dev lo\n", i)
	}
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("furnish the namespace: %w: %s", err, out)
	}
	return nil
}
