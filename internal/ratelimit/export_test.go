package ratelimit

const (
	Recheck   = recheck
	MaxUnused = maxUnused
)
