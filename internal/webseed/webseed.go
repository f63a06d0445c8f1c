// Package webseed fetches content from HTTP servers that have it as plain files (BEP 19). It builds their URLs, splits
// ranges of content into ranges of files, checks answers, remembers redirects, and decides how long a server that failed
// rests. The caller decides which bytes are fetched, and when.
//
// A Client is shared by all downloads, and a Seed is one server for one download; any goroutine may use them. A Body belongs
// to one goroutine. A Health is plain data, which its caller guards; the time is an argument.
package webseed

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/httpguard"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/printable"
)

// A Client makes the requests of all downloads.
type Client struct {
	http    *http.Client
	direct  func(u *url.URL) bool
	account *account.Account
	hosts   hosts
}

// NewClient returns a client that makes its requests through c. direct reports whether its requests for a URL are known to
// go through no proxy. The account counts slow headers.
func NewClient(c *http.Client, direct func(u *url.URL) bool, a *account.Account) *Client {
	return &Client{http: c, direct: direct, account: a, hosts: hosts{known: make(map[string]*host)}}
}

// Content is the files of a torrent.
type Content struct {
	Layout layout.Layout
	Name   string     // of the torrent, as its author wrote it
	Paths  [][]string // below the directory Name, by file; nil is one file called Name
}

// A Seed is one server.
type Seed struct {
	client  *Client
	content *Content
	base    *url.URL
	rule    httpguard.Rule

	mu         sync.Mutex
	redirects  map[int]redirect // by file
	remembered int              // bytes that they take
}

// A redirect is the last URL of a chain of redirects to a file.
type redirect struct {
	to   *url.URL
	from httpguard.Origin
	size int // about how many bytes it takes
}

// maxRemembered bounds the redirects of a seed that are remembered. Files are asked for one after the other, so that the last few
// are of use.
const maxRemembered = 64 << 10

// remember keeps where a file was found, at the cost of others if need be.
func (s *Seed) remember(file int, to *url.URL, from httpguard.Origin) {
	r := redirect{to, from, 256 + 2*len(to.String())}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(file)
	for other := range s.redirects {
		if s.remembered+r.size <= maxRemembered || r.size > maxRemembered {
			break
		}
		s.forget(other)
	}
	if r.size <= maxRemembered {
		s.redirects[file] = r
		s.remembered += r.size
	}
}

// forget removes a redirect if there is one. The lock is held.
func (s *Seed) forget(file int) {
	s.remembered -= s.redirects[file].size
	delete(s.redirects, file)
}

var (
	errScheme = errors.New("neither http nor https")
	errNoHost = errors.New("URL without a host")
	errQuery  = errors.New("not asked: an address inside the network, and a query")
)

// NewSeed returns the server that has content at a URL. A stranger wrote the URL unless byUser is set.
func (c *Client) NewSeed(rawURL string, byUser bool, content *Content) (*Seed, error) {
	base, err := url.Parse(rawURL)
	switch {
	case err != nil:
		err = errors.New("malformed URL")
	case base.Scheme != "http" && base.Scheme != "https":
		err = errScheme
	case base.Hostname() == "":
		err = errNoHost
	}
	if err != nil {
		return nil, fmt.Errorf("web seed %s: %w", printable.Line(rawURL), err)
	}
	s := &Seed{client: c, content: content, base: base, redirects: make(map[int]redirect)}
	if !byUser {
		s.rule = noQuery
	}
	return s, nil
}

// noQuery is the httpguard.Rule of web seeds: a file inside the user's network has a path, while a URL with a query may
// be a command to a router or a service.
func noQuery(u *url.URL, _ bool) error {
	if u.RawQuery != "" || u.ForceQuery {
		return errQuery
	}
	return nil
}
