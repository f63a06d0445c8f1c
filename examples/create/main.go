// Command create makes a .torrent file of a file or a directory, and prints what is in it and its
// magnet link.
//
//	go run ./examples/create -tracker https://tracker.example/announce PATH
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/internal/clientflags"
)

func main() {
	log.SetFlags(0)
	o := torrent.CreateOptions{CreatedBy: "shoal-go/torrent"}
	output := flag.String("o", "", "the `file` to write; NAME.torrent if not given")
	flag.StringVar(&o.Name, "name", "", "what to call it; the last element of PATH if not given")
	flag.StringVar(&o.Comment, "comment", "", "free `text`")
	flag.BoolVar(&o.Private, "private", false, "peers come from the trackers alone")
	flag.BoolVar(&o.Pad, "pad", false, "begin each file with a piece of its own")
	flag.Func("version", "`1`, 2, or hybrid for both; 1 if not given", func(s string) error {
		for _, o.Version = range []torrent.Version{torrent.V1, torrent.V2, torrent.Hybrid} {
			if o.Version.String() == s {
				return nil
			}
		}
		return fmt.Errorf("not 1, 2 or hybrid")
	})
	piece := flag.Int64("piece", 0, "length of a piece in `KiB`; chosen by the size if not given")
	flag.Func("tracker", "announce `URL`; each further one is asked if those before it fail", func(url string) error {
		o.Trackers = append(o.Trackers, []string{url})
		return nil
	})
	flag.Func("webseed", "`URL` of a web seed that has the content", func(url string) error {
		o.WebSeeds = append(o.WebSeeds, url)
		return nil
	})
	usage := clientflags.Usage("usage: create [flags] PATH")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal(usage)
	}
	o.PieceLength = *piece << 10

	if err := free(*output, flag.Arg(0), o.Name); err != nil {
		log.Fatal(err)
	}
	o.Progress = func(done, total int64) {
		fmt.Fprintf(os.Stderr, "\rhashing: %3d %%", 100*done/max(1, total))
		if done == total {
			fmt.Fprintln(os.Stderr)
		}
	}
	if info, err := os.Stderr.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		o.Progress = nil // no terminal
	}

	// Ctrl-C ends the hashing.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	t, err := torrent.CreateContext(ctx, flag.Arg(0), &o)
	if err != nil {
		log.Fatal(err)
	}
	if *output == "" {
		*output = t.Name() + ".torrent"
	}
	if err := write(*output, t); err != nil {
		log.Fatal(err)
	}

	t.PrintTree(os.Stdout)
	fmt.Printf("%d pieces of %d KiB\n\n%s\n%s\n", t.NumPieces(), t.PieceLength()>>10, *output, t.Magnet())
}

// free is an error if the output is there already, so that it is known before anything is hashed. Without a name the
// output is called like the torrent.
func free(output, path, name string) error {
	if output == "" {
		if name == "" {
			whole, err := filepath.Abs(path)
			if err != nil {
				return err
			}
			name = filepath.Base(whole)
		}
		output = name + ".torrent"
	}
	if _, err := os.Lstat(output); err == nil {
		return fmt.Errorf("%s is there already; -o names another file", output)
	}
	if dir, err := os.Stat(filepath.Dir(output)); err != nil {
		return err
	} else if !dir.IsDir() {
		return fmt.Errorf("%s is not a directory", filepath.Dir(output))
	}
	return nil
}

// write makes a new file; one that is there already is left alone.
func write(path string, t *torrent.Torrent) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	if _, err := t.WriteTo(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
