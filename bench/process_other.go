//go:build !linux

package main

import (
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

func inGroup(*exec.Cmd) {}

func signalGroup(int, syscall.Signal) {}

func cpuSoFar(int) time.Duration { return 0 }

func anonymous(int) int64 { return 0 }

func machine() string { return describe(runtime.GOARCH, runtime.GOOS) }
