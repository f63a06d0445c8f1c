package tracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/printable"
)

var answerLimits = bencode.Limits{Bytes: httpAnswer, Depth: 32, Values: 1 << 16}

// announceHTTP announces over HTTP. The caller has a place at the host.
func (t *Announcer) announceHTTP(ctx context.Context, u *url.URL, f netaddr.Family, byUser bool, r request) (answer, error) {
	reply, err := t.getHTTP(ctx, announceURL(u, r), f, byUser)
	if err != nil {
		return answer{}, err
	}
	a, err := parseHTTPAnswer(reply.body)
	if _, declared := errors.AsType[*refusal](err); err == nil || declared {
		t.c.Pace.heard(reply.from)
	}
	a.local = reply.local
	return a, reply.judge(err)
}

// judge returns the error of a reply, given the error of parsing its body. A failure reason counts whatever the HTTP status
// is. Status 410 (Gone) is final. A body that was cut short is accepted if it could be parsed.
func (r *reply) judge(err error) error {
	refused, declared := errors.AsType[*refusal](err)
	switch {
	case r.status == http.StatusGone && declared:
		return &refusal{reason: refused.reason, final: true}
	case r.status == http.StatusGone:
		return &refusal{reason: "HTTP status 410 Gone", final: true}
	case declared:
		return err
	case r.status != http.StatusOK:
		return fmt.Errorf("HTTP status %d %s", r.status, http.StatusText(r.status))
	case err != nil && r.cut != nil:
		return r.cut
	case err != nil:
		return fmt.Errorf("malformed answer %q: %w", printable.Line(string(r.body[:min(len(r.body), 40)])), err)
	}
	return nil
}

// announceURL returns u with the parameters of BEP 3 after its own. It never adds `ip`: the tracker sees our address, and we
// could only guess it.
func announceURL(u *url.URL, r request) string {
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
	add("uploaded", strconv.FormatInt(r.Uploaded, 10))
	add("downloaded", strconv.FormatInt(r.Downloaded, 10))
	add("left", strconv.FormatInt(r.Left, 10))
	add("compact", "1")
	add("no_peer_id", "1")
	add("numwant", strconv.Itoa(r.numWant))
	add("key", fmt.Sprintf("%08X", r.key))
	if r.event != eventNone {
		add("event", r.event.String())
	} else if r.PartialSeed {
		add("event", "paused") // BEP 21
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

// appendEscaped appends s to b and percent-encodes all but the unreserved characters of RFC 3986. url.QueryEscape would encode
// a space as `+`, which the parsers of some trackers do not decode.
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

// parseHTTPAnswer parses the answer to an announce (BEP 3, 7, 23, 24, 31). A field that is malformed or of the wrong type
// counts as missing. The error is a *refusal if the tracker reports a failure. A truncated answer is no error if it has peers.
func parseHTTPAnswer(body []byte) (answer, error) {
	dict, broken := salvageAnswer(body)
	if dict == nil {
		return answer{}, broken
	}
	var a answer
	var no *refusal
	var retry []byte
	for key, value := range bencode.Keys(dict) {
		text, _ := bencode.String(value)
		switch string(key) {
		case "failure reason":
			no = refuse(text)
		case "retry in":
			retry = value
		case "warning message":
			a.warning = printable.Line(string(text))
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
			a.list(value)
		case "peers6":
			a.peers = compactPeers(a.peers, text, 16)
		}
	}
	// Some trackers always send a failure reason, which is empty on success.
	useful := len(a.peers) > 0 || len(a.named) > 0
	switch {
	case no == nil || no.reason == "" && (useful || a.interval > 0):
		if broken != nil && !useful {
			return answer{}, broken
		}
		return a, nil
	case retry != nil:
		minutes, _ := bencode.Int(retry)
		text, _ := bencode.String(retry)
		no.final = string(text) == "never"
		no.retry = time.Duration(min(max(minutes, 0), 24*60)) * time.Minute
	}
	return answer{}, no
}

// salvageAnswer returns what can be read of the dictionary at the start of body, or nil if body does not begin with one. err
// is why the rest cannot be read. Bytes after the dictionary are ignored: some trackers send a newline.
func salvageAnswer(body []byte) (dict []byte, err error) {
	dict, _, err = bencode.Salvage(body, answerLimits)
	if bencode.IsDict(dict) {
		return dict, err
	}
	return nil, cmp.Or(err, errors.New("not a dictionary"))
}

// list adds the peers in a list of dictionaries (BEP 3): those with an IP address to a.peers, those with a host name to
// a.named. It ignores entries after the first maxPeersSeen.
func (a *answer) list(list []byte) {
	seen := 0
	for peer := range bencode.Elems(list) {
		if seen++; seen > maxPeersSeen {
			return
		}
		var host []byte
		var port int64
		for key, value := range bencode.Keys(peer) {
			switch string(key) {
			case "ip":
				host, _ = bencode.String(value)
			case "port":
				port, _ = bencode.Int(value)
			}
		}
		if port <= 0 || port > math.MaxUint16 || len(host) > maxHostName {
			continue
		}
		ip, err := netip.ParseAddr(string(host))
		addr := netip.AddrPortFrom(ip.Unmap().WithZone(""), uint16(port))
		named := namedPeer{string(host), uint16(port)}
		switch {
		case err == nil && netaddr.Dialable(addr) && len(a.peers) < maxPeersSaid:
			a.peers = append(a.peers, addr)
		case err != nil && isHostName(host) && len(a.named) < maxNamed && !slices.Contains(a.named, named):
			a.named = append(a.named, named)
		}
	}
}

// seconds parses an interval in seconds. It returns at least one second, or 0 if value is not an integer.
func seconds(value []byte) time.Duration {
	n, ok := bencode.Int(value)
	if !ok {
		return 0
	}
	return time.Duration(min(max(n, 1), int64(greatestInterval/time.Second))) * time.Second
}

func count(value []byte) int {
	n, _ := bencode.Int(value)
	return int(min(max(n, 0), math.MaxInt32))
}
