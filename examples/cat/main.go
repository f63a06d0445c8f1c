// Command cat writes one file of a torrent to standard output as it comes, and fetches nothing but
// the pieces that the file is in.
//
//	go run ./examples/cat TORRENT PATH | mpv -
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/internal/clientflags"
)

func main() {
	log.SetFlags(0)
	signal.Ignore(syscall.SIGPIPE) // with `| head`, a write fails, and what is on disk is removed
	var o torrent.Options
	clientflags.Peers(&o)
	usage := clientflags.Usage("usage: cat [-peers A,B] TORRENT PATH")
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal(usage)
	}
	switch err := run(flag.Arg(0), flag.Arg(1), &o); {
	case errors.Is(err, syscall.EPIPE):
		os.Exit(1) // the reader of the output has left, and there is none to tell
	case err != nil:
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
