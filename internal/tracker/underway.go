package tracker

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// An announce over UDP to a tracker that is silent takes some 15 KB of memory for minutes. A client of thousands of torrents that list
// dead trackers would have tens of thousands of them under way. So they are bounded, and those that are silent give way to others:
// soon to those to trackers that were not asked before, later to those that failed before, and at once to those to a tracker that
// has answered any torrent of the client.
const (
	maxUnderWay   = 2000
	freshPatience = 3 * time.Second
	retryPatience = udpSilence
)

// underWay holds the announces over UDP that are under way, of all downloads of a client. The zero value is ready.
type underWay struct {
	mu       sync.Mutex
	all      list.List           // of *flight, the oldest first
	answered map[string]struct{} // hosts of trackers whose last announce was answered, at most maxPaced
}

// A flight is an announce under way.
type flight struct {
	began  time.Time
	cancel context.CancelCauseFunc
	place  *list.Element
}

// next returns when an announce to tr may begin besides others that are about to: it has room, or an old flight gives way to it.
func (w *underWay) next(tr *tracker, others int) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all.Len()+others < maxUnderWay {
		return time.Time{}
	}
	oldest := w.all.Front()
	for range min(w.all.Len()+others-maxUnderWay, w.all.Len()-1) { // these give way to the others
		oldest = oldest.Next()
	}
	patience := freshPatience
	if _, answers := w.answered[tr.u.Host]; answers {
		patience = 0
	} else if tr.failures > 0 {
		patience = retryPatience
	}
	return oldest.Value.(*flight).began.Add(patience)
}

// enter adds a flight, for which the oldest gives way if there are too many. leave is called when it has ended.
func (w *underWay) enter(now time.Time, cancel context.CancelCauseFunc) (leave func()) {
	f := &flight{began: now, cancel: cancel}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all.Len() >= maxUnderWay {
		oldest := w.all.Remove(w.all.Front()).(*flight)
		oldest.place = nil
		oldest.cancel(errSilent)
	}
	f.place = w.all.PushBack(f)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if f.place != nil {
			w.all.Remove(f.place)
		}
	}
}

// ended records whether the host of a tracker has answered.
func (w *underWay) ended(host string, answered bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !answered {
		delete(w.answered, host)
	} else if len(w.answered) < maxPaced {
		if w.answered == nil {
			w.answered = make(map[string]struct{})
		}
		w.answered[host] = struct{}{}
	}
}
