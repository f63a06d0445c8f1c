// Command download downloads torrents, given as .torrent files or magnet links, into a directory, and ends by saying what came
// from whom. It ends with 0 when all are complete. Ctrl-C keeps what is verified, and the next run goes on from it.
//
//	go run ./examples/download [-dir DIR] [-peers A,B] [-only GLOB] [-dht HOST:PORT,…|off] [-transport tcp|utp|both] [-proxy URL] [-bind ADDR] [-map] [-webseed URL] TORRENT|MAGNET…
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path"
	"syscall"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/internal/clientflags"
)

func main() {
	log.SetFlags(0)
	signal.Ignore(syscall.SIGPIPE) // with `| head`, a write fails, and everything is closed as after Ctrl-C
	client := &torrent.Client{}
	clientflags.Register(client)
	o := torrent.Options{Client: client}
	flag.StringVar(&o.Dir, "dir", ".", "the `directory` to download into")
	clientflags.Peers(&o)
	only := new(patterns)
	flag.Func("only", "`pattern` of the files to download, such as '*.srt'; may be given again", only.add)
	flag.Func("webseed", "`URL` of a server that has the content, beside those that torrents name; may be given again", func(url string) error {
		o.WebSeeds = append(o.WebSeeds, url)
		return nil
	})
	usage := clientflags.Usage("usage: download [-dir DIR] [-peers A,B] [-only GLOB] [-dht HOST:PORT,…|off] [-transport tcp|utp|both] [-proxy URL] [-bind ADDR] [-map] [-webseed URL] TORRENT|MAGNET…")
	flag.Parse()
	if flag.NArg() == 0 {
		log.Fatal(usage)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait
	err := run(ctx, &o, only, flag.Args())
	interrupted := ctx.Err() != nil
	stop()
	err = errors.Join(err, client.Close())
	switch {
	case err == nil:
	case errors.Is(err, syscall.EPIPE):
		os.Exit(1) // the reader of the output has left, and there is none to tell
	case interrupted:
		fmt.Fprintf(os.Stderr, "stopped; what is verified stays in %s, and the same command goes on from there\n", o.Dir)
		os.Exit(130)
	default:
		log.Fatal(err)
	}
}

// run downloads all torrents at once, with one client. One that fails does not keep others from their end.
func run(ctx context.Context, o *torrent.Options, only *patterns, names []string) error {
	var sources []*source
	for _, name := range names {
		s, err := open(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		sources = append(sources, s)
	}
	all := &fetch{options: o, only: only}
	return all.run(ctx, sources)
}

// patterns choose files, and know which of them has chosen any.
type patterns struct {
	globs []string
	hit   map[string]bool
}

func (p *patterns) add(glob string) error {
	if _, err := path.Match(glob, ""); err != nil {
		return err
	}
	p.globs = append(p.globs, glob)
	return nil
}

// choose returns what to select of a torrent: nil is everything. It reports whether that is anything at all.
func (p *patterns) choose(t *torrent.Torrent) (sel func(torrent.File) torrent.Priority, any bool) {
	if len(p.globs) == 0 {
		return nil, true
	}
	if p.hit == nil {
		p.hit = make(map[string]bool)
	}
	for _, glob := range p.globs {
		chosen := torrent.Glob(glob)
		for f := range t.Files() {
			if chosen(f) == torrent.Normal {
				p.hit[glob], any = true, true
				break
			}
		}
	}
	return torrent.Glob(p.globs...), any
}

// missed is an error that names the patterns that have chosen nothing.
func (p *patterns) missed() error {
	var errs []error
	for _, glob := range p.globs {
		if !p.hit[glob] {
			errs = append(errs, fmt.Errorf("-only %q: no file matches", glob))
		}
	}
	return errors.Join(errs...)
}
