// Command anacrolix downloads a torrent with github.com/anacrolix/torrent, or seeds it.
//
//	anacrolix [-seed] [-listen ADDR] [-utp] -dir DIR TORRENT...
//
// It ends once the torrent is complete; with -seed it prints "ready" once all are, and shares on.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/storage"
)

// settling is how long after all torrents are complete what they set off is over.
const settling = 5 * time.Second

func main() {
	dir := flag.String("dir", ".", "directory of the content")
	seed := flag.Bool("seed", false, "share on once complete")
	listen := flag.String("listen", "", "address to accept peers on")
	utp := flag.Bool("utp", false, "uTP alone, not TCP alone")
	flag.Parse()
	if err := run(*dir, *seed, *utp, *listen, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(dir string, seed, utp bool, listen string, torrents []string) error {
	config := torrent.NewDefaultClientConfig()
	// As the others: one transport alone, peers from the tracker alone.
	config.DisableTCP, config.DisableUTP = utp, !utp
	config.NoDHT, config.NoDefaultPortForwarding, config.DisableIPv6 = true, true, true
	config.DisableWebtorrent, config.DisableWebseeds = true, true
	config.Seed = seed
	config.NoUpload = !seed
	config.ListenPort = 0
	if listen != "" {
		host, port, err := net.SplitHostPort(listen)
		if err != nil {
			return err
		}
		if config.ListenPort, err = strconv.Atoi(port); err != nil {
			return err
		}
		config.ListenHost = func(string) string { return host }
	}
	// Files, with the completion of pieces kept in memory: nothing but the content on disk.
	config.DefaultStorage = storage.NewFileOpts(storage.NewFileClientOpts{ClientBaseDir: dir, PieceCompletion: storage.NewMapPieceCompletion()})
	client, err := torrent.NewClient(config)
	if err != nil {
		return err
	}
	for _, path := range torrents {
		t, err := client.AddTorrentFromFile(path)
		if err != nil {
			return err
		}
		if seed {
			if err := t.VerifyDataContext(context.Background()); err != nil {
				return err
			}
		}
		t.DownloadAll()
		defer t.Drop()
	}
	if !client.WaitAll() {
		return fmt.Errorf("not complete")
	}
	if seed {
		fmt.Println("ready")
		end := make(chan os.Signal, 1)
		signal.Notify(end, os.Interrupt, syscall.SIGTERM)
		select {
		case <-time.After(settling):
			debug.FreeOSMemory()
			<-end
		case <-end:
		}
	}
	return nil
}
