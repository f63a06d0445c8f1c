// Command ours downloads a torrent with this library, or seeds some.
//
//	ours [-memory] [-seed] [-listen ADDR] [-peers N] -dir DIR TORRENT...
//
// It ends once the torrent is complete, and prints how many bytes of it were wasted; with -seed it prints "ready" once
// all are, and shares on.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/shoal-go/torrent"
	"golang.org/x/time/rate"
)

// settling is how long after all torrents are complete what they set off, such as announces, is over.
const settling = 5 * time.Second

func main() {
	dir := flag.String("dir", ".", "directory of the content")
	memory := flag.Bool("memory", false, "keep the content in memory")
	seed := flag.Bool("seed", false, "share on once complete")
	listen := flag.String("listen", "", "address to accept peers on")
	upload := flag.Int("upload", 0, "bytes a second to send at most")
	peers := flag.Int("peers", 0, "connections of a torrent at most; 0 is the library's default")
	flag.Parse()
	if *memory {
		*dir = ""
	}
	if err := run(*dir, *seed, *listen, *upload, *peers, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(dir string, seed bool, listen string, upload, peers int, torrents []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client := &torrent.Client{Listen: listen, NoDHT: true}
	defer client.Close()
	if upload > 0 {
		client.UploadLimit = rate.NewLimiter(rate.Limit(upload), 256<<10)
	}
	o := &torrent.Options{Dir: dir, Seed: seed, Client: client, MaxMemory: 1 << 40, MaxPeers: peers}
	var downloads []*torrent.Download
	for _, path := range torrents {
		t, err := torrent.Read(path)
		if err != nil {
			return err
		}
		d, err := t.Start(ctx, o)
		if err != nil {
			return err
		}
		downloads = append(downloads, d)
	}
	for _, d := range downloads {
		files, err := d.Wait()
		if err != nil {
			return err
		}
		defer files.Close()
		fmt.Println("wasted", d.Stats().Wasted)
	}
	if seed {
		fmt.Println("ready")
		select {
		case <-time.After(settling):
			debug.FreeOSMemory() // what starting took is not what sharing takes
			fmt.Println("goroutines", runtime.NumGoroutine())
			<-ctx.Done()
		case <-ctx.Done():
		}
	}
	return nil
}
