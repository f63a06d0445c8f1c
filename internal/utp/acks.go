package utp

import "time"

const (
	ackDelay     = 20 * time.Millisecond // that an acknowledgement may wait to go with others
	ackPackets   = 2                     // that are acknowledged at once
	confirmDelay = time.Millisecond      // for the first data to go along
)

// ackState records which acknowledgement is due to the other end.
type ackState struct {
	now     bool          // at once
	packets int           // that arrived in order since it was last told something
	at      time.Duration // at the latest, or 0
	reset   bool          // that there is no connection any more
}

// arrived records a packet. So many are acknowledged at once.
func (a *ackState) arrived(enough int, now time.Duration) {
	if a.packets++; a.packets >= enough {
		a.now = true
	} else if a.at == 0 {
		a.at = now + ackDelay
	}
}

// confirm schedules an early acknowledgement of the other end's answer.
func (a *ackState) confirm(now time.Duration) { a.at = now + confirmDelay }

func (a *ackState) sent() { *a = ackState{reset: a.reset} }
