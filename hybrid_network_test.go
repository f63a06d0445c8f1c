package torrent

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Both swarms of a hybrid hear of it when the network has changed.
func TestHybridInAnotherNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := make(map[string]int) // by info hash
		c := &Client{NoDHT: true, NoUTP: true, NoListen: true, HTTPClient: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			asked[r.URL.Query().Get("info_hash")]++
			return &http.Response{StatusCode: http.StatusOK, Request: r, Body: io.NopCloser(strings.NewReader("d8:intervali1800e5:peers6:\x0a\x01\x01\x01\x00\x01e"))}, nil
		})}}
		defer c.Close()
		content := fstest.MapFS{"f": {Data: bytes.Repeat([]byte("f"), 1<<20)}}
		tor, err := CreateFS(t.Context(), content, &CreateOptions{Version: Hybrid, Private: true, Trackers: [][]string{{"http://t.example/announce"}}})
		require.NoError(t, err)
		d, err := tor.Start(t.Context(), &Options{Client: c})
		require.NoError(t, err)
		defer d.Close()
		time.Sleep(time.Minute)
		mu.Lock()
		require.Len(t, asked, 2)
		clear(asked)
		mu.Unlock()
		c.networkSettled(true, nil)
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, asked, 2)
	})
}
