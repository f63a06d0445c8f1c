package torrent

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/dht"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/sockets"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/tracker"
)

// A discovery finds the peers of one torrent, and dials them. For a hybrid it finds the peers of both swarms (BEP 52). It owns
// the candidates and the sources that name them: trackers, the DHT, local discovery and the user's own function. Peer exchange
// passes addresses to it. A Download has one, and so has Magnet.Resolve. ARCHITECTURE.md says
// what a new source needs.
type discovery struct {
	discoveryConfig
	trackers *tracker.Announcer // with the first info hash
	second   *tracker.Announcer // with the second; nil if there is none
	hunger   waker              // of the user's own function
	keeping  keeping

	// Guarded by the owner's mutex.
	candidates    *peerlist.List
	tried         int // addresses dialled so far
	fromDHT       int // addresses that the DHT was the first to name
	lastPeerError error
}

// discoveryConfig holds the settings and callbacks of a discovery's owner. Callbacks are called without the mutex,
// unless they say otherwise.
type discoveryConfig struct {
	client  *Client
	hashes  infoHashes
	upgrade bool                                                 // connections to peers of a hybrid are of version 2 where they can be
	private bool                                                 // only trackers and the user name peers (BEP 27)
	tiers   [][]string                                           // of the torrent or link
	byUser  [][]string                                           // tiers
	nodes   []string                                             // of the DHT, as host:port
	find    func(context.Context, Hash) iter.Seq[netip.AddrPort] // the user's own; may be nil
	log     *slog.Logger

	ctx   context.Context // ends with the owner
	tasks *sync.WaitGroup // of the owner
	mu    *sync.Mutex     // the owner's

	progress func() tracker.Progress
	seeds    func() bool                             // all of the content is here
	hungry   func() bool                             // peers are wanted, and none is connected that sends much
	dropped  func(tracker string)                    // another tracker of a private torrent took over (BEP 27)
	take     func(*connection, peerlist.Source) bool // a connection was made; false has it closed
	changed  func()                                  // there may be more to dial; called with any mutex held
	failed   func(addr netip.AddrPort)               // a candidate could not be reached; may be nil

	disconnect func(lost func(*connection) bool) // ends connections that the network has lost

	heard func(tracker string, peers int, warning string, err error) // a tracker answered or failed; may be nil
}

const (
	// cutOffPause is how long a candidate waits that could not be dialled because the proxy was out of reach or the
	// address of Bind was gone.
	cutOffPause = 5 * time.Second

	// joinAgain is how soon a torrent tries to join the DHT again, and a client to open its UDP sockets, if none can be opened; it
	// doubles up to a minute.
	joinAgain = time.Second

	// maxTorrentNodes is how many nodes that a torrent names the DHT is told of, so that there is room for those of others.
	maxTorrentNodes = 16

	// inFirstSwarm and inSecondSwarm mark the way of a candidate that was named in the swarm of the first info hash, and of one
	// that is dialled with the second. A candidate of both swarms is dialled with the first info hash, which it knows even if it
	// does not support version 2.
	inFirstSwarm  = 0x40
	inSecondSwarm = 0x80
)

// newDiscovery returns a discovery. It asks no source before run.
func newDiscovery(c discoveryConfig, rng *rand.Rand) *discovery {
	f := &discovery{discoveryConfig: c, candidates: peerlist.New(rng, c.private), hunger: newWaker()}
	f.trackers = f.newAnnouncer(c.hashes.first)
	if c.hashes.second != (Hash{}) {
		f.second = f.newAnnouncer(c.hashes.second)
	}
	return f
}

// newAnnouncer returns an announcer of one info hash to the trackers. Answers of trackers are reported for the first info hash
// only.
func (f *discovery) newAnnouncer(h Hash) *tracker.Announcer {
	c := &f.discoveryConfig
	identity := c.client.identity(c.hashes.first)
	config := tracker.Config{
		Tiers: c.tiers, UserTiers: c.byUser,
		InfoHash: h,
		PeerID:   identity.id,
		Key:      identity.key,
		Private:  c.private,
		HTTP:     c.client.http,
		UDP:      c.client.udp,
		Pace:     c.client.pace,
		Account:  c.client.account,
		Lookup:   c.client.lookUpForStrangers(),
		Port:     c.client.publicPort,
		Progress: c.progress,
		Found:    func(url string, peers []netip.AddrPort) { f.foundIn(h, peerlist.FromTracker, url, peers...) },
		Hungry:   c.hungry,
		Rand:     c.client.newRand(),
		Log:      c.log,
	}
	if h == c.hashes.first {
		config.Dropped, config.Heard = c.dropped, f.trackerHeard
	}
	return tracker.New(config)
}

// announcers yields the announcers of all info hashes.
func (f *discovery) announcers(yield func(*tracker.Announcer) bool) {
	if yield(f.trackers) && f.second != nil {
		yield(f.second)
	}
}

// stop announces to all trackers that we leave, until ctx ends.
func (f *discovery) stop(ctx context.Context) {
	var stopping sync.WaitGroup
	for a := range f.announcers {
		stopping.Go(func() { a.Stop(ctx) })
	}
	stopping.Wait()
}

// addTrackers adds the trackers of a user.
func (f *discovery) addTrackers(urls []string) {
	for a := range f.announcers {
		a.Add(urls...)
	}
}

// trackerHeard passes on the answer or the error of a tracker.
func (f *discovery) trackerHeard(s tracker.Status) {
	if f.heard == nil {
		return
	}
	if s.Err != nil {
		f.heard(s.URL, 0, "", (*TrackerError)(s.Err))
	} else {
		f.heard(s.URL, s.Peers, s.Warning, nil)
	}
}

// sources reports whether there is a source to ask.
func (f *discovery) sources() bool {
	return len(f.tiers)+len(f.byUser) > 0 || f.find != nil || !f.private && (f.client.hasLocal() || !f.client.NoDHT)
}

// run asks all sources until ctx ends, and returns when nothing is under way any more.
func (f *discovery) run(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	defer f.register()()
	f.knowExternal()
	if !f.private {
		for _, h := range f.hashes.all() {
			defer f.client.lookLocally(h, func(a netip.AddrPort) bool { return f.foundIn(h, peerlist.FromLSD, "", a) })()
		}
	}
	if !f.private {
		joining := make(chan func(), 1)
		go func() { joining <- f.joinDHT(ctx) }() // which other sources do not wait for
		defer func() { (<-joining)() }()
	}
	if f.find != nil {
		asking.Go(func() { f.runFind(ctx) })
	}
	if f.second != nil {
		asking.Go(func() { f.second.Run(ctx) })
	}
	f.trackers.Run(ctx)
}

// register informs the discovery of changes of the network until stop is called.
func (f *discovery) register() (stop func()) {
	f.client.mu.Lock()
	defer f.client.mu.Unlock()
	f.client.registry.searching[f] = struct{}{}
	return func() {
		f.client.mu.Lock()
		defer f.client.mu.Unlock()
		delete(f.client.registry.searching, f)
	}
}

// joinDHT looks for peers in the DHT, and announces us there, until stop is called. It ends with ctx.
func (f *discovery) joinDHT(ctx context.Context) (stop func()) {
	node, err := f.client.joinDHT(ctx)
	if err != nil && !errors.Is(err, errNoDHT) {
		f.log.Info("no DHT", "err", err)
	}
	for wait := joinAgain; err != nil; wait = min(2*wait, time.Minute) { // a socket may be opened later
		if errors.Is(err, ErrUnsupported) || errors.Is(err, ErrClosed) || !pause(wait, ctx.Done()) {
			return func() {}
		}
		node, err = f.client.joinDHT(ctx)
	}
	f.client.locate(node)
	for _, n := range f.nodes[:min(len(f.nodes), maxTorrentNodes)] {
		node.AddHost(n)
	}
	f.keep(node)
	return func() { f.keep(nil) }
}

// keeping holds the announces that the DHT repeats while run does. It has a mutex of its own, taken after others.
type keeping struct {
	mu   sync.Mutex
	node *dht.Node
	kept []*dht.Kept // one an info hash
}

// get returns the announces that the DHT repeats.
func (k *keeping) get() []*dht.Kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept
}

// keep makes a node repeat the announces of the torrent. If node is nil, none does any more.
func (f *discovery) keep(node *dht.Node) { f.keepBy(func() *dht.Node { return node }) }

// keepBy replaces the announces that the DHT repeats by those of the node that choose returns, which is called with the mutex of
// keeping held.
func (f *discovery) keepBy(choose func() *dht.Node) {
	seed := f.seeds()
	f.keeping.mu.Lock()
	node, old := choose(), f.keeping.kept
	f.keeping.node, f.keeping.kept = node, nil
	if node != nil {
		for _, h := range f.hashes.all() {
			t := dht.Torrent{Hash: dht.ID(h), Port: f.client.publicPort(), Seed: seed}
			f.keeping.kept = append(f.keeping.kept, node.Keep(t, func(by netip.Addr, peers []netip.AddrPort) { f.foundByDHT(h, by, peers) }))
		}
	}
	f.keeping.mu.Unlock()
	for _, kept := range old {
		kept.Close()
	}
}

// foundByDHT takes peers that a node names. There are none when a lookup has ended: if the owner is hungry by then, the next
// one comes sooner.
func (f *discovery) foundByDHT(h Hash, by netip.Addr, peers []netip.AddrPort) {
	if len(peers) > 0 {
		f.foundIn(h, peerlist.FromDHT, peerlist.Network(by), peers...)
		return
	}
	if f.hungry() {
		f.hurryDHT()
	}
}

// hurryDHT has the DHT looked in sooner. It never waits.
func (f *discovery) hurryDHT() {
	for _, kept := range f.keeping.get() {
		kept.Hurry()
	}
}

// portChanged announces a torrent again because peers reach us at another port now. If the announces to the DHT have ended, they
// stay so.
func (f *discovery) portChanged() {
	for a := range f.announcers {
		a.Announce()
	}
	f.keepBy(func() *dht.Node { return f.keeping.node })
}

// networkChanged asks sources again and dials candidates again, because our address has changed or the network is
// back. first is as in networkSettled.
func (f *discovery) networkChanged(first bool) {
	now := time.Now()
	f.mu.Lock()
	f.candidates.Revive(now)
	if first {
		f.candidates.ForgetVotes()
	}
	f.mu.Unlock()
	if first {
		for a := range f.announcers {
			a.Moved()
		}
	} else {
		f.announce()
	}
	f.hunger.signal()
	f.changed()
}

// knowExternal orders candidates by our external addresses that routers report (BEP 40).
func (f *discovery) knowExternal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.client.externals() {
		f.candidates.SetExternal(a)
	}
}

// completed tells sources that all of the content is here.
func (f *discovery) completed() {
	for a := range f.announcers {
		a.Complete()
	}
	for _, kept := range f.keeping.get() {
		kept.SetSeed(true)
	}
}

// announce asks all sources as soon as they allow.
func (f *discovery) announce() {
	for a := range f.announcers {
		a.Announce()
	}
	f.hurryDHT()
}

// wakeSources makes sources look again at when to ask, because the result of hungry has changed. It never waits.
func (f *discovery) wakeSources(hungry bool) {
	for a := range f.announcers {
		a.Wake()
	}
	f.hunger.signal()
	if hungry {
		f.hurryDHT()
	}
}

// found is like foundIn, for sources that do not say which swarm of the torrent a peer is in.
func (f *discovery) found(from peerlist.Source, by string, addrs ...netip.AddrPort) {
	f.foundIn(Hash{}, from, by, addrs...)
}

// foundIn takes addresses that a source names in the swarm of an info hash, and reports whether one of them is new. by is
// as in List.Add.
func (f *discovery) foundIn(h Hash, from peerlist.Source, by string, addrs ...netip.AddrPort) (news bool) {
	now := time.Now()
	f.mu.Lock()
	for _, a := range addrs {
		if f.add(a, from, by, now) {
			news = true
			if from == peerlist.FromDHT {
				f.fromDHT++
			}
		}
		switch noted := f.candidates.Way(a); {
		case f.second == nil:
		case h == f.hashes.first:
			f.candidates.SetWay(a, noted&^inSecondSwarm|inFirstSwarm)
		case h == f.hashes.second && noted&inFirstSwarm == 0:
			f.candidates.SetWay(a, noted|inSecondSwarm)
		}
	}
	f.mu.Unlock()
	f.changed()
	return news
}

// add takes an address that a source names. The caller holds f.mu.
func (f *discovery) add(a netip.AddrPort, from peerlist.Source, by string, now time.Time) (news bool) {
	f.bound()
	return f.client.sockets.Reaches(a.Addr()) && f.client.allows(a.Addr().Unmap()) && f.candidates.Add(a, from, by, now)
}

// bound keeps no more candidates than the downloads and magnet links of the client may. The caller holds f.mu.
func (f *discovery) bound() { f.candidates.Bound(peerlist.Share(int(f.client.swarms.Load()))) }

// dialDue dials the candidates that are due, within the bounds of the client and those of the owner, which has live
// connections and may have most. The caller holds f.mu.
func (f *discovery) dialDue(live, most int, now time.Time) {
	f.bound()
	for live+f.candidates.Dialling() < most {
		// The client is asked last, because it counts a dial that it allows.
		addr, from, ok := f.candidates.First(now)
		if !ok {
			return
		}
		if at := f.client.targetAt(f, live, addr.Addr(), from, now); at.After(now) {
			f.candidates.Postpone(addr, at)
			continue
		}
		if !f.client.mayDial(f, live, addr.Addr(), now) {
			return
		}
		f.candidates.Next(now)
		f.tried++
		f.tasks.Go(func() { f.dial(addr, from) })
	}
}

// dialAt is when the next candidate is to be dialled, if that is known. The caller holds f.mu.
func (f *discovery) dialAt(live, most int, now time.Time) (at time.Time, ok bool) {
	if live+f.candidates.Dialling() >= most {
		return at, false
	}
	return f.client.dialAt(f, live, now)
}

// dial connects to a candidate by the ways given, or by any if there are none, and hands the connection to the owner.
func (f *discovery) dial(addr netip.AddrPort, from peerlist.Source, ways ...way) {
	f.mu.Lock()
	noted := f.candidates.Way(addr)
	f.mu.Unlock()
	in := f.hashes.first
	if noted&inSecondSwarm != 0 {
		in = f.hashes.second
	}
	punched := len(ways) > 0
	if !punched {
		ways = f.client.transport.ways(way(noted &^ (inFirstSwarm | inSecondSwarm)))
	}
	k, err := f.client.connect(f.ctx, addr, f.hashes, in, ways)
	if err == nil && f.upgrade && f.hashes.leftInFirst(k) {
		k, err = f.client.reconnect(f.ctx, k, f.hashes)
	}
	f.mu.Lock()
	if err == nil {
		noted &= inFirstSwarm | inSecondSwarm
		if f.hashes.second != (Hash{}) && k.v2 {
			noted |= inSecondSwarm
		}
		f.candidates.SetWay(addr, uint8(k.way)|noted)
	} else if f.hashes.second != (Hash{}) {
		f.candidates.SetWay(addr, noted^inSecondSwarm) // it may know the other info hash alone
	}
	if storage.Exhausted(err) {
		f.candidates.Postpone(addr, time.Now().Add(tick)) // it is not the candidate's fault
	} else if errors.Is(err, sockets.ErrCutOff) {
		f.candidates.Postpone(addr, time.Now().Add(cutOffPause)) // nor is this
	}
	wanted := f.candidates.Dialled(addr, err == nil, time.Now())
	if errors.Is(err, errSelf) {
		f.candidates.ExcludeSelf(addr)
	}
	if err != nil && f.ctx.Err() == nil {
		f.lastPeerError = err
	}
	f.mu.Unlock()
	if err != nil {
		f.log.Debug("dial", "peer", addr, "err", err)
		if !punched && f.failed != nil {
			f.failed(addr)
		}
	} else if !wanted || !f.take(k, from) {
		k.Close()
	}
	f.client.endDial()
	f.changed()
}
