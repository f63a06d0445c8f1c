package torrent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/shoal-go/torrent/internal/simnet/simweb"
	"github.com/shoal-go/torrent/internal/storage"
)

var (
	usersFirst = flag.Int64("user", 0, "seed of the first history that TestUserAmongStrangers draws")
	usersSeeds = flag.Int("users", 30, "how many histories TestUserAmongStrangers draws")
)

// A userWalk is a history that is drawn from a seed number: a user calls whatever the API has, from several goroutines, on downloads
// of one torrent beside strangers of all kinds.
type userWalk struct {
	*simHistory
	t      *testing.T
	client *Client
	seed   netip.AddrPort // honest
	dir    string
	limit  *rate.Limiter

	running sync.WaitGroup // calls that may wait until their download is closed
	mu      sync.Mutex     // guards what follows, and notes
	all     []*userDownload
	notes   []string
}

type userDownload struct {
	*Download
	cancel context.CancelFunc
	ended  bool // the user ended it
}

// A user calls whatever there is among strangers that do whatever they can. No byte is wrong, each call ends within a second of its
// context, figures agree with each other, what the user leaves alone becomes complete, and nothing is left after Close.
func TestUserAmongStrangers(t *testing.T) {
	for seed := uint64(*usersFirst); seed < uint64(*usersFirst+int64(*usersSeeds)); seed++ {
		dir := t.TempDir()
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			w := &userWalk{t: t, dir: dir, limit: rate.NewLimiter(rate.Inf, blockSize), simHistory: &simHistory{
				seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), net: n, tracker: simtracker.New(seed), kinds: map[string]int{}, liars: map[netip.Addr]bool{},
			}}
			defer func() {
				if t.Failed() {
					t.Fatalf("The history of seed %d:\n%v\n%s", seed, w.simHistory, strings.Join(w.notes, "\n"))
				}
			}()
			w.draw()
			w.walk()
			w.leaveAlone()
			w.end()
		})
	}
}

// draw makes the torrent, the strangers, an honest seed and the user's client.
func (w *userWalk) draw() {
	w.drawVersion()
	files := []int64{1 + w.rng.Int64N(200_000)}
	for range w.rng.IntN(5) {
		files = append(files, []int64{0, 1, 5000, 40_000, 333_333}[w.rng.IntN(5)])
	}
	w.content = newSimVersion(w.version, w.bare, w.simHistory.seed+1, 16<<10<<w.rng.IntN(3), files...)
	for i := range w.content.NumPieces() {
		w.wanted = append(w.wanted, i)
	}
	us := w.net.NewHost("81.0.0.1", 1e5, 1e6, 10*time.Millisecond)
	w.client = simClient(w.t, us, w.tracker)
	w.client.NoUTP, w.client.Encryption = w.chance(2), EncryptionPolicy(2*w.rng.IntN(2))
	w.client.HTTPClient = &http.Client{Transport: newSimHTTP(us, w.tracker.Client(us).Transport)}
	if w.chance(4) {
		w.client.hooks.blockMemory = int64(w.between(blockSize/2, 1e5))
	}
	w.options = []simSetup{{host: us, client: w.client, options: &Options{}}}
	for range w.rng.IntN(7) {
		kind := simKinds[w.rng.IntN(len(simKinds))]
		w.kinds[kind.name]++
		kind.draw(w.simHistory, kind.name)
	}
	for k := range w.rng.IntN(3) {
		kind := simWebKinds[w.rng.IntN(len(simWebKinds))]
		s, err := simweb.Serve(w.net.NewHost(fmt.Sprintf("70.0.0.%d", k+1), 1e6, 0, 10*time.Millisecond), w.content.truth, w.content.layout, kind.draw(w.rng, "http://70.0.0.1/"))
		require.NoError(w.t, err)
		w.web = append(w.web, s)
		w.note("web seed %s", kind.name)
	}
	host := w.net.NewHost("80.0.0.1", w.between(5e3, 5e6), 0, 20*time.Millisecond)
	own := *w.content
	own.Torrent = w.content.own()
	simSeed(w.t, quietClient(w.t, host), &own)
	w.seed = host.Addr(6881)
	w.content.trackers = [][]string{{"http://10.9.9.9/announce"}}
}

// walk makes random calls from several goroutines.
func (w *userWalk) walk() {
	var walkers sync.WaitGroup
	for k := range 1 + w.rng.IntN(3) {
		rng := rand.New(rand.NewPCG(w.simHistory.seed, uint64(100+k)))
		walkers.Go(func() {
			for range 2 + rng.IntN(20) {
				time.Sleep(time.Duration(rng.Float64() * float64([]time.Duration{0, time.Millisecond, time.Second, 30 * time.Second}[rng.IntN(4)])))
				w.step(rng)
			}
		})
	}
	walkers.Wait()
}

// step makes one call.
func (w *userWalk) step(rng *rand.Rand) {
	patience := time.Duration(rng.IntN(5000)) * time.Millisecond
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	call := userCalls[rng.IntN(len(userCalls))]
	w.mu.Lock()
	var d *userDownload
	if len(w.all) > 0 {
		d = w.all[rng.IntN(len(w.all))]
	}
	w.notes = append(w.notes, fmt.Sprintf("%v: %s", w.net.Now(), call.name))
	w.mu.Unlock()
	if d == nil {
		call.name, call.do = "start", (*userWalk).start
	}
	began := time.Now()
	if err := call.do(w, ctx, rng, d); !allowedOfUser(err) {
		w.t.Errorf("%s at %v: %v", call.name, w.net.Now(), err)
	}
	if took := time.Since(began); took > max(patience, stopAnnounce)+time.Second {
		w.t.Errorf("%s at %v took %v, and its context %v", call.name, w.net.Now(), took, patience)
	}
}

// allowedOfUser reports whether an error is what may come of calls that get in each other's way.
func allowedOfUser(err error) bool {
	return err == nil || slices.ContainsFunc([]error{
		ErrClosed, ErrInUse, errors.ErrUnsupported, context.Canceled, context.DeadlineExceeded, fs.ErrClosed, errNotChosen,
		fs.ErrExist,        // what another download left in a directory is in the way of a Move
		storage.ErrChanged, // another download may go on with the files of one that has ended, and move them
	}, func(e error) bool { return errors.Is(err, e) })
}

var userCalls = []struct {
	name string
	do   func(w *userWalk, ctx context.Context, rng *rand.Rand, d *userDownload) error
}{
	{"start", (*userWalk).start},
	{"start", (*userWalk).start},
	{"read", (*userWalk).read},
	{"read", (*userWalk).read},
	{"pause", func(_ *userWalk, _ context.Context, _ *rand.Rand, d *userDownload) error { d.Pause(); return nil }},
	{"resume", func(_ *userWalk, _ context.Context, _ *rand.Rand, d *userDownload) error { d.Resume(); return nil }},
	{"select", func(_ *userWalk, _ context.Context, rng *rand.Rand, d *userDownload) error {
		d.Select(drawChoice(rng))
		return nil
	}},
	{"recheck", func(_ *userWalk, ctx context.Context, _ *rand.Rand, d *userDownload) error { return d.Recheck(ctx) }},
	{"move", func(w *userWalk, ctx context.Context, rng *rand.Rand, d *userDownload) error {
		if d.o.Seed { // else another may have been started on the same files
			return d.Move(ctx, filepath.Join(w.dir, string('a'+rune(rng.IntN(3)))))
		}
		return nil
	}},
	{"add a peer", func(w *userWalk, _ context.Context, _ *rand.Rand, d *userDownload) error {
		d.AddPeers(w.seed)
		return nil
	}},
	{"announce", func(_ *userWalk, _ context.Context, _ *rand.Rand, d *userDownload) error { d.Announce(); return nil }},
	{"limit", func(w *userWalk, _ context.Context, rng *rand.Rand, _ *userDownload) error {
		w.limit.SetLimit([]rate.Limit{0, 3000, 1e5, rate.Inf}[rng.IntN(4)])
		return nil
	}},
	{"stats", func(w *userWalk, _ context.Context, _ *rand.Rand, d *userDownload) error { return w.stats(d) }},
	{"completed", func(w *userWalk, _ context.Context, rng *rand.Rand, d *userDownload) error {
		n := rng.IntN(9)
		w.running.Go(func() {
			for f, err := range d.Completed() {
				if err == nil {
					err = w.compare(f)
				}
				if !allowedOfUser(err) {
					w.t.Errorf("completed: %v", err)
				}
				if n--; n == 0 || err != nil {
					return
				}
			}
		})
		return nil
	}},
	{"end", func(w *userWalk, _ context.Context, rng *rand.Rand, d *userDownload) error {
		if rng.IntN(3) > 0 {
			return nil
		}
		w.mu.Lock()
		d.ended = true
		w.mu.Unlock()
		if rng.IntN(2) == 0 {
			return d.Close()
		}
		d.cancel()
		select {
		case <-d.life.gone:
			return nil
		case <-time.After(time.Second):
			return errors.New("goes on after its context")
		}
	}},
}

func drawChoice(rng *rand.Rand) func(File) Priority {
	drawn := rng.Uint64()
	return func(f File) Priority { return Priority(int(drawn>>(2*f.Index%60)&3) - 2) }
}

// start starts one more download, in memory or in a directory.
func (w *userWalk) start(_ context.Context, rng *rand.Rand, _ *userDownload) (err error) {
	o := &Options{Client: w.client, Seed: rng.IntN(2) == 0, KeepResume: rng.IntN(2) == 0, Paused: rng.IntN(6) == 0, Select: drawChoice(rng)}
	if rng.IntN(2) == 0 {
		o.Dir = filepath.Join(w.dir, string('a'+rune(rng.IntN(3))))
	}
	if rng.IntN(2) == 0 {
		o.DownloadLimit, o.UploadLimit = w.limit, w.limit
	}
	for _, s := range w.web {
		o.WebSeeds = append(o.WebSeeds, s.URL())
	}
	d := &userDownload{}
	ctx, cancel := context.WithCancel(w.t.Context())
	d.cancel = cancel
	if d.Download, err = w.content.own().Start(ctx, o); err != nil {
		cancel()
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, d)
	return nil
}

// read reads somewhere in a file, whether it is there yet or not.
func (w *userWalk) read(ctx context.Context, rng *rand.Rand, d *userDownload) error {
	files := slices.Collect(d.t.Files())
	f := files[rng.IntN(len(files))]
	r, err := d.Open(ctx, f.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	off, b := rng.Int64N(f.Length+1), make([]byte, rng.IntN(60_000))
	n, err := r.(io.ReaderAt).ReadAt(b, off)
	if !w.content.truth.Equal(f.Offset+off, b[:n]) || err == io.EOF && off+int64(n) != f.Length {
		return fmt.Errorf("wrong bytes, or too few: %d at %d of %s, %w", n, off, f.Path, err)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// compare requires the right bytes of a file that is complete.
func (w *userWalk) compare(f *DownloadedFile) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil && (int64(len(b)) != f.Length() || !w.content.truth.Equal(w.content.layout.File(f.index).Offset, b)) {
		return fmt.Errorf("wrong bytes of %s", f.Path())
	}
	return err
}

// stats requires figures that can be.
func (w *userWalk) stats(d *userDownload) error {
	s, c := d.Stats(), w.client.Stats()
	sum := int64(0)
	for _, p := range s.Peers {
		sum += p.Downloaded
	}
	for _, p := range s.WebSeeds {
		sum += p.Downloaded
	}
	if s.Verified < 0 || s.Verified > s.Wanted || s.Wanted > s.Length || s.Complete && s.Verified < s.Wanted || s.PiecesVerified+s.PiecesStarted > s.Pieces ||
		s.Wasted > s.Downloaded || sum > s.Downloaded || s.Moved > s.ToMove || s.Dialling < 0 || s.State == Seeding && !s.Complete {
		return fmt.Errorf("these figures cannot be: %+v", s)
	}
	if c.Memory < 0 || c.Memory > c.MemoryMost || c.Peers < 0 || c.Dialling < 0 || c.Wasted > c.Downloaded {
		return fmt.Errorf("these figures cannot be: %+v", c)
	}
	return nil
}

// leaveAlone requires that what the user did not end becomes complete.
func (w *userWalk) leaveAlone() {
	w.limit.SetLimit(rate.Inf)
	for _, d := range w.all {
		if !d.ended {
			d.Resume()
			d.Select(nil)
			d.AddPeers(w.seed)
		}
	}
	for _, d := range w.all {
		if d.ended {
			continue
		}
		select {
		case <-d.Done():
			files, err := d.Wait()
			if err != nil {
				w.t.Errorf("failed: %v", err)
				continue
			}
			for f := range files.Files() {
				if err := w.compare(f); !allowedOfUser(err) {
					w.t.Error(err)
				}
			}
		case <-time.After(time.Hour):
			w.t.Errorf("not complete after an hour: %+v", d.Stats())
		}
	}
}

// end closes everything, and requires that nothing is left.
func (w *userWalk) end() {
	for _, d := range w.all {
		require.NoError(w.t, d.Close())
		require.Equal(w.t, Stopped, d.Stats().State)
		if files, err := d.Wait(); err == nil {
			require.NoError(w.t, files.Close())
		}
		d.cancel()
	}
	require.NoError(w.t, w.client.Close())
	w.client.HTTPClient.CloseIdleConnections()
	w.running.Wait()
	conns, listeners := w.options[0].host.Open()
	require.Zero(w.t, conns+listeners, "left open")
	require.Zero(w.t, w.client.Stats().Memory)
	for _, p := range w.peers {
		p.Stop()
	}
	for _, s := range w.web {
		s.Close()
	}
}
