package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/internal/human"
)

// A source is one argument: a torrent, or a link to one.
type source struct {
	name string
	t    *torrent.Torrent // nil until a link is resolved
	link *torrent.Magnet
}

func open(name string) (s *source, err error) {
	s = &source{name: name}
	if strings.HasPrefix(name, "magnet:") {
		s.link, err = torrent.ParseMagnet(name)
	} else {
		s.t, err = torrent.Read(name)
	}
	return s, err
}

// fetch is all that is downloaded in one run.
type fetch struct {
	options *torrent.Options

	mu        sync.Mutex
	only      *patterns
	downloads []*torrent.Download
	senders   senders
}

// run downloads every source, and returns once all of them are complete or have failed.
func (f *fetch) run(ctx context.Context, sources []*source) error {
	links := 0
	for _, s := range sources {
		if s.t == nil {
			links++
		} else {
			f.only.choose(s.t)
		}
	}
	if links == 0 { // no link may bring what the patterns miss, so that can be said before anything is fetched
		if err := f.only.missed(); err != nil {
			return err
		}
	}

	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopShow := show(f, cancel)
	errs := make([]error, len(sources))
	var fetching sync.WaitGroup
	for i, s := range sources {
		fetching.Go(func() {
			if err := f.one(ctx, s); err != nil {
				errs[i] = fmt.Errorf("%s: %w", s.name, err)
			}
		})
	}
	fetching.Wait()
	stopShow()
	for _, d := range f.running() {
		defer d.Close()
	}
	err := errors.Join(errs...)
	if ctx.Err() == nil {
		err = errors.Join(err, f.only.missed())
	}
	_, printErr := fmt.Println(f.summary(time.Since(began)))
	return errors.Join(err, printErr)
}

// one resolves a source if it is a link, and downloads it.
func (f *fetch) one(ctx context.Context, s *source) error {
	o := *f.options
	if s.t == nil {
		fmt.Fprintln(os.Stderr, "asking peers what is in", nameOf(s.link))
		var err error
		if s.t, err = s.link.Resolve(ctx, &o); err != nil {
			return err
		}
	}
	f.mu.Lock()
	sel, any := f.only.choose(s.t)
	f.mu.Unlock()
	if !any {
		fmt.Fprintf(os.Stderr, "%s: no file matches\n", s.t.Name())
		return nil
	}
	o.Select = sel
	if sel == nil && s.link != nil {
		o.Select = s.link.Priority // a link may be about some of the files alone
	}
	d, err := s.t.Start(ctx, &o)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.downloads = append(f.downloads, d)
	f.mu.Unlock()
	go f.senders.watch(d)
	_, err = d.Wait()
	return err
}

// nameOf is what a link says of itself, in the order of use to people.
func nameOf(m *torrent.Magnet) string {
	switch {
	case m.Name != "":
		return fmt.Sprintf("%q", m.Name)
	case m.InfoHash != torrent.Hash{}:
		return m.InfoHash.String()
	}
	return m.InfoHashV2.String()
}

func (f *fetch) running() []*torrent.Download {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.downloads
}

// summary says what came from whom.
func (f *fetch) summary(took time.Duration) string {
	var wanted, verified, received, wasted int64
	webSeeds := make(map[string]int64)
	for _, d := range f.running() {
		s := d.Stats()
		wanted += s.Wanted
		verified += s.Verified
		received += s.Downloaded
		wasted += s.Wasted
		for _, w := range s.WebSeeds {
			webSeeds[w.URL] += w.Downloaded
		}
	}
	text := human.Size(verified)
	if verified < wanted {
		text += " of " + human.Size(wanted)
	}
	if received == 0 {
		return text + " here; nothing had to come"
	}
	text += fmt.Sprintf(" here after %.1f s, at %s: ", took.Seconds(), human.Rate(float64(received)/took.Seconds()))
	text += f.senders.list(received, webSeeds)
	if wasted > 0 {
		text += fmt.Sprintf("; %s came in vain", human.Size(wasted))
	}
	return text
}
