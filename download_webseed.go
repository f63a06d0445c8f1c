package torrent

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/metainfo"
	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/webseed"
)

const (
	maxWebSeeds    = 25 // web seeds of one download that are used
	webSeedStreams = 2  // of one web seed at first; more with HTTP/2

	// turnHeld is how long a request that the limits hold back keeps its turn at a host that other downloads wait for.
	turnHeld = 5 * time.Second
	// turnLong is how long any request keeps it if a download that has fewer turns waits. The server may be slow, perhaps with
	// intent.
	turnLong = 30 * time.Second
)

// A webSeed is a server that has the content (BEP 19). It has several suppliers: one for each request that may be under
// way.
//
// The download's mutex guards what follows seed.
type webSeed struct {
	d      *Download
	url    string
	seed   *webseed.Seed // nil if the URL is of no use
	health webseed.Health
	down   ratelimit.Meter

	ctx     context.Context // ends when it is left; nil before the first time it is asked
	running *sync.WaitGroup // its streams, and those of others
	streams []*webStream
	only    *webStream // the only stream that asks a server that sends whole files; nil for other servers
	crowded bool       // it refused a request while another was under way, so no more requests than that are made at once
}

// openWebSeeds returns the web seeds of the user and of the torrent, a bounded number of them.
func (d *Download) openWebSeeds() (all []*webSeed) {
	var content *webseed.Content
	known := make(map[string]bool)
	add := func(urls []string, byUser bool) {
		for _, u := range urls {
			if known[u] || len(all) == maxWebSeeds {
				continue
			}
			known[u] = true
			if content == nil {
				content = d.t.webContent()
			}
			w := &webSeed{d: d, url: u}
			var err error
			if w.seed, err = d.client.webSeeds.NewSeed(u, byUser, content); err != nil {
				w.health.Unusable(err)
			}
			all = append(all, w)
		}
	}
	add(d.o.WebSeeds, true)
	add(d.t.webSeeds, false)
	return all
}

// webContent returns the content under the names that servers have: those that the author wrote, not those that are
// safe on disk.
func (t *Torrent) webContent() *webseed.Content {
	c := &webseed.Content{Layout: t.layout}
	c.Name, c.Paths = metainfo.Names(t.info)
	c.Name = cmp.Or(c.Name, t.name)
	if t.layout.NumFiles() == 1 && !strings.Contains(t.layout.File(0).Path, "/") {
		c.Paths = nil
		return c
	}
	if len(c.Paths) != t.layout.NumFiles() { // of version 2
		c.Paths = nil
		for _, f := range t.layout.Files() {
			c.Paths = append(c.Paths, strings.Split(f.Path, "/")[1:])
		}
	}
	return c
}

// joinWebSeeds asks web seeds until leave is called. leave returns once none of their goroutines is left.
func (d *Download) joinWebSeeds() (leave func()) {
	ctx, cancel := context.WithCancel(d.life.ctx)
	running := new(sync.WaitGroup)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.webSeeds {
		w.ctx, w.running = ctx, running
	}
	d.startWebSeeds()
	return func() {
		d.mu.Lock()
		cancel() // under the mutex, so that no stream starts after it
		d.mu.Unlock()
		running.Wait()
	}
}

// startWebSeeds adds streams to web seeds without any, if something is wanted. Streams end when nothing is. The caller
// holds d.mu.
func (d *Download) startWebSeeds() {
	if d.sated() {
		return
	}
	for _, w := range d.webSeeds {
		if w.ctx == nil || len(w.streams) > 0 {
			continue
		}
		w.only = nil
		for w.addStream() && !w.crowded && len(w.streams) < webSeedStreams {
		}
	}
}

// addStream adds a stream, unless the web seed may no longer be asked. The caller holds w.d.mu.
func (w *webSeed) addStream() (added bool) {
	if w.seed == nil || w.health.Banned() || w.ctx.Err() != nil {
		return false
	}
	s := &webStream{w: w, waker: newWaker()}
	s.supply = picker.Supplier{Owner: s, Origin: w, Host: w, Ready: true, Runs: true}
	w.d.picker.Join(&s.supply)
	s.supply.SetLimit(picker.MaxRun)
	w.streams = append(w.streams, s)
	w.offerAll(s)
	w.running.Go(func() { s.run(w.ctx) })
	return true
}

// offerAll records which pieces a stream has. A server may have streams leave and come again and again, so the cost is proportional to
// those that it lacks. The caller holds w.d.mu.
func (w *webSeed) offerAll(s *webStream) {
	has := bits.Full(w.d.t.NumPieces())
	for first, piece := range w.health.Resting {
		end := first + 1
		if !piece {
			first, end = w.d.t.layout.PiecesOf(first)
		}
		for ; first < end; first++ {
			has.Remove(first)
		}
	}
	w.d.picker.Bitfield(&s.supply, has)
}

// has reports whether the web seed may be asked for a piece.
func (w *webSeed) has(piece int) bool {
	if w.health.PieceRests(piece) {
		return false
	}
	for file := range w.d.t.layout.FilesOf(piece) {
		if w.health.FileRests(file) {
			return false
		}
	}
	return true
}

// lose withdraws the pieces from first up to before end from every stream: the web seed cannot send them for now. The cost is
// proportional to these pieces alone, because a web seed may lack many files. The caller holds w.d.mu.
func (w *webSeed) lose(first, end int) {
	for _, s := range w.streams {
		w.d.picker.Lose(&s.supply, first, end)
		s.release(func(id picker.Block) bool { return first <= int(id.Piece) && int(id.Piece) < end })
	}
}

// rested lets streams ask again for files and pieces whose rest is over. The caller holds w.d.mu.
func (w *webSeed) rested(now time.Time) {
	files, pieces := w.health.Rested(now)
	for _, piece := range pieces {
		w.regain(piece, piece+1)
	}
	for _, file := range files {
		w.regain(w.d.t.layout.PiecesOf(file))
	}
}

// regain gives every stream the pieces from first up to before end, except those that the web seed still cannot send. The caller
// holds w.d.mu.
func (w *webSeed) regain(first, end int) {
	for i := first; i < end; i++ {
		for _, s := range w.streams {
			if w.has(i) {
				w.d.picker.Have(&s.supply, i)
			}
		}
	}
	w.d.pending.freed = true
}

// failed records that a request for a file failed. The caller holds w.d.mu.
func (w *webSeed) failed(s *webStream, file int, err error, now time.Time) {
	if webseed.Refused(err) && slices.ContainsFunc(w.streams, func(o *webStream) bool { return o != s && o.reading }) {
		w.crowded = true // the others go on
		w.health.Crowded(err)
		s.leave()
	} else {
		if w.health.Failed(file, err, now) {
			w.lose(w.d.t.layout.PiecesOf(file))
		} else {
			w.crowded = false
		}
		if now.Before(w.health.Rests()) {
			s.release(allBlocks)
			for _, s := range w.streams {
				s.supply.Ready = false // until it rested
			}
		}
	}
	w.d.logLater(func() { w.d.log.Info("web seed failed", "err", err) })
}

// sentFalsePiece records that a piece was false that came from the web seed alone. The caller holds w.d.mu.
func (w *webSeed) sentFalsePiece(piece int, now time.Time) {
	if !w.health.Lied(piece, now) {
		w.lose(piece, piece+1)
		return
	}
	for _, s := range slices.Clone(w.streams) {
		s.leave()
	}
	w.d.logLater(func() { w.d.log.Warn("banned", "webseed", w.url) })
}

// keepTo restricts requests to one stream, because the server sends whole files only and should send each of them once. It
// reports whether s is that stream. The caller holds w.d.mu.
func (w *webSeed) keepTo(s *webStream) bool {
	if w.only == nil && !s.left {
		w.only = s
		for _, o := range slices.Clone(w.streams) {
			if o != s {
				o.leave()
			}
		}
	}
	return w.only == s
}

// takeTurns ends the request of ctx once it had a long turn and a download with fewer turns at the host waits for one. An answer from a
// server that sends only whole files goes on, because it would begin again, unless it waits for the disk of the download.
func (s *webStream) takeTurns(ctx context.Context) *time.Timer {
	d := s.w.d
	var timer *time.Timer
	timer = time.AfterFunc(turnLong, func() {
		now := time.Now()
		d.mu.Lock()
		defer d.unlock(now)
		if ctx.Err() != nil {
			return
		}
		if s.reading && (s.w.only != s || s.stalled) && s.w.seed.Starves() {
			s.release(allBlocks)
			s.stop(errWithdrawn)
			return
		}
		timer.Reset(turnHeld)
	})
	return timer
}

// WebSeedState is the state of a web seed.
type WebSeedState uint8

const (
	WebSeedIdle        WebSeedState = iota // it is asked for nothing
	WebSeedDownloading                     // a request is under way
	WebSeedResting                         // it failed, or asked us to wait, and is asked again later
	WebSeedBanned                          // it sent false pieces or its URL is of no use, so it is not asked any more
)

var webSeedStateNames = [...]string{"idle", "downloading", "resting", "banned"}

// String is the name in lower case.
func (s WebSeedState) String() string { return nameOf(s, webSeedStateNames[:]) }

// MarshalText is String as encoding.TextMarshaler has it.
func (s WebSeedState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// WebSeedStats describes a web seed (BEP 19).
type WebSeedStats struct {
	URL        string // as the torrent or Options name it
	State      WebSeedState
	Rate       float64   // bytes of payload a second, over the last seconds
	Downloaded int64     // bytes of payload
	Requests   int       // under way
	Next       time.Time // while it rests, when it is asked again
	Err        error     // why a request last failed, or nil
}

// stats returns a snapshot. The caller holds w.d.mu.
func (w *webSeed) stats(now time.Time) WebSeedStats {
	s := WebSeedStats{URL: w.url, Rate: w.down.Rate(now), Downloaded: w.down.Total(), Err: asText(w.health.Err())}
	for _, o := range w.streams {
		if o.reading {
			s.Requests++
		}
	}
	switch {
	case w.health.Banned():
		s.State = WebSeedBanned
	case s.Requests > 0:
		s.State = WebSeedDownloading
	case now.Before(w.health.Rests()):
		s.State, s.Next = WebSeedResting, w.health.Rests()
	}
	return s
}

func allBlocks(picker.Block) bool { return true }

// offsetOf is where a block begins in the content.
func (d *Download) offsetOf(id picker.Block) int64 {
	return d.t.layout.PieceOffset(int(id.Piece)) + int64(id.Index)*blockSize
}

// endOf is the offset behind a block.
func (d *Download) endOf(id picker.Block) int64 {
	return d.offsetOf(id) + int64(d.t.layout.BlockLen(int(id.Piece), int(id.Index)))
}

// blockOver is the block that holds a byte of the content.
func (d *Download) blockOver(off int64) picker.Block {
	i := d.t.layout.PieceAt(off)
	return picker.Block{Piece: int32(i), Index: int32((off - d.t.layout.PieceOffset(i)) / blockSize)}
}

// after is the block behind another, if there is one.
func (d *Download) after(id picker.Block) (picker.Block, bool) {
	if id.Index++; int(id.Index) == d.t.layout.NumBlocks(int(id.Piece)) {
		id = picker.Block{Piece: id.Piece + 1}
	}
	return id, int(id.Piece) < d.t.NumPieces()
}
