package tracker

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/netaddr"
)

// Scrape holds the counts that a tracker reports for a swarm (BEP 48).
type Scrape struct {
	Seeds     int // peers that have everything
	Leechers  int // peers that do not
	Completed int // completed downloads ever
}

// Scrape scrapes the trackers in turn until one answers. If one does not answer within hungryPatience, the next is asked
// too. For a private torrent only one is asked. Scrape waits for each at most httpTimeout. If none has answered before all
// failed or ctx ended, ok is false, and errs has the errors of the trackers that failed.
func (t *Announcer) Scrape(ctx context.Context) (s Scrape, errs []*Error, ok bool) {
	order := t.scrapeOrder()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		scrape Scrape
		err    *Error
	}
	results := make(chan result, len(order))
	for asked := 0; len(errs) < len(order); {
		var patience <-chan time.Time
		if asked < len(order) {
			tr := order[asked]
			asked++
			go func() {
				s, err := t.scrapeOne(ctx, tr)
				results <- result{s, err}
			}()
			patience = time.After(hungryPatience)
		}
		select {
		case <-ctx.Done():
			return Scrape{}, errs, false
		case r := <-results:
			if r.err == nil {
				return r.scrape, nil, true
			}
			errs = append(errs, r.err)
		case <-patience:
		}
	}
	return Scrape{}, errs, false
}

// scrapeOrder returns the trackers to scrape, those that work first.
func (t *Announcer) scrapeOrder() []*tracker {
	t.mu.Lock()
	defer t.mu.Unlock()
	var working, others []*tracker
	for _, tr := range t.oneByOne(false) {
		switch {
		case tr.final:
		case tr.working():
			working = append(working, tr)
		default:
			others = append(others, tr)
		}
	}
	order := append(working, others...)
	if t.c.Private {
		order = order[:min(len(order), 1)]
	}
	return order
}

func (t *Announcer) scrapeOne(ctx context.Context, tr *tracker) (Scrape, *Error) {
	ctx, cancel := context.WithTimeoutCause(ctx, httpTimeout, errSilent)
	defer cancel()
	var s Scrape
	var err error
	if tr.u.Scheme == "udp" {
		s, err = t.scrapeUDP(ctx, tr.u)
	} else {
		s, err = t.scrapeHTTP(ctx, tr.u, tr.byUser.Load())
	}
	if err != nil {
		return Scrape{}, newError(tr.url, err)
	}
	return s, nil
}

func (t *Announcer) scrapeUDP(ctx context.Context, u *url.URL) (Scrape, error) {
	addrs, err := t.c.UDP.resolve(ctx, u)
	if err != nil {
		return Scrape{}, err
	}
	return t.c.UDP.scrape(ctx, addrs, t.c.InfoHash)
}

func (t *Announcer) scrapeHTTP(ctx context.Context, u *url.URL, byUser bool) (Scrape, error) {
	at, ok := scrapeURL(u, t.c.InfoHash)
	if !ok {
		return Scrape{}, errors.New("cannot be scraped")
	}
	reply, err := t.getHTTP(ctx, at, netaddr.AnyFamily, byUser)
	if err != nil {
		return Scrape{}, err
	}
	s, err := parseHTTPScrape(reply.body, t.c.InfoHash)
	if err = reply.judge(err); err != nil {
		return Scrape{}, err
	}
	return s, nil
}

// scrapeURL returns the scrape URL of a tracker for the torrent h (BEP 48). It is the announce URL with `announce` at the start
// of the last element of the path replaced by `scrape`. If that element begins otherwise, the tracker cannot be scraped.
func scrapeURL(u *url.URL, h [20]byte) (string, bool) {
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

func parseHTTPScrape(body []byte, h [20]byte) (s Scrape, err error) {
	dict, err := salvageAnswer(body)
	if err == nil {
		err = errors.New("the torrent is not in the answer")
	}
	var no *refusal
	for key, files := range bencode.Keys(dict) {
		switch string(key) {
		case "failure reason", "failure_reason":
			text, _ := bencode.String(files)
			no = refuse(text)
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
	if no != nil && (no.reason != "" || err != nil) {
		return Scrape{}, no
	}
	return s, err
}

// asText returns a hash as the npm package bittorrent-tracker encodes it in a scrape: each byte as the code point of that
// number, in UTF-8.
func asText(h [20]byte) string {
	text := make([]rune, len(h))
	for i, b := range h {
		text[i] = rune(b)
	}
	return string(text)
}
