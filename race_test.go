//go:build race

package torrent

// raceEnabled tells whether the race detector watches, which makes everything some ten times slower.
const raceEnabled = true
