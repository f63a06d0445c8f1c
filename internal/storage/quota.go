package storage

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
)

const (
	// MaxCalls is how many calls may wait for all disks of a client together. Each takes a thread of the system, of which a program may
	// have 10,000.
	MaxCalls = 2048
	// MaxOpening is how many stores may be opened at a time, likewise.
	MaxOpening = 1024
)

// A Place is where a Store keeps its content. Stores with the same Place may hang together: a disk may be dead, or the server of a
// network share not answer.
type Place string

// UserPlace is that of the storages of the user, all of which are one.
const UserPlace Place = "user"

// placeOf returns the Place of a directory, which may be as info says: its device, or its volume where there is none.
func placeOf(dir string, info FileInfo) Place {
	if info.ID.Dev != 0 {
		return Place(fmt.Sprint("device ", info.ID.Dev))
	}
	whole, err := filepath.Abs(dir)
	if err != nil {
		whole = dir
	}
	return Place("volume " + filepath.VolumeName(whole))
}

// A Quota is a number of things, such as calls that wait for a disk, that many stores may use at a time. Those of a disk that hangs never
// come to an end, so that some are kept back for other disks, and of those of one disk for its other stores: a store may use another one
// as long as those that it uses itself, those that its Place uses and those that all use are together fewer than the quota. One store
// gets a third at most, one Place half, the next one half of what is left, and so on.
//
// Its methods may be called from any goroutine.
type Quota struct {
	most   int
	mu     sync.Mutex
	used   int
	places map[Place]*placeUse // those in use
}

// placeUse is the part of a Quota that a Place uses. Guarded by Quota.mu.
type placeUse struct {
	Place
	used  int
	queue []*Taker // those that wait, in turn
}

// A Taker takes of a Quota for one store. Guarded by Quota.mu.
type Taker struct {
	quota   *Quota
	place   Place
	used    int
	waiting []chan *placeUse // in turn
}

// NewQuota returns a Quota of most things.
func NewQuota(most int) *Quota { return &Quota{most: most, places: make(map[Place]*placeUse)} }

// NewTaker returns a Taker for a store.
func (q *Quota) NewTaker(at Place) *Taker { return &Taker{quota: q, place: at} }

// Take takes one, for which it waits if needed. Give gives it back. ok is false if done is closed before; a nil done never is.
func (t *Taker) Take(done <-chan struct{}) (take Taken, ok bool) {
	q := t.quota
	q.mu.Lock()
	if take, ok := t.try(q.most); ok {
		q.mu.Unlock()
		return take, true
	}
	turn := make(chan *placeUse, 1)
	if t.waiting = append(t.waiting, turn); len(t.waiting) == 1 {
		p := q.at(t.place)
		p.queue = append(p.queue, t)
	}
	q.mu.Unlock()
	select {
	case p := <-turn:
		return Taken{t, p}, true
	case <-done:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if k := slices.Index(t.waiting, turn); k >= 0 {
		t.waiting = slices.Delete(t.waiting, k, k+1)
		if len(t.waiting) == 0 {
			q.unqueue(t)
		}
		return Taken{}, false
	}
	Taken{t, <-turn}.giveLocked() // it was granted in the same moment
	return Taken{}, false
}

// Try is Take without waiting, and takes only if fewer than most are in use.
func (t *Taker) Try(most int) (take Taken, ok bool) {
	t.quota.mu.Lock()
	defer t.quota.mu.Unlock()
	return t.try(most)
}

func (t *Taker) try(most int) (take Taken, ok bool) {
	p := t.quota.at(t.place)
	if t.quota.used >= most || !t.may(p) {
		t.quota.forget(p)
		return Taken{}, false
	}
	t.take(p)
	return Taken{t, p}, true
}

func (t *Taker) may(p *placeUse) bool { return t.used+p.used+t.quota.used < t.quota.most }

func (t *Taker) take(p *placeUse) {
	t.used++
	p.used++
	t.quota.used++
}

// Moved records that the store is elsewhere now. What was taken before counts as the former Place's.
func (t *Taker) Moved(to Place) {
	q := t.quota
	q.mu.Lock()
	defer q.mu.Unlock()
	if to == t.place {
		return
	}
	if len(t.waiting) > 0 {
		q.unqueue(t)
		p := q.at(to)
		p.queue = append(p.queue, t)
	}
	t.place = to
	q.grant()
}

// Taken is one that a Taker took.
type Taken struct {
	by *Taker
	at *placeUse
}

// Give gives it back.
func (k Taken) Give() {
	q := k.by.quota
	q.mu.Lock()
	defer q.mu.Unlock()
	k.giveLocked()
}

func (k Taken) giveLocked() {
	q := k.by.quota
	k.by.used--
	k.at.used--
	q.used--
	q.grant()
	q.forget(k.at)
}

// grant lets those take that wait and may. It costs nothing for a Place that may take no more, however many wait there. The caller
// holds q.mu.
func (q *Quota) grant() {
	for _, p := range q.places {
		for passed := 0; passed < len(p.queue) && p.used+q.used < q.most; {
			t := p.queue[0]
			p.queue = p.queue[1:]
			if !t.may(p) {
				p.queue = append(p.queue, t)
				passed++
				continue
			}
			passed = 0
			t.take(p)
			t.waiting[0] <- p
			if t.waiting = t.waiting[1:]; len(t.waiting) > 0 {
				p.queue = append(p.queue, t)
			}
		}
	}
}

// at returns what is used at a Place. The caller holds q.mu.
func (q *Quota) at(place Place) *placeUse {
	p := q.places[place]
	if p == nil {
		p = &placeUse{Place: place}
		q.places[place] = p
	}
	return p
}

// forget forgets a Place that uses nothing. The caller holds q.mu.
func (q *Quota) forget(p *placeUse) {
	if p.used == 0 && len(p.queue) == 0 {
		delete(q.places, p.Place)
	}
}

// unqueue takes a Taker out of the queue of its Place. The caller holds q.mu.
func (q *Quota) unqueue(t *Taker) {
	p := q.at(t.place)
	if k := slices.Index(p.queue, t); k >= 0 {
		p.queue = slices.Delete(p.queue, k, k+1)
	}
	q.forget(p)
}
