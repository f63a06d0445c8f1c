package torrent_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

var walkFor = flag.Duration("walk", 3*time.Second, "how long TestWalk walks")

// maxStep bounds what one call may take, so that a deadlock is found. It is far more than any needs.
const maxStep = 5 * time.Minute

// A walk is downloads that goroutines do at random with what they may.
type walk struct {
	t       *testing.T
	shares  []*share
	clients []*torrent.Client
	seeds   []netip.AddrPort
	sharing []func() error // ends the seeds
	tracker *announces
	limit   *rate.Limiter

	mu    sync.Mutex
	live  []*walked
	calls map[string]int

	waiting sync.WaitGroup // for downloads that are complete, or closed
}

// walked is one download of a walk.
type walked struct {
	*torrent.Download
	s     *share
	root  string // of the directories that it may move to; "" if it has none
	files *torrent.Downloaded
}

// A walker is one goroutine of a walk.
type walker struct {
	*walk
	rng *rand.Rand
	ctx context.Context // of the step
}

// steps are all that may be done.
var steps = []struct {
	name string
	do   func(w *walker) error
}{
	{"start", (*walker).start},
	{"start", (*walker).start},
	{"close", func(w *walker) error {
		if w.rng.IntN(3) > 0 {
			return nil
		}
		d := w.take()
		if d == nil {
			return nil
		}
		var err error
		if d.files != nil && w.rng.IntN(2) == 0 {
			err = d.files.Close()
		}
		return errors.Join(err, d.Close(), w.lay(d))
	}},
	{"select", on(func(w *walker, d *walked) error { d.Select(w.choice()); return nil })},
	{"pause", on(func(w *walker, d *walked) error { d.Pause(); return nil })},
	{"resume", on(func(w *walker, d *walked) error { d.Resume(); return nil })},
	{"resume", on(func(w *walker, d *walked) error { d.Resume(); return nil })},
	{"move", on(func(w *walker, d *walked) error {
		if d.root == "" {
			err := d.Move(w.ctx, w.t.TempDir())
			if errors.Is(err, errors.ErrUnsupported) {
				return nil
			}
			return err
		}
		return d.Move(w.ctx, filepath.Join(d.root, string('a'+rune(w.rng.IntN(3)))))
	})},
	{"recheck", on(func(w *walker, d *walked) error { return d.Recheck(w.ctx) })},
	{"open", on((*walker).open)},
	{"open", on((*walker).open)},
	{"completed", later(func(w *walk, d *walked) error {
		n := len(d.s.want) / 2
		for f, err := range d.Completed() {
			if err != nil {
				return err
			}
			if err := w.read(d, f); err != nil {
				return err
			}
			if n--; n < 0 || !d.Stats().Complete {
				return nil
			}
		}
		return nil
	})},
	{"wait", later(func(w *walk, d *walked) error {
		<-d.Done()
		files, err := d.Wait()
		if err != nil {
			return err
		}
		for f := range files.Files() {
			if err := w.read(d, f); err != nil {
				return err
			}
		}
		_, err = fs.ReadDir(files, ".")
		return err
	})},
	{"stats", on(func(w *walker, d *walked) error {
		s := d.Stats()
		if s.Verified > s.Wanted || s.PiecesVerified > s.Pieces || s.Checked > 2*s.Length {
			return fmt.Errorf("these figures cannot be: %+v", s)
		}
		for range d.Files() {
		}
		if d.Verified().Len() != d.s.NumPieces() {
			return errors.New("of another length")
		}
		return nil
	})},
	{"events", on(func(w *walker, d *walked) error {
		ctx, cancel := context.WithTimeout(w.ctx, 30*time.Millisecond)
		defer cancel()
		for e := range d.Events(ctx) {
			if e.Kind == torrent.StorageFailed && !allowed(e.Err) {
				return e.Err
			}
		}
		return nil
	})},
	{"add peers", on(func(w *walker, d *walked) error { d.AddPeers(w.seeds...); return nil })},
	{"add trackers", on(func(w *walker, d *walked) error { d.AddTrackers(w.tracker.url); return nil })},
	{"announce", on(func(w *walker, d *walked) error { d.Announce(); return nil })},
	{"ban", on(func(w *walker, d *walked) error {
		d.Ban(netip.AddrFrom4([4]byte{203, 0, 113, byte(w.rng.IntN(255))}))
		return nil
	})},
	{"scrape", on(func(w *walker, d *walked) error {
		ctx, cancel := context.WithTimeout(w.ctx, 100*time.Millisecond)
		defer cancel()
		d.Scrape(ctx)
		return nil
	})},
	{"limits", func(w *walker) error {
		w.limit.SetLimit([]rate.Limit{1 << 20, 16 << 20, rate.Inf}[w.rng.IntN(3)])
		return nil
	}},
	{"client", func(w *walker) error {
		c := w.clients[w.rng.IntN(len(w.clients))]
		for d := range c.Downloads() {
			d.Torrent()
		}
		c.Download(w.shares[w.rng.IntN(len(w.shares))].InfoHash())
		s := c.Stats()
		if s.Peers < 0 || s.Memory < 0 || s.Memory > s.MemoryMost {
			return fmt.Errorf("these figures cannot be: %+v", s)
		}
		for _, r := range s.Resolving {
			if r.Metadata > r.Length || r.Since.After(time.Now()) {
				return fmt.Errorf("these figures cannot be: %+v", r)
			}
		}
		return c.Open()
	}},
	{"verify", on(func(w *walker, d *walked) error {
		if d.root == "" {
			return nil
		}
		_, err := d.s.Verify(w.ctx, filepath.Join(d.root, "a"))
		return err
	})},
	{"resolve", func(w *walker) error {
		s := w.shares[w.rng.IntN(len(w.shares))]
		m := s.Magnet()
		m.Peers = nil
		ctx, cancel := context.WithTimeout(w.ctx, time.Duration(w.rng.IntN(300))*time.Millisecond)
		defer cancel()
		t, err := m.Resolve(ctx, &torrent.Options{Client: w.clients[w.rng.IntN(len(w.clients))], Peers: w.seeds})
		if err == nil && t.InfoHash() != s.InfoHash() {
			return errors.New("another torrent")
		}
		return err
	}},
}

// on is a step with a download that is alive, or was.
func on(do func(w *walker, d *walked) error) func(w *walker) error {
	return func(w *walker) error {
		w.mu.Lock()
		if len(w.live) == 0 {
			w.mu.Unlock()
			return nil
		}
		d := w.live[w.rng.IntN(len(w.live))]
		w.mu.Unlock()
		return do(w, d)
	}
}

// later is a step that waits for what may not come before the download is closed.
func later(do func(w *walk, d *walked) error) func(w *walker) error {
	return on(func(w *walker, d *walked) error {
		w.waiting.Go(func() {
			if err := do(w.walk, d); !allowed(err) {
				w.t.Error(err)
			}
		})
		return nil
	})
}

// allowed reports whether an error is what may come of calls that get in each other's way.
func allowed(err error) bool {
	for _, may := range []error{torrent.ErrClosed, torrent.ErrInUse, context.Canceled, context.DeadlineExceeded, fs.ErrExist, fs.ErrNotExist} {
		if errors.Is(err, may) {
			return true
		}
	}
	return err == nil || strings.Contains(err.Error(), "is not chosen") ||
		strings.Contains(err.Error(), "changed by another program") // a later run in the same directory moved it
}

func (w *walker) choice() func(torrent.File) torrent.Priority {
	switch w.rng.IntN(4) {
	case 0:
		return nil
	case 1:
		return func(torrent.File) torrent.Priority { return torrent.OnDemand }
	}
	seed := w.rng.Uint64()
	return func(f torrent.File) torrent.Priority {
		return torrent.Priority(int(seed>>(2*f.Index%60)&3) - 2)
	}
}

// start starts a download of a torrent that is in few places yet.
func (w *walker) start() error {
	s := w.shares[w.rng.IntN(len(w.shares))]
	o := torrent.Options{
		Client: w.clients[w.rng.IntN(len(w.clients))], Seed: w.rng.IntN(3) > 0, KeepResume: w.rng.IntN(2) == 0, Select: w.choice(),
		DownloadLimit: w.limit, UploadLimit: w.limit, Paused: w.rng.IntN(6) == 0,
		Trackers: [][]string{{w.tracker.url}},
	}
	d := &walked{s: s}
	switch w.rng.IntN(6) {
	case 0:
	case 1:
		o.Storage = func(*torrent.Torrent) (torrent.Storage, error) { return new(mapStorage), nil }
	default:
		w.mu.Lock()
		crowded := len(w.live) > 12
		w.mu.Unlock()
		if crowded {
			return nil
		}
		d.root = filepath.Join(s.dir, "..", "walk", fmt.Sprint(w.rng.IntN(3)))
		o.Dir = filepath.Join(d.root, string('a'+rune(w.rng.IntN(3))))
	}
	if w.rng.IntN(2) == 0 {
		o.Peers = w.seeds
	}
	var err error
	if d.Download, err = s.Start(w.t.Context(), &o); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live = append(w.live, d)
	return nil
}

// take takes a download out of those that are alive. Calls of others may still be under way.
func (w *walker) take() *walked {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.live) == 0 {
		return nil
	}
	k := w.rng.IntN(len(w.live))
	d := w.live[k]
	w.live = slices.Delete(w.live, k, k+1)
	return d
}

// lay closes what a closed download yields, if it yields something.
func (w *walker) lay(d *walked) error {
	files, err := d.Wait()
	if err != nil {
		if allowed(err) {
			return nil
		}
		return err
	}
	return files.Close()
}

// open reads somewhere in a file of a download.
func (w *walker) open(d *walked) error {
	files := slices.Collect(d.s.Files())
	f := files[w.rng.IntN(len(files))]
	ctx, cancel := context.WithTimeout(w.ctx, time.Duration(w.rng.IntN(400))*time.Millisecond)
	defer cancel()
	r, err := d.Open(ctx, f.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	if f.Length == 0 {
		return nil
	}
	off := w.rng.Int64N(f.Length)
	if _, err := r.Seek(off, io.SeekStart); err != nil {
		return err
	}
	b := make([]byte, min(f.Length-off, 1+w.rng.Int64N(50_000)))
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if !bytes.Equal(b, d.s.want[f.Path][off:off+int64(len(b))]) {
		return fmt.Errorf("%s: wrong bytes", f.Path)
	}
	return nil
}

// read reads a file that is complete.
func (w *walk) read(d *walked, f *torrent.DownloadedFile) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(b, d.s.want[f.Path()]) {
		return fmt.Errorf("%s: wrong bytes", f.Path())
	}
	if err != nil && d.Stats().StorageErrors > 0 {
		return nil // it was moved away under another run
	}
	return err
}

// step does one thing, and fails the test if it takes for ever or ends in an error that nothing explains.
func (w *walker) step() {
	s := steps[w.rng.IntN(len(steps))]
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+w.rng.IntN(3000))*time.Millisecond)
	defer cancel()
	w.ctx = ctx
	stuck := time.AfterFunc(maxStep, func() {
		b := make([]byte, 8<<20)
		panic(fmt.Sprintf("%s takes for ever\n%s", s.name, b[:runtime.Stack(b, true)]))
	})
	defer stuck.Stop()
	if err := s.do(w); !allowed(err) {
		w.t.Errorf("%s: %v", s.name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[s.name]++
}

// Sixteen goroutines do whatever the API lets them do, with downloads of a swarm that lives. No call is in vain for ever, no byte is
// wrong, and nothing is left.
func TestWalk(t *testing.T) {
	w := &walk{t: t, tracker: tracker(t), limit: rate.NewLimiter(rate.Inf, 64<<10), calls: make(map[string]int)}
	before := runtime.NumGoroutine()
	for k, pieceLength := range []int64{16 << 10, 64 << 10, 1 << 20} {
		parts := append(slices.Clone(mixed), part{fmt.Sprintf("only%d", k), 400_000 * (k + 1)})
		s := makeShare(t, torrent.CreateOptions{Name: fmt.Sprintf("share%d", k), PieceLength: pieceLength}, parts...)
		w.shares = append(w.shares, s)
		c := local()
		d, err := s.Start(t.Context(), &torrent.Options{Client: c, Dir: s.dir, Seed: true})
		require.NoError(t, err)
		complete(t, d)
		w.sharing = append(w.sharing, c.Close)
		w.seeds = append(w.seeds, addrOf(c))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(w.shares[0].dir, "..", "walk"), 0o755))
	w.tracker.name(w.seeds...)
	for range 2 {
		c := local()
		require.NoError(t, c.Open())
		w.clients = append(w.clients, c)
	}
	var walkers sync.WaitGroup
	end := time.Now().Add(*walkFor)
	for k := range 16 {
		walkers.Go(func() {
			w := &walker{walk: w, rng: rand.New(rand.NewPCG(uint64(k), uint64(end.UnixNano())))}
			for time.Now().Before(end) && !t.Failed() {
				w.step()
			}
		})
	}
	walkers.Wait()
	last := &walker{walk: w, rng: rand.New(rand.NewPCG(1, 2))}
	for d := last.take(); d != nil; d = last.take() {
		require.NoError(t, d.Close())
		require.NoError(t, last.lay(d))
	}
	w.waiting.Wait()
	for _, c := range w.clients {
		require.NoError(t, c.Close())
		require.Zero(t, c.Stats().Downloads)
		require.Empty(t, c.Stats().Resolving)
	}
	t.Log(w.calls)
	for _, seed := range w.sharing {
		require.NoError(t, seed())
	}
	settled(t, before)
}
