package torrent

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A download whose disk hangs leaves its turns at a web seed's host to others.
func TestAHungDiskKeepsNoTurns(t *testing.T) {
	for _, name := range []string{"ranges", "whole files"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files := fstest.MapFS{}
				for _, name := range []string{"a", "b", "c"} {
					files[name] = &fstest.MapFile{Data: bytes.Repeat([]byte(name), 4<<20)}
				}
				c := &Client{NoDHT: true, NoUTP: true, NoListen: true, hooks: hooks{blockMemory: 1 << 20}}
				c.HTTPClient = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
					w := httptest.NewRecorder()
					if name == "whole files" {
						r.Header.Del("Range")
					}
					http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(files[strings.Trim(r.URL.Path, "/")].Data))
					resp := w.Result()
					resp.Request = r
					resp.Body = endedBy{resp.Body, r.Context()}
					return resp, nil
				})}
				defer c.Close()
				hung := make(chan struct{})
				release := sync.OnceFunc(func() { close(hung) })
				defer release()
				start := func(name string, hangs bool) *Download {
					tor, err := CreateFS(t.Context(), fstest.MapFS{name: files[name]}, &CreateOptions{PieceLength: 1 << 20, WebSeeds: []string{"http://h.example/"}, Private: true})
					require.NoError(t, err)
					o := &Options{Client: c}
					if hangs {
						o.Storage = func(t *Torrent) (Storage, error) {
							return &hungStorage{memory{make([]byte, t.Length())}, hung}, nil
						}
					}
					d, err := tor.Start(t.Context(), o)
					require.NoError(t, err)
					return d
				}
				a, b := start("a", true), start("b", true)
				time.Sleep(time.Minute)
				d := start("c", false)
				time.Sleep(2 * time.Minute)
				require.True(t, d.Stats().Complete || d.Stats().State == Stopped, d.Stats())
				release()
				for _, d := range []*Download{a, b} {
					_, err := d.Wait()
					require.NoError(t, err)
				}
			})
		})
	}
}

// endedBy is a body that ends with the context of its request.
type endedBy struct {
	io.ReadCloser
	ctx context.Context
}

func (b endedBy) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	return b.ReadCloser.Read(p)
}

// memory is a Storage in a slice.
type memory struct{ b []byte }

func (m memory) ReadAt(p []byte, off int64) (int, error)  { return copy(p, m.b[off:]), nil }
func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m.b[off:], p), nil }
func (m memory) Sync() error                              { return nil }
func (m memory) Close() error                             { return nil }
