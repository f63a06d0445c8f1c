package torrent

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/memtest"
	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/webseed"
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

// A stream that is added lacks the pieces of the files that the server lacks, and those that were false.
func TestStreamAddedWhileFilesRest(t *testing.T) {
	tor := plainTorrent(6)
	tor.layout = layout.New(blockSize, layout.File{Length: blockSize / 2}, layout.File{Length: 2 * blockSize}, layout.File{}, layout.File{Length: 7 * blockSize / 2})
	d := &Download{t: tor, picker: picker.New(tor.layout, 1)}
	w := &webSeed{d: d}
	offered := func() (pieces []int) {
		s := &webStream{w: w, supply: picker.Supplier{Runs: true}}
		d.picker.Join(&s.supply)
		w.offerAll(s)
		for i := range 6 {
			require.Equal(t, w.has(i), s.supply.Has(i))
			if s.supply.Has(i) {
				pieces = append(pieces, i)
			}
		}
		return pieces
	}
	require.Len(t, offered(), 6)
	require.True(t, w.health.Failed(1, &webseed.Error{Fate: webseed.Missing}, time.Now()))
	require.True(t, w.health.Failed(2, &webseed.Error{Fate: webseed.Missing}, time.Now()))
	w.health.Lied(4, time.Now())
	require.Equal(t, []int{3, 5}, offered())
}

// Web seeds that are dead hold little for each download, however long they are asked. They used to hold a buffer for each request that
// may be under way, and which blocks each request had been for: 7 MB after some hours.
func TestDeadWebSeedsHoldLittle(t *testing.T) {
	skipUnderRace(t, true)
	const torrents, pieces = 4, 4096
	synctest.Test(t, func(t *testing.T) {
		c := &Client{NoDHT: true, NoUTP: true, NoListen: true, HTTPClient: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			time.Sleep(10 * time.Millisecond)
			return nil, syscall.ECONNREFUSED
		})}}
		defer c.Close()
		var o Options
		o.Client, o.Dir = c, t.TempDir()
		for k := range maxWebSeeds {
			o.WebSeeds = append(o.WebSeeds, fmt.Sprintf("http://82.0.0.%d/", k+1))
		}
		before := memtest.Heap()
		for k := range torrents {
			tor := plainTorrent(pieces)
			tor.name, tor.infoHash[0], tor.length = fmt.Sprint(k), byte(k), pieces<<20
			tor.layout = layout.New(1<<20, layout.File{Path: tor.name, Length: tor.length})
			_, err := tor.Start(t.Context(), &o)
			require.NoError(t, err)
		}
		time.Sleep(8 * time.Hour)
		require.Less(t, memtest.Heap()-before, int64(torrents<<20))
	})
}
