package utp

import "sync/atomic"

const (
	// unacknowledgedLimit bounds the unsent and unacknowledged bytes of all connections of a Socket. A connection
	// holds more than its share only while there is room.
	unacknowledgedLimit = 32 << 20
	// unacknowledgedFree is how many bytes each connection may hold regardless of the others: enough for a block, and some
	// packets.
	unacknowledgedFree = 24 << 10
	// lingeringPart is the part of the bound, one in so many, up to which connections that their callers closed are waited for.
	lingeringPart = 4
)

// unacknowledged is the memory that data of all connections of a Socket lies in until the other ends acknowledge it. An end
// that takes much and then falls silent makes us hold a whole window. Any goroutine may use it.
type unacknowledged struct {
	limit   int64
	held    atomic.Int64
	holders atomic.Int64 // connections that hold something

	lingering atomic.Int64 // of held, by connections that their callers closed
}

// change records that a connection that held was bytes now holds is.
func (u *unacknowledged) change(was, is int) {
	if was == is {
		return
	}
	u.held.Add(int64(is - was))
	if was == 0 {
		u.holders.Add(1)
	} else if is == 0 {
		u.holders.Add(-1)
	}
}

// bound returns how many bytes a connection may hold; 0 is no bound.
func (u *unacknowledged) bound() int {
	if u.held.Load() < u.limit {
		return 0
	}
	return int(max(unacknowledgedFree, u.limit/max(u.holders.Load(), 1)))
}

// crowded reports whether connections that their callers closed hold so much that no more of them are waited for.
func (u *unacknowledged) crowded() bool { return u.lingering.Load() > u.limit/lingeringPart }
