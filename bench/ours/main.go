// Command ours downloads a torrent with this library, or seeds some.
//
//	ours [-memory] [-seed] [-listen ADDR] [-peers N] [-transport both|tcp|utp] [-nooffload] -dir DIR TORRENT...
//
// It ends once the torrent is complete, and prints how many bytes of it were wasted; with -seed it prints "ready" once
// all are, and shares on.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
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
	transport := flag.String("transport", "both", "how peers are reached: both, tcp or utp")
	nooffload := flag.Bool("nooffload", false, "send and receive one UDP packet a system call")
	flag.Parse()
	if *memory {
		*dir = ""
	}
	client := &torrent.Client{Listen: *listen, NoDHT: true, NoTCP: *transport == "utp", NoUTP: *transport == "tcp"}
	if *upload > 0 {
		client.UploadLimit = rate.NewLimiter(rate.Limit(*upload), 256<<10)
	}
	if *nooffload {
		client.ListenPacket = listenPlainly
	}
	if err := run(client, *dir, *seed, *peers, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

// listenPlainly opens a socket that hides what the system's could do.
func listenPlainly(ctx context.Context, network, addr string) (net.PacketConn, error) {
	conn, err := new(net.ListenConfig).ListenPacket(ctx, network, addr)
	return struct{ net.PacketConn }{conn}, err
}

func run(client *torrent.Client, dir string, seed bool, peers int, torrents []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer client.Close()
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
