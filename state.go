package torrent

import "strconv"

// State is what a download is at.
type State uint8

const (
	Checking    State = iota // hashing what storage holds
	Downloading              // something that is chosen is not verified yet
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
