package torrent

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/shoal-go/torrent/internal/bencode"
)

const (
	maxMetainfo       = 32 << 20 // bytes of a .torrent file
	maxMetainfoDepth  = 64
	maxMetainfoValues = 4 << 20
	maxURLs           = 1000 // trackers, web seeds or nodes; more are left out
	maxURL            = 4096 // bytes
)

// Read reads the .torrent file at path. Its errors are those of opening and reading the file, and
// those of Parse.
func Read(path string) (*Torrent, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// A file that is too large is refused before it is read. A special file has size 0 here.
	if st, err := f.Stat(); err == nil && st.Size() > maxMetainfo {
		return nil, fmt.Errorf("%s: %w", path, errMetainfoSize())
	}
	t, err := Parse(f)
	if _, ok := errors.AsType[*MetainfoError](err); ok {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, err
}

// Parse reads a .torrent file (BEP 3) from r up to its end. A file whose info dictionary is malformed,
// that ends early, or that is larger than the bounds of this package is refused with a *MetainfoError;
// a torrent of version 2 alone (BEP 52) with one that matches ErrUnsupported. A hybrid is read as a
// torrent of version 1.
//
// Outside the info dictionary, a malformed value is left out, bytes after the end of the file's
// dictionary are ignored, and of a key that is there twice the last counts. URLs of trackers and web
// seeds that this package cannot use are left out as well. Names of files are changed where they would
// be unsafe.
func Parse(r io.Reader) (*Torrent, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxMetainfo+1))
	if err != nil {
		return nil, fmt.Errorf("read torrent: %w", err)
	}
	return parseMetainfo(raw, runtime.GOOS)
}

// WriteTo writes the .torrent file exactly as it was read.
func (t *Torrent) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(t.raw)
	return int64(n), err
}

// outer is what a .torrent file says outside its info dictionary. All of it is optional.
type outer struct {
	trackers           [][]string
	webSeeds           []string
	nodes              []string // host:port
	comment, createdBy string
	creationDate       time.Time
}

// newTorrent makes a torrent of an encoded info dictionary and the outer fields, under the rules of Parse. It
// keeps no reference to its arguments.
func newTorrent(info []byte, o outer) (*Torrent, error) {
	// After an info dictionary that ended early, its rest would be read as outer fields.
	if n, err := bencode.Scan(info, metainfoLimits()); err != nil {
		return nil, malformed("info", err)
	} else if n < len(info) {
		return nil, malformed("info", &bencode.SyntaxError{Offset: n, Reason: "bytes behind the value"})
	}

	file := struct {
		Announce     string      `bencode:"announce,omitempty"`
		AnnounceList [][]string  `bencode:"announce-list,omitempty"`
		Comment      string      `bencode:"comment,omitempty"`
		CreatedBy    string      `bencode:"created by,omitempty"`
		CreationDate int64       `bencode:"creation date,omitempty"`
		Info         bencode.Raw `bencode:"info"`
		Nodes        [][]any     `bencode:"nodes,omitempty"`
		URLList      []string    `bencode:"url-list,omitempty"`
	}{Comment: o.comment, CreatedBy: o.createdBy, Info: info, URLList: o.webSeeds}
	for _, tier := range o.trackers {
		if len(tier) > 0 {
			file.AnnounceList = append(file.AnnounceList, tier)
		}
	}
	if len(file.AnnounceList) > 0 {
		file.Announce = file.AnnounceList[0][0]
		if len(file.AnnounceList) == 1 && len(file.AnnounceList[0]) == 1 {
			file.AnnounceList = nil
		}
	}
	for _, node := range o.nodes {
		host, port, err := net.SplitHostPort(node)
		if err != nil {
			return nil, malformed("nodes", err)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, malformed("nodes", err)
		}
		file.Nodes = append(file.Nodes, []any{host, n})
	}
	if !o.creationDate.IsZero() {
		file.CreationDate = o.creationDate.Unix()
	}
	raw, err := bencode.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("make torrent: %w", err)
	}
	return parseMetainfo(raw, runtime.GOOS)
}

// parseMetainfo reads a whole .torrent file, which the result keeps. Names are made safe for goos.
func parseMetainfo(raw []byte, goos string) (*Torrent, error) {
	if len(raw) > maxMetainfo {
		return nil, errMetainfoSize()
	}
	// The info hash covers the bytes of the info dictionary, so that must be sound. No error elsewhere is a reason
	// to refuse a torrent, except that the file was cut short, even behind the info dictionary: web seeds come after
	// it, and a whole file is available somewhere. Bytes behind the end do no harm; newlines and additions of a web
	// server are common.
	dict, _, err := bencode.Salvage(raw, metainfoLimits(), "info")
	switch {
	case err != nil:
		return nil, malformed("", err)
	case !bencode.IsDict(dict):
		return nil, &MetainfoError{Reason: "not a dictionary"}
	}

	t := &Torrent{raw: raw}
	var announce, announceList []byte
	for key, value := range bencode.Keys(dict) {
		switch string(key) {
		case "info":
			t.info = value
		case "announce":
			announce = value
		case "announce-list":
			announceList = value
		case "url-list":
			left := maxURLs
			t.webSeeds = parseURLs(value, &left, isWebSeed)
		case "nodes":
			t.nodes = parseNodes(value)
		case "comment":
			t.comment = text(value)
		case "created by":
			t.createdBy = text(value)
		case "creation date":
			t.creationDate = parseDate(value)
		}
	}
	// announce-list replaces announce (BEP 12), unless it is empty.
	if t.trackers = parseTiers(announceList); t.trackers == nil {
		left := maxURLs
		if urls := parseURLs(announce, &left, isTracker); urls != nil {
			t.trackers = [][]string{urls}
		}
	}
	switch {
	case t.info == nil:
		return nil, &MetainfoError{Field: "info", Reason: "missing"}
	case !bencode.IsDict(t.info):
		return nil, &MetainfoError{Field: "info", Reason: "not a dictionary"}
	}
	t.infoHash = sha1.Sum(t.info)
	if err := t.parseInfo(goos); err != nil {
		return nil, err
	}
	return t, nil
}

func metainfoLimits() bencode.Limits {
	return bencode.Limits{Bytes: maxMetainfo, Depth: maxMetainfoDepth, Values: maxMetainfoValues}
}

func errMetainfoSize() *MetainfoError {
	return &MetainfoError{Reason: fmt.Sprintf("larger than %d MiB", maxMetainfo>>20)}
}

func malformed(field string, err error) *MetainfoError {
	return &MetainfoError{Field: field, Reason: err.Error(), Err: err}
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
	left := maxURLs
	for tier := range bencode.Elems(list) {
		if left--; left < 0 {
			break
		}
		urls := slices.DeleteFunc(parseURLs(tier, &left, isTracker), func(u string) bool {
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
		if b = bytes.TrimSpace(b); len(b) > maxURL {
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
		if looked++; looked > maxURLs {
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
		odd := func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }
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
