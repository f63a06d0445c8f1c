// Command cat writes one file of a torrent to standard output as it comes, and fetches nothing but
// the pieces that the file is in.
//
//	go run ./examples/cat TORRENT PATH | mpv -
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"strings"

	"github.com/shoal-go/torrent"
)

func main() {
	log.SetFlags(0)
	var o torrent.Options
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
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal("usage: cat [-peers A,B] TORRENT PATH")
	}
	if err := run(flag.Arg(0), flag.Arg(1), &o); err != nil {
		log.Fatal(err)
	}
}

func run(torrentPath, path string, o *torrent.Options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	t, err := torrent.Read(torrentPath)
	if err != nil {
		return err
	}
	file, err := find(t, path)
	if err != nil {
		return err
	}
	o.Select = func(f torrent.File) torrent.Priority {
		if f == file {
			return torrent.Normal
		}
		return torrent.Skip
	}

	// On disk, for files larger than memory; gone when the file is written.
	if o.Dir, err = os.MkdirTemp("", "cat"); err != nil {
		return err
	}
	defer os.RemoveAll(o.Dir)
	d, err := t.Start(ctx, o)
	if err != nil {
		return err
	}
	defer d.Close()

	r, err := d.Open(ctx, file.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(os.Stdout, r) // waits where the bytes are not there yet
	return err
}

// find takes a path as the torrent has it, or below the torrent's directory.
func find(t *torrent.Torrent, path string) (torrent.File, error) {
	for f := range t.Files() {
		if f.Path == path || f.Path == t.Name()+"/"+path {
			return f, nil
		}
	}
	return torrent.File{}, fmt.Errorf("no file %q in %s", path, t.Name())
}
