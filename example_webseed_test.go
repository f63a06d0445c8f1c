package torrent_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"testing/fstest"

	"github.com/shoal-go/torrent"
)

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
