package torrent

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	trackerTimeout   = 30 * time.Second // of one HTTP request, redirects and body included
	trackerRedirects = 5
	trackerAnswer    = 1 << 20 // bytes, once inflated
	userAgent        = "shoal-go/torrent"
)

var trackerLimits = bencode.Limits{Bytes: trackerAnswer, Depth: 32, Values: 1 << 18}

// familyKey is the context key of the family that a request is to be made over.
type familyKey struct{}

// guardKey is the context key of the *redirectGuard of a request.
type guardKey struct{}

// dualTransport makes each request over the family of addresses that its context names. Connections
// of different families are kept apart, which one http.Transport alone could not do.
type dualTransport [netaddr.Families]*http.Transport

// newTrackerHTTP is a client for HTTP trackers that announces over IPv4 and IPv6 alike (BEP 7) and checks
// the addresses that redirects lead to when it dials them. A client of the user's own announces
// once, over whatever its transport chooses.
func newTrackerHTTP() *http.Client {
	dialer := &net.Dialer{
		Timeout: 10 * time.Second,
		ControlContext: func(ctx context.Context, _, address string, _ syscall.RawConn) error {
			if g, ok := ctx.Value(guardKey{}).(*redirectGuard); ok {
				host, _, _ := net.SplitHostPort(address)
				return g.check(host)
			}
			return nil
		},
	}
	d := new(dualTransport)
	for f := range netaddr.Families {
		d[f] = &http.Transport{
			Proxy: http.ProxyFromEnvironment,
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				return dialer.DialContext(ctx, f.Network("tcp"), addr)
			},
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        10 * time.Second, // announces are minutes apart
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	return &http.Client{Transport: d}
}

func (d *dualTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	f, _ := r.Context().Value(familyKey{}).(netaddr.Family)
	return d[f].RoundTrip(r)
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (d *dualTransport) CloseIdleConnections() {
	for _, t := range d {
		t.CloseIdleConnections()
	}
}

// httpRoutes are both families where client can tell them apart and u names a host that may have both.
func httpRoutes(client *http.Client, u *url.URL) []route {
	d, ok := client.Transport.(*dualTransport)
	if _, err := netip.ParseAddr(u.Hostname()); !ok || err == nil {
		return []route{{}}
	}
	if proxy, err := d[netaddr.AnyFamily].Proxy(&http.Request{URL: u}); proxy != nil || err != nil {
		return []route{{}} // the tracker sees the proxy's address in any case
	}
	return []route{{family: netaddr.IPv4}, {family: netaddr.IPv6}}
}

// redirectGuard keeps a tracker on the open internet from having requests made inside our network. A tracker that
// is itself within a private network may redirect as it likes.
type redirectGuard struct {
	public     atomic.Bool // the first address was a public one, or could not be told
	redirected atomic.Bool
}

var errInward = errors.New("redirected from a public address to a private one")

// check refuses to follow a redirect to a host that is private. A name passes: its addresses are checked
// when they are known.
func (g *redirectGuard) check(host string) error {
	if g.redirected.Load() && g.public.Load() && isInward(host) {
		return errInward
	}
	return nil
}

// isInward tells whether a host is, by its address or its name, not on the open internet.
func isInward(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		return host == "localhost" || strings.HasSuffix(host, ".localhost")
	}
	ip = ip.Unmap()
	return netaddr.IsLocal(ip) || ip.IsUnspecified()
}

// getHTTP fetches u over a family of addresses: at most trackerAnswer bytes of body, and the status.
func getHTTP(ctx context.Context, client *http.Client, u string, f netaddr.Family) (body []byte, status int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, stop := context.WithTimeoutCause(ctx, trackerTimeout, errSilent)
	defer stop()

	guard := new(redirectGuard)
	ctx = context.WithValue(ctx, familyKey{}, f)
	ctx = context.WithValue(ctx, guardKey{}, guard)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) {
			host, _, err := net.SplitHostPort(c.Conn.RemoteAddr().String())
			if err != nil {
				return
			}
			if !guard.redirected.Load() {
				guard.public.Store(!isInward(host))
			}
			// For the sake of transports whose dialer does not check.
			if err := guard.check(host); err != nil {
				cancel(err)
			}
		},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("User-Agent", userAgent)
	guard.public.Store(!isInward(req.URL.Hostname()))

	guarded := *client
	guarded.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > trackerRedirects {
			return fmt.Errorf("more than %d redirects", trackerRedirects)
		}
		guard.redirected.Store(true)
		if err := guard.check(req.URL.Hostname()); err != nil {
			return err
		}
		req.Header.Del("Referer") // an announce URL may hold a secret
		if client.CheckRedirect != nil {
			return client.CheckRedirect(req, via)
		}
		return nil
	}
	resp, err := guarded.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, 0, err
	}
	defer resp.Body.Close()
	plain := io.Reader(resp.Body)
	if strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") {
		// A transport that did not ask for it leaves it to us.
		if plain, err = gzip.NewReader(io.LimitReader(resp.Body, trackerAnswer)); err != nil {
			return nil, 0, fmt.Errorf("gzip: %w", err)
		}
	}
	body, err = io.ReadAll(io.LimitReader(plain, trackerAnswer+1))
	if err == nil && len(body) > trackerAnswer {
		err = fmt.Errorf("answer over %d bytes", trackerAnswer)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return body, resp.StatusCode, err
}

func announceHTTP(ctx context.Context, client *http.Client, u *url.URL, f netaddr.Family, r announceRequest) (announceAnswer, error) {
	body, status, err := getHTTP(ctx, client, announceURL(u, r), f)
	if err != nil {
		return announceAnswer{}, err
	}
	a, err := parseHTTPAnswer(body)
	return a, judge(status, body, err)
}

// judge is the error of an answer, in the light of its HTTP status: a tracker that gives a reason is
// believed whatever the status, and 410 is final (BEP 31 has no other way to say so).
func judge(status int, body []byte, err error) error {
	r, declared := errors.AsType[*refusal](err)
	switch {
	case status == http.StatusGone && declared:
		return &refusal{reason: r.reason, final: true}
	case status == http.StatusGone:
		return &refusal{reason: "HTTP status 410 Gone", final: true}
	case declared:
		return err
	case status != http.StatusOK:
		return fmt.Errorf("HTTP status %d %s", status, http.StatusText(status))
	case err != nil:
		return fmt.Errorf("malformed answer %q: %w", printable(string(body[:min(len(body), 40)])), err)
	}
	return nil
}

// announceURL is u with the parameters of BEP 3 behind those that it has. `ip` is never among them: the
// tracker sees a better one than we could guess.
func announceURL(u *url.URL, r announceRequest) string {
	q := []byte(u.RawQuery)
	add := func(key, value string) {
		if len(q) > 0 {
			q = append(q, '&')
		}
		q = append(q, key...)
		q = append(q, '=')
		q = appendEscaped(q, value)
	}
	add("info_hash", string(r.infoHash[:]))
	add("peer_id", string(r.peerID[:]))
	add("port", strconv.Itoa(int(r.port)))
	add("uploaded", strconv.FormatInt(r.uploaded, 10))
	add("downloaded", strconv.FormatInt(r.downloaded, 10))
	add("left", strconv.FormatInt(r.left, 10))
	add("compact", "1")
	add("no_peer_id", "1")
	add("numwant", strconv.Itoa(r.numWant))
	add("key", fmt.Sprintf("%08X", r.key))
	if r.event != eventNone {
		add("event", r.event.String())
	} else if r.partialSeed {
		add("event", "paused") // as BEP 21 has it
	}
	if r.trackerID != "" {
		add("trackerid", r.trackerID)
	}
	return withQuery(u, string(q))
}

func withQuery(u *url.URL, query string) string {
	full := *u
	full.RawQuery, full.ForceQuery, full.Fragment, full.RawFragment = query, false, "", ""
	return full.String()
}

// appendEscaped percent-encodes all but the unreserved characters of RFC 3986. url.QueryEscape makes `+` of
// a space, which trackers that take a hash apart by hand do not undo.
func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b = append(b, c)
		} else {
			b = fmt.Appendf(b, "%%%02X", c)
		}
	}
	return b
}

// parseHTTPAnswer reads the answer to an announce (BEP 3, 7, 23, 24, 31). A field of the wrong type counts as
// unsaid. The error is a *refusal or a *bencode.SyntaxError.
func parseHTTPAnswer(body []byte) (announceAnswer, error) {
	var a announceAnswer
	dict, err := scanAnswer(body)
	if err != nil {
		return a, err
	}
	var no *refusal
	var retry []byte
	for key, value := range bencode.Keys(dict) {
		text, _ := bencode.String(value)
		switch string(key) {
		case "failure reason":
			no = &refusal{reason: printable(string(text))}
		case "retry in":
			retry = value
		case "warning message":
			a.warning = printable(string(text))
		case "tracker id":
			a.trackerID = string(text[:min(len(text), 1024)])
		case "interval":
			a.interval = seconds(value)
		case "min interval":
			a.minInterval = seconds(value)
		case "complete":
			a.swarm.Seeds = count(value)
		case "incomplete":
			a.swarm.Leechers = count(value)
		case "downloaded":
			a.swarm.Completed = count(value)
		case "peers":
			a.peers = compactPeers(a.peers, text, 4)
			if bencode.IsList(value) {
				a.peers = listedPeers(a.peers, value)
			}
		case "peers6":
			a.peers = compactPeers(a.peers, text, 16)
		}
	}
	if no == nil {
		return a, nil
	}
	if retry != nil {
		minutes, _ := bencode.Int(retry)
		text, _ := bencode.String(retry)
		no.final = string(text) == "never"
		no.retry = time.Duration(min(max(minutes, 0), 24*60)) * time.Minute
	}
	return announceAnswer{}, no
}

// scanAnswer is the dictionary that body begins with. Some trackers have a line's end behind it.
func scanAnswer(body []byte) ([]byte, error) {
	n, err := bencode.Scan(body, trackerLimits)
	if err != nil {
		return nil, err
	}
	if !bencode.IsDict(body) {
		return nil, errors.New("not a dictionary")
	}
	return body[:n], nil
}

// listedPeers appends those of a list of dictionaries. Peers that are named by a host name are left out:
// a tracker is not to have us look up names for it.
func listedPeers(peers []netip.AddrPort, list []byte) []netip.AddrPort {
	for peer := range bencode.Elems(list) {
		var ip netip.Addr
		var port int64
		for key, value := range bencode.Keys(peer) {
			switch string(key) {
			case "ip":
				text, _ := bencode.String(value)
				ip, _ = netip.ParseAddr(string(text[:min(len(text), 64)]))
			case "port":
				port, _ = bencode.Int(value)
			}
		}
		a := netip.AddrPortFrom(ip.Unmap().WithZone(""), uint16(port))
		if int64(a.Port()) == port && netaddr.Dialable(a) && len(peers) < maxPeersSaid {
			peers = append(peers, a)
		}
	}
	return peers
}

// seconds is an interval as a tracker says it; at least one, so that 0 is for what is unsaid.
func seconds(value []byte) time.Duration {
	n, ok := bencode.Int(value)
	if !ok {
		return 0
	}
	return time.Duration(min(max(n, 1), int64(maxInterval/time.Second))) * time.Second
}

func count(value []byte) int {
	n, _ := bencode.Int(value)
	return int(min(max(n, 0), math.MaxInt32))
}
