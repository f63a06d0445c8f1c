package torrent

import (
	"time"

	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/picker"
)

// pending is what updates made under the mutex have left to do before it is released.
type pending struct {
	freed    bool             // blocks are free that idle suppliers may be asked for
	roomy    bool             // some supplier is Roomy
	rechoke  bool             // a choke round is due
	logs     []func()         // what is to be logged
	scratch  []picker.Block   // reused by ask
	requests []outbox.Request // reused by ask, too
}

// followUp does what follows from updates made under the mutex: it asks suppliers that have room for blocks, and
// holds a choke round.
func (d *Download) followUp(now time.Time) {
	for rounds := 0; (d.pending.freed || d.pending.roomy) && rounds < 4; rounds++ {
		all := d.pending.freed
		d.pending.freed, d.pending.roomy = false, false
		suppliers := d.picker.Suppliers()
		if len(suppliers) == 0 {
			break
		}
		first := 0
		if all {
			for piece := range d.reading.awaited {
				d.rush(piece, now)
			}
			first = d.rng.IntN(len(suppliers))
		}
		for k := range suppliers {
			if s := suppliers[(first+k)%len(suppliers)]; all || s.Roomy {
				s.Roomy = false
				d.refill(s, now)
			}
		}
	}
	if d.pending.rechoke {
		d.pending.rechoke = false
		d.chokeRound(now)
	}
}

// unlock releases the mutex, after followUp. Then it writes to the log.
func (d *Download) unlock(now time.Time) {
	d.followUp(now)
	logs := d.pending.logs
	d.pending.logs = nil
	d.mu.Unlock()
	for _, write := range logs {
		write()
	}
}

// logLater has write called once the mutex is released: a log handler may be slow, or call Stats.
func (d *Download) logLater(write func()) { d.pending.logs = append(d.pending.logs, write) }
