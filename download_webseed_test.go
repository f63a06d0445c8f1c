package torrent

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// trickle is a body that comes at 100 bytes a second.
type trickle struct {
	io.ReadCloser
	ended <-chan struct{}
}

func (t trickle) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
		return t.ReadCloser.Read(p[:min(len(p), 100)])
	case <-t.ended:
		return 0, io.ErrUnexpectedEOF
	}
}

// A host that trickles what one download asks it for does not keep from another what it sends to that at once.
func TestWebSeedThatTrickles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := fstest.MapFS{"a": {Data: bytes.Repeat([]byte("a"), 4<<20)}, "b": {Data: bytes.Repeat([]byte("b"), 4<<20)}}
		serve := http.FileServerFS(files)
		var asked atomic.Int32
		c := &Client{NoDHT: true, NoUTP: true, NoListen: true, HTTPClient: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			serve.ServeHTTP(w, r)
			resp := w.Result()
			resp.Request = r
			if r.URL.Path == "/a" {
				asked.Add(1)
				resp.Body = trickle{resp.Body, r.Context().Done()}
			}
			return resp, nil
		})}}
		defer c.Close()
		start := func(name string) *Download {
			tor, err := CreateFS(t.Context(), fstest.MapFS{name: files[name]}, &CreateOptions{PieceLength: 1 << 20, WebSeeds: []string{"http://h.example/"}, Private: true})
			require.NoError(t, err)
			d, err := tor.Start(t.Context(), &Options{Client: c})
			require.NoError(t, err)
			return d
		}
		a := start("a")
		defer a.Close()
		time.Sleep(time.Second)
		began := time.Now()
		b := start("b")
		defer b.Close()
		select {
		case <-b.Done():
		case <-time.After(time.Hour):
		}
		require.LessOrEqual(t, time.Since(began), turnLong+turnHeld)
		time.Sleep(time.Hour)
		require.Positive(t, a.Stats().Downloaded)
		require.Less(t, asked.Load(), int32(10), "it goes on")
	})
}
