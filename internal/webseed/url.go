package webseed

import (
	"net/url"
	"strings"
)

// fileURL returns the URL of a file (BEP 19). It lies below the seed's URL, or is that URL itself if the torrent is a single
// file and the URL does not end in a slash. A query stays behind the path.
func (s *Seed) fileURL(file int) *url.URL {
	u := *s.base
	u.Fragment, u.RawFragment = "", ""
	u.RawPath = s.base.EscapedPath()
	below := []string{s.content.Name}
	if s.content.Paths != nil {
		below = append(below, s.content.Paths[file]...)
	} else if u.RawPath != "" && !strings.HasSuffix(u.RawPath, "/") {
		return &u
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawPath = strings.TrimSuffix(u.RawPath, "/")
	for _, name := range below {
		if name == "" || name == "." || name == ".." {
			name = "_" // a server would take it for another directory
		}
		u.Path += "/" + name
		u.RawPath += "/" + escape(name)
	}
	return &u
}

// escape percent-encodes all but the unreserved characters of RFC 3986, so that no server takes one of them for syntax.
func escape(name string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}
