package torrent

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/choker"
	"github.com/shoal-go/torrent/internal/peerlist"
)

// chokeState returns the state of a peer for the choker. The caller holds d.mu.
func (d *Download) chokeState(p *peer, now time.Time) choker.Peer {
	return choker.Peer{
		ID:         p.number,
		Interested: p.peerInterested,
		Unchoked:   !p.amChoking,
		Withheld:   p.withheld,
		Hoarding:   d.uploading.spread.Hoards(p.number, d.t.layout.PieceLength()),
		Snubbing:   p.supply.Snubbed(),
		Down:       p.down.Rate(now),
		Up:         p.takeRate(now),
		Took:       p.took,
		Received:   p.before.Received + p.down.Total(),
		Sent:       p.before.Sent + p.up.Total(),
		Joined:     p.joined,
		UnchokedAt: p.unchokedAt,
	}
}

// takeRate returns how many bytes a second the choker counts a peer to take of our upload: what it takes at present, but no more than on
// average of its turn. Otherwise one that takes little, all of it just before each round, would seem faster than those that never stop.
// The caller holds p.d.mu.
func (p *peer) takeRate(now time.Time) float64 {
	return min(p.up.Rate(now), p.turnRate(now))
}

// turnRate returns how many bytes a second a peer that is unchoked takes on average of its turn. The caller holds p.d.mu.
func (p *peer) turnRate(now time.Time) float64 {
	return float64(p.up.Total()-p.upBefore) / max(now.Sub(p.unchokedAt), choker.RoundEvery).Seconds()
}

// chokeRound asks the choker which peers to unchoke, and tells those for which that changes. The caller holds d.mu.
func (d *Download) chokeRound(now time.Time) {
	d.uploading.judged += int64(len(d.swarm.peers))
	states := make([]choker.Peer, len(d.swarm.peers))
	for k, p := range d.swarm.peers {
		p.withheld = p.withheld || p.amInterested && p.supply.Choking
		states[k] = d.chokeState(p, now)
	}
	d.crowds(states)
	choker.Indulge(states)
	chosen := d.uploading.choker.Decide(now, d.sharing(), d.traffic.up.Rate(now), states)
	for _, p := range d.swarm.peers {
		switch may := slices.Contains(chosen, p.number); {
		case may && p.amChoking:
			p.unchoke(now)
		case !may && !p.amChoking:
			p.choke(now)
		}
	}
}

// crowds tells the choker which peers are many of one network. The caller holds d.mu.
func (d *Download) crowds(states []choker.Peer) {
	var addrs []netip.Addr
	var of []int
	for k, p := range d.swarm.peers {
		if p.peerInterested {
			addrs, of = append(addrs, p.conn.addr.Addr()), append(of, k)
		}
	}
	for i, size := range peerlist.Crowds(addrs) {
		states[of[i]].Crowd = size
	}
}
