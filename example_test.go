package torrent_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing/fstest"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

// The whole of a program that downloads a torrent and uses its files.
func Example() {
	// A program reads a torrent with torrent.Read. This one comes with a peer that shares it.
	t, peer := torrenttest.Seed(nil, map[string]string{
		"tide/ebb.txt":       strings.Repeat("out ", 10_000),
		"tide/flood.txt":     strings.Repeat("in ", 20_000),
		"tide/moon/full.txt": "spring tide",
		"tide/moon/half.txt": "neap tide",
	})
	t.PrintTree(os.Stdout)
	files, err := t.DownloadAll(context.Background(), &torrent.Options{Peers: []netip.AddrPort{peer}})
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()
	for f := range files.Files() {
		b, err := f.Bytes()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %d bytes, %.9q\n", f.Path(), len(b), b)
	}
	// Output:
	// 97.7 KiB  tide/
	// 39.1 KiB  ├── ebb.txt
	// 58.6 KiB  ├── flood.txt
	//   20 B    └── moon/
	//   11 B        ├── full.txt
	//    9 B        └── half.txt
	//
	// 4 files, 97.7 KiB
	// tide/ebb.txt: 40000 bytes, "out out o"
	// tide/flood.txt: 60000 bytes, "in in in "
	// tide/moon/full.txt: 11 bytes, "spring ti"
	// tide/moon/half.txt: 9 bytes, "neap tide"
}

// Downloading into a directory, only some of the files, and using each as soon as it is whole.
func ExampleDownload_Completed() {
	t, peer := torrenttest.Seed(nil, map[string]string{"tide/ebb.txt": "out", "tide/flood.txt": "in", "tide/moon/full.txt": "spring"})
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	d, err := t.Start(context.Background(), &torrent.Options{
		Dir:    dir,
		Select: torrent.Glob("f*.txt"),
		Peers:  []netip.AddrPort{peer},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	for f, err := range d.Completed() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(f.Path(), f.Length())
	}
	// Unordered output:
	// tide/flood.txt 2
	// tide/moon/full.txt 6
}

// Reading the end of a file while the rest of it is still to come.
func ExampleDownload_Open() {
	t, peer := torrenttest.Seed(nil, map[string]string{"tide/flood.txt": strings.Repeat("in ", 20_000)})
	ctx := context.Background()
	d, err := t.Start(ctx, &torrent.Options{Peers: []netip.AddrPort{peer}})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	r, err := d.Open(ctx, "tide/flood.txt")
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Seek(-6, io.SeekEnd); err != nil {
		log.Fatal(err)
	}
	b, err := io.ReadAll(r) // waits for the pieces that it needs, which come first
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%q\n", b)
	// Output:
	// "in in "
}

// The result of a download is a file system.
func ExampleDownloaded() {
	t, peer := torrenttest.Seed(nil, map[string]string{"tide/ebb.txt": "out", "tide/moon/full.txt": "spring", "tide/moon/half.txt": "neap"})
	files, err := t.DownloadAll(context.Background(), &torrent.Options{Peers: []netip.AddrPort{peer}})
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()
	// http.FileServerFS(files) would serve it.
	names, err := fs.Glob(files, "tide/*/f*")
	fmt.Println(names, err)
	// Output:
	// [tide/moon/full.txt] <nil>
}

// A blocklist, as other clients read it, decides who may be a peer.
func ExampleClient_blocklist() {
	// Two lines in the form of .p2p files, and one in that of .dat files.
	list := strings.NewReader("Some Company:192.0.2.0-192.0.2.127\nAnother:198.51.100.7-198.51.100.7\n" +
		"203.000.113.000 - 203.000.113.255 , 000 , A Third\n")
	type span struct{ from, to netip.Addr }
	var blocked []span
	zeros, spans := regexp.MustCompile(`\b0+(\d)`), regexp.MustCompile(`([\d.]+) ?- ?([\d.]+)( , \d+ ,|\s*$)`)
	for lines := bufio.NewScanner(list); lines.Scan(); {
		if m := spans.FindStringSubmatch(zeros.ReplaceAllString(lines.Text(), "$1")); m != nil {
			from, errFrom := netip.ParseAddr(m[1])
			to, errTo := netip.ParseAddr(m[2])
			if errFrom == nil && errTo == nil {
				blocked = append(blocked, span{from, to})
			}
		}
	}
	slices.SortFunc(blocked, func(a, b span) int { return a.from.Compare(b.from) })
	client := &torrent.Client{Allow: func(a netip.Addr) bool {
		k := sort.Search(len(blocked), func(k int) bool { return a.Less(blocked[k].from) })
		return k == 0 || blocked[k-1].to.Less(a)
	}}
	for _, a := range []string{"192.0.2.127", "192.0.2.128", "198.51.100.7", "203.0.113.99", "2001:db8::1"} {
		fmt.Println(a, client.Allow(netip.MustParseAddr(a)))
	}
	// Output:
	// 192.0.2.127 false
	// 192.0.2.128 true
	// 198.51.100.7 false
	// 203.0.113.99 false
	// 2001:db8::1 true
}

// A service shares one listener and one set of limits among its downloads.
func ExampleClient() {
	t, peer := torrenttest.Seed(nil, map[string]string{"tide.txt": "neap tide"})
	client := &torrent.Client{
		NoDHT:         true,
		NoUTP:         true,
		Listen:        "127.0.0.1:0",
		MaxPeers:      200,
		DownloadLimit: rate.NewLimiter(10e6, 1<<20), // bytes a second, all downloads together
		UploadLimit:   rate.NewLimiter(1e6, 1<<20),
	}
	defer client.Close()

	files, err := t.DownloadAll(context.Background(), &torrent.Options{
		Client:       client,
		Peers:        []netip.AddrPort{peer},
		StallTimeout: time.Minute,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()
	b, err := files.ReadFile("tide.txt")
	fmt.Printf("%s %v\n", b, err)
	// Output:
	// neap tide <nil>
}

// Which pieces a directory holds.
func ExampleTorrent_Verify() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tide.txt")
	if err := os.WriteFile(path, bytes.Repeat([]byte("tide"), 20_000), 0o666); err != nil {
		log.Fatal(err)
	}
	t, err := torrent.Create(path, &torrent.CreateOptions{PieceLength: 16 << 10})
	if err != nil {
		log.Fatal(err)
	}
	if err := os.Truncate(path, 40_000); err != nil {
		log.Fatal(err)
	}
	have, err := t.Verify(context.Background(), dir)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d of %d pieces:", have.Count(), have.Len())
	for i := range have.All() {
		fmt.Print(" ", i)
	}
	// Output:
	// 2 of 5 pieces: 0 1
}

// The torrent of files in memory, which are then shared. A directory is shared by Create and Options.Dir.
func ExampleCreateFS() {
	files := fstest.MapFS{"tide.txt": {Data: []byte("spring tide")}} // or an embed.FS
	ctx := context.Background()
	t, err := torrent.CreateFS(ctx, files, nil)
	if err != nil {
		log.Fatal(err)
	}
	client := &torrent.Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0"}
	defer client.Close()
	d, err := t.Start(ctx, &torrent.Options{Storage: torrent.FSStorage(files), Seed: true, Client: client})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := d.Wait(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(d.Stats().State, t)
	// Output:
	// seeding tide.txt (e098eff25acbf5b8e32f828975c30953622dbe6f)
}

// A malformed torrent is an error that says what is wrong with it.
func ExampleMetainfoError() {
	_, err := torrent.Parse(strings.NewReader("d4:infod6:lengthi-1e4:name1:x12:piece lengthi16384e6:pieces0:ee"))
	if malformed, ok := errors.AsType[*torrent.MetainfoError](err); ok {
		fmt.Println(malformed.Field)
		fmt.Println(malformed.Reason)
	}
	// Output:
	// info.length
	// negative
}

// The link that other clients take.
func ExampleTorrent_Magnet() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tide.txt")
	if err := os.WriteFile(path, []byte("spring tide"), 0o666); err != nil {
		log.Fatal(err)
	}
	t, err := torrent.Create(path, &torrent.CreateOptions{Trackers: [][]string{{"udp://tracker.example:6969"}}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(t.Magnet())
	// Output:
	// magnet:?xt=urn:btih:e098eff25acbf5b8e32f828975c30953622dbe6f&dn=tide.txt&tr=udp%3A%2F%2Ftracker.example%3A6969
}
