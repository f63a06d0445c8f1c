//go:build race

package dht

// raceEnabled says that the test runs under the race detector, where what one goroutine does alone is slow.
const raceEnabled = true
