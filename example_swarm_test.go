package torrent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

// From a magnet link to the content. Peers come from the trackers that the link names and from the DHT; this one names a peer.
func ExampleMagnet_Resolve() {
	original, peer := torrenttest.Seed(nil, map[string]string{"tide.txt": "neap tide"})
	link := fmt.Sprintf("magnet:?xt=urn:btih:%s&x.pe=%s", original.InfoHash(), peer)

	ctx := context.Background()
	client := &torrent.Client{Listen: "127.0.0.1:0", NoDHT: true, NoUTP: true} // the zero Client looks for peers everywhere
	defer client.Close()
	o := &torrent.Options{Client: client}
	m, err := torrent.ParseMagnet(link)
	if err != nil {
		log.Fatal(err)
	}
	t, err := m.Resolve(ctx, o) // what a .torrent file would say, from peers
	if err != nil {
		log.Fatal(err)
	}
	files, err := t.DownloadAll(ctx, o)
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()
	b, err := files.ReadFile("tide.txt")
	fmt.Printf("%s: %s %v\n", t.Name(), b, err)
	// Output:
	// tide.txt: neap tide <nil>
}

// Making a torrent of a directory, and sharing it until the client is closed.
func ExampleTorrent_Start_seed() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tide.txt")
	if err := os.WriteFile(path, []byte("spring tide"), 0o666); err != nil {
		log.Fatal(err)
	}
	t, err := torrent.Create(path, &torrent.CreateOptions{Private: true})
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	client := &torrent.Client{Listen: "127.0.0.1:0"}
	defer client.Close()
	d, err := t.Start(ctx, &torrent.Options{Dir: dir, Seed: true, Client: client})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := d.Wait(); err != nil { // until the existing content is verified
		log.Fatal(err)
	}

	// Another program, which knows the address.
	peer := netip.MustParseAddrPort(client.Addr().String())
	files, err := t.DownloadAll(ctx, &torrent.Options{Peers: []netip.AddrPort{peer}})
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()
	b, err := files.ReadFile("tide.txt")
	fmt.Printf("%s: %s %v\n", d.Stats().State, b, err)
	// Output:
	// seeding: spring tide <nil>
}

// Choosing files, and choosing others while the download runs.
func ExampleDownload_Select() {
	t, peer := torrenttest.Seed(nil, map[string]string{"tide/ebb.txt": "out", "tide/flood.txt": "in", "tide/moon/full.txt": "spring"})
	d, err := t.Start(context.Background(), &torrent.Options{
		Select: torrent.Glob("ebb.txt"),
		Peers:  []netip.AddrPort{peer},
		Seed:   true, // so that it goes on when the first choice is complete
	})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	d.Select(func(f torrent.File) torrent.Priority {
		if strings.HasPrefix(f.Path, "tide/moon/") {
			return torrent.High
		}
		return torrent.Skip
	})
	files, err := d.Wait()
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()
	for f := range files.Files() {
		fmt.Println(f.Path())
	}
	// Output:
	// tide/moon/full.txt
}

// How far a download is, and with whom.
func ExampleDownload_Stats() {
	t, peer := torrenttest.Seed(nil, map[string]string{"tide.txt": strings.Repeat("in ", 100_000)})
	d, err := t.Start(context.Background(), &torrent.Options{Peers: []netip.AddrPort{peer}})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Wait(); err != nil {
		log.Fatal(err)
	}
	s := d.Stats() // cheap: a program may ask for it many times a second
	fmt.Printf("%d of %d bytes, %d of %d pieces, %d received, %d in vain\n",
		s.Verified, s.Wanted, s.PiecesVerified, s.Pieces, s.Downloaded, s.Wasted)
	// Output:
	// 300000 of 300000 bytes, 19 of 19 pieces, 300000 received, 0 in vain
}

// The events of a download, as they happen.
func ExampleDownload_Events() {
	t, peer := torrenttest.Seed(nil, map[string]string{"tide/ebb.txt": "out", "tide/flood.txt": "in"})
	ctx := context.Background()
	d, err := t.Start(ctx, &torrent.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	events := d.Events(ctx)
	d.AddPeers(peer)
	for e := range events {
		if e.Kind == torrent.FileVerified {
			fmt.Println(e.Kind, e.File.Path)
		}
	}
	// Unordered output:
	// file verified tide/ebb.txt
	// file verified tide/flood.txt
}

// Bounds for all downloads of a client, and for one of them, changed while they are in use.
func ExampleClient_limits() {
	t, peer := torrenttest.Seed(nil, map[string]string{"tide.txt": "neap tide"})
	client := &torrent.Client{
		Listen:      "127.0.0.1:0",
		MaxPeers:    200,
		UploadLimit: rate.NewLimiter(1e6, 1<<20), // bytes a second, and how many may go at once
	}
	defer client.Close()
	slow := rate.NewLimiter(1, 1)
	d, err := t.Start(context.Background(), &torrent.Options{Client: client, DownloadLimit: slow, MaxPeers: 30, Peers: []netip.AddrPort{peer}})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	slow.SetBurst(1 << 20)
	slow.SetLimit(rate.Inf)
	files, err := d.Wait()
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()
	b, err := files.ReadFile("tide.txt")
	fmt.Printf("%s %v\n", b, err)
	// Output:
	// neap tide <nil>
}

// A torrent as a slow disk: nothing is fetched but what is read.
func ExampleDownload_Open_onDemand() {
	t, peer := torrenttest.Seed(nil, map[string]string{
		"tide/flood.txt": strings.Repeat("in ", 100_000),
		"tide/moon.txt":  strings.Repeat("spring ", 100_000),
	})
	ctx := context.Background()
	d, err := t.Start(ctx, &torrent.Options{
		Select: func(torrent.File) torrent.Priority { return torrent.OnDemand },
		Peers:  []netip.AddrPort{peer},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	r, err := d.Open(ctx, "tide/moon.txt")
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	b := make([]byte, 6)
	_, err = io.ReadFull(r, b)
	fmt.Printf("%s %v, everything is here: %v\n", b, err, d.Stats().PiecesVerified == t.NumPieces())
	// Output:
	// spring <nil>, everything is here: false
}

// A web page of a file that is still to come. Ranges work, so that a browser plays and seeks in it.
func ExampleDownload_Open_web() {
	t, peer := torrenttest.Seed(nil, map[string]string{"tide/flood.txt": strings.Repeat("in ", 20_000)})
	d, err := t.Start(context.Background(), &torrent.Options{Peers: []netip.AddrPort{peer}, Seed: true})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file, err := d.Open(r.Context(), strings.TrimPrefix(r.URL.Path, "/"))
		if err != nil {
			http.Error(w, "no such file", http.StatusNotFound)
			return
		}
		defer file.Close()
		http.ServeContent(w, r, r.URL.Path, t.CreationDate(), file)
	}))
	defer server.Close()

	request, err := http.NewRequest("GET", server.URL+"/tide/flood.txt", nil)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Range", "bytes=30000-30004")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(response.Body)
	fmt.Printf("%s: %q %v\n", response.Status, b.String(), err)
	// Output:
	// 206 Partial Content: "in in" <nil>
}

// The files are slices, and readers.
func ExampleDownloadedFile() {
	t, peer := torrenttest.Seed(nil, map[string]string{"tide.txt": "neap tide"})
	files, err := t.DownloadAll(context.Background(), &torrent.Options{Peers: []netip.AddrPort{peer}})
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()
	for f := range files.Files() {
		b, err := f.Bytes() // valid until files.Close
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %d bytes, %q\n", f.Path(), f.Length(), b)
	}
	// Output:
	// tide.txt: 9 bytes, "neap tide"
}

// A DHT of three clients. Two of them join through the first. Without DHTNodes they would begin at well-known nodes.
func ExampleDHT() {
	first := &torrent.Client{Listen: "127.0.0.1:0", DHTNodes: []string{}}
	defer first.Close()
	if err := first.DHT().Stats().Err; err != nil { // the call of DHT joins
		log.Fatal(err)
	}
	second := &torrent.Client{Listen: "127.0.0.1:0", DHTNodes: []string{first.Addr().String()}}
	defer second.Close()

	third := &torrent.Client{Listen: "127.0.0.1:0", DHTNodes: []string{first.Addr().String()}}
	defer third.Close()

	ctx := context.Background()
	target, err := second.DHT().Put(ctx, []byte("9:neap tide"))
	if err != nil {
		log.Fatal(err)
	}
	value, err := third.DHT().Get(ctx, target)
	fmt.Printf("%s %v\n", value, err)
	// Output:
	// 9:neap tide <nil>
}
