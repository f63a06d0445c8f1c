package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/shoal-go/torrent"
)

//go:embed page
var page embed.FS

// maxTorrent bounds a .torrent file, as the library does.
const maxTorrent = 32 << 20

// site is what the page asks for.
type site struct {
	shelf *shelf
	guard *guard
}

// newSite serves a shelf at an address, to all requests that have the token.
func newSite(s *shelf, token, addr string) http.Handler {
	mux := http.NewServeMux()
	site := &site{shelf: s, guard: newGuard(token, addr, mux)}
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // it is embedded
	}
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /api/events", site.live)
	mux.HandleFunc("POST /api/torrents", site.add)
	mux.HandleFunc("DELETE /api/torrents/{hash}", site.withItem(site.remove))
	mux.HandleFunc("POST /api/torrents/{hash}/pause", site.withItem(func(w http.ResponseWriter, r *http.Request, it *item) error { return it.pause(true) }))
	mux.HandleFunc("POST /api/torrents/{hash}/resume", site.withItem(func(w http.ResponseWriter, r *http.Request, it *item) error { return it.pause(false) }))
	mux.HandleFunc("PUT /api/torrents/{hash}/files/{index}", site.withItem(site.choose))
	mux.HandleFunc("GET /media/{hash}/{index}/{name}", site.media)
	return site.guard
}

// withItem finds the item that a path names, and answers for what is done with it.
func (s *site) withItem(do func(http.ResponseWriter, *http.Request, *item) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h, err := torrent.ParseHash(r.PathValue("hash"))
		it := s.shelf.item(h)
		if err != nil || it == nil {
			http.Error(w, "no such torrent", http.StatusNotFound)
			return
		}
		if err := do(w, r, it); err != nil {
			fail(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	_, malformed := errors.AsType[*torrent.MetainfoError](err)
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case errors.Is(err, errKnown):
		code = http.StatusConflict
	case large:
		code = http.StatusRequestEntityTooLarge
	case malformed, errors.Is(err, torrent.ErrUnsupported), errors.Is(err, errRequest):
		code = http.StatusBadRequest
	}
	http.Error(w, err.Error(), code)
}

var errRequest = errors.New("malformed request")

// add takes a .torrent file as it is, or a magnet link in JSON.
func (s *site) add(w http.ResponseWriter, r *http.Request) {
	t, m, err := readSource(w, r)
	var it *item
	if err == nil {
		it, err = s.shelf.add(t, m)
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(map[string]string{"hash": it.hash.String()})
}

func readSource(w http.ResponseWriter, r *http.Request) (*torrent.Torrent, *torrent.Magnet, error) {
	body := http.MaxBytesReader(w, r.Body, maxTorrent)
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
	case "application/x-bittorrent":
		var file bytes.Buffer
		if _, err := file.ReadFrom(body); err != nil {
			return nil, nil, err
		}
		t, err := torrent.Parse(&file)
		return t, nil, err
	case "application/json":
		var link struct{ Magnet string }
		if err := json.NewDecoder(body).Decode(&link); err != nil {
			return nil, nil, errors.Join(errRequest, err)
		}
		m, err := torrent.ParseMagnet(strings.TrimSpace(link.Magnet))
		if err != nil && !errors.Is(err, torrent.ErrUnsupported) {
			err = errors.Join(errRequest, err)
		}
		return nil, m, err
	}
	return nil, nil, errors.Join(errRequest, errors.New("neither a .torrent file nor JSON"))
}

func (s *site) remove(w http.ResponseWriter, r *http.Request, it *item) error {
	return s.shelf.remove(it, r.URL.Query().Get("files") == "1")
}

func (s *site) choose(w http.ResponseWriter, r *http.Request, it *item) error {
	var choice struct{ Wanted bool }
	index, err := strconv.Atoi(r.PathValue("index"))
	if err == nil {
		err = json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&choice)
	}
	if _, ok := fileOf(it.torrent(), index); err == nil && !ok {
		err = errors.New("no such file")
	}
	if err != nil {
		return errors.Join(errRequest, err)
	}
	return it.choose(index, choice.Wanted)
}

// fileOf is the file with an index, if the torrent is known and has it.
func fileOf(t *torrent.Torrent, index int) (torrent.File, bool) {
	if t != nil {
		for f := range t.Files() {
			if f.Index == index {
				return f, true
			}
		}
	}
	return torrent.File{}, false
}
