package torrent

import "time"

const (
	// A download that has peers is hungry all the same if less than fedBytes came in hungryAfter. Otherwise one peer that sends
	// next to nothing would keep it from asking the sources that know others. For a private torrent a block is enough: one that
	// stays hungry leaves its tracker, and with it the peers that it has.
	hungryAfter = 2 * time.Minute
	fedBytes    = 1 << 20
)

// hungry reports whether the download wants peers, and has none or none that sends much.
func (d *Download) hungry() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return (len(d.swarm.peers) == 0 || d.progress.hungry) && !d.sated()
}

// feelHunger records whether a download that has peers is hungry, and tells sources if that changes. While a limit holds requests back,
// whatever comes is enough. The caller holds d.mu.
func (d *Download) feelHunger(now time.Time) {
	p := &d.progress
	came := d.traffic.downloaded - d.traffic.wasted
	p.counted = min(p.counted, came) // what came may turn out to be wasted
	if n := came - p.counted; d.sated() || n >= fedBytes || n > 0 && (d.t.private || d.traffic.gate.Pause() > 0) {
		p.fed, p.counted = now, came
	}
	if hungry := now.Sub(p.fed) >= hungryAfter; hungry != p.hungry {
		p.hungry = hungry
		d.discovery.wakeSources(hungry)
	}
}
