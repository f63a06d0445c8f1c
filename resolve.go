package torrent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/metadata"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/tracker"
)

const (
	// lookupTimeout bounds the search for the addresses of a peer that a link names.
	lookupTimeout = 30 * time.Second
	// lookupAgain is the longest interval between searches that fail.
	lookupAgain = 10 * time.Minute
)

// Resolve fetches the metadata of the torrent from the swarm (BEP 9), and checks it against the info hash. Peers come from the
// link and its trackers, from the DHT, from o.Peers and o.FindPeers, from other peers, and from the local network if the
// client looks there; peers of the torrent may dial the client, too. It uses only the fields Client, Peers, Trackers, FindPeers,
// MaxPeers and StallTimeout of o.
//
// The torrent has the trackers and web seeds of the link, and its Start first tries the peers that sent the metadata.
// To download only the files that the link selects, use m.Priority:
//
//	t, err := m.Resolve(ctx, o)
//	…
//	o.Select = m.Priority
//	files, err := t.DownloadAll(ctx, o)
//
// Resolve continues until ctx ends. The error then matches ctx.Err() and its cause, and holds a *TrackerError for each of
// the trackers that failed last; with StallTimeout it may match ErrStalled. Metadata that has the info hash but is
// malformed or unsupported is refused with the errors of Parse. A link without trackers and peers is refused with
// ErrUnsupported if the client has NoDHT, o names no source of peers, and the client does not look in the local network.
// Client.Stats shows the progress.
func (m *Magnet) Resolve(ctx context.Context, o *Options) (*Torrent, error) {
	if ctx.Err() != nil {
		return nil, contextError(ctx)
	}
	r := &resolver{m: m, parent: ctx, began: time.Now(), turnedOver: time.Now(), waker: newWaker(), peers: make(map[*metadataConn]struct{})}
	if o != nil {
		r.o = *o
	}
	r.client = r.o.Client
	if r.client == nil {
		r.client = &Client{NoListen: true}
		defer r.client.Close()
	}
	if err := r.client.openInTime(ctx); err != nil {
		return nil, err
	}
	release, err := r.client.borrow()
	if err != nil {
		return nil, err
	}
	defer release()
	t, err := r.run()
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", m.id(), err)
	}
	return t, nil
}

// A resolver fetches the metadata of one magnet link. The goroutine of Resolve drives it; each
// connection has two more.
type resolver struct {
	m         *Magnet
	o         Options
	client    *Client
	log       *slog.Logger
	discovery *discovery
	began     time.Time

	parent context.Context // the caller's
	ctx    context.Context // ended by the caller, the client, a stall, or success
	stop   context.CancelCauseFunc
	waker  // of search
	tasks  sync.WaitGroup

	mu           sync.Mutex
	metadata     *metadata.Assembler
	holder       *account.Holder // of its drafts; nil once it has ended
	peers        map[*metadataConn]struct{}
	numbered     int  // connections so far
	accepting    bool // incoming connections are accepted
	accepted     int  // incoming connections that are not ending
	places       peerlist.Places
	turnedOver   time.Time                        // when the worst peers last made room
	work         ratelimit.Accounts[netip.Prefix] // of hosts that left
	banned       []netip.AddrPort                 // since the mutex was taken, for the log
	named        []netip.AddrPort                 // by the link
	served       []netip.AddrPort                 // peers of connections that were of use and are over, the last ones
	info         []byte                           // the metadata; nil until its hash matches
	lastProgress time.Time
	late         bool // it takes longer than resolvesWithin
}

// resolvesWithin is how long a resolver that has peers waits for these before it looks for others, as if it had none.
const resolvesWithin = 30 * time.Second

func (r *resolver) run() (*Torrent, error) {
	r.ctx, r.stop = context.WithCancelCause(r.parent)
	defer r.stop(nil)
	defer context.AfterFunc(r.client.ctx, func() { r.stop(ErrClosed) })()
	r.log = r.client.log.With("magnet", r.m.id(), "infohash", r.m.infoHashes().first)
	r.metadata = metadata.New()
	r.join()
	defer r.leave()
	var tiers [][]string
	for _, url := range r.m.Trackers {
		tiers = append(tiers, []string{url})
	}
	r.discovery = newDiscovery(discoveryConfig{
		client:     r.client,
		hashes:     r.m.infoHashes(),
		tiers:      tiers,
		byUser:     r.o.Trackers,
		find:       r.o.FindPeers,
		log:        r.log,
		ctx:        r.ctx,
		tasks:      &r.tasks,
		mu:         &r.mu,
		progress:   func() tracker.Progress { return tracker.Progress{Left: -1} },
		seeds:      func() bool { return false },
		hungry:     r.hungry,
		take:       r.take,
		changed:    r.signal,
		disconnect: r.disconnect,
	}, r.client.newRand())
	r.discovery.candidates.Lone = true
	defer r.client.showResolver(r)()
	if len(r.m.Peers)+len(r.o.Peers) == 0 && !r.discovery.sources() {
		return nil, fmt.Errorf("no peer to ask: the link names neither trackers nor peers, and the DHT may not be used: %w", ErrUnsupported)
	}
	r.discovery.found(peerlist.FromUser, "", r.o.Peers...)
	for _, peer := range r.m.Peers[:min(len(r.m.Peers), maxMagnetURLs)] {
		r.tasks.Go(func() { r.lookUp(peer) })
	}
	r.tasks.Go(func() { r.discovery.run(r.ctx) })
	r.accepts(true)
	r.search()
	r.accepts(false)
	r.tasks.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), stopAtOnce)
	defer cancel()
	r.discovery.stop(ctx)
	if r.info == nil {
		return nil, r.failure()
	}
	return r.torrent(tiers)
}

// search dials peers and checks the connected ones until the resolver ends.
func (r *resolver) search() {
	r.lastProgress = time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for r.ctx.Err() == nil {
		select {
		case <-r.ctx.Done():
		case <-r.wake:
		case <-timer.C:
		}
		if next := r.turn(time.Now()); !next.IsZero() {
			timer.Reset(max(time.Until(next), 0))
		} else {
			timer.Stop()
		}
	}
}

// turn does everything that is due, and returns the time of the next turn; zero if that waits for a wake.
func (r *resolver) turn(now time.Time) (next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.peers {
		if err := p.source.Overdue(now); err != nil {
			p.end(err)
		}
		p.signal() // the pieces to request from it change with time
	}
	if len(r.peers) > 0 {
		next = now.Add(tick)
		if !r.late && now.Sub(r.began) >= resolvesWithin {
			r.late = true
			r.discovery.wakeSources(true)
		}
	}
	if patience := r.o.StallTimeout; patience > 0 {
		until := r.lastProgress.Add(patience)
		if !now.Before(until) {
			r.stop(fmt.Errorf("%w for %v", ErrStalled, patience))
		}
		if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	if r.ctx.Err() == nil {
		r.makeRoom(now)
		r.discovery.dialDue(len(r.peers), r.o.maxPeers(), now)
	}
	if at, ok := r.discovery.dialAt(len(r.peers), r.o.maxPeers(), now); ok && (next.IsZero() || at.Before(next)) {
		next = at
	}
	return next
}

// makeRoom ends connections in favour of candidates that wait while all places are taken, and of downloads that are below their
// share or have none, as a download does. But a peer that has sent nothing in its first minute is worth less than any candidate.
// The caller holds r.mu.
func (r *resolver) makeRoom(now time.Time) {
	worths := r.worths()
	live, most := len(worths), r.o.maxPeers()
	if n := r.client.excess(live, now); n > 0 {
		for _, id := range peerlist.WorstOfAll(now, worths, n) {
			r.end(id, errShared)
		}
		return
	}
	if live > 0 && r.client.starves(now) {
		r.end(r.client.idlest(worths, now), errTurnover)
		return
	}
	if out := r.client.surplus(worths, now); out != 0 {
		r.end(out, errTurnover)
		return
	}
	if r.client.allTaken(live) {
		most = min(most, live)
	}
	addr, _, waiting := r.discovery.candidates.First(now)
	if !waiting || live < most {
		return
	}
	out := r.places.MakesRoom(now, worths, addr.Addr(), true)
	if out == 0 && !r.discovery.candidates.Yielded(addr) {
		out = r.places.GivesLittle(now, worths, false)
	}
	if out != 0 {
		r.end(out, errTurnover)
	} else if now.Sub(r.turnedOver) >= peerlist.TurnoverEvery {
		r.turnedOver = now
		for _, id := range peerlist.TurnedOver(now, worths, most) {
			r.end(id, errTurnover)
		}
	}
}

// worths returns the worth of each peer. The caller holds r.mu.
func (r *resolver) worths() (worths []peerlist.Worth) {
	for p := range r.peers {
		if p.closing == nil {
			worths = append(worths, r.worth(p))
		}
	}
	return worths
}

// worth returns the worth of a peer, which decides whether it keeps its place. The caller holds r.mu.
func (r *resolver) worth(p *metadataConn) peerlist.Worth {
	joined := p.joined
	if p.idler {
		joined = time.Time{}
	}
	return peerlist.Worth{
		ID: p.id, Addr: p.conn.addr.Addr(), Keep: r.discovery.candidates.Named(p.conn.addr),
		Joined: joined, Earned: p.earned, Priority: r.discovery.candidates.Priority(p.conn.addr),
	}
}

// end ends a connection, if the id is not 0. The caller holds r.mu.
func (r *resolver) end(id int, why error) {
	for p := range r.peers {
		if p.id == id {
			if why == errTurnover && p.earned.IsZero() {
				r.places.PeerLeftIdle(p.conn.addr.Addr(), time.Now())
			}
			p.end(why)
		}
	}
}

func (r *resolver) hungry() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.peers) == 0 || r.late
}

// lookUp adds the addresses of host:port, a peer of the link. They stay candidates however often they fail: the user named them.
func (r *resolver) lookUp(peer string) {
	host, p, err := net.SplitHostPort(peer)
	port, errPort := strconv.ParseUint(p, 10, 16)
	if err = errors.Join(err, errPort); err != nil {
		r.note(fmt.Errorf("peer %s: %w", peer, err))
		return
	}
	ip, err := netip.ParseAddr(host)
	ips := []netip.Addr{ip}
	for wait := time.Second; err != nil; wait = min(2*wait, lookupAgain) { // there may be no network yet
		if ips, err = r.addrsOf(host); err == nil {
			break
		}
		r.note(fmt.Errorf("peer %s: %w", peer, err))
		dns, _ := errors.AsType[*net.DNSError](err)
		if dns != nil && dns.IsNotFound || errors.Is(err, errors.ErrUnsupported) || !pause(wait, r.ctx.Done()) {
			return
		}
	}
	for _, ip := range ips[:min(len(ips), peerlist.MaxPerAddress)] {
		addr := netip.AddrPortFrom(ip.Unmap(), uint16(port))
		r.mu.Lock()
		r.named = append(r.named, addr)
		r.mu.Unlock()
		r.discovery.found(peerlist.FromMagnet, "", addr)
	}
}

// addrsOf looks up a host.
func (r *resolver) addrsOf(host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(r.ctx, lookupTimeout)
	defer cancel()
	return r.client.sockets.LookUp(ctx, host)
}

// note records why a peer was of no use, for the error of Resolve.
func (r *resolver) note(err error) {
	r.log.Debug("peer was of no use", "err", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() == nil {
		r.discovery.lastPeerError = err
	}
}

// join adds the drafts to the client's account. The caller holds r.mu, or no other goroutine has r yet.
func (r *resolver) join() {
	var h *account.Holder
	h = r.client.account.Join(func() { go r.giveWayFor(h) })
	r.holder = h
}

// leave takes the drafts out of the client's account, for good.
func (r *resolver) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holder.Leave()
	r.holder = nil
}

// giveWayFor gives way, unless the resolver has done so since it had the holder, or has ended.
func (r *resolver) giveWayFor(h *account.Holder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holder == h {
		r.giveWay()
	}
}

// charge reports to the account how much the drafts hold, and makes room if that is too much. Data that was requested counts
// in favour of the resolver, but only in part, because it may be false. The caller holds r.mu.
func (r *resolver) charge() {
	if !r.holder.Set(account.Drafts, r.metadata.Held()) {
		r.giveWay()
	}
}

// giveWay drops the longest draft, and the connections to its authors. The caller holds r.mu.
func (r *resolver) giveWay() {
	authors := r.metadata.GiveWay()
	for p := range r.peers {
		if slices.Contains(authors, p.source) {
			p.end(errHoldsMost)
		}
	}
	r.holder.Leave()
	r.join()
	r.holder.Gave(int64(r.metadata.Held() / 2))
	r.charge()
}

// unlock releases the mutex. Then it writes to the log who was banned: a log handler may be slow, or call Stats. The caller holds r.mu.
func (r *resolver) unlock() {
	banned := r.banned
	r.banned = nil
	r.mu.Unlock()
	for _, addr := range banned {
		r.log.Warn("banned", "peer", addr)
	}
}

// ban bans a liar and ends its connections. The caller holds r.mu, and releases it by unlock.
func (r *resolver) ban(addr netip.AddrPort) {
	r.banned = append(r.banned, addr)
	r.discovery.candidates.Ban(addr)
	for p := range r.peers {
		if r.discovery.candidates.Banned(p.conn.addr) {
			p.end(metadata.ErrLied)
		}
	}
}

// judge checks a complete draft of the metadata.
func (r *resolver) judge(d *metadata.Draft) {
	text := d.Text() // no goroutine writes to it any more
	ok := r.m.names(text)
	r.mu.Lock()
	defer r.unlock()
	if ok {
		r.info = text
		r.stop(errDone)
		for _, liar := range r.metadata.Liars(text) {
			r.ban(liar)
		}
		return
	}
	if liar, ok := r.metadata.Refute(d); ok {
		r.ban(liar)
	}
	r.charge()
	for p := range r.peers {
		p.signal()
	}
}

// failure returns the error of Resolve.
func (r *resolver) failure() error {
	err := context.Cause(r.ctx)
	if r.parent.Err() != nil {
		err = contextError(r.parent)
	}
	return inVain(err, r.discovery.trackers, fmt.Sprintf("%d peers tried", r.discovery.tried), r.discovery.lastPeerError)
}

func (r *resolver) stats() ResolveStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := ResolveStats{
		InfoHash: r.m.infoHashes().first, Name: r.m.Name, Since: r.began,
		Peers: len(r.peers), Known: r.discovery.candidates.Known(), Dialling: r.discovery.candidates.Dialling(), Tried: r.discovery.tried,
		Trackers: trackerStats(r.discovery.trackers), PeerErr: asText(r.discovery.lastPeerError),
	}
	s.Metadata, s.Length = r.metadata.Progress()
	return s
}

// torrent returns the result. For a private torrent (BEP 27) it leaves out the peers that the link does not name.
func (r *resolver) torrent(tiers [][]string) (*Torrent, error) {
	t, err := newTorrent(r.info, outer{trackers: tiers, webSeeds: r.m.WebSeeds})
	if err != nil {
		return nil, err
	}
	t.peers = r.named
	if !t.private {
		t.peers = append(t.peers, r.served...)
	}
	slices.SortFunc(t.peers, netip.AddrPort.Compare)
	t.peers = slices.DeleteFunc(slices.Compact(t.peers), r.discovery.candidates.Banned)
	return t, nil
}

// disconnect ends the resolver's connections that are lost.
func (r *resolver) disconnect(lost func(*connection) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.peers {
		if lost(p.conn) {
			p.end(errNetworkChanged)
		}
	}
}
