package webseed

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/httpguard"
)

// A file in whose place something else came, such as the login page of a network, rests for a minute at first.
func TestDoubtfulFilesRestShortly(t *testing.T) {
	var h Health
	now := time.Unix(1e9, 0)
	page := http.Header{"Content-Type": {"text/html"}}
	_, _, login := request{0, 100, 1000}.judge(http.StatusOK, page, 512, now)
	_, _, gone := request{0, 100, 1000}.judge(http.StatusNotFound, page, 512, now)
	require.True(t, h.Failed(8, gone, now))
	rests := func(err error, want time.Duration) {
		require.True(t, h.Failed(7, err, now))
		require.True(t, h.Failed(7, err, now), "another request that was under way")
		require.Equal(t, now.Add(want), h.NextRested())
		now = h.NextRested()
		files, _ := h.Rested(now)
		require.Equal(t, []int{7}, files)
	}
	inward := newSeed(t, nil, "http://h.example/f", true, &Content{Name: "f"}).failure(new(url.URL), httpguard.ErrInward)
	for _, err := range []error{login, login, inward, login} {
		rests(err, firstDoubt<<h.doubts[7])
	}
	require.Equal(t, 4, h.doubts[7])
	h.Revive(now)
	rests(login, firstDoubt)
	require.True(t, h.FileRests(8))
	h.doubts[7] = 6
	now = now.Add(2 * time.Hour)
	files, _ := h.Rested(now)
	require.Equal(t, []int{8}, files)
	rests(login, fileRest)
	require.Equal(t, 6, h.doubts[7])
}
