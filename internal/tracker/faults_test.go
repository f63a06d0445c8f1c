package tracker

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// faultyTracker is a tracker with one fault.
type faultyTracker struct {
	name   string
	setUp  func(r *trackerRig, ip string) (url string) // starts it at ip
	reason string                                      // the error in its Status within 35 s; "" for none
	found  int                                         // peers in its answer
}

// inHTTP returns a setUp for an HTTP tracker with the given handler.
func inHTTP(answer http.HandlerFunc) func(*trackerRig, string) string {
	return func(r *trackerRig, ip string) string {
		r.serve(ip, answer)
		return "http://" + ip + "/announce"
	}
}

func inUDP(answer func(p []byte, reply func([]byte))) func(*trackerRig, string) string {
	return func(r *trackerRig, ip string) string {
		r.serveUDP(ip, answer)
		return "udp://" + ip + ":80/announce"
	}
}

func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }
}

var trackerFaults = []faultyTracker{
	{"refuses the connection", func(r *trackerRig, ip string) string {
		r.net.NewHost(ip, 0, 0, 40*time.Millisecond)
		return "http://" + ip + "/announce"
	}, "connection refused", 0},
	{"no such host answers", func(_ *trackerRig, ip string) string { return "http://" + ip + "/announce" }, "no answer", 0},
	{"accepts and says nothing", inHTTP(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), "no answer", 0},
	{"hangs up", inHTTP(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "EOF", 0},
	{"a name that is never resolved", func(_ *trackerRig, ip string) string { return "http://slow-" + ip + ".example/announce" }, "no answer", 0},
	{"a name that does not exist", func(r *trackerRig, ip string) string {
		r.names["no-"+ip] = nil
		return "udp://no-" + ip + ":80"
	}, "no such host", 0},
	{"HTML", inHTTP(says("<!DOCTYPE html><title>parked</title>")), `malformed answer "<!DOCTYPE html>`, 0},
	{"garbage", inHTTP(says("\x00\xff\x1b[2J")), "malformed answer", 0},
	{"half an answer", inHTTP(says(onePeer[:40])), "malformed answer", 0},
	{"status 500", inHTTP(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", 500) }), "HTTP status 500 Internal Server Error", 0},
	{"a reason under status 403", inHTTP(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(403)
		io.WriteString(w, "d14:failure reason12:unregisterede")
	}), "unregistered", 0},
	{"redirects in a circle", inHTTP(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"/x", http.StatusFound) }), "more than 5 redirects", 0},
	{"redirects inward", func(r *trackerRig, ip string) string {
		public := "9" + strings.TrimPrefix(ip, "10")
		r.serve(public, func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "http://"+ip+"/announce", http.StatusFound)
		})
		r.serve(ip, says(onePeer))
		return "http://" + public + "/announce"
	}, "redirected from a public address to a private one", 0},
	{"a body without end", inHTTP(func(w http.ResponseWriter, r *http.Request) {
		for block := bytes.Repeat([]byte("x"), 1<<14); r.Context().Err() == nil; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}), "answer over 1048576 bytes", 0},
	{"a body of a byte a second", inHTTP(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			io.WriteString(w, "d")
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(time.Second):
			}
		}
	}), "no answer", 0},
	{"gzip that inflates to 16 MiB", inHTTP(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(make([]byte, 16<<20))
		z.Close()
	}), "answer over 1048576 bytes", 0},
	{"gzip of nothing, for ever", inHTTP(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		for block := bytes.Repeat(gzipped(""), 1000); r.Context().Err() == nil; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}), "answer over 1048576 bytes", 0},
	{"headers without end", inHTTP(func(w http.ResponseWriter, _ *http.Request) {
		for i := range 1000 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1000))
		}
		io.WriteString(w, onePeer)
	}), "server response headers exceeded", 0},
	{"a million lists", inHTTP(says(strings.Repeat("l", 1<<20))), "malformed answer", 0},
	{"interval 0", inHTTP(says("d8:intervali0ee")), "", 0},
	{"interval 2^63", inHTTP(says("d8:intervali9223372036854775808ee")), "", 0},
	{"interval 2^63-1", inHTTP(says("d8:intervali9223372036854775807ee")), "", 0},
	{"ten thousand peers", inHTTP(says("d5:peers60000:" + strings.Repeat("\x0a\x08\x08\x08\x1a\xe1", 10_000) + "e")), "", 1000},
	{"peers at port 0", inHTTP(says("d5:peers12:\x0a\x08\x08\x08\x00\x00\x00\x00\x00\x00\x00\x50e")), "", 0},
	{"our own address", inHTTP(says("d5:peers6:\x0a\x00\x00\x01\x1a\xe1e")), "", 1},
	{"UDP silence", inUDP(func([]byte, func([]byte)) {}), "no answer yet", 0},
	{"UDP that connects and says no more", inUDP(func(p []byte, reply func([]byte)) {
		if p[11] == 0 {
			reply(append(p[8:16:16], "connect!"...))
		}
	}), "no answer yet", 0},
	{"UDP with the wrong transaction", inUDP(func(p []byte, reply func([]byte)) { reply(append(p[8:12:12], "wrongand long enough"...)) }), "no answer yet", 0},
	{"UDP too short", inUDP(func(p []byte, reply func([]byte)) { reply(p[8:16]) }), "no answer yet", 0},
	{"UDP that echoes", inUDP(func(p []byte, reply func([]byte)) { reply(p) }), "no answer yet", 0},
	{"UDP error", inUDP(func(p []byte, reply func([]byte)) {
		reply(append(append([]byte{0, 0, 0, 3}, p[12:16]...), "banned"...))
	}), "banned", 0},
	{"UDP error without a reason", inUDP(func(p []byte, reply func([]byte)) { reply(append([]byte{0, 0, 0, 3}, p[12:16]...)) }), "refused without a reason", 0},
}

// Every fault ends in bounded time with an error that names it, and does not delay the tracker of the next tier.
func TestTrackerFaults(t *testing.T) {
	for _, c := range trackerFaults {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t)
				r.hungry = true
				url := c.setUp(r, "10.0.1.1")
				r.config.Tiers = [][]string{{url}, {"http://10.0.2.2/announce"}}
				var s said
				r.serve("10.0.2.2", honest(&s, onePeer))
				trackers, end := r.start()
				simnet.Sleep(time.Second)
				require.Contains(t, r.foundBy(), "http://10.0.2.2/announce")
				simnet.Sleep(34 * time.Second)
				stats := trackers.Status()[0]
				require.Equal(t, url, stats.URL)
				if c.reason == "" {
					require.Nil(t, stats.Err)
				} else {
					require.ErrorContains(t, stats.Err, c.reason)
					require.LessOrEqual(t, len(stats.Err.Error()), 400)
					require.ErrorContains(t, trackers.Errors()[0], c.reason)
				}
				require.Equal(t, c.found, stats.Peers)
				require.Len(t, r.foundBy()[url], c.found)
				began := time.Now()
				end()
				require.Less(t, time.Since(began), time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				trackers.Stop(ctx)
				require.LessOrEqual(t, time.Since(began), 6*time.Second)
			})
		})
	}
}

// Of ten trackers, nine fail in different ways. A peer from the tenth is found within ten seconds, wherever it is in the list.
func TestTimeToFirstPeerAmongDeadTrackers(t *testing.T) {
	ways := []string{
		"refuses the connection", "no such host answers", "accepts and says nothing", "a name that is never resolved", "HTML",
		"redirects in a circle", "a body of a byte a second", "UDP silence", "UDP with the wrong transaction",
	}
	rng := rand.New(rand.NewPCG(3, 4))
	worst := map[string]time.Duration{}
	table := new(strings.Builder)
	columns := tabwriter.NewWriter(table, 0, 0, 2, ' ', 0)
	for _, layout := range []string{"one tier", "ten tiers"} {
		for _, scheme := range []string{"http", "udp"} {
			for order := range 30 {
				synctest.Test(t, func(t *testing.T) {
					r := newTrackerRig(t)
					r.hungry = true
					var s said
					var urls []string
					names := map[string]string{}
					for i, way := range ways {
						at := slices.IndexFunc(trackerFaults, func(f faultyTracker) bool { return f.name == way })
						url := trackerFaults[at].setUp(r, fmt.Sprintf("10.0.1.%d", i+1))
						urls, names[url] = append(urls, url), way
					}
					rng.Shuffle(len(urls), func(i, j int) { urls[i], urls[j] = urls[j], urls[i] })
					alive := scheme + "://10.0.2.2:80/announce"
					names[alive] = "alive"
					if scheme == "udp" {
						r.serveUDP("10.0.2.2", honestUDP(&s, compactPeer))
					} else {
						r.serve("10.0.2.2", honest(&s, onePeer))
					}
					urls = slices.Insert(urls, order%(len(urls)+1), alive) // at each position in turn
					if layout == "ten tiers" {
						for _, url := range urls {
							r.config.Tiers = append(r.config.Tiers, []string{url})
						}
					} else {
						r.config.Tiers = [][]string{urls}
					}
					trackers := New(r.config)
					for i, tr := range trackers.tiers[0] {
						if len(trackers.tiers[0]) > 1 { // undo the shuffle
							at := slices.IndexFunc(trackers.tiers[0], func(tr *tracker) bool { return tr.url == urls[i] })
							trackers.tiers[0][i], trackers.tiers[0][at] = trackers.tiers[0][at], tr
						}
					}
					ctx, cancel := context.WithCancel(t.Context())
					go trackers.Run(ctx)
					simnet.Sleep(10 * time.Second)
					require.Equal(t, []netip.AddrPort{rigPeer}, r.foundBy()[alive], "order %v", urls)
					key := layout + ", " + scheme
					worst[key] = max(worst[key], r.foundAt)
					if order == 9 && layout == "one tier" && scheme == "http" { // the working one is last
						fmt.Fprintf(columns, "tracker\tasked after\tsaid within 10 s\n")
						for _, st := range trackers.Status() {
							word := "peers"
							if st.Err != nil {
								word = strings.TrimPrefix(st.Err.Error(), "tracker "+st.URL+": ")
							}
							fmt.Fprintf(columns, "%s\t%v\t%s\n", names[st.URL], (r.net.Now() - time.Since(st.LastAnnounce)).Truncate(100*time.Millisecond), word)
						}
					}
					cancel()
					synctest.Wait()
				})
			}
		}
	}
	columns.Flush()
	t.Log("\n" + table.String())
	for _, key := range slices.Sorted(maps.Keys(worst)) {
		t.Logf("time to first peer, %s, worst of 30 orders: %v", key, worst[key].Round(time.Millisecond))
		require.Less(t, worst[key], 10*time.Second)
	}
}

// The peers of a private torrent's tracker that failed are dropped when another tracker answers, and not before (BEP 27).
func TestPrivateTrackerSwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const first, second = "http://10.0.1.1/announce", "http://10.0.1.2/announce"
		r := newTrackerRig(t, []string{first}, []string{second})
		r.config.Private = true
		var broken atomic.Bool
		var one, two said
		r.serve("10.0.1.1", func(w http.ResponseWriter, req *http.Request) {
			if one.add(req.URL.Query().Get("event")); broken.Load() {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			io.WriteString(w, onePeer)
		})
		r.serve("10.0.1.2", honest(&two, onePeer))
		trackers, _ := r.start()
		simnet.Sleep(10 * time.Minute)
		require.Equal(t, "started", one.take())
		require.Empty(t, two.take())
		broken.Store(true)
		simnet.Sleep(10 * time.Minute)
		require.Empty(t, r.droppedURLs())
		simnet.Sleep(11 * time.Minute)
		require.Equal(t, "-", one.take())
		require.Equal(t, "started", two.take())
		require.Equal(t, []string{first}, r.droppedURLs())
		require.NotEmpty(t, r.foundBy()[second])
		broken.Store(false)
		simnet.Sleep(3 * time.Hour)
		require.Empty(t, one.take(), "a tracker that works is kept")
		require.Equal(t, []string{first}, r.droppedURLs())
		require.ErrorContains(t, trackers.Status()[0].Err, "HTTP status 502 Bad Gateway")
	})
}

// Trackers of a private torrent that are silent keep it from the next one for the patience of each, once: retries wait.
func TestPrivateTrackerBehindSilentOnes(t *testing.T) {
	for _, scheme := range []string{"udp", "http"} {
		synctest.Test(t, func(t *testing.T) {
			r := newTrackerRig(t)
			r.config.Private, r.hungry = true, true
			for i := range 4 {
				r.config.Tiers = append(r.config.Tiers, []string{fmt.Sprintf("%s://10.0.7.%d:80/announce", scheme, i)})
			}
			r.config.Tiers = append(r.config.Tiers, []string{"http://10.0.1.1/announce"})
			var s said
			r.serve("10.0.1.1", honest(&s, onePeer))
			r.start()
			simnet.Sleep(4*privatePatience + time.Second)
			require.Equal(t, "started", s.take())
		})
	}
}

// Of a thousand silent trackers, only askedAtOnce are asked at a time, and maxTrackers at all.
func TestTrackersAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t)
		for i := range 1000 {
			r.config.Tiers = append(r.config.Tiers, []string{fmt.Sprintf("udp://10.2.%d.%d:80", i/200, i%200)})
		}
		r.hungry = true
		trackers, _ := r.start()
		for second := range 25 {
			simnet.Sleep(500 * time.Millisecond)
			asked := 0
			for _, st := range trackers.Status() {
				if st.Announcing {
					asked++
				}
			}
			require.Equal(t, min((second+1)*askedAtOnce, maxTrackers), asked)
			simnet.Sleep(500 * time.Millisecond)
		}
	})
}

// When peers are found while many trackers are waited for, no more are asked until the longer patience has passed. Then the
// next ones are.
func TestTrackersAskedAtOnceWithPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t)
		for i := range 100 {
			r.config.Tiers = append(r.config.Tiers, []string{fmt.Sprintf("udp://10.2.0.%d:80", i)})
		}
		r.hungry = true
		trackers, _ := r.start()
		asked := func() (n int) {
			for _, st := range trackers.Status() {
				if st.Announcing {
					n++
				}
			}
			return n
		}
		simnet.Sleep(2500 * time.Millisecond)
		require.Equal(t, 3*askedAtOnce, asked())
		r.mu.Lock()
		r.hungry = false
		r.mu.Unlock()
		trackers.Wake()
		simnet.Sleep(10 * time.Second)
		require.Equal(t, 3*askedAtOnce, asked())
		simnet.Sleep(tierPatience)
		require.Equal(t, 4*askedAtOnce, asked(), "ten each fifteen seconds")
	})
}
