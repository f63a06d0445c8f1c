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

// A discovery finds the peers of one torrent, and dials them: those of both swarms, if it is a hybrid (BEP 52). It owns the
// candidates and every source that names some: trackers, the DHT, local discovery, a user's own function; peer exchange hands it
// what it hears. A Download has one and so has Magnet.Resolve. A new source is a constant of internal/peerlist and a line in run.
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

// discoveryConfig is what the owner of a discovery gives it. No callback is called with the mutex held.
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
	hungry   func() bool                             // no peer is connected, though some are wanted
	dropped  func(tracker string)                    // another tracker of a private torrent took over (BEP 27)
	take     func(*connection, peerlist.Source) bool // a connection was made; false has it closed
	changed  func()                                  // there may be more to dial; called with any mutex held
	failed   func(addr netip.AddrPort)               // a candidate could not be reached; may be nil

	disconnect func(lost func(*connection) bool) // ends connections that the network has lost

	heard func(tracker string, peers int, warning string, err error) // a tracker answered or failed; may be nil
}

const (
	// findEvery is when a user's own function is asked again, and findHungry when no peer is connected.
	findEvery  = 15 * time.Minute
	findHungry = time.Minute
	// cutOffPause is when a candidate is dialled again that could not be, because the proxy or the address that we
	// are bound to was out of reach.
	cutOffPause = 5 * time.Second

	// maxTorrentNodes is how many nodes that a torrent names the DHT is told of, so that there is room for those of others.
	maxTorrentNodes = 16

	// inFirstSwarm and inSecondSwarm mark the way of a candidate that was named in the swarm of the first info hash, and of one
	// that is dialled with the second. Whoever is in both is dialled with the first, which it knows even if it has no version 2.
	inFirstSwarm  = 0x40
	inSecondSwarm = 0x80
)

// newDiscovery returns a discovery that asks no source before run.
func newDiscovery(c discoveryConfig, rng *rand.Rand) *discovery {
	f := &discovery{discoveryConfig: c, candidates: peerlist.New(rng, c.private), hunger: newWaker()}
	f.trackers = f.newAnnouncer(c.hashes.first)
	if c.hashes.second != (Hash{}) {
		f.second = f.newAnnouncer(c.hashes.second)
	}
	return f
}

// newAnnouncer returns what announces one info hash to the trackers. What the trackers say is reported for the first hash only.
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

// announcers yields those of all info hashes.
func (f *discovery) announcers(yield func(*tracker.Announcer) bool) {
	if yield(f.trackers) && f.second != nil {
		yield(f.second)
	}
}

// stop tells all trackers that we leave, until ctx ends.
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

// trackerHeard hands on what a tracker said, or why it said nothing.
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

// sources reports whether there is any source to ask.
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
		defer f.joinDHT()()
	}
	if f.find != nil {
		asking.Go(func() { f.runFind(ctx) })
	}
	if f.second != nil {
		asking.Go(func() { f.second.Run(ctx) })
	}
	f.trackers.Run(ctx)
}

// register has the discovery hear of changes of the network until stop is called.
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

// joinDHT has the DHT look for peers, and announce us, until stop is called.
func (f *discovery) joinDHT() (stop func()) {
	node, err := f.client.joinDHT()
	if err != nil {
		if !errors.Is(err, errNoDHT) {
			f.log.Info("no DHT", "err", err)
		}
		return func() {}
	}
	f.client.locate(node)
	for _, n := range f.nodes[:min(len(f.nodes), maxTorrentNodes)] {
		node.AddHost(n)
	}
	f.keep(node)
	return func() { f.keep(nil) }
}

// keeping is the torrent as the DHT keeps it announced while run does. It has a mutex of its own, taken after others.
type keeping struct {
	mu   sync.Mutex
	node *dht.Node
	kept []*dht.Kept // one an info hash
}

// get is what the DHT keeps.
func (k *keeping) get() []*dht.Kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept
}

// keep has a node keep the torrent announced, or none.
func (f *discovery) keep(node *dht.Node) {
	seed := node != nil && f.seeds()
	f.keeping.mu.Lock()
	old := f.keeping.kept
	f.keeping.node, f.keeping.kept = node, nil
	if node != nil {
		for _, h := range f.hashes.all() {
			f.keeping.kept = append(f.keeping.kept, node.Keep(dht.Torrent{Hash: dht.ID(h), Port: f.client.publicPort(), Seed: seed}, func(peers []netip.AddrPort) {
				f.foundIn(h, peerlist.FromDHT, "", peers...)
			}))
		}
	}
	f.keeping.mu.Unlock()
	for _, kept := range old {
		kept.Close()
	}
}

// portChanged announces a torrent again because peers reach us at another port now.
func (f *discovery) portChanged() {
	for a := range f.announcers {
		a.Announce()
	}
	f.keeping.mu.Lock()
	node := f.keeping.node
	f.keeping.mu.Unlock()
	if node != nil {
		f.keep(node)
	}
}

// networkChanged asks sources again and dials candidates again, because our address has changed or the network is
// back. first is as in networkSettled.
func (f *discovery) networkChanged(first bool) {
	now := time.Now()
	f.mu.Lock()
	f.candidates.Revive(now)
	f.mu.Unlock()
	if first {
		f.trackers.Moved()
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

// announce has all sources asked as soon as they allow.
func (f *discovery) announce() {
	for a := range f.announcers {
		a.Announce()
	}
	for _, kept := range f.keeping.get() {
		kept.Hurry()
	}
}

// runFind asks the user's own function until ctx ends.
func (f *discovery) runFind(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for asked := (time.Time{}); ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-f.hunger.wake:
		}
		due := asked.Add(findEvery)
		if f.hungry() {
			due = asked.Add(findHungry)
		}
		if wait := time.Until(due); !asked.IsZero() && wait > 0 {
			timer.Reset(wait)
			continue
		}
		asked = time.Now()
		for _, h := range f.hashes.all() {
			for a := range f.find(ctx, h) {
				f.foundIn(h, peerlist.FromFinder, "", a)
				if ctx.Err() != nil {
					return
				}
			}
		}
		f.hunger.signal() // to compute when it is asked again
	}
}

// wakeSources has sources asked sooner because what hungry says has changed. It never waits.
func (f *discovery) wakeSources() {
	for a := range f.announcers {
		a.Wake()
	}
	f.hunger.signal()
	for _, kept := range f.keeping.get() {
		kept.Hurry()
	}
}

// found is foundIn for sources that name peers of the torrent, and not of one of its swarms.
func (f *discovery) found(from peerlist.Source, tracker string, addrs ...netip.AddrPort) (news bool) {
	return f.foundIn(Hash{}, from, tracker, addrs...)
}

// foundIn takes addresses that a source names in the swarm of an info hash, for trackers with the URL, and reports whether there
// was news among them.
func (f *discovery) foundIn(h Hash, from peerlist.Source, tracker string, addrs ...netip.AddrPort) (news bool) {
	now := time.Now()
	f.mu.Lock()
	for _, a := range addrs {
		if f.add(a, from, tracker, now) {
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
	return f.client.sockets.Reaches(a.Addr()) && f.client.allows(a.Addr().Unmap()) && f.candidates.Add(a, from, by, now)
}

// dialDue dials the candidates that are due, within the bounds of the client and those of the owner, which has live
// connections and may have most. The caller holds f.mu.
func (f *discovery) dialDue(live, most int, now time.Time) {
	for live+f.candidates.Dialling() < most {
		// The client is asked last, because it counts a dial that it allows.
		addr, from, ok := f.candidates.First(now)
		if !ok {
			return
		}
		if at := f.client.targetAt(addr.Addr(), from, now); at.After(now) {
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
		f.candidates.NotDialled(addr, time.Now().Add(tick)) // it is not the candidate's fault
	} else if errors.Is(err, sockets.ErrCutOff) {
		f.candidates.NotDialled(addr, time.Now().Add(cutOffPause)) // nor is this
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
