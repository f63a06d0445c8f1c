package torrent

import (
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-go/torrent/internal/metainfo"
	"github.com/shoal-go/torrent/internal/safename"
)

// Bounds on a magnet link. The first leaves room for all others together, so that ParseMagnet can read what String
// writes for any link that ParseMagnet has read.
const (
	maxMagnet      = 2 << 20 // bytes of the link
	maxMagnetName  = 255     // bytes of dn
	maxMagnetURL   = 1 << 10 // bytes of one tracker, web seed or peer
	maxMagnetURLs  = 100     // trackers; likewise web seeds, and peers
	maxMagnetFiles = 1 << 17 // files in so
	maxFileIndex   = 1<<22 - 1
)

// Magnet is a magnet link: it identifies a torrent (BEP 9), and gives hints where to find it. It does not describe
// the content; Resolve fetches from the swarm what a .torrent file would say.
type Magnet struct {
	// InfoHash is of version 1; zero if the link names version 2 alone.
	InfoHash Hash
	// InfoHashV2 is of version 2 (BEP 52); zero if unsaid. A link to a hybrid may have either or both.
	InfoHashV2 HashV2
	// Name is shown until the torrent's own name is known. It may be empty. It is not sanitised, so do not
	// use it as a file name.
	Name string
	// Trackers are announce URLs: http, https or udp.
	Trackers []string
	// WebSeeds are http or https URLs (BEP 19).
	WebSeeds []string
	// Peers are addresses as host:port, the host a name or an IP address.
	Peers []string
	// Select holds the indices in the torrent of the files that the link selects, ascending (BEP 53). Empty is all
	// files.
	Select []int
}

// Priority returns Normal for the files that the link selects, and Skip for the rest. Use it as Options.Select.
func (m *Magnet) Priority(f File) Priority {
	if _, found := slices.BinarySearch(m.Select, f.Index); found || len(m.Select) == 0 {
		return Normal
	}
	return Skip
}

// Magnet returns a link to the torrent, with its trackers and web seeds.
func (t *Torrent) Magnet() *Magnet {
	m := &Magnet{Name: t.name, InfoHashV2: t.infoHashV2}
	if t.version != V2 {
		m.InfoHash = t.infoHash
	}
	for _, tier := range t.trackers {
		for _, tracker := range tier {
			m.Trackers = appendHint(m.Trackers, tracker, metainfo.IsTracker)
		}
	}
	for _, seed := range t.webSeeds {
		m.WebSeeds = appendHint(m.WebSeeds, seed, metainfo.IsWebSeed)
	}
	return m
}

// ParseMagnet reads a magnet link.
//
// The parameters that decide on the content must be right: the info hash (xt: of version 1 as hex or base32, of version 2 as a
// multihash in hex, or both) and the choice of files (so). The rest are hints: a tracker, web seed or peer that is malformed, too
// long, or of an unknown scheme is left out, as are those after the hundredth of each. A malformed info hash of version 2 is left
// out if there is one of version 1. If the only info hash is a multihash other than SHA-256, the error matches ErrUnsupported.
//
// Links that were damaged by a web page or a careless program are read as they were meant: with &amp; for &,
// spaces around a value, a percent sign that is not escaped, or an empty so.
func ParseMagnet(uri string) (*Magnet, error) {
	m, err := parseMagnet(strings.TrimSpace(uri))
	if err != nil {
		return nil, fmt.Errorf("torrent: magnet link: %w", err)
	}
	return m, nil
}

func parseMagnet(uri string) (*Magnet, error) {
	if len(uri) > maxMagnet {
		return nil, fmt.Errorf("%d bytes long, more than %d", len(uri), maxMagnet)
	}
	const scheme = "magnet:?"
	if len(uri) < len(scheme) || !strings.EqualFold(uri[:len(scheme)], scheme) {
		return nil, fmt.Errorf("does not begin with %s", scheme)
	}

	var p magnetParser
	for parameter := range strings.SplitSeq(uri[len(scheme):], "&") {
		if err := p.read(parameter); err != nil {
			return nil, err
		}
	}
	slices.Sort(p.m.Select)
	p.m.Select = slices.Compact(p.m.Select)
	switch {
	case p.found || p.foundV2:
		return &p.m, nil
	case p.errV2 != nil:
		return nil, fmt.Errorf("xt: %w", p.errV2)
	default:
		return nil, errors.New("no info hash (xt=urn:btih:… or urn:btmh:…)")
	}
}

// magnetParser collects the parameters of a link.
type magnetParser struct {
	m       Magnet
	found   bool  // an info hash of version 1
	foundV2 bool  // one of version 2
	errV2   error // what is wrong with the first of version 2
}

// read reads one parameter as it stands in the link. Parameters of other names are ignored.
func (p *magnetParser) read(parameter string) (err error) {
	m := &p.m
	switch key, value := splitParameter(parameter); key {
	case "xt":
		return p.readTopic(value)
	case "dn":
		m.Name = cmp.Or(m.Name, safename.Cut(strings.ToValidUTF8(value, "\ufffd"), maxMagnetName))
	case "tr":
		m.Trackers = appendHint(m.Trackers, repairURL(value), metainfo.IsTracker)
	case "ws":
		m.WebSeeds = appendHint(m.WebSeeds, repairURL(value), metainfo.IsWebSeed)
	case "x.pe":
		m.Peers = appendHint(m.Peers, value, isPeer)
	case "so":
		if m.Select, err = appendRanges(m.Select, value); err != nil {
			return fmt.Errorf("so: %w", err)
		}
	}
	return nil
}

// readTopic reads an exact topic (xt). The first info hash of each version counts.
func (p *magnetParser) readTopic(value string) (err error) {
	if hash, v2 := cutPrefixFold(value, "urn:btmh:"); v2 && !p.foundV2 {
		var h HashV2
		if h, err = parseMultihash(hash); err == nil {
			p.m.InfoHashV2, p.foundV2 = h, true
		}
		p.errV2 = cmp.Or(p.errV2, err)
		return nil
	}
	hash, ok := cutPrefixFold(value, "urn:btih:")
	if !ok || p.found {
		return nil
	}
	if p.m.InfoHash, err = ParseHash(hash); err != nil {
		return fmt.Errorf("xt: %w", err)
	}
	p.found = true
	return nil
}

// parseMultihash reads the info hash of version 2 in a link.
func parseMultihash(s string) (HashV2, error) {
	if !strings.HasPrefix(s, multihash) && len(s) > 4 {
		return HashV2{}, fmt.Errorf("an info hash of version 2 that is no SHA-256 (%s…): %w", multihash, ErrUnsupported)
	}
	return parseHashV2(strings.TrimPrefix(s, multihash))
}

// infoHashes returns the info hashes of the link.
func (m *Magnet) infoHashes() infoHashes {
	v1, v2 := m.InfoHash != (Hash{}), m.InfoHashV2 != (HashV2{})
	switch {
	case v1 && v2:
		return infoHashes{first: m.InfoHash, second: m.InfoHashV2.truncated(), v2: true, linked: true}
	case v2:
		return infoHashes{first: m.InfoHashV2.truncated(), v2: true, linked: true}
	}
	return infoHashes{first: m.InfoHash, linked: true}
}

// id returns a name for the torrent of the link, for logs and errors.
func (m *Magnet) id() string {
	if m.InfoHash == (Hash{}) && m.InfoHashV2 != (HashV2{}) {
		return m.InfoHashV2.String()
	}
	return m.InfoHash.String()
}

// names reports whether an info dictionary has every info hash that the link has.
func (m *Magnet) names(info []byte) bool {
	v1, v2 := m.InfoHash != (Hash{}), m.InfoHashV2 != (HashV2{})
	return (v1 || v2) && (!v1 || sha1.Sum(info) == m.InfoHash) && (!v2 || sha256.Sum256(info) == m.InfoHashV2)
}

// splitParameter returns the key and the value of a parameter, unescaped.
func splitParameter(parameter string) (key, value string) {
	key, value, _ = strings.Cut(withoutEntity(parameter), "=")
	key = strings.TrimSpace(unescape(key))
	// Links number their parameters, tr.1=…&tr.2=…, where a program could not repeat them.
	if name, number, ok := strings.Cut(key, "."); ok && isNumber(number) {
		key = name
	}
	if key == "dn" {
		return key, unescape(strings.ReplaceAll(value, "+", " "))
	}
	return key, strings.TrimSpace(unescape(value))
}

// withoutEntity removes the rest of an HTML-escaped ampersand from the front of a parameter. It may have been
// escaped more than once: links copied out of the source of a page have &amp;amp;tr=….
func withoutEntity(parameter string) string {
	for {
		name, rest, ok := strings.Cut(parameter, ";")
		if !ok || name != "amp" && name != "#38" && name != "#038" && name != "#x26" {
			return parameter
		}
		parameter = rest
	}
}

// unescape undoes the percent-encoding of s. A percent sign that is not part of one stands for itself.
func unescape(s string) string {
	plain := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if c, ok := escaped(s[i:]); ok {
			plain = append(plain, c)
			i += 2
		} else {
			plain = append(plain, s[i])
		}
	}
	return string(plain)
}

// escaped returns the byte that s begins with in percent-encoding, and whether it does.
func escaped(s string) (c byte, ok bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	n, err := strconv.ParseUint(s[1:3], 16, 8)
	return byte(n), err == nil
}

// repairURL returns s as a URL that can be parsed: without a plus in front, which was a space, and, if it
// cannot be parsed otherwise, with the percent signs escaped that should have been.
func repairURL(s string) string {
	s = strings.TrimLeft(s, "+ ")
	if _, err := url.Parse(s); err == nil {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(s[i])
		if _, ok := escaped(s[i:]); s[i] == '%' && !ok {
			b.WriteString("25")
		}
	}
	return b.String()
}

// String is the link in the form that ParseMagnet and other clients read.
func (m *Magnet) String() string {
	s := []byte("magnet:?")
	v2 := m.InfoHashV2 != (HashV2{})
	if v1 := m.InfoHash != (Hash{}); v1 || !v2 {
		s = hex.AppendEncode(append(s, "xt=urn:btih:"...), m.InfoHash[:])
		if v2 {
			s = append(s, '&')
		}
	}
	if v2 {
		s = hex.AppendEncode(append(s, "xt=urn:btmh:"+multihash...), m.InfoHashV2[:])
	}
	if m.Name != "" {
		s = append(s, "&dn="+escape(m.Name)...)
	}
	for _, tracker := range m.Trackers {
		s = append(s, "&tr="+escape(tracker)...)
	}
	for _, seed := range m.WebSeeds {
		s = append(s, "&ws="+escape(seed)...)
	}
	for _, peer := range m.Peers {
		s = append(s, "&x.pe="+addressMarks.Replace(escape(peer))...)
	}
	separator := "&so="
	for i := 0; i < len(m.Select); {
		first, last := m.Select[i], m.Select[i]
		for i++; i < len(m.Select) && m.Select[i] == last+1; i++ {
			last++
		}
		s = append(s, separator...)
		s = strconv.AppendInt(s, int64(first), 10)
		if last > first {
			s = append(s, '-')
			s = strconv.AppendInt(s, int64(last), 10)
		}
		separator = ","
	}
	return string(s)
}

// escape writes a space as %20, because not every client reads a plus as a space.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// addressMarks undoes the escapes in an address: libtorrent reads x.pe only without them.
var addressMarks = strings.NewReplacer("%3A", ":", "%5B", "[", "%5D", "]")

// appendRanges appends the numbers of a list such as 0,2,4,6-8. The list and its items may be empty.
func appendRanges(files []int, list string) ([]int, error) {
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		from, to, isRange := strings.Cut(item, "-")
		first, err := strconv.ParseUint(from, 10, 32)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(to, 10, 32)
		}
		switch {
		case err != nil || last < first:
			return nil, fmt.Errorf("%q is neither the index of a file nor a range of them", safename.Cut(item, 30))
		case last > maxFileIndex:
			return nil, fmt.Errorf("index %d is over %d", last, maxFileIndex)
		case last-first >= uint64(maxMagnetFiles-len(files)):
			return nil, fmt.Errorf("more than %d files", maxMagnetFiles)
		}
		for i := int(first); i <= int(last); i++ {
			files = append(files, i)
		}
	}
	return files, nil
}

// appendHint appends a tracker, web seed or peer that is valid, new and within bounds.
func appendHint(list []string, s string, valid func(string) bool) []string {
	if len(list) == maxMagnetURLs || len(s) > maxMagnetURL || slices.Contains(list, s) || !valid(s) {
		return list
	}
	return append(list, s)
}

func isPeer(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || strings.ContainsRune("/?#@", r) }) {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}
