// Command download downloads torrents, given as .torrent files or magnet links, into a directory. It
// ends with 0 when all are complete. Ctrl-C keeps what is verified, and the next run goes on from it.
//
//	go run ./examples/download [-dir DIR] [-peers A,B] [-only GLOB] [-dht HOST:PORT,…|off] [-transport tcp|utp|both] [-map] TORRENT|MAGNET…
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"strings"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/internal/clientflags"
)

func main() {
	log.SetFlags(0)
	client := &torrent.Client{}
	clientflags.Register(client)
	o := torrent.Options{Client: client}
	flag.StringVar(&o.Dir, "dir", ".", "the `directory` to download into")
	flag.Func("peers", "`addresses` to try beside those that trackers name, with commas between", func(list string) error {
		for address := range strings.SplitSeq(list, ",") {
			peer, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			o.Peers = append(o.Peers, peer)
		}
		return nil
	})
	var only []string
	flag.Func("only", "`pattern` of the files to download, such as '*.srt'; may be given again", func(glob string) error {
		only = append(only, glob)
		o.Select = torrent.Glob(only...)
		return nil
	})
	flag.Parse()
	if flag.NArg() == 0 {
		log.Fatal("usage: download [-dir DIR] [-peers A,B] [-only GLOB] [-dht HOST:PORT,…|off] [-transport tcp|utp|both] [-map] TORRENT|MAGNET…")
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, &o, flag.Args())
	stop()
	if err := errors.Join(err, client.Close()); err != nil {
		log.Fatal(err)
	}
}

// run downloads all torrents at once, with one client.
func run(ctx context.Context, o *torrent.Options, torrents []string) error {
	var downloads []*torrent.Download
	for _, name := range torrents {
		d, err := start(ctx, name, *o)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		defer d.Close()
		downloads = append(downloads, d)
	}

	defer show(downloads)()
	var errs []error
	for _, d := range downloads {
		if _, err := d.Wait(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// start begins one download, of a .torrent file or a magnet link.
func start(ctx context.Context, name string, o torrent.Options) (*torrent.Download, error) {
	if !strings.HasPrefix(name, "magnet:") {
		t, err := torrent.Read(name)
		if err != nil {
			return nil, err
		}
		return t.Start(ctx, &o)
	}
	m, err := torrent.ParseMagnet(name)
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, "asking peers what is in", m.InfoHash)
	t, err := m.Resolve(ctx, &o)
	if err != nil {
		return nil, err
	}
	if o.Select == nil {
		o.Select = m.Priority // a link may be about some of the files alone
	}
	return t.Start(ctx, &o)
}
