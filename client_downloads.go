package torrent

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/mse"
	"github.com/shoal-go/torrent/internal/peerlist"
)

// A registry holds the downloads of a client by info hash. The client's mutex guards it.
type registry struct {
	downloads map[Hash]*Download      // nil while Start is about to begin it
	serving   map[Hash]*Download      // those that take incoming connections
	searching map[*discovery]struct{} // those that run
	resolving map[*resolver]struct{}  // magnet links
	links     map[Hash][]*resolver    // the same by each of their info hashes
	counted   map[*Download]struct{}  // those whose totals are not in ended yet
	ended     totals                  // of downloads whose goroutines have all ended
	streams   map[[20]byte]stream     // of serving and of links, by what encrypted handshakes show of the info hash
	hybrids   map[Hash]Hash           // from their info hashes of version 2 to the ones that they are known by
}

// A stream is an info hash that encrypted handshakes may name.
type stream struct {
	infoHash Hash
	users    int // downloads and magnet links that take its connections
}

func (r *registry) init() {
	r.downloads = make(map[Hash]*Download)
	r.serving = make(map[Hash]*Download)
	r.streams = make(map[[20]byte]stream)
	r.hybrids = make(map[Hash]Hash)
	r.counted = make(map[*Download]struct{})
	r.searching = make(map[*discovery]struct{})
	r.resolving = make(map[*resolver]struct{})
	r.links = make(map[Hash][]*resolver)
}

// useStream makes an info hash known to encrypted handshakes until leaveStream is called as often.
func (r *registry) useStream(h Hash) {
	id := mse.StreamID(h)
	r.streams[id] = stream{h, r.streams[id].users + 1}
}

func (r *registry) leaveStream(h Hash) {
	id := mse.StreamID(h)
	if s := r.streams[id]; s.users > 1 {
		r.streams[id] = stream{h, s.users - 1}
	} else {
		delete(r.streams, id)
	}
}

// unserve hands no more incoming connections to d.
func (r *registry) unserve(d *Download) {
	if r.serving[d.t.infoHash] == d {
		delete(r.serving, d.t.infoHash)
		for _, h := range d.t.infoHashes().all() {
			r.leaveStream(h)
		}
	}
}

// Downloads yields the downloads that are running, paused and sharing ones included, in no particular order. Downloads that have
// ended or failed are left out: their own Wait and Stats say how they ended. Magnet links that are being resolved are in the
// client's Stats.
func (c *Client) Downloads() iter.Seq[*Download] {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.registry.downloads))
	c.mu.Unlock()
	all = slices.DeleteFunc(all, func(d *Download) bool { return d == nil })
	return slices.Values(all)
}

// Download returns the running download of an info hash, if there is one. A torrent of version 2 is found by the first 20
// bytes of its info hash.
func (c *Client) Download(h Hash) (*Download, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.registry.downloads[c.registry.first(h)]
	return d, d != nil
}

// first returns the info hash by which the client knows the download that has h as one of its info hashes.
func (r *registry) first(h Hash) Hash {
	if first, ok := r.hybrids[h]; ok {
		return first
	}
	return h
}

// add reserves the place of a download that is about to begin; begin or remove follows.
func (c *Client) add(d *Download) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if _, taken := c.registry.downloads[d.t.infoHash]; taken {
		return fmt.Errorf("%w: %s by this client", ErrInUse, d.t.name)
	}
	c.registry.downloads[d.t.infoHash] = nil
	c.countSwarms()
	if second := d.t.infoHashes().second; second != (Hash{}) {
		c.registry.hybrids[second] = d.t.infoHash
	}
	d.added = true
	return nil
}

// begin makes a download that was added visible to others, unless the client was closed since.
func (c *Client) begin(d *Download) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.registry.downloads[d.t.infoHash] = d
	c.registry.counted[d] = struct{}{}
	if !d.ownClient() {
		c.tasks.Add(1) // until run ends
	}
	return nil
}

// serve hands incoming connections to d from now on. It may be called again.
func (c *Client) serve(d *Download) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.registry.serving[d.t.infoHash] == d {
		return
	}
	c.registry.serving[d.t.infoHash] = d
	for _, h := range d.t.infoHashes().all() {
		c.registry.useStream(h)
	}
}

// unserve hands no more incoming connections to d.
func (c *Client) unserve(d *Download) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.registry.unserve(d)
}

// remove forgets a download that was added, the first time that it is called.
func (c *Client) remove(d *Download) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !d.added {
		return
	}
	d.added = false
	c.budget.Forget(d.discovery)
	delete(c.registry.downloads, d.t.infoHash)
	c.countSwarms()
	c.registry.unserve(d)
	for _, h := range d.t.infoHashes().all() {
		delete(c.registry.hybrids, h)
	}
}

// showResolver shows r in Stats, and lets acceptorFor find it, until hide is called.
func (c *Client) showResolver(r *resolver) (hide func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := &c.registry
	hashes := r.discovery.hashes.all()
	g.resolving[r] = struct{}{}
	c.countSwarms()
	for _, h := range hashes {
		g.links[h] = append(g.links[h], r)
		g.useStream(h)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.budget.Forget(r.discovery)
		delete(g.resolving, r)
		c.countSwarms()
		for _, h := range hashes {
			g.links[h] = slices.DeleteFunc(g.links[h], func(other *resolver) bool { return other == r })
			if len(g.links[h]) == 0 {
				delete(g.links, h)
			}
			g.leaveStream(h)
		}
	}
}

// An acceptor takes the incoming connections of a swarm.
type acceptor struct {
	hashes infoHashes
	take   func(*connection, peerlist.Source) bool // false if the connection is not wanted; the caller closes it then
}

// acceptorFor returns the acceptor for an info hash. It is that of a download, or of a magnet link that is being resolved: if
// the same link is resolved more than once at a time, of the resolver with the fewest connections.
func (c *Client) acceptorFor(h Hash) (to acceptor, ok bool) {
	d, links := c.acceptors(h)
	if d != nil {
		return acceptor{d.t.infoHashes(), d.addPeer}, true
	}
	fewest := 0
	for _, r := range links {
		if n, accepting := r.connections(); accepting && (!ok || n < fewest) {
			to, fewest, ok = acceptor{r.discovery.hashes, r.accept}, n, true
		}
	}
	return to, ok
}

// acceptors returns what takes the incoming connections of an info hash: a download, or else magnet links.
func (c *Client) acceptors(h Hash) (*Download, []*resolver) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.registry.serving[c.registry.first(h)]; d != nil {
		return d, nil
	}
	return nil, slices.Clone(c.registry.links[h])
}

// stream returns the info hash that an encrypted handshake names by id, its stream identifier.
func (c *Client) stream(id [20]byte) (infoHash [20]byte, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.registry.streams[id]
	return s.infoHash, ok
}

// claim returns the claim of a download, or of a magnet link, that has so many connections. The caller holds c.mu.
func (c *Client) claim(has int) peerlist.Claim {
	return peerlist.Claim{Has: has, Sharing: len(c.registry.serving) + len(c.registry.resolving), Most: c.maxPeers()}
}

// maxPeers is the bound on the connections of all downloads together.
func (c *Client) maxPeers() int {
	if c.MaxPeers > 0 {
		return c.MaxPeers
	}
	return defaultClientPeers
}

// dialClaim returns the claim for the next dial of a discovery. Discoveries that are refused take turns. The caller holds c.mu.
func (c *Client) dialClaim(by *discovery, has int) peerlist.Claim {
	claim := c.claim(has)
	claim.By = by
	return claim
}

// wakeWaiting wakes the discoveries whose turn it is to dial. The caller holds c.mu.
func (c *Client) wakeWaiting(now time.Time) {
	for by := range c.budget.Turn(now) {
		by.(*discovery).changed()
	}
}

// excess returns how many connections of a download that has so many must make room for those of another download
// now.
func (c *Client) excess(has int, now time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.Excess(c.claim(has), now)
}

// surplus returns the peer of those of a download that makes room for others of the client, because its network has more than its
// share of all connections; 0 if none does.
func (c *Client) surplus(peers []peerlist.Worth, now time.Time) (id int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.Surplus(c.claim(len(peers)), peers, now)
}

// areWanted reports whether a download has recently wanted more connections than its share.
func (c *Client) areWanted(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.AreWanted(now)
}

// starves reports whether a download waits in vain for its first connection, because there are more downloads than connections.
func (c *Client) starves(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.Starves(c.claim(0), now)
}

// idlest returns the peer of those of a download that makes room for a download that starves; 0 if none does.
func (c *Client) idlest(peers []peerlist.Worth, now time.Time) (id int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.Idlest(now, peers)
}

// allTaken reports whether a download with so many connections, which are its share, gets another only in the place
// of one of them.
func (c *Client) allTaken(has int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.AllTaken(c.claim(has))
}

// mayDial reports whether a discovery whose owner has so many connections may make one more now, to an address, and
// counts it if so.
func (c *Client) mayDial(by *discovery, has int, addr netip.Addr, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ok := c.budget.Dial(c.dialClaim(by, has), addr, now)
	if !ok {
		c.wakeWaiting(now)
	}
	return ok
}

// targetAt returns when a discovery whose owner has so many connections may dial an address, as far as other dials of the same host,
// and connections to its network, decide it.
func (c *Client) targetAt(by *discovery, has int, addr netip.Addr, from peerlist.Source, now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.TargetAt(c.dialClaim(by, has), addr, from, now)
}

// redial waits until a dial that is under way may connect again.
func (c *Client) redial(ctx context.Context, addr netip.Addr) error {
	for {
		c.mu.Lock()
		wait := c.budget.Redial(addr, time.Now())
		c.mu.Unlock()
		if wait == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// endDial follows mayDial, and joinedPeer if a connection came of it.
func (c *Client) endDial() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.EndDial()
	c.wakeWaiting(time.Now())
}

// dialAt is when a discovery whose owner has so many connections is to dial its next candidate, if that is known. The
// caller holds by.mu.
func (c *Client) dialAt(by *discovery, has int, now time.Time) (at time.Time, ok bool) {
	at, ok = by.candidates.Due()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.DialAt(c.dialClaim(by, has), at, now), ok
}

// mayJoin reports whether a download with so many connections may take one that a peer made, and counts it if so.
func (c *Client) mayJoin(has int, peer netip.Addr, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.countPeers()
	return c.budget.Accept(c.claim(has), peer, now)
}

// freePlaces returns how many more connections a download with so many may have, as far as the client bounds them.
func (c *Client) freePlaces(has int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.Free(c.claim(has))
}

// refusesPeer reports whether mayJoin would be false also if another connection made room.
func (c *Client) refusesPeer(has int, peer netip.Addr, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.Refuses(c.claim(has), peer, now)
}

// joinedPeer reports whether a download with so many connections may take one that it dialled, and counts it if so; leftPeer
// ends any.
func (c *Client) joinedPeer(has int, peer netip.Addr, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.countPeers()
	return c.budget.Join(c.claim(has), peer, now)
}

// replacedPeer counts a connection that takes the place of another one to the same peer; leftPeer for that one is called next.
func (c *Client) replacedPeer(peer netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.Replace(peer)
}

func (c *Client) leftPeer(peer netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.countPeers()
	c.budget.Left(peer)
}

// countPeers follows a change of the connections in the budget. The caller holds c.mu.
func (c *Client) countPeers() {
	connected, _ := c.budget.InUse()
	c.peers.Store(int64(connected))
}

// countSwarms follows a change of the downloads and magnet links in the registry. The caller holds c.mu.
func (c *Client) countSwarms() {
	c.swarms.Store(int64(len(c.registry.downloads) + len(c.registry.resolving)))
}

// workRate returns how many steps of work a second each peer of the client may cause.
func (c *Client) workRate() float64 {
	return min(workRate, float64(workOfAll)/float64(max(1, c.peers.Load())))
}

// roundEvery returns how often messages of peers may cause work for all other peers of a download.
func (c *Client) roundEvery() time.Duration {
	return max(roundEvery, time.Duration(c.peers.Load())*roundEach)
}
