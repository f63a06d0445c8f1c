//go:build race

package udpmux_test

const raceEnabled = true
