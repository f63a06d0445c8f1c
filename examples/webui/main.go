// Command webui is a page to download with, in a browser on the same machine. It takes .torrent files and magnet links, shows
// files, pieces, peers and rates as they change, and plays video and audio while they come. What it was given, it knows again
// when it is started again.
//
//	go run ./examples/webui [-dir DIR] [-http HOST:PORT] [-listen ADDR] [-peers A,B] [-dht HOST:PORT,…|off] [-transport tcp|utp|both] [-proxy URL] [-bind ADDR] [-map]
//
// It prints the address to open, which ends with a token. The page answers on loopback alone, does nothing without the token, and
// takes no order from other pages.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/internal/clientflags"
)

// usualAddr is where the page is unless -http says otherwise, or another program is there.
const usualAddr = "127.0.0.1:7800"

func main() {
	log.SetFlags(0)
	client := new(torrent.Client)
	clientflags.Register(client)
	o := torrent.Options{Client: client}
	clientflags.Peers(&o)
	flag.StringVar(&client.Listen, "listen", "", "TCP `address` to accept peers on; any free port if not given")
	flag.StringVar(&o.Dir, "dir", "downloads", "the `directory` to download into")
	addr := flag.String("http", "", "loopback `address` of the page; "+usualAddr+", or another port if that is taken")
	usage := clientflags.Usage("usage: webui [-dir DIR] [-http HOST:PORT] [-listen ADDR] [-peers A,B] [-dht HOST:PORT,…|off] [-transport tcp|utp|both] [-proxy URL] [-bind ADDR] [-map]")
	flag.Parse()
	if flag.NArg() != 0 {
		log.Fatal(usage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, *addr)
	stop()
	if err := errors.Join(err, client.Close()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, o torrent.Options, addr string) error {
	l, err := listen(addr)
	if err != nil {
		return err
	}
	defer l.Close()
	shelf, err := openShelf(o)
	if err != nil {
		return err
	}
	defer shelf.close()
	token, err := shelf.state.token()
	if err != nil {
		return err
	}
	server := &http.Server{Handler: newSite(shelf, token, l.Addr().String()), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	fmt.Printf("open http://%s/#%s\n", l.Addr(), token)
	if err := server.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}

// listen refuses addresses that other machines can reach.
func listen(addr string) (net.Listener, error) {
	usual := addr == ""
	if usual {
		addr = usualAddr
	}
	at, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("-http: %w", err)
	}
	if !at.IP.IsLoopback() {
		return nil, fmt.Errorf("-http: %s is not an address of this machine alone, such as 127.0.0.1 or [::1]", addr)
	}
	l, err := net.ListenTCP("tcp", at)
	if err != nil && usual {
		at.Port = 0
		l, err = net.ListenTCP("tcp", at)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}
