package tracker

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
)

var (
	histories    = flag.Uint64("histories", 30, "how many histories TestHistories draws")
	firstHistory = flag.Uint64("first", 0, "seed of the first of them")
)

// Trackers answer as it comes: rightly, late, without peers, in part, by refusals, redirects, or not at all, while the download
// becomes hungry, completes, pauses and moves. Each peer in an answer that is usable is found, no tracker is asked before it
// allows, one that becomes good is used in the time that was promised, and everything ends in time.
func TestHistories(t *testing.T) {
	var worst [2]time.Duration
	for seed := *firstHistory; seed < *firstHistory+*histories; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				private := int(seed % 2)
				worst[private] = max(worst[private], newHistory(t, seed, private == 1).run())
			})
		})
	}
	t.Logf("a tracker that became good was used at most %v after the promised time, or %v if the torrent is private", worst[0], worst[1])
}

// history is one course of events. mu guards the model of what the trackers said, and rng.
type history struct {
	*trackerRig
	ann     *Announcer
	end     func()
	servers []*moody

	mu       sync.Mutex
	rng      *rand.Rand
	expected []expectation // of answers whose peers must be found
	ended    []time.Time   // when announces under way were cancelled
}

type expectation struct {
	by        *moody
	peer      netip.AddrPort
	asked, at time.Time // at is when the answer had come
}

func newHistory(t *testing.T, seed uint64, private bool) *history {
	h := &history{trackerRig: newTrackerRig(t), rng: rand.New(rand.NewPCG(seed, 11))}
	h.config.Private = private
	h.config.Hungry = func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.hungry }
	for i := range 1 + h.rng.IntN(6) {
		s := &moody{h: h, number: i, mood: h.rng.IntN(moods)}
		ip := fmt.Sprintf("10.0.%d.1", i+1)
		host := ip
		if h.rng.IntN(2) == 0 {
			host = fmt.Sprintf("t%d.example", i)
			h.names[host] = []netip.Addr{netip.MustParseAddr(ip)}
		}
		if h.rng.IntN(2) == 0 {
			s.url = "http://" + host + "/announce"
			h.serve(ip, s.answer)
		} else {
			s.url = "udp://" + host + ":80/announce"
			h.serveUDP(ip, s.receive)
		}
		h.servers = append(h.servers, s)
		if tiers := h.config.Tiers; len(tiers) > 0 && h.rng.IntN(2) == 0 {
			tiers[len(tiers)-1] = append(tiers[len(tiers)-1], s.url)
		} else {
			h.config.Tiers = append(tiers, []string{s.url})
		}
	}
	return h
}

// run plays the history and returns how much later than promised a tracker was used that had become good.
func (h *history) run() time.Duration {
	h.ann, h.end = h.start()
	for range 10 + h.rng.IntN(30) {
		h.mu.Lock()
		for _, s := range h.servers {
			if h.rng.IntN(3) == 0 {
				s.mood = h.rng.IntN(moods)
			}
		}
		event, pause := h.rng.IntN(12), time.Duration(h.rng.Int64N(int64(20*time.Second)))
		if h.rng.IntN(4) == 0 {
			pause *= 30
		}
		if event < 3 {
			h.hungry = !h.hungry
		} else if event == 4 {
			h.ended = append(h.ended, time.Now())
		}
		h.mu.Unlock()
		switch event {
		case 0, 1, 2:
			h.ann.Wake()
		case 3:
			h.ann.Complete()
		case 4:
			h.ann.Moved()
		case 5:
			h.stop()
			_, h.end = h.trackerRig.run(h.ann)
		case 6, 7:
			h.ann.Announce()
		}
		simnet.Sleep(pause)
		h.check()
	}
	late := h.calm()
	h.check()
	h.stop()
	simnet.Sleep(connectTimeout + time.Second)
	if conns, _ := h.me.Open(); conns > 0 {
		h.t.Errorf("%d connections are still open", conns)
	}
	if held, _ := h.config.Account.Held(); held != 0 {
		h.t.Errorf("%d bytes are still in the account", held)
	}
	return late
}

// stop ends Run and announces that it stops.
func (h *history) stop() {
	began := time.Now()
	h.end()
	if took := time.Since(began); took > time.Second {
		h.t.Errorf("Run ended after %v", took)
	}
	h.mu.Lock()
	h.ended = append(h.ended, began)
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
	defer cancel()
	h.ann.Stop(ctx)
	if took := time.Since(began); took > 6*time.Second {
		h.t.Errorf("Stop returned after %v", took)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = append(h.ended, time.Now())
	for _, s := range h.servers {
		if s.good && s.started {
			h.t.Errorf("%s was not told `stopped`", s.url)
		}
		s.started, s.soonest = false, time.Time{}
	}
}

// check compares what was found with what was said.
func (h *history) check() {
	found := h.foundBy()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expected = slices.DeleteFunc(h.expected, func(e expectation) bool {
		due := e.at.Add(300 * time.Millisecond)
		if time.Now().Before(due) {
			return false
		}
		cancelled := slices.ContainsFunc(h.ended, func(at time.Time) bool { return at.After(e.asked.Add(-time.Second)) && at.Before(due) })
		impatient := h.config.Private && due.Sub(e.asked) > time.Second // a private torrent has patience for a minute, lookups included
		if !cancelled && !impatient && !slices.Contains(found[e.by.url], e.peer) {
			h.t.Errorf("%s, asked at %v, named %v, which was not found", e.by.url, h.net.Now()-time.Since(e.asked), e.peer)
		}
		return true
	})
}

// calm makes one tracker good and waits until it is used. It returns by how much that took longer than promised.
func (h *history) calm() time.Duration {
	h.mu.Lock()
	s := h.servers[h.rng.IntN(len(h.servers))]
	s.good, h.hungry = true, true
	for _, other := range h.servers {
		other.mood = refuses + h.rng.IntN(moods-refuses)
	}
	h.mu.Unlock()
	h.ann.Wake()
	status := func(st Status) bool { return st.URL == s.url }
	first := h.ann.Status()[slices.IndexFunc(h.ann.Status(), status)]
	slack := time.Duration(len(h.servers)) * (httpTimeout + 2*time.Second)
	if h.config.Private {
		slack = time.Duration(len(h.servers)) * (privatePatience + 30*time.Second)
	}
	began, promised, known := time.Now(), httpTimeout+time.Second, false
	if strings.HasPrefix(s.url, "udp") { // each wait of BEP 15 is as long as all before it and one more
		promised = lookupTimeout + 2*udpSilence + 2*time.Since(first.LastAnnounce)
	}
	for before := len(h.foundBy()[s.url]); time.Since(began) < promised+slack; {
		for _, st := range h.ann.Status() {
			if mine := st.URL == s.url; mine && !known && !st.Announcing { // what was under way has ended
				known, promised = true, time.Since(began)+max(0, time.Until(st.NextAnnounce))
			} else if h.config.Private && st.Err == nil { // it stays with a tracker that works
				promised = max(promised, time.Since(began)+time.Until(st.NextAnnounce))
			}
		}
		simnet.Sleep(time.Second)
		if len(h.foundBy()[s.url]) > before {
			return max(0, time.Since(began)-promised)
		}
	}
	h.t.Errorf("%s is good and not used %v after the promised %v: %+v", s.url, slack, promised, h.ann.Status())
	return slack
}
