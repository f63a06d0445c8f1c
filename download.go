package torrent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/storage"
)

const (
	tick            = time.Second
	resumeEvery     = 30 * time.Second
	stopAnnounce    = 5 * time.Second        // for the last announces after Close
	stopAtOnce      = 700 * time.Millisecond // for everything, once the context has ended
	unanswered      = 5 * time.Second        // for storage that may hang, once a context has ended
	maxTrackersSaid = 5                      // trackers whose last errors the error of a download holds
)

// A Download is a torrent that is being checked, downloaded or shared. All methods may be called from any goroutine.
type Download struct {
	// One goroutine, run, drives it; each peer has two more, and hashing and dialling borrow some. One
	// mutex guards what they share. It is held for a look-up or an update, never across I/O. A method that needs it says
	// "The caller holds d.mu." Its caller then releases it by unlock, which follows up what was done.

	// Fixed by Start.
	t            *Torrent
	o            Options
	client       *Client
	identity     identity
	log          *slog.Logger
	uploadLimits ratelimit.Limits
	uploadQueues []*ratelimit.Queue // of these
	digestSeed   maphash.Seed
	unattended   bool // by DownloadAll: no peers are named later
	store        storage.Store
	calls        *storage.Taker // of store
	files        *Downloaded

	added bool // is among the client's downloads; guarded by its mutex
	life  lifetime
	waker // of run

	// Guarded by mu, but for what each says is not.
	mu         sync.Mutex
	rng        *rand.Rand
	picker     *picker.Picker
	discovery  *discovery
	webSeeds   []*webSeed
	swarm      swarm
	assembling assembling
	selection  selection
	reading    reading
	uploading  uploading
	traffic    traffic
	progress   progress
	disk       diskState
	moving     moving
	hashing    hashing
	scarcity   scarcity
	events     subscriptions
	pending    pending
	paused     bool
	nextTick   time.Time
}

// A lifetime holds how a download begins and ends. All but the last four fields may be used without the mutex.
type lifetime struct {
	parent   context.Context // the caller's
	ctx      context.Context // ended by the caller, a failure, Close, or completion without Seed
	stop     context.CancelCauseFunc
	tasks    sync.WaitGroup // peers, dials, hashing, writing
	farewell sync.WaitGroup // the last announces, made while the rest is taken down
	leaving  sync.Once      // the client
	done     chan struct{}  // closed once complete for the first time, or failed for good
	gone     chan struct{}  // closed once nothing of it runs any more

	turn chan struct{} // holds a token while neither the start nor a Recheck or Move looks at all files

	// handing is held while Close has storage rest, and while Wait wakes it: storage may hang, so the mutex is not. It is taken before mu.
	handing   sync.Mutex
	handedOut bool // Wait returned the files: their Close is the caller's; guarded by handing
	resting   bool // Close was called before that, and has storage rest; guarded by handing

	settled    chan struct{} // closed while what is chosen is complete, and once it cannot become so any more
	result     error         // why it failed; fixed when done is closed
	unfinished error         // why what was chosen after done was closed did not become complete
	closing    bool          // Close was called, of the download or its files
}

// awaitTurn waits for the token of turn.
func (l *lifetime) awaitTurn(ctx context.Context) error {
	select {
	case <-l.turn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *lifetime) giveBack() { l.turn <- struct{}{} }

// progress records how far a download is.
type progress struct {
	checking bool
	checked  int64     // bytes hashed of what storage held, at the start or in the last Recheck
	complete bool      // all that is wanted is verified
	fetched  bool      // at least one piece came from a peer
	last     time.Time // when a block or a piece last came
	fed      time.Time // when it was last not hungry, though it has peers
	counted  int64     // bytes that had come by then
	hungry   bool      // see feelHunger
}

// waitsFrom has the download be neither stalled nor hungry by a time until which there was nothing to wait for.
func (p *progress) waitsFrom(now time.Time) { p.last, p.fed = now, now }

// traffic counts the payload of all peers together, and limits requests.
type traffic struct {
	downloaded, uploaded, wasted int64 // bytes
	down, up                     ratelimit.Meter

	gate      ratelimit.Gate // for requests
	throttled bool           // it held requests back; turn comes back to them
	turning   bool           // turn is handling this, and need not be woken
}

// DownloadAll downloads what o chooses, all by default, and returns it once it is complete: Start, then
// Wait. If ctx ends before, it returns an error that matches ctx.Err() and the cause, a few seconds later if the disk hangs.
//
// If something must be fetched and there is no source of peers, DownloadAll fails at once with an error that matches
// ErrUnsupported. This happens if the torrent names neither trackers nor web seeds, o names no peers and no source of peers, and
// neither the DHT nor local discovery may be used (they never are for a private torrent). In that case Start does not fail: it
// logs a warning and waits for peers to connect or to be named by AddPeers.
func (t *Torrent) DownloadAll(ctx context.Context, o *Options) (*Downloaded, error) {
	d, err := t.start(ctx, o, true)
	if err != nil {
		return nil, err
	}
	files, err := d.Wait()
	if err != nil {
		d.Close()
		return nil, err
	}
	return files, nil
}

// Start begins a download and returns at once. The download then verifies what the directory already holds, and
// fetches the rest. ctx spans the whole download, sharing included. If Start returns an error, nothing was begun;
// examples are a directory that cannot be written, content too large for memory, or a closed client.
func (t *Torrent) Start(ctx context.Context, o *Options) (*Download, error) {
	return t.start(ctx, o, false)
}

func (t *Torrent) start(ctx context.Context, o *Options, unattended bool) (*Download, error) {
	d := &Download{
		t:          t,
		unattended: unattended,
		waker:      newWaker(),
		digestSeed: maphash.MakeSeed(),
		life:       lifetime{parent: ctx, done: make(chan struct{}), gone: make(chan struct{}), settled: make(chan struct{}), turn: make(chan struct{}, 1)},
		progress:   progress{checking: true},
		assembling: assembling{pieces: make(map[int32]*assembly), hashing: make(map[int32]*assembly)},
		reading:    reading{changed: make(chan struct{}), readers: make(map[*reader]struct{}), awaited: make(map[int]int)},
	}
	if o != nil {
		d.o = *o
		d.paused = o.Paused
	}
	if t.NumPieces() == 0 {
		return nil, errNoTorrent
	}
	if err := context.Cause(ctx); err != nil {
		return nil, contextError(ctx)
	}
	priority := choosePriorities(t, d.o.Select) // before anything is begun: it may panic
	d.client = d.o.Client
	if d.client == nil {
		d.client = new(Client)
	}
	if err := d.client.openInTime(ctx); err != nil {
		if d.ownClient() {
			d.client.Close()
		}
		return nil, err
	}
	if err := d.open(priority); err != nil {
		if d.ownClient() {
			d.client.Close()
		}
		return nil, err
	}
	go d.run()
	return d, nil
}

// run drives the download from its start until none of its goroutines is left.
func (d *Download) run() {
	defer close(d.life.gone)
	if !d.ownClient() {
		defer d.leaveClient()
	}
	defer context.AfterFunc(d.life.parent, d.hurry)()
	if d.examine() {
		d.share()
	}
	d.finish()
}

// share takes part in the swarm until the download ends.
func (d *Download) share() {
	if d.o.Seed && !d.isPaused() { // before others learn that it is complete
		d.client.serve(d)
	}
	d.becomeComplete()
	if d.inVain() {
		why := fmt.Errorf("no peer to ask: the torrent names neither trackers nor web seeds, and the DHT may not be used: %w", ErrUnsupported)
		if d.unattended {
			d.fail(fmt.Errorf("download %s: %w", d.t.name, why))
		} else {
			d.log.Warn("waits for peers to connect, or to be named", "err", why)
		}
	}
	leave := func() {}
	defer func() { leave() }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for joined := false; d.life.ctx.Err() == nil; {
		if paused := d.isPaused(); paused && joined {
			leave()
			leave, joined = func() {}, false
		} else if !paused && !joined {
			leave, joined = d.joinSwarm(), true
		}
		select {
		case <-d.life.ctx.Done():
		case <-d.wake:
		case <-timer.C:
		}
		d.becomeComplete()
		d.emitState()
		d.seedUntil()
		if next := d.turn(time.Now()); !next.IsZero() {
			timer.Reset(max(time.Until(next), 0))
		} else {
			timer.Stop()
		}
	}
}

// inVain reports whether something must be fetched and there is no source of peers that could have it.
func (d *Download) inVain() bool {
	if d.discovery.sources() || len(d.webSeeds)+len(d.o.Peers)+len(d.t.peers) > 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lacking() && d.discovery.candidates.Known() == 0
}

// joinSwarm accepts and dials peers, and asks sources for more, until leave is called.
func (d *Download) joinSwarm() (leave func()) {
	d.life.farewell.Wait() // of an earlier time: a tracker hears of an end before the next start
	announcing, stopAnnouncing := context.WithCancel(context.WithoutCancel(d.life.ctx))
	d.client.serve(d)
	var announced sync.WaitGroup
	announced.Go(func() { d.discovery.run(announcing) })
	leaveWebSeeds := d.joinWebSeeds()
	return func() {
		leaveWebSeeds()
		d.client.unserve(d)
		d.closePeers()
		stopAnnouncing()
		announced.Wait()
		if d.completedHere() {
			d.discovery.completed()
		}
		// Even the last announces end soon: at once with a context that was cancelled, in a few seconds else.
		patience := stopAnnounce
		if d.life.parent.Err() != nil {
			patience = stopAtOnce
		}
		d.life.farewell.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(d.life.ctx), patience)
			defer cancel()
			d.discovery.stop(ctx)
		})
	}
}

// ended reports whether the download is ending.
func (d *Download) ended() bool { return d.life.ctx.Err() != nil }

// sharing reports whether all that is wanted is here, so that only the peers want something. The caller holds d.mu.
func (d *Download) sharing() bool { return d.progress.complete }

// fail ends the download with an error of its own.
func (d *Download) fail(err error) { d.life.stop(err) }

// failStorage is fail for an error of storage. After Wait has returned, only Stats reports it. The caller holds d.mu.
func (d *Download) failStorage(err error) {
	if errors.Is(err, ErrClosed) && d.ended() {
		return // it was cut short
	}
	d.storageFailed(err)
	d.fail(err)
}

// endByStorage is failStorage, unless the download has ended already. The caller does not hold d.mu.
func (d *Download) endByStorage(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ended() {
		d.failStorage(err)
	}
}

// storageFailed records an error of storage. The caller holds d.mu.
func (d *Download) storageFailed(err error) {
	d.disk.errors++
	d.disk.lastError = err
	d.emit(Event{Kind: StorageFailed, Err: err})
}

// Torrent returns the torrent that is being downloaded.
func (d *Download) Torrent() *Torrent { return d.t }

// Done returns a channel that is closed when the download is complete or has failed; Wait then returns at once. After
// Select has chosen more, or after verified data was lost, Done returns a new channel.
func (d *Download) Done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.life.settled
}

// Wait waits until all chosen files are complete and verified, and returns them, or the error that ended the download. The result
// stays readable after the download is closed, until its own Close. Wait may also be called after Close. Then files in a user's
// Storage can no longer be read, and Wait returns ErrInUse if another download has claimed a path of the files meanwhile.
func (d *Download) Wait() (*Downloaded, error) {
	for {
		<-d.Done()
		if files, err, ok := d.outcome(); ok {
			return files, err
		}
	}
}

// outcome returns the results of Wait. ok is false if Wait has to go on waiting.
func (d *Download) outcome() (files *Downloaded, err error, ok bool) {
	d.mu.Lock()
	settled, err := d.isSettled(), cmp.Or(d.life.result, d.life.unfinished)
	d.mu.Unlock()
	if !settled {
		return nil, nil, false // more was chosen meanwhile
	}
	if err != nil {
		return nil, err, true
	}
	d.life.handing.Lock()
	defer d.life.handing.Unlock()
	if d.life.resting && !d.life.handedOut {
		if err := d.store.Wake(); err != nil {
			return nil, err, true
		}
	}
	d.life.handedOut = true
	return d.files, nil, true
}

// Close stops the download, or the sharing that follows it, and returns once none of its goroutines is left. The files
// in Dir stay, and a later Start continues from them. Slices that Bytes returned stay valid until the Downloaded is
// closed. It must not be called by a function in Options or Client, or by a log handler: it waits for these.
//
// A disk may hang. If the context of Start has ended, Close waits for it no longer than a few seconds, and returns an error that
// matches that of the context. What is left ends once the disk answers.
func (d *Download) Close() error { return inTime(d.life.parent, d.close) }

func (d *Download) close() error {
	d.endSharing()
	d.life.handing.Lock()
	defer d.life.handing.Unlock()
	if d.life.handedOut || d.life.resting {
		return nil
	}
	d.life.resting = true
	if d.hasFailed() {
		return d.files.closeStore() // again, for its error
	}
	return d.store.Rest()
}

// endSharing ends the download, or the sharing that follows it, and waits until nothing of it runs any more.
func (d *Download) endSharing() {
	d.stopMoving()
	d.life.stop(ErrClosed)
	<-d.life.gone
}
