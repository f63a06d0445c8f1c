package torrent_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing/fstest"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

// The torrent of a directory, written to a file.
func ExampleCreate() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Mkdir(filepath.Join(dir, "tide"), 0o777); err != nil {
		log.Fatal(err)
	}
	for name, text := range map[string]string{"ebb.txt": "out", "flood.txt": "in"} {
		if err := os.WriteFile(filepath.Join(dir, "tide", name), []byte(text), 0o666); err != nil {
			log.Fatal(err)
		}
	}

	t, err := torrent.Create(filepath.Join(dir, "tide"), &torrent.CreateOptions{
		Trackers: [][]string{{"https://tracker.example/announce"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tide.torrent"), t.Bytes(), 0o666); err != nil {
		log.Fatal(err)
	}
	again, err := torrent.Read(filepath.Join(dir, "tide.torrent"))
	if err != nil {
		log.Fatal(err)
	}
	again.PrintTree(os.Stdout)
	// Output:
	//    5 B    tide/
	//    3 B    ├── ebb.txt
	//    2 B    └── flood.txt
	//
	// 2 files, 5 B
}

// Hashing may take long. A context ends it, and Progress shows how far it is.
func ExampleCreateContext() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tide.txt")
	if err := os.WriteFile(path, []byte("spring tide"), 0o666); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err = torrent.CreateContext(ctx, path, &torrent.CreateOptions{
		Progress: func(done, total int64) { fmt.Println(done, "of", total) },
	})
	fmt.Println(err)
	// Output:
	// 11 of 11
	// <nil>
}

// A torrent from anywhere, such as the body of an HTTP response.
func ExampleParse() {
	file := strings.NewReader("d4:infod6:lengthi11e4:name8:tide.txt12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee")
	t, err := torrent.Parse(file)
	if err != nil {
		log.Fatal(err)
	}
	for f := range t.Files() {
		fmt.Println(f.Path, f.Length)
	}
	// Output:
	// tide.txt 11
}

// A link says which torrent it is, and perhaps where to look for it.
func ExampleParseMagnet() {
	m, err := torrent.ParseMagnet("magnet:?xt=urn:btih:e098eff25acbf5b8e32f828975c30953622dbe6f&dn=tide.txt&tr=udp%3A%2F%2Ftracker.example%3A6969")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.InfoHash, m.Name, m.Trackers)
	// Output:
	// e098eff25acbf5b8e32f828975c30953622dbe6f tide.txt [udp://tracker.example:6969]
}

// A link to some of the files of a torrent.
func ExampleMagnet() {
	t := torrenttest.Make(nil, map[string]string{"tide/ebb.txt": "out", "tide/flood.txt": "in"})
	m := t.Magnet()
	m.Select = []int{1}
	for f := range t.Files() {
		fmt.Println(f.Path, m.Priority(f))
	}
	// Output:
	// tide/ebb.txt skip
	// tide/flood.txt normal
}

// An info hash as people write it.
func ExampleParseHash() {
	h, err := torrent.ParseHash("4CMO74S2ZP23RYZPQKEXLQYJKNRC3PTP") // base32, or 40 digits of hex
	fmt.Println(h, err)
	// Output:
	// e098eff25acbf5b8e32f828975c30953622dbe6f <nil>
}

// Files by pattern. A function of your own may choose by anything else.
func ExampleGlob() {
	t := torrenttest.Make(nil, map[string]string{"tide/ebb.txt": "out", "tide/flood.srt": "in", "tide/moon/full.txt": "spring"})
	chosen := torrent.Glob("*.srt", "tide/moon/*")
	for f := range t.Files() {
		fmt.Println(f.Path, chosen(f))
	}
	// Output:
	// tide/ebb.txt skip
	// tide/flood.srt normal
	// tide/moon/full.txt normal
}

// A set of pieces, as a Storage that knows what it holds returns it.
func ExampleNewBitfield() {
	b := torrent.NewBitfield(10, 2, 7)
	fmt.Println(b.Len(), b.Count(), b.Has(7), b.Has(8))
	for i := range b.All() {
		fmt.Println(i)
	}
	// Output:
	// 10 2 true false
	// 2
	// 7
}

// Sharing what any file system holds: an embed.FS, an archive, or files under other names.
func ExampleFSStorage() {
	t := torrenttest.Make(nil, map[string]string{"tide.txt": "neap tide"})
	fsys := fstest.MapFS{"tide.txt": {Data: []byte("neap tide")}}
	client := &torrent.Client{Listen: "127.0.0.1:0"}
	defer client.Close()
	d, err := t.Start(context.Background(), &torrent.Options{Storage: torrent.FSStorage(fsys), Seed: true, Client: client})
	if err != nil {
		log.Fatal(err)
	}
	files, err := d.Wait()
	if err != nil {
		log.Fatal(err)
	}
	fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		fmt.Println(path.Clean(name), entry.IsDir(), err)
		return err
	})
	fmt.Println(d.Stats().State)
	// Output:
	// . true <nil>
	// tide.txt false <nil>
	// seeding
}

// A torrent by the public key of the one who publishes it (BEP 46): its latest version is the one whose info hash the signed
// item of that key names.
func ExampleDHT_GetSigned() {
	ctx := context.Background()
	first := &torrent.Client{Listen: "127.0.0.1:0", DHTNodes: []string{}}
	defer first.Close()
	if err := first.DHT().Stats().Err; err != nil { // the call of DHT joins
		log.Fatal(err)
	}
	nodes := []string{first.Addr().String()}

	// The publisher seeds a version, and signs its info hash.
	publisher := &torrent.Client{Listen: "127.0.0.1:0", DHTNodes: nodes}
	defer publisher.Close()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		log.Fatal(err)
	}
	files := fstest.MapFS{"tides.txt": {Data: []byte("high water at six")}}
	t, err := torrent.CreateFS(ctx, files, nil)
	if err != nil {
		log.Fatal(err)
	}
	seed, err := t.Start(ctx, &torrent.Options{Client: publisher, Storage: torrent.FSStorage(files), Seed: true})
	if err != nil {
		log.Fatal(err)
	}
	<-seed.Done()
	hash := t.InfoHash()
	port := publisher.Addr().(*net.TCPAddr).Port
	if err := publisher.DHT().Announce(ctx, hash, uint16(port)); err != nil { // or wait until the download has done so
		log.Fatal(err)
	}
	if err := publisher.DHT().PutSigned(ctx, private, nil, fmt.Appendf(nil, "d2:ih20:%se", hash[:]), 1); err != nil {
		log.Fatal(err)
	}

	// Others need the public key alone.
	reader := &torrent.Client{Listen: "127.0.0.1:0", DHTNodes: nodes}
	defer reader.Close()
	value, version, err := reader.DHT().GetSigned(ctx, public, nil)
	if err != nil {
		log.Fatal(err)
	}
	latest, ok := bytes.CutPrefix(value, []byte("d2:ih20:"))
	if !ok || len(latest) != 21 {
		log.Fatalf("no torrent: %q", value)
	}
	m := &torrent.Magnet{InfoHash: torrent.Hash(latest[:20])}
	latestTorrent, err := m.Resolve(ctx, &torrent.Options{Client: reader})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("version %d: %s\n", version, latestTorrent.Name())
	// Output:
	// version 1: tides.txt
}

// blocks is a Storage: a slice here, elsewhere perhaps a database or a bucket. Package storagetest tests one.
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
