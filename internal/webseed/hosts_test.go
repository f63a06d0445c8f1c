package webseed

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
)

// No more requests of a host are under way than it takes, first come, first served.
func TestHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClient(nil, direct, account.New(0))
		a, err := c.NewSeed("http://h/a", true, &Content{})
		require.NoError(t, err)
		b, err := c.NewSeed("http://h/b", true, &Content{})
		require.NoError(t, err)
		other, err := c.NewSeed("http://h:81/", true, &Content{})
		require.NoError(t, err)
		one, err := a.Acquire(t.Context())
		require.NoError(t, err)
		_, err = b.Acquire(t.Context())
		require.NoError(t, err)
		_, err = other.Acquire(t.Context())
		require.NoError(t, err)
		var got atomic.Int32
		for range 4 {
			go func() {
				if _, err := a.Acquire(t.Context()); err == nil {
					got.Add(1)
				}
			}()
		}
		synctest.Wait()
		require.Zero(t, got.Load())
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, io.EOF)
		defer cancel()
		_, err = b.Acquire(ctx)
		require.Equal(t, io.EOF, err)
		one()
		one()
		synctest.Wait()
		require.EqualValues(t, 1, got.Load())
		require.Equal(t, 2, b.MaxRequests())
		b.heard(2)
		require.Equal(t, 5, a.MaxRequests())
		synctest.Wait()
		require.EqualValues(t, 4, got.Load())
	})
}

// A torrent that names one host many times does not keep another from it.
func TestTurnsOfTorrents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClient(nil, direct, account.New(0))
		turns := make(chan string, 100)
		releases := make(chan func(), 100)
		wait := func(torrent string, content *Content, n int) {
			for i := range n {
				s, err := c.NewSeed(fmt.Sprintf("http://h/%d", i), false, content)
				require.NoError(t, err)
				go func() {
					release, err := s.Acquire(t.Context())
					if err == nil {
						turns <- torrent
						releases <- release
					}
				}()
				synctest.Wait()
			}
		}
		wait("many", new(Content), 50)
		wait("one", new(Content), 2)
		var order []string
		for range 8 {
			order = append(order, <-turns)
			if len(order) >= maxConns {
				(<-releases)()
			}
			synctest.Wait()
		}
		require.Equal(t, []string{"many", "many", "one", "many", "one", "many", "many", "many"}, order)
	})
}

// Hosts that are not asked any more are forgotten.
func TestHostsAreForgotten(t *testing.T) {
	c := NewClient(nil, direct, account.New(0))
	acquire := func(host int) (release func()) {
		s, err := c.NewSeed(fmt.Sprintf("http://h%d.example/", host), true, &Content{})
		require.NoError(t, err)
		release, err = s.Acquire(t.Context())
		require.NoError(t, err)
		return release
	}
	used := acquire(0)
	for i := range 5 * maxKnown {
		acquire(i)()
	}
	require.LessOrEqual(t, len(c.hosts.known), maxKnown+1)
	require.Equal(t, 1, c.hosts.known["h0.example:80"].used)
	used()
	for u, want := range map[string]string{
		"http://H.example./f": "h.example:80", "https://h.example": "h.example:443", "http://h.example:80/": "h.example:80", "http://[::1]/f": "[::1]:80",
	} {
		require.Equal(t, want, newSeed(t, nil, u, true, &Content{}).host())
	}
}
