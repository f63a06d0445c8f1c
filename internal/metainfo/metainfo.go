// Package metainfo reads .torrent files of versions 1 and 2 (BEP 3, BEP 52), and hybrids of both. Bytes go in and plain data comes
// out; it may be called from any goroutine.
package metainfo

import (
	"bytes"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/shoal-go/torrent/internal/bencode"
)

const (
	// MaxSize bounds a .torrent file in bytes.
	MaxSize   = 32 << 20
	maxDepth  = 64
	MaxValues = 4 << 20
	MaxURLs   = 1000 // trackers, web seeds or nodes; more are left out
	MaxURL    = 4096 // bytes
)

// File is what a .torrent file says.
type File struct {
	Encoded      []byte // the info dictionary as it stands in the file
	Info         Info
	Trackers     [][]string
	WebSeeds     []string
	Nodes        []string // host:port
	Comment      string
	CreatedBy    string
	CreationDate time.Time
}

// Parse reads a whole .torrent file, which the result refers to. Names are made safe for goos.
func Parse(raw []byte, goos string) (*File, *Error) {
	if len(raw) > MaxSize {
		return nil, TooLarge()
	}
	// The info hash covers the bytes of the info dictionary, so that must be sound. No error elsewhere is a reason
	// to refuse a torrent, except that the file was cut short, even behind the info dictionary: web seeds come after
	// it, and a whole file is available somewhere. Bytes behind the end do no harm; newlines and additions of a web
	// server are common. Piece layers are vouched for by their roots.
	dict, _, err := bencode.Salvage(raw, Limits(), "info")
	switch {
	case err != nil:
		return nil, Malformed("", err)
	case !bencode.IsDict(dict):
		return nil, &Error{Reason: "not a dictionary"}
	}

	f := new(File)
	var announce, announceList, layers []byte
	for key, value := range bencode.Keys(dict) {
		switch string(key) {
		case "info":
			f.Encoded = value
		case "piece layers":
			layers = value
		case "announce":
			announce = value
		case "announce-list":
			announceList = value
		case "url-list":
			left := MaxURLs
			f.WebSeeds = parseURLs(value, &left, IsWebSeed)
		case "nodes":
			f.Nodes = parseNodes(value)
		case "comment":
			f.Comment = text(value)
		case "created by":
			f.CreatedBy = text(value)
		case "creation date":
			f.CreationDate = parseDate(value)
		}
	}
	// announce-list replaces announce (BEP 12), unless it is empty.
	if f.Trackers = parseTiers(announceList); f.Trackers == nil {
		left := MaxURLs
		if urls := parseURLs(announce, &left, IsTracker); urls != nil {
			f.Trackers = [][]string{urls}
		}
	}
	switch {
	case f.Encoded == nil:
		return nil, &Error{Field: "info", Reason: "missing"}
	case !bencode.IsDict(f.Encoded):
		return nil, &Error{Field: "info", Reason: "not a dictionary"}
	}
	if err := f.Info.parse(f.Encoded, goos); err != nil {
		return nil, err
	}
	if err := f.Info.parseLayers(layers); err != nil {
		return nil, err
	}
	return f, nil
}

// Limits bound a .torrent file.
func Limits() bencode.Limits {
	return bencode.Limits{Bytes: MaxSize, Depth: maxDepth, Values: MaxValues}
}

// text is a string for people to read, in valid UTF-8. A value of another type is empty.
func text(value []byte) string {
	s, _ := bencode.String(value)
	return string(bytes.ToValidUTF8(s, []byte("\uFFFD")))
}

// parseTiers reads announce-list. Tiers without a usable tracker are left out, and so is a tracker that is
// repeated. A tracker in the place of a tier is a tier of its own.
func parseTiers(list []byte) [][]string {
	if list == nil {
		return nil
	}
	var tiers [][]string
	known := make(map[string]bool)
	left := MaxURLs
	for tier := range bencode.Elems(list) {
		if left--; left < 0 {
			break
		}
		urls := slices.DeleteFunc(parseURLs(tier, &left, IsTracker), func(u string) bool {
			again := known[u]
			known[u] = true
			return again
		})
		if len(urls) > 0 {
			tiers = append(tiers, urls)
		}
	}
	return tiers
}

// parseURLs reads a URL or a list of URLs, and returns the usable ones. It looks at no more than *left, and
// counts them down.
func parseURLs(value []byte, left *int, usable func(string) bool) []string {
	if value == nil {
		return nil
	}
	var urls []string
	add := func(value []byte) {
		b, _ := bencode.String(value)
		if b = bytes.TrimSpace(b); len(b) > MaxURL {
			return
		}
		if s := string(b); usable(s) {
			urls = append(urls, s)
		}
	}
	add(value)
	for element := range bencode.Elems(value) {
		if *left--; *left < 0 {
			break
		}
		add(element)
	}
	return urls
}

// parseNodes reads a list of pairs of host and port (BEP 5).
func parseNodes(list []byte) []string {
	var nodes []string
	looked := 0
	for pair := range bencode.Elems(list) {
		if looked++; looked > MaxURLs {
			break
		}
		var host string
		var port int64
		for element := range bencode.Elems(pair) {
			if s, ok := bencode.String(element); ok && len(s) <= 255 {
				host = string(s)
			}
			if n, ok := bencode.Int(element); ok {
				port = n
			}
		}
		odd := func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) || r == '[' || r == ']' }
		if host != "" && !strings.ContainsFunc(host, odd) && 0 < port && port < 1<<16 {
			nodes = append(nodes, net.JoinHostPort(host, strconv.FormatInt(port, 10)))
		}
	}
	return nodes
}

// parseDate reads seconds since 1970. A date after the year 9999 is in milliseconds, as some programs write it.
func parseDate(value []byte) time.Time {
	const year10000 = 253402300800 // seconds
	switch n, _ := bencode.Int(value); {
	case n <= 0:
		return time.Time{}
	case n < year10000:
		return time.Unix(n, 0).UTC()
	case n < 1000*year10000:
		return time.UnixMilli(n).UTC()
	}
	return time.Time{}
}
