package torrent

import "time"

// settle sees to the follow-ups of what was done under the mutex.
func (d *Download) settle(now time.Time) {
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

// unlock releases the mutex after what was done under it has been followed up.
func (d *Download) unlock(now time.Time) {
	d.settle(now)
	notes := d.notes
	d.notes = nil
	d.mu.Unlock()
	for _, say := range notes {
		say()
	}
}

// note has say write to the log once the mutex is released: a handler may take its time, or ask for Stats.
func (d *Download) note(say func()) { d.notes = append(d.notes, say) }
