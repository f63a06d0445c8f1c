package torrent

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/shoal-go/torrent/internal/dht"
	"github.com/shoal-go/torrent/internal/tracker"
)

// TrackerStats describes one tracker.
type TrackerStats struct {
	URL  string // as the torrent or the user has it
	Tier int    // from 0 (BEP 12)

	Announcing   bool      // it has been asked and not yet answered
	LastAnnounce time.Time // when it was last asked; zero if never
	NextAnnounce time.Time // when it is asked again at the latest, if it is still its turn then; zero if it will not be asked

	Err       error  // a *TrackerError if the last announce failed or has waited over a second for its answer, or nil
	Warning   string // the warning in its last answer
	Peers     int    // addresses in its last answer
	Seeds     int    // seeds in the swarm as it last said; 0 if unsaid
	Leechers  int    // leechers in the swarm as it last said; 0 if unsaid
	Completed int    // downloads it has seen complete as it last said; 0 if unsaid
}

// trackerStats returns the state of each tracker, tier by tier in the order in which they are tried.
func trackerStats(a *tracker.Announcer) (stats []TrackerStats) {
	for _, s := range a.Status() {
		t := TrackerStats{
			URL: s.URL, Tier: s.Tier,
			Announcing: s.Announcing, LastAnnounce: s.LastAnnounce, NextAnnounce: s.NextAnnounce,
			Warning: s.Warning, Peers: s.Peers,
			Seeds: s.Swarm.Seeds, Leechers: s.Swarm.Leechers, Completed: s.Swarm.Completed,
		}
		if s.Err != nil {
			t.Err = (*TrackerError)(s.Err)
		}
		stats = append(stats, t)
	}
	return stats
}

// trackerErrors converts errors of package tracker to those of this package.
func trackerErrors(errs []*tracker.Error) (all []error) {
	for _, err := range errs {
		all = append(all, (*TrackerError)(err))
	}
	return all
}

// Scrape describes a swarm as a tracker (BEP 48) or the DHT (BEP 33) knows it.
type Scrape struct {
	Seeds     int // peers that have everything
	Leechers  int // peers that do not
	Completed int // downloads that were ever completed; 0 from the DHT, which does not know
}

// Scrape asks the trackers how large the swarm is, until one answers (BEP 48). If none does, it returns an estimate by nodes
// of the DHT (BEP 33), except for private torrents, about which the DHT is never asked.
func (d *Download) Scrape(ctx context.Context) (Scrape, error) {
	s, failed, ok := d.discovery.trackers.Scrape(ctx)
	switch {
	case ok:
		return Scrape(s), nil
	case ctx.Err() != nil:
		return Scrape{}, errors.Join(append(trackerErrors(failed), contextError(ctx))...)
	}
	if node := d.client.dhtMember.member(); node != nil && !d.discovery.private {
		seeds, others, err := node.Scrape(ctx, dht.ID(d.t.infoHash))
		if err == nil && seeds+others > 0 {
			return Scrape{Seeds: seeds, Leechers: others}, nil
		}
		return Scrape{}, errors.Join(append(trackerErrors(failed), cmp.Or(dhtError(err), errors.New("torrent: no node of the DHT knows the swarm")))...)
	}
	return Scrape{}, errors.Join(append(trackerErrors(failed), errors.New("torrent: no tracker could be scraped"))...)
}
