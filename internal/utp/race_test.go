//go:build race

package utp

const RaceEnabled = true
