package dht

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	maxSwarms     = 2000
	maxSwarmPeers = 500
	maxPeers      = 10_000 // of all swarms, which bounds memory
	peerLife      = 45 * time.Minute

	maxSample      = 20
	sampleInterval = 6 * time.Hour // the longest that BEP 51 allows, since no node needs many
)

// peerStore holds the peers that were announced to us (BEP 5), of one family: of a swarm one a node's address (BEP
// 33), for 45 minutes. When it is full, it evicts swarms and peers of the networks that have the most.
type peerStore struct {
	rng    *rand.Rand
	start  time.Time // what the ages of peers are counted from
	swarms map[ID]*swarm
	makers makers // of swarms
	peers  int    // of all swarms

	sample   []ID
	sampleAt time.Time
}

// swarm is the peers of one info hash, in no order.
type swarm struct {
	maker maker // its first announcer
	peers []storedPeer
}

// storedPeer is small, since there are many.
type storedPeer struct {
	ip   [16]byte
	at   uint32 // seconds since the store's start
	port uint16
	seed bool
}

func (p *storedPeer) addr() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(p.ip).Unmap(), p.port)
}

func newPeerStore(now time.Time, rng *rand.Rand) peerStore {
	return peerStore{rng: rng, start: now, swarms: make(map[ID]*swarm), makers: make(makers)}
}

// room reports whether a peer of the swarm would be stored if it were announced from the address; if not,
// no token is given for it.
func (s *peerStore) room(self, hash ID, from netip.AddrPort) bool {
	if s.swarms[hash] != nil || len(s.swarms) < maxSwarms {
		return true
	}
	_, ok := s.victim(self, hash, from)
	return ok
}

func (s *peerStore) victim(self, hash ID, from netip.AddrPort) (ID, bool) {
	return victim(s.swarms, func(w *swarm) maker { return w.maker }, s.makers, self, hash, makerOf(from))
}

// announce stores a peer that showed a token, or refreshes it. It reports false if there is no room.
func (s *peerStore) announce(now time.Time, self, hash ID, peer netip.AddrPort, seed bool) bool {
	w := s.swarms[hash]
	if w == nil {
		if len(s.swarms) >= maxSwarms {
			old, ok := s.victim(self, hash, peer)
			if !ok {
				return false
			}
			s.drop(old)
		}
		w = &swarm{maker: makerOf(peer)}
		s.swarms[hash] = w
		s.makers.add(w.maker, 1)
	}
	p := storedPeer{peer.Addr().As16(), s.seconds(now), peer.Port(), seed}
	if i := w.index(peer); i >= 0 {
		w.peers[i] = p
		return true
	}
	if len(w.peers) >= maxSwarmPeers {
		w.peers[w.spare()] = p
		return true
	}
	if s.peers >= maxPeers {
		s.takeOne(w)
	}
	if len(w.peers) == cap(w.peers) {
		w.peers = slices.Grow(w.peers, 1+len(w.peers)/8) // most stay small
	}
	w.peers = append(w.peers, p)
	s.peers++
	return true
}

// index is where the peer's node is among the swarm's, or -1. Of local ones, which may share an address,
// the port counts.
func (w *swarm) index(peer netip.AddrPort) int {
	ip, local := peer.Addr().As16(), netaddr.IsLocal(peer.Addr())
	for i := range w.peers {
		if p := &w.peers[i]; p.ip == ip && (!local || p.port == peer.Port()) {
			return i
		}
	}
	return -1
}

// spare is the peer of a full swarm that makes room for another: the one announced longest ago, of the
// network that has the most in it.
func (w *swarm) spare() (spare int) {
	networks := make(makers)
	for i := range w.peers {
		networks[makerOf(w.peers[i].addr())]++
	}
	most := int32(0)
	for i := range w.peers {
		n := networks[makerOf(w.peers[i].addr())]
		if n > most || n == most && w.peers[i].at < w.peers[spare].at {
			spare, most = i, n
		}
	}
	return spare
}

// takeOne takes a peer from the largest swarm, which w joins if it is as large.
func (s *peerStore) takeOne(w *swarm) {
	largest, at := w, ID{}
	for hash, other := range s.swarms {
		if n := len(other.peers); n > len(largest.peers) || largest != w && n == len(largest.peers) && krpc.Nearer(ID{}, hash, at) {
			largest, at = other, hash
		}
	}
	largest.remove(largest.spare())
	s.peers--
}

func (w *swarm) remove(i int) {
	last := len(w.peers) - 1
	w.peers[i] = w.peers[last]
	w.peers = w.peers[:last]
}

// draw appends up to n peers of a swarm to peers, at random, of those for which use is true; with noSeed, seeds are
// left out.
func (s *peerStore) draw(hash ID, n int, noSeed bool, peers []netip.AddrPort, use func(netip.AddrPort) bool) []netip.AddrPort {
	w := s.swarms[hash]
	if w == nil {
		return peers
	}
	for i := 0; i < len(w.peers) && n > 0; i++ {
		j := i + s.rng.IntN(len(w.peers)-i)
		w.peers[i], w.peers[j] = w.peers[j], w.peers[i]
		if p := w.peers[i].addr(); use(p) && !(noSeed && w.peers[i].seed) {
			peers = append(peers, p)
			n--
		}
	}
	return peers
}

// filters makes the filters of a scrape (BEP 33), and reports whether the swarm is known.
func (s *peerStore) filters(hash ID) (seeds, leeches filter, ok bool) {
	w := s.swarms[hash]
	if w == nil {
		return seeds, leeches, false
	}
	for i := range w.peers {
		if p := &w.peers[i]; p.seed {
			seeds.add(p.addr().Addr())
		} else {
			leeches.add(p.addr().Addr())
		}
	}
	return seeds, leeches, true
}

// hashes is a sample of the info hashes (BEP 51), which stays the same for six hours if there are more.
func (s *peerStore) hashes(now time.Time) []ID {
	if now.Sub(s.sampleAt) < sampleInterval && len(s.sample) == maxSample {
		return s.sample
	}
	all := slices.SortedFunc(maps.Keys(s.swarms), func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	s.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	s.sample = append(s.sample[:0], all[:min(len(all), maxSample)]...)
	s.sampleAt = now
	return s.sample
}

// sweep forgets peers that were not announced again in time.
func (s *peerStore) sweep(now time.Time) {
	at := s.seconds(now)
	for hash, w := range s.swarms {
		for i := 0; i < len(w.peers); {
			if at-w.peers[i].at > uint32(peerLife/time.Second) {
				w.remove(i)
				s.peers--
			} else {
				i++
			}
		}
		if len(w.peers) == 0 {
			s.drop(hash)
		} else if cap(w.peers) > 2*len(w.peers)+8 {
			w.peers = append(make([]storedPeer, 0, len(w.peers)), w.peers...)
		}
	}
}

func (s *peerStore) drop(hash ID) {
	w := s.swarms[hash]
	s.peers -= len(w.peers)
	s.makers.add(w.maker, -1)
	delete(s.swarms, hash)
}

// seconds is a time as peers keep it. A clock that went back makes nothing older than it is.
func (s *peerStore) seconds(now time.Time) uint32 {
	return uint32(max(0, now.Sub(s.start)/time.Second))
}
