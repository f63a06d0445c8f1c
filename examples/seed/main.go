// Command seed shares the content of a torrent that a directory holds, until Ctrl-C. What is missing
// or damaged it fetches first.
//
//	go run ./examples/seed -dir DIR [-listen ADDR] [-dht HOST:PORT,…|off] [-transport tcp|utp|both] [-proxy URL] [-bind ADDR] [-map] TORRENT
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/internal/clientflags"
	"github.com/shoal-go/torrent/examples/internal/human"
)

func main() {
	log.SetFlags(0)
	dir := flag.String("dir", ".", "the `directory` that holds the file, or the directory of the files")
	client := new(torrent.Client)
	flag.StringVar(&client.Listen, "listen", "", "TCP `address` to accept peers on; any free port if not given")
	clientflags.Register(client)
	usage := clientflags.Usage("usage: seed -dir DIR [-listen ADDR] [-dht HOST:PORT,…|off] [-transport tcp|utp|both] [-proxy URL] [-bind ADDR] [-map] TORRENT")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal(usage)
	}
	if err := run(flag.Arg(0), *dir, client); err != nil {
		log.Fatal(err)
	}
}

func run(path, dir string, client *torrent.Client) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	t, err := torrent.Read(path)
	if err != nil {
		return err
	}
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("-dir: %w", err) // what is not there cannot be shared; download would make it
	} else if !info.IsDir() {
		return fmt.Errorf("-dir: %s is not a directory: name the one that holds it", dir)
	}
	defer client.Close()
	d, err := t.Start(ctx, &torrent.Options{Dir: dir, Seed: true, Client: client})
	if err != nil {
		return err
	}
	defer d.Close()

	fmt.Printf("accepting peers on %s\n", client.Addr())
	whole := d.Done()
	tick := time.Tick(10 * time.Second)
	for {
		select {
		case <-whole:
			if _, err := d.Wait(); err != nil {
				return err
			}
			fmt.Printf("%s is whole, and shared until Ctrl-C\n", t.Name())
			whole = nil
		case <-tick:
			s := d.Stats()
			fmt.Printf("%s of %s here; %s shared, %s to %s\n", human.Size(s.Verified), human.Size(s.Wanted),
				human.Size(s.Uploaded), human.Rate(s.UploadRate), human.Count(len(s.Peers), "peer"))
		case <-ctx.Done():
			return nil
		}
	}
}
