package webseed

import (
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

// A server that leads each of many files to a long URL has us remember little of that. It was 82 KB a file, of 10,000 files.
func TestRedirectsAreForgotten(t *testing.T) {
	const files = 100
	content := &Content{Layout: layout.New(16<<10, slices.Repeat([]layout.File{{Path: "f", Length: 10}}, files)...), Name: "d", Paths: make([][]string, files)}
	for i := range files {
		content.Paths[i] = []string{strconv.Itoa(i)}
	}
	asked := 0
	s := newSeed(t, &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		asked++
		resp := &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("0123456789")), ContentLength: 10, Header: http.Header{}, Request: r}
		if name := path.Base(r.URL.Path); len(name) < 3 {
			length := 1000
			if name == "99" {
				length = 60_000
			}
			resp.StatusCode = 302
			resp.Header.Set("Location", "/"+name+strings.Repeat("/long", length/5))
		}
		return resp, nil
	})}, "http://h/", true, content)
	for i := range files {
		b, err := s.Open(t.Context(), i, 0, 10)
		require.NoError(t, err)
		b.Close()
		require.LessOrEqual(t, s.remembered, 64<<10)
	}
	require.Greater(t, len(s.redirects), 20)
	asked = 0
	for _, i := range []int{98, 98, 99} {
		b, err := s.Open(t.Context(), i, 0, 10)
		require.NoError(t, err)
		b.Close()
	}
	require.Equal(t, 1+1+2, asked, "of the last file that led to a URL of usual length")
	for i := range files {
		s.forget(i)
	}
	require.Zero(t, s.remembered)
}
