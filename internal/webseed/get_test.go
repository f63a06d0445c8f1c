package webseed

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/layout"
)

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// A header that comes slowly is in the account.
func TestSlowHeadersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := account.New(0)
		slow := transport(func(r *http.Request) (*http.Response, error) {
			httptrace.ContextClientTrace(r.Context()).GotFirstResponseByte()
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		})
		one := &Content{Layout: layout.New(16, layout.File{Path: "f", Length: 16}), Name: "f"}
		s, err := NewClient(&http.Client{Transport: slow}, direct, a).NewSeed("http://h/f", true, one)
		require.NoError(t, err)
		held := func() int64 { n, _ := a.Held(); return n }
		time.AfterFunc(silence/2, func() { require.NotZero(t, held()) })
		_, err = s.Open(t.Context(), 0, 0, 16)
		require.ErrorIs(t, err, errSilent)
		require.Zero(t, held())
	})
}
