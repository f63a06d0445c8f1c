package torrent

import (
	"iter"
	"strconv"
	"time"
)

// State is what a download is at.
type State uint8

const (
	Checking    State = iota // hashing what storage holds
	Downloading              // something that is chosen is not verified yet, or nothing is chosen
	Seeding                  // all that is chosen is verified, and shared
	Paused                   // by Pause, until Resume
	Stopped                  // nothing of it runs any more, or is about to
)

var stateNames = [...]string{"checking", "downloading", "seeding", "paused", "stopped"}

// String is the name in lower case.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return strconv.Itoa(int(s))
}

// MarshalText is String as encoding.TextMarshaler has it.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// state is what the download is at. The caller holds mu.
func (d *Download) state() State {
	switch {
	case d.ended():
		return Stopped
	case d.progress.checking:
		return Checking
	case d.paused:
		return Paused
	case d.progress.complete:
		return Seeding
	}
	return Downloading
}

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

// Verified is the pieces that are verified and on storage, chosen or not.
func (d *Download) Verified() Bitfield {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Bitfield{d.picker.Verified().Clone()}
}

// Files yields the files in torrent order, chosen or not but padding files left out, and how many bytes of each are
// verified.
func (d *Download) Files() iter.Seq2[File, int64] {
	return func(yield func(File, int64) bool) {
		have := d.Verified()
		for f := range d.t.Files() {
			verified := int64(0)
			for k, end := d.t.layout.PiecesOf(f.Index); k < end; k++ {
				if have.Has(k) {
					verified += d.t.layout.Overlap(f.Index, k)
				}
			}
			if !yield(f, verified) {
				return
			}
		}
	}
}
