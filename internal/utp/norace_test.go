//go:build !race

package utp

const RaceEnabled = false
