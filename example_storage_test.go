package torrent_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/netip"
	"sync"

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
