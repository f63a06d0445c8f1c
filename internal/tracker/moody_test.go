package tracker

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// moody is a tracker.
type moody struct {
	h       *history
	number  int
	url     string
	good    bool // it answers rightly from now on
	mood    int
	soonest time.Time // when it may be asked again; zero if that is not known
	named   int       // peers so far
	asked   []time.Time
	started bool // `started` was answered since the last `stopped`
}

// The moods of a tracker. From refuses on, no answer is usable.
const (
	right = iota
	late
	empty
	half // an answer that breaks off or stalls after its peers
	refuses
	errs
	redirects
	dead
	moods
)

// begin records an announce, and draws how it is answered: in which mood, by which peer (invalid for none), and after what wait.
func (s *moody) begin(e string, farewell bool) (mood int, peer netip.AddrPort, interval int, wait time.Duration) {
	h, now := s.h, time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if mood = s.mood; s.good {
		mood = right
	}
	n := len(s.asked)
	hurried := n == 0 || e == "completed" || slices.ContainsFunc(h.ended, func(at time.Time) bool { return at.After(s.asked[n-1].Add(-time.Second)) })
	if !farewell && !hurried && now.Before(s.soonest.Add(-time.Second)) {
		h.t.Errorf("%s was asked at %v (%q), %v too soon", s.url, h.net.Now(), e, s.soonest.Sub(now))
	}
	s.asked, s.soonest = append(s.asked, now), time.Time{}
	switch wait, interval = 0, h.rng.IntN(4000); mood {
	case late:
		wait = time.Duration(h.rng.Int64N(int64(14 * time.Second)))
	case half:
		wait = time.Duration(h.rng.IntN(2)) * httpTimeout // until a stall is over
	}
	if mood < refuses && mood != empty {
		s.named++
		peer = netip.AddrPortFrom(netip.AddrFrom4([4]byte{81, byte(s.number), byte(s.named >> 8), byte(s.named)}), 6881)
	}
	switch {
	case farewell:
		s.started = s.started && e != "stopped"
	case mood < refuses:
		at := now.Add(wait + 100*time.Millisecond)
		if peer.IsValid() {
			h.expected = append(h.expected, expectation{s, peer, now, at})
		}
		s.started = s.started || e == "started"
		if mood != half {
			s.soonest = at.Add(min(clampInterval(max(time.Duration(interval)*time.Second, 1)), hungryInterval))
		}
	}
	return mood, peer, interval, wait
}

// answer answers over HTTP.
func (s *moody) answer(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/x") {
		http.Redirect(w, r, "/x"+r.URL.Path, http.StatusFound)
		return
	}
	mood, peer, interval, wait := s.begin(r.URL.Query().Get("event"), r.URL.Query().Get("numwant") == "0")
	pause := func() {
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
		}
	}
	peers := string(netaddr.AppendCompact(nil, []netip.AddrPort{peer}))
	if !peer.IsValid() {
		peers = ""
	}
	body := fmt.Sprintf("d5:peers%d:%s8:intervali%dee", len(peers), peers, interval)
	switch mood {
	case half:
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		fmt.Fprint(w, body[:len("d5:peers6:......8:i")])
		http.NewResponseController(w).Flush()
		pause()
		panic(http.ErrAbortHandler)
	case refuses:
		fmt.Fprint(w, []string{"d14:failure reason3:bade", "d14:failure reason3:bad8:retry ini2ee"}[interval%2])
	case errs:
		http.Error(w, "<html>", []int{200, 404, 500, 503}[interval%4])
	case redirects:
		http.Redirect(w, r, "/x", http.StatusFound)
	case dead:
		if interval%2 == 0 {
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler)
	default:
		pause()
		fmt.Fprint(w, body)
	}
}

// receive answers over UDP.
func (s *moody) receive(p []byte, reply func([]byte)) {
	be := binary.BigEndian
	connects := be.Uint32(p[8:]) == 0
	head := be.AppendUint32(be.AppendUint32(nil, be.Uint32(p[8:])), be.Uint32(p[12:]))
	s.h.mu.Lock()
	silent := !s.good && s.mood >= redirects || connects && !s.good && s.mood >= refuses && s.h.rng.IntN(2) == 0
	s.h.mu.Unlock()
	switch {
	case silent:
		return
	case connects:
		reply(be.AppendUint64(head, 0xc0ffee))
		return
	}
	mood, peer, interval, wait := s.begin(event(be.Uint32(p[80:])).String(), be.Uint32(p[92:]) == 0)
	answer := be.AppendUint32(be.AppendUint64(be.AppendUint32(head, uint32(interval)), 0), 0)[:20]
	switch {
	case mood == refuses:
		answer = append(be.AppendUint32(be.AppendUint32(nil, 3), be.Uint32(p[12:])), "bad"...)
	case mood == errs:
		answer = answer[:8+interval%12] // too short
	case peer.IsValid():
		answer = netaddr.AppendCompact(answer, []netip.AddrPort{peer})
	}
	time.AfterFunc(min(wait, 14*time.Second), func() { reply(answer); reply(answer) })
}
