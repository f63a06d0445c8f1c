package torrent

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/simnet"
)

var (
	webHistories    = flag.Uint64("webhistories", 30, "how many histories TestWebSeedHistories draws")
	firstWebHistory = flag.Uint64("firstweb", 0, "seed of the first of them")
)

// Web seeds answer as it comes: rightly, slowly, in part, by other ranges, by refusals, pages and redirects. Once one of them is
// right the download becomes complete, after the longest rest of a file at most; no server is asked without end.
func TestWebSeedHistories(t *testing.T) {
	var worst time.Duration
	for seed := *firstWebHistory; seed < *firstWebHistory+*webHistories; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 17))
			content := newSimContent(seed, 32<<10, 300_000, 20, 100_000+rng.Int64N(100_000), 64<<10)
			foundWeb(t, content, func(t *testing.T, m *simWebMeeting) {
				worst = max(worst, webHistory(t, m, rng))
			})
		})
	}
	t.Logf("complete %v after a web seed became right", worst)
}

func webHistory(t *testing.T, m *simWebMeeting, rng *rand.Rand) time.Duration {
	var all []*moody
	over := make(chan struct{})
	defer close(over)
	for i := range 1 + rng.IntN(4) {
		s := &moody{t: t, rng: rand.New(rand.NewPCG(rng.Uint64(), 1)), content: m.content, over: over, mood: rng.IntN(webMoods)}
		s.liar = rng.IntN(6) == 0 && i > 0
		host := m.net.NewHost(fmt.Sprintf("70.0.0.%d", i+1), 1e6, 0, 10*time.Millisecond)
		l, err := host.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: s}
		go server.Serve(l)
		defer server.Close()
		all = append(all, s)
		m.options.WebSeeds = append(m.options.WebSeeds, fmt.Sprintf("http://70.0.0.%d/", i+1))
	}
	for _, s := range all {
		s.all = m.options.WebSeeds
	}
	m.start(t)
	for range rng.IntN(20) {
		if m.client.done() {
			break
		}
		for _, s := range all {
			if rng.IntN(3) == 0 {
				s.become(rng.IntN(webMoods))
			}
		}
		switch rng.IntN(12) {
		case 0:
			m.client.Download.Pause()
		case 1, 2:
			m.client.Download.Resume()
		case 3:
			m.client.Download.Recheck(t.Context())
		}
		wait := time.Duration(rng.Int64N(int64(30 * time.Second)))
		if rng.IntN(5) == 0 {
			wait *= 20
		}
		simWait(wait, m.client)
		for i, s := range all {
			s.check(t, i)
		}
	}
	m.client.Download.Resume()
	all[0].become(webGood)
	began := time.Now()
	simWait(90*time.Minute, m.client)
	took := time.Since(began)
	if !m.client.done() {
		t.Errorf("not complete %v after a web seed became right: %s\n%+v", took, m.client.describe(), m.client.Stats().WebSeeds)
	} else if err := m.client.compare(nil); err != nil {
		t.Error(err)
	}
	for i, s := range all {
		s.check(t, i)
	}
	return took
}

// moods of a web seed. From webGood on each answer is right.
const (
	webStatus = iota
	webBusy
	webShort
	webCut
	webStall
	webTrickle
	webOtherRange
	webPage
	webRedirect
	webEncoded
	webLacks
	webAny
	webGood
	webSlowGood
	webRangeless
	webMoods
)

// moody is a web seed.
type moody struct {
	t       *testing.T
	content *simContent
	all     []string // URLs of all web seeds
	over    chan struct{}

	mu      sync.Mutex
	rng     *rand.Rand
	mood    int
	liar    bool
	asked   int
	checked time.Time
}

func (s *moody) become(mood int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mood = mood
}

// check fails if it was asked far too often since the last check: ten times a second, beside a hundred at once.
func (s *moody) check(t *testing.T, i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if most := 300 + int(time.Since(s.checked).Seconds()*10); s.asked > most && !s.checked.IsZero() {
		t.Errorf("web seed %d in mood %d was asked %d times in %v", i, s.mood, s.asked, time.Since(s.checked))
	}
	s.asked, s.checked = 0, time.Now()
}

func (s *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked++
	mood, a, b := s.mood, s.rng.IntN(1<<30), s.rng.IntN(1<<30)
	s.mu.Unlock()
	if mood == webAny {
		mood = a % webAny
	}
	var f layout.File
	for _, of := range s.content.layout.Files() {
		if "/"+of.Path == r.URL.Path {
			f = of
		}
	}
	body := bytes.Clone(s.content.truth.Run(f.Offset, f.Length))
	if s.liar && len(body) > 0 {
		body[b%len(body)] ^= 1
	}
	whole := func() { http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body)) }
	hijack := func(n int, then func(conn io.ReadWriter, rest string)) {
		var p strings.Builder
		size := len(body)
		from, to := 0, size
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err == nil && to < size {
			to++
			fmt.Fprintf(&p, "HTTP/1.1 206 x\r\nContent-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%s", to-from, from, to-1, size, body[from:to])
		} else {
			fmt.Fprintf(&p, "HTTP/1.1 200 x\r\nContent-Length: %d\r\n\r\n%s", size, body)
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		n = min(n, p.Len())
		io.WriteString(conn, p.String()[:n])
		if then != nil {
			then(conn, p.String()[n:])
		}
		if a%2 == 0 {
			conn.(*simnet.Conn).Reset()
		}
	}
	wait := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
	}
	switch mood {
	case webStatus:
		w.WriteHeader([]int{404, 403, 410, 416, 451, 500, 502, 408, 204, 304, 418}[a%11])
	case webBusy:
		if after := []string{"", "0", "1", "700", "-1", "Sat, 02 Jan 1999 15:04:05 GMT", "Sat, 01 Jan 2000 01:00:00 GMT", "x"}[a%8]; after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.WriteHeader([]int{429, 503}[b%2])
	case webShort:
		body = body[:len(body)*(a%100)/100]
		whole()
	case webCut:
		hijack(a%2000, nil)
	case webStall:
		hijack(a%40000, func(conn io.ReadWriter, _ string) { io.Copy(io.Discard, conn) })
	case webTrickle:
		hijack(a%2000, func(conn io.ReadWriter, rest string) {
			for n, began := min(1+a%3, len(rest)), time.Now(); n > 0 && time.Since(began) < 2*time.Minute; n = min(n, len(rest)) {
				select {
				case <-time.After(time.Second * time.Duration(1+b%19)):
				case <-s.over:
					return
				}
				if _, err := io.WriteString(conn, rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		})
	case webOtherRange:
		r.Header.Set("Range", []string{"bytes=0-9", "bytes=10-", "bytes=-1", "bytes=0-1,5-9", "x"}[a%5])
		whole()
	case webPage:
		http.NewResponseController(w).Flush()
		w.Write(make([]byte, []int{0, 10}[a%2]))
	case webRedirect:
		to := []string{r.URL.Path, s.all[b%len(s.all)] + r.URL.Path[1:], "http://127.0.0.1/", "ftp://x/", "http://99.0.0.1/x", "/x"}[a%6]
		http.Redirect(w, r, to, http.StatusFound)
	case webEncoded:
		w.Header().Set("Content-Encoding", []string{"gzip", "", "identity", "x"}[a%4])
		whole()
	case webLacks:
		if int(f.Length)%3 == a%3 {
			http.NotFound(w, r)
			return
		}
		whole()
	case webSlowGood:
		wait(time.Duration(a) % (19 * time.Second))
		whole()
	case webRangeless:
		r.Header.Del("Range")
		whole()
	default:
		whole()
	}
}
