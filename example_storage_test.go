package torrent_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing/fstest"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

// blocks is a storage of one's own: a slice here, and elsewhere a database or a bucket. Package storagetest tries one out.
type blocks struct {
	mu sync.RWMutex
	b  []byte
}

func (s *blocks) ReadAt(p []byte, off int64) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if off >= int64(len(s.b)) {
		return 0, io.EOF
	}
	n := copy(p, s.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *blocks) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return copy(s.b[off:], p), nil
}

func (s *blocks) Sync() error  { return nil }
func (s *blocks) Close() error { return nil }

// The content is one run of bytes, that of all files one after another.
func ExampleStorage() {
	t, peer := torrenttest.Seed(nil, map[string]string{"tide/ebb.txt": "out", "tide/flood.txt": "in"})
	var s blocks
	files, err := t.DownloadAll(context.Background(), &torrent.Options{
		Storage: func(t *torrent.Torrent) (torrent.Storage, error) {
			s.b = make([]byte, t.Size())
			return &s, nil
		},
		Peers: []netip.AddrPort{peer},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()
	for f := range t.Files() {
		fmt.Printf("%s: %s\n", f.Path, s.b[f.Offset:f.Offset+f.Length])
	}
	// Output:
	// tide/ebb.txt: out
	// tide/flood.txt: in
}

// A torrent that has only a web server left. What it sends is checked like what peers send.
func ExampleOptions_webSeeds() {
	files := fstest.MapFS{"tide.txt": {Data: []byte("spring tide")}}
	server := httptest.NewServer(http.FileServerFS(files))
	defer server.Close()
	ctx := context.Background()
	t, err := torrent.CreateFS(ctx, files, nil)
	if err != nil {
		log.Fatal(err)
	}
	client := &torrent.Client{NoDHT: true, NoListen: true}
	defer client.Close()
	d, err := t.Start(ctx, &torrent.Options{WebSeeds: []string{server.URL + "/"}, Client: client})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	got, err := d.Wait()
	if err != nil {
		log.Fatal(err)
	}
	defer got.Close()
	b, err := got.ReadFile("tide.txt")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s; %d bytes came from the web seed\n", b, d.Stats().WebSeeds[0].Downloaded)
	// Output:
	// spring tide; 11 bytes came from the web seed
}
