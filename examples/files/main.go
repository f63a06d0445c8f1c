// Command files downloads a torrent into memory and prints the SHA-256 of each of its files. Nothing
// is written to disk.
//
//	go run ./examples/files TORRENT
package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/internal/clientflags"
)

func main() {
	log.SetFlags(0)
	var o torrent.Options
	clientflags.Peers(&o)
	flag.Int64Var(&o.MaxMemory, "memory", 0, "`bytes` of content to take at most; 1 GiB if not given")
	usage := clientflags.Usage("usage: files [-peers A,B] [-memory BYTES] TORRENT")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal(usage)
	}
	if err := run(flag.Arg(0), &o); err != nil {
		log.Fatal(err)
	}
}

func run(path string, o *torrent.Options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	t, err := torrent.Read(path)
	if err != nil {
		return err
	}
	files, err := t.DownloadAll(ctx, o)
	if err != nil {
		return err
	}
	defer files.Close()

	for f := range files.Files() {
		b, err := f.Bytes() // the content itself, not a copy
		if err != nil {
			return err
		}
		fmt.Printf("%x  %s\n", sha256.Sum256(b), f.Path())
	}
	return nil
}
