package torrent

import "time"

// Pause has the download leave the swarm until Resume: it ends all connections, tells trackers that it stops, and
// asks no source for peers. What is there stays, and can be read. It returns at once.
func (d *Download) Pause() { d.setPaused(true) }

// Resume has a paused download join the swarm again. Nothing is hashed for it.
func (d *Download) Resume() { d.setPaused(false) }

func (d *Download) setPaused(paused bool) {
	now := time.Now()
	d.mu.Lock()
	d.paused = paused
	d.progress.last = now // a pause is no stall
	d.unlock(now)
	d.signal()
}

func (d *Download) isPaused() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.paused
}
