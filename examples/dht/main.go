// Command dht asks the DHT: for peers of a torrent, as they are found, and for small items that anyone may store. An item is
// found by the hash of its value, which put prints, and forgotten after two hours.
//
//	go run ./examples/dht [-dht HOST:PORT,…] peers HASH
//	go run ./examples/dht [-dht HOST:PORT,…] get TARGET
//	go run ./examples/dht [-dht HOST:PORT,…] put TEXT
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/internal/clientflags"
)

func main() {
	log.SetFlags(0)
	client := &torrent.Client{NoListen: true}
	clientflags.Register(client)
	patience := flag.Duration("timeout", time.Minute, "how long to look at most")
	usage := clientflags.Usage("usage: dht [-dht HOST:PORT,…] peers HASH | get TARGET | put TEXT")
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal(usage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, *patience)
	err := run(ctx, client.DHT(), flag.Arg(0), flag.Arg(1))
	cancel()
	stop()
	if err := errors.Join(err, client.Close()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, dht *torrent.DHT, command, what string) error {
	if command == "put" {
		target, err := dht.Put(ctx, fmt.Appendf(nil, "%d:%s", len(what), what)) // a bencoded string
		if err == nil {
			fmt.Println(target)
		}
		return err
	}
	hash, err := torrent.ParseHash(what)
	if err != nil {
		return err
	}
	switch command {
	case "peers":
		for peer, err := range dht.Peers(ctx, hash) {
			if err != nil {
				return err
			}
			fmt.Println(peer)
		}
		return nil
	case "get":
		value, err := dht.Get(ctx, hash)
		if err == nil {
			fmt.Println(text(value))
		}
		return err
	}
	return fmt.Errorf("unknown command %s: want peers, get or put", command)
}

// text is the text of a bencoded string, and another value as it is.
func text(value []byte) string {
	if length, content, ok := strings.Cut(string(value), ":"); ok && length == fmt.Sprint(len(content)) {
		return content
	}
	return string(value)
}
