package torrent

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A function of the user's that inTime calls may panic or end its goroutine, as t.FailNow does. That happens to the caller.
func TestInTimeEndsAsItsFunction(t *testing.T) {
	failed, panicked := errors.New("failed"), errors.New("panicked")
	for name, test := range map[string]struct {
		do       func() error
		returned bool
		err      error
		panicked any
	}{
		"success": {do: func() error { return nil }, returned: true},
		"error":   {do: func() error { return failed }, returned: true, err: failed},
		"panic":   {do: func() error { panic(panicked) }, panicked: panicked},
		"goexit":  {do: func() error { runtime.Goexit(); return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				var returned bool
				var err error
				var recovered any
				began, ended := time.Now(), make(chan struct{})
				go func() {
					defer close(ended)
					defer func() { recovered = recover() }()
					err = inTime(ctx, test.do)
					returned = true
				}()
				<-ended
				require.Zero(t, time.Since(began))
				require.Equal(t, test.returned, returned)
				require.Equal(t, test.err, err)
				require.Equal(t, test.panicked, recovered)
			})
		})
	}
}

// If a function of the user's ends a goroutine that hashes, the pieces that it left are not taken for hashed.
func TestCreateProgressEndsItsGoroutine(t *testing.T) {
	o := &CreateOptions{Progress: func(int64, int64) { runtime.Goexit() }}
	_, err := CreateFS(t.Context(), fstest.MapFS{"a": {Data: []byte("content")}}, o)
	require.ErrorContains(t, err, "ended its goroutine")
}

// When CreateFS has returned, no call of Progress begins, although the disk answers later.
func TestNoProgressAfterCreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := hungFS{fstest.MapFS{"a": {Data: []byte("content")}}, make(chan struct{})}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var calls atomic.Int32
		_, err := CreateFS(ctx, content, &CreateOptions{Progress: func(int64, int64) { calls.Add(1) }})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		close(content.release)
		synctest.Wait()
		require.Zero(t, calls.Load())
	})
}
