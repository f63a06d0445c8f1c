package torrent

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/netaddr"
)

// Scrape is what a tracker knows of a swarm (BEP 48).
type Scrape struct {
	Seeds     int // peers that have everything
	Leechers  int // peers that do not
	Completed int // downloads that were ever completed
}

// scrape asks the first tracker that can be scraped and answers. While one is silent the next is asked
// beside it, but for a private torrent, where only one is asked. None is waited for longer than
// trackerTimeout.
func (t *trackers) scrape(ctx context.Context) (Scrape, error) {
	t.mu.Lock()
	order := slices.DeleteFunc(t.oneByOne(), func(tr *tracker) bool { return tr.final })
	slices.SortStableFunc(order, func(a, b *tracker) int { return compareBool(b.working(), a.working()) })
	t.mu.Unlock()
	if t.c.private {
		order = order[:min(len(order), 1)]
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		scrape Scrape
		err    error
	}
	results := make(chan result, len(order))
	errs := []error{}
	for asked := 0; ; {
		var patience <-chan time.Time
		if asked < len(order) {
			tr := order[asked]
			asked++
			go func() {
				ctx, cancel := context.WithTimeoutCause(ctx, trackerTimeout, errSilent)
				defer cancel()
				s, err := t.scrapeOne(ctx, tr)
				if err != nil {
					err = &TrackerError{URL: tr.url, Reason: reasonOf(err), Err: err}
				}
				results <- result{s, err}
			}()
			patience = time.After(hungryPatience)
		}
		if len(errs) == len(order) {
			return Scrape{}, errors.Join(append(errs, errors.New("torrent: no tracker could be scraped"))...)
		}
		select {
		case <-ctx.Done():
			return Scrape{}, errors.Join(append(errs, contextError(ctx))...)
		case r := <-results:
			if r.err == nil {
				return r.scrape, nil
			}
			errs = append(errs, r.err)
		case <-patience:
		}
	}
}

func (t *trackers) scrapeOne(ctx context.Context, tr *tracker) (Scrape, error) {
	if tr.u.Scheme == "udp" {
		addrs, err := t.c.udp.resolve(ctx, tr.u)
		if err != nil {
			return Scrape{}, err
		}
		return t.c.udp.scrape(ctx, addrs, t.c.infoHash)
	}
	u, ok := scrapeURL(tr.u, t.c.infoHash)
	if !ok {
		return Scrape{}, errors.New("cannot be scraped")
	}
	body, status, err := getHTTP(ctx, t.c.http, u, netaddr.AnyFamily)
	if err != nil {
		return Scrape{}, err
	}
	s, err := parseHTTPScrape(body, t.c.infoHash)
	if err = judge(status, body, err); err != nil {
		return Scrape{}, err
	}
	return s, nil
}

// scrapeURL is where a tracker is scraped: what its announce URL says, with `announce` at the start of the
// last part of the path made `scrape`. Where it does not stand there, there is no scrape.
func scrapeURL(u *url.URL, h Hash) (string, bool) {
	dir, last := "", u.EscapedPath()
	if i := strings.LastIndexByte(last, '/'); i >= 0 {
		dir, last = last[:i+1], last[i+1:]
	}
	rest, ok := strings.CutPrefix(last, "announce")
	path, err := url.PathUnescape(dir + "scrape" + rest)
	if !ok || err != nil {
		return "", false
	}
	s := *u
	s.Path, s.RawPath = path, dir+"scrape"+rest
	query := []byte(u.RawQuery)
	if len(query) > 0 {
		query = append(query, '&')
	}
	return withQuery(&s, string(appendEscaped(append(query, "info_hash="...), string(h[:])))), true
}

func parseHTTPScrape(body []byte, h Hash) (s Scrape, err error) {
	dict, err := scanAnswer(body)
	if err != nil {
		return s, err
	}
	err = errors.New("the torrent is not in the answer")
	for key, files := range bencode.Keys(dict) {
		switch string(key) {
		case "failure reason", "failure_reason":
			text, _ := bencode.String(files)
			return Scrape{}, &refusal{reason: printable(string(text))}
		case "files":
			for hash, file := range bencode.Keys(files) {
				if string(hash) != string(h[:]) && string(hash) != asText(h) {
					continue
				}
				err = nil
				for key, value := range bencode.Keys(file) {
					switch string(key) {
					case "complete":
						s.Seeds = count(value)
					case "incomplete":
						s.Leechers = count(value)
					case "downloaded":
						s.Completed = count(value)
					}
				}
			}
		}
	}
	return s, err
}

// asText is a hash as the npm package bittorrent-tracker writes it in a scrape: taken for text whose
// characters have the numbers of its bytes, and encoded as UTF-8.
func asText(h Hash) string {
	text := make([]rune, len(h))
	for i, b := range h {
		text[i] = rune(b)
	}
	return string(text)
}
