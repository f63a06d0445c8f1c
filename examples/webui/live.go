package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/shoal-go/torrent"
)

const (
	lookEvery = 500 * time.Millisecond
	pingEvery = 15 * time.Second
)

// live sends what the page shows, as server-sent events, whenever it has changed: "list" is all torrents, and "detail" is
// more of the one that the query names.
func (s *site) live(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	h, _ := torrent.ParseHash(r.URL.Query().Get("torrent"))
	last := make(map[string][]byte)
	var lastSent time.Time
	send := func(event string, v any) error {
		b, err := json.Marshal(v)
		if err != nil || bytes.Equal(b, last[event]) {
			return err
		}
		last[event], lastSent = b, time.Now()
		_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, b)
		return err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		changed := s.shelf.change()
		list := make([]summary, 0)
		for _, it := range s.shelf.list() {
			list = append(list, it.summary())
		}
		err := send("list", list)
		if it := s.shelf.item(h); err == nil && it != nil {
			err = send("detail", s.detail(it))
		}
		if err == nil && time.Since(lastSent) > pingEvery { // so that a page that has left is noticed
			lastSent = time.Now()
			_, err = fmt.Fprint(w, ": still here\n\n")
		}
		if err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-changed:
		case <-r.Context().Done():
			return
		case <-s.shelf.ctx.Done():
			return
		}
	}
}

// summary is what the page shows of each torrent.
type summary struct {
	Hash     torrent.Hash `json:"hash"`
	Name     string       `json:"name"`
	State    string       `json:"state"` // of the download, or resolving, starting or failed
	Error    string       `json:"error,omitempty"`
	Length   int64        `json:"length"`
	Wanted   int64        `json:"wanted"`
	Verified int64        `json:"verified"`
	Checked  int64        `json:"checked,omitempty"`
	Complete bool         `json:"complete"`
	Down     int64        `json:"down"` // bytes a second
	Up       int64        `json:"up"`
	Sent     int64        `json:"sent"`
	Received int64        `json:"received"`
	ETA      int64        `json:"eta"` // seconds; negative if unknown
	Peers    int          `json:"peers"`
}

func (it *item) summary() summary {
	it.mu.Lock()
	defer it.mu.Unlock()
	v := summary{Hash: it.hash, Name: it.hash.String(), ETA: -1, State: "starting", Sent: it.saved.Uploaded, Received: it.saved.Downloaded}
	if it.t != nil {
		v.Name, v.Length = it.t.Name(), it.t.Length()
	} else {
		v.State = "resolving"
		if it.link.Name != "" {
			v.Name = it.link.Name
		}
		if it.saved.Paused {
			v.State = "paused"
		}
	}
	if it.err != nil {
		v.State, v.Error = "failed", it.err.Error()
	}
	if it.d == nil {
		return v
	}
	s := it.d.Stats()
	v.State, v.Wanted, v.Verified, v.Complete = s.State.String(), s.Wanted, s.Verified, s.Complete
	v.Down, v.Up, v.Sent, v.Received, v.Peers = int64(s.DownloadRate), int64(s.UploadRate), s.Uploaded, s.Downloaded, len(s.Peers)
	if s.Checking {
		v.Checked = s.Checked
	}
	if s.ETA >= 0 {
		v.ETA = int64(s.ETA / time.Second)
	}
	return v
}

// detail is what the page shows of one torrent beside.
type detail struct {
	Hash        torrent.Hash  `json:"hash"`
	Magnet      string        `json:"magnet"`
	Pieces      int           `json:"pieces"`
	PieceLength int64         `json:"pieceLength"`
	Have        string        `json:"have"` // a bit a piece, the first the highest of its byte, in base64
	Wasted      int64         `json:"wasted"`
	Files       []fileView    `json:"files"`
	Peers       []peerView    `json:"peers"`
	WebSeeds    []webSeedView `json:"webSeeds"`
	Trackers    []trackerView `json:"trackers"`
}

type fileView struct {
	Index    int    `json:"index"`
	Path     string `json:"path"`
	Length   int64  `json:"length"`
	Verified int64  `json:"verified"`
	Wanted   bool   `json:"wanted"`
	Kind     string `json:"kind,omitempty"` // media type of what can be played
	URL      string `json:"url"`
}

type peerView struct {
	Addr      string `json:"addr"`
	Client    string `json:"client"`
	Source    string `json:"source"`
	Transport string `json:"transport"`
	Encrypted bool   `json:"encrypted"`
	Down      int64  `json:"down"`
	Up        int64  `json:"up"`
	Received  int64  `json:"received"`
	Pieces    int    `json:"pieces"`
}

type webSeedView struct {
	URL      string `json:"url"`
	State    string `json:"state"`
	Error    string `json:"error,omitempty"`
	Down     int64  `json:"down"`
	Received int64  `json:"received"`
}

type trackerView struct {
	URL   string `json:"url"`
	Error string `json:"error,omitempty"`
}

func (s *site) detail(it *item) detail {
	it.mu.Lock()
	t, d, skipped := it.t, it.d, slices.Clone(it.saved.Skipped)
	it.mu.Unlock()
	v := detail{Hash: it.hash, Files: []fileView{}, Peers: []peerView{}, WebSeeds: []webSeedView{}, Trackers: []trackerView{}}
	if t == nil {
		v.Magnet = it.link.String()
		return v
	}
	v.Magnet, v.Pieces, v.PieceLength = t.Magnet().String(), t.NumPieces(), t.PieceLength()
	add := func(f torrent.File, verified int64) {
		if f.LinkTarget == "" {
			v.Files = append(v.Files, fileView{Index: f.Index, Path: f.Path, Length: f.Length, Verified: verified,
				Wanted: !slices.Contains(skipped, f.Index), Kind: kindOf(f.Path), URL: s.mediaURL(it.hash, f)})
		}
	}
	if d == nil {
		for f := range t.Files() {
			add(f, 0)
		}
		return v
	}
	for f, verified := range d.Files() {
		add(f, verified)
	}
	have := make([]byte, (v.Pieces+7)/8)
	for i := range d.Verified().All() {
		have[i/8] |= 0x80 >> (i % 8)
	}
	v.Have = base64.StdEncoding.EncodeToString(have)
	stats := d.Stats()
	v.Wasted = stats.Wasted
	for _, p := range stats.Peers {
		v.Peers = append(v.Peers, peerView{Addr: p.Addr.String(), Client: p.Client, Source: p.Source, Transport: p.Transport, Encrypted: p.Encrypted,
			Down: int64(p.DownloadRate), Up: int64(p.UploadRate), Received: p.Downloaded, Pieces: p.Pieces})
	}
	for _, w := range stats.WebSeeds {
		row := webSeedView{URL: w.URL, State: w.State.String(), Down: int64(w.Rate), Received: w.Downloaded}
		if w.Err != nil {
			row.Error = w.Err.Error()
		}
		v.WebSeeds = append(v.WebSeeds, row)
	}
	for _, tr := range stats.Trackers {
		row := trackerView{URL: tr.URL}
		if tr.Err != nil {
			row.Error = tr.Err.Error()
		}
		v.Trackers = append(v.Trackers, row)
	}
	return v
}
