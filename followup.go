package torrent

import "time"

// followUp does what follows from updates made under the mutex: it asks suppliers that have room for blocks, and
// holds a choke round.
func (d *Download) followUp(now time.Time) {
	for rounds := 0; (d.freed || d.roomy) && rounds < 4; rounds++ {
		all := d.freed
		d.freed, d.roomy = false, false
		suppliers := d.picker.Suppliers()
		if len(suppliers) == 0 {
			break
		}
		first := 0
		if all {
			for piece := range d.awaited {
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
	if d.rechoke {
		d.rechoke = false
		d.chokeRound(now)
	}
}

// unlock releases the mutex, after followUp. Then it writes to the log.
func (d *Download) unlock(now time.Time) {
	d.followUp(now)
	logs := d.logs
	d.logs = nil
	d.mu.Unlock()
	for _, write := range logs {
		write()
	}
}

// logLater has write called once the mutex is released: a log handler may be slow, or call Stats.
func (d *Download) logLater(write func()) { d.logs = append(d.logs, write) }
