package torrent_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"log"
	"net"
	"testing/fstest"

	"github.com/shoal-go/torrent"
)

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
