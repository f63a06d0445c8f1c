package torrent

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// inTime calls do, which may wait for storage that hangs, and returns its error. If ctx has ended and do does not return a few
// seconds later, inTime returns an error of ctx, and do goes on.
//
// A function of the user's may panic, or end its goroutine as t.FailNow does. That then happens to the goroutine that called inTime,
// where the user may recover from it.
func inTime(ctx context.Context, do func() error) error {
	if ctx.Done() == nil {
		return do()
	}
	done := make(chan func() error, 1) // receives what ends inTime as do ended
	go func() {
		end := func() error { runtime.Goexit(); return nil }
		defer func() {
			if v := recover(); v != nil {
				end = func() error { panic(v) }
			}
			done <- end
		}()
		err := do()
		end = func() error { return err }
	}()
	select {
	case end := <-done:
		return end()
	case <-ctx.Done():
	}
	timer := time.NewTimer(unanswered)
	defer timer.Stop()
	select {
	case end := <-done:
		return end()
	case <-timer.C:
		return fmt.Errorf("not ended yet, storage may hang: %w", contextError(ctx))
	}
}
