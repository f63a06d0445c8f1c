package main

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/torrent"
)

// kinds are what a browser may be able to play, by the end of a name. The system's own list would name others, and
// some of them run programs.
var kinds = map[string]string{
	".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm", ".mkv": "video/x-matroska", ".ogv": "video/ogg",
	".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".aac": "audio/aac", ".ogg": "audio/ogg", ".oga": "audio/ogg", ".opus": "audio/ogg",
	".flac": "audio/flac", ".wav": "audio/wav",
}

// kindOf is the media type of a file that can be played, or empty.
func kindOf(name string) string { return kinds[strings.ToLower(path.Ext(name))] }

// mediaURL is where a file is read.
func (s *site) mediaURL(h torrent.Hash, f torrent.File) string {
	return fmt.Sprintf("/media/%s/%d/%s?ticket=%s", h, f.Index, url.PathEscape(path.Base(f.Path)), s.guard.ticket(h.String(), f.Index))
}

// media serves a file of a download, as far as it is there, and waits for the rest, which then comes first. Ranges make seeking work.
//
// The bytes are a stranger's. What cannot be played is only ever saved, and a browser that takes it for a page all the
// same finds itself without scripts, and of an origin of its own.
func (s *site) media(w http.ResponseWriter, r *http.Request) {
	index, err := strconv.Atoi(r.PathValue("index"))
	if err != nil || !s.guard.hasTicket(r, r.PathValue("hash"), index) {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	h, err := torrent.ParseHash(r.PathValue("hash"))
	it := s.shelf.item(h)
	if err != nil || it == nil {
		http.Error(w, "no such torrent", http.StatusNotFound)
		return
	}
	f, ok := fileOf(it.torrent(), index)
	d := it.underWay()
	if !ok || d == nil {
		http.Error(w, "the download is not under way", http.StatusServiceUnavailable)
		return
	}
	reader, err := d.Open(r.Context(), f.Path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer reader.Close()
	header := w.Header()
	kind := kindOf(f.Path)
	if kind == "" {
		kind = "application/octet-stream"
		header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(f.Path)}))
	}
	header.Set("Content-Type", kind)
	header.Set("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'")
	header.Set("ETag", fmt.Sprintf(`"%s-%d"`, h, index)) // it never changes
	header.Set("Cache-Control", "private")
	http.ServeContent(w, r, "", time.Time{}, reader)
}
