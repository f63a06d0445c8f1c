package tracker

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

func TestTrackerEvents(t *testing.T) {
	for _, scheme := range []string{"http", "udp"} {
		t.Run(scheme, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t, []string{scheme + "://10.0.1.1:80/announce"})
				var s said
				if scheme == "http" {
					r.serve("10.0.1.1", honest(&s, onePeer))
				} else {
					r.serveUDP("10.0.1.1", honestUDP(&s, compactPeer))
				}
				events := func() string { return strings.ReplaceAll(s.take(), "connect ", "") }
				trackers, end := r.start()

				simnet.Sleep(time.Second)
				require.Equal(t, "started", events())
				require.Equal(t, []netip.AddrPort{rigPeer}, r.foundBy()[scheme+"://10.0.1.1:80/announce"])
				stats := trackers.Status()[0]
				require.Equal(t, Status{
					URL: scheme + "://10.0.1.1:80/announce", LastAnnounce: stats.LastAnnounce, NextAnnounce: stats.NextAnnounce,
					Peers: 1, Swarm: Scrape{Seeds: 5, Leechers: 7},
				}, stats)
				require.WithinDuration(t, stats.LastAnnounce.Add(30*time.Minute), stats.NextAnnounce, time.Second)
				require.Empty(t, trackers.Errors())

				simnet.Sleep(time.Hour)
				require.Equal(t, "- -", events(), "once in each interval of half an hour")
				trackers.Complete()
				simnet.Sleep(time.Second)
				require.Equal(t, "completed", events(), "at once, and only once")
				simnet.Sleep(time.Hour)
				require.Equal(t, "- -", events())

				end()
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				trackers.Stop(ctx)
				require.Equal(t, "stopped", events())
				require.Less(t, time.Since(began), time.Second, "Stop returns when the answer has arrived")
			})
		})
	}
}

func TestNoStopToTrackerThatNeverAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"}, []string{"udp://10.0.1.2:80"})
		var s said
		r.serve("10.0.1.1", honest(&s, "d14:failure reason7:full upe"))
		r.serveUDP("10.0.1.2", func([]byte, func([]byte)) { s.add("asked") })
		trackers, end := r.start()
		simnet.Sleep(time.Second)
		end()
		require.ElementsMatch(t, []string{"started", "asked"}, strings.Fields(s.take()))
		trackers.Stop(t.Context())
		require.Empty(t, s.take())
		require.ElementsMatch(t, []string{
			"tracker http://10.0.1.1/announce: full up", "tracker udp://10.0.1.2:80: no answer yet",
		}, []string{trackers.Errors()[0].Error(), trackers.Errors()[1].Error()})
	})
}

// A tracker that answers `completed` over one address family is not asked again at once because it is slower over the other, or
// silent.
func TestCompletedOverBothFamilies(t *testing.T) {
	for _, silent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newTrackerRig(t)
			r.config.UserTiers = [][]string{{"udp://t.example:80"}}
			r.names["t.example"] = []netip.Addr{netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("fd00::1:1")}
			var fast, slow said
			var completed atomic.Bool
			r.serveUDP("10.0.1.1", honestUDP(&fast, compactPeer))
			r.serveUDP("fd00::1:1", func(p []byte, reply func([]byte)) {
				honestUDP(&slow, nil)(p, func(p []byte) {
					if !completed.Load() || !silent {
						time.AfterFunc(50*time.Millisecond, func() { reply(p) })
					}
				})
			})
			trackers, _ := r.start()
			simnet.Sleep(30 * time.Second)
			require.Equal(t, "connect started", fast.take())
			require.Equal(t, "connect started", slow.take())
			completed.Store(true)
			trackers.Complete()
			simnet.Sleep(14 * time.Second)
			require.Equal(t, "completed", fast.take())
			require.Equal(t, "completed", slow.take())
		})
	}
}

// A tracker that answers only after the download has completed is sent `started`, then `completed`.
func TestTrackerThatAnswersAfterCompletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
		var s said
		var up atomic.Bool
		r.serve("10.0.1.1", func(w http.ResponseWriter, req *http.Request) {
			if !up.Load() {
				http.NotFound(w, req)
				return
			}
			honest(&s, onePeer)(w, req)
		})
		trackers, _ := r.start()
		simnet.Sleep(time.Second)
		trackers.Complete()
		simnet.Sleep(time.Second)
		up.Store(true)
		simnet.Sleep(time.Minute)
		require.Equal(t, "started completed", s.take())
		simnet.Sleep(time.Hour)
		require.Equal(t, "- -", s.take())
	})
}

func TestTrackerStopEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"}, []string{"udp://10.0.1.2:80"})
		var s said
		stopped := func(event string) bool { return event == "stopped" }
		r.serve("10.0.1.1", func(w http.ResponseWriter, req *http.Request) {
			if stopped(req.URL.Query().Get("event")) {
				<-req.Context().Done()
			}
			honest(&s, onePeer)(w, req)
		})
		h := r.serveUDP("10.0.1.2", honestUDP(&s, compactPeer))
		trackers, end := r.start()
		simnet.Sleep(time.Second)
		end()
		h.Unplug()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		trackers.Stop(ctx)
		require.Equal(t, 5*time.Second, time.Since(began))
	})
}

func TestTrackerRetry(t *testing.T) {
	again := []time.Duration{0, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 30 * time.Minute, 30 * time.Minute}
	for _, c := range []struct {
		name, answer string
		status       int
		gaps         []time.Duration // between announces
	}{
		{"doubles up to half an hour", "<html>", 200, again},
		{"a failure reason too", "d14:failure reason4:busye", 200, again},
		{"retry in minutes", "d14:failure reason4:busy8:retry ini7ee", 200, []time.Duration{0, 7 * time.Minute, 7 * time.Minute}},
		{"retry in a century", "d14:failure reason4:busy8:retry ini99999999999ee", 200, []time.Duration{0, 24 * time.Hour}},
		{"retry in never", "d14:failure reason4:gone8:retry in5:nevere", 200, []time.Duration{0}},
		{"410", "d14:failure reason4:gonee", 410, []time.Duration{0}},
		{"410 without a reason", "Gone", 410, []time.Duration{0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
				var s said
				r.serve("10.0.1.1", func(w http.ResponseWriter, req *http.Request) {
					w.WriteHeader(c.status)
					honest(&s, c.answer)(w, req)
				})
				trackers, _ := r.start()
				last := time.Now()
				var gaps []time.Duration
				for range c.gaps {
					for s.take() == "" {
						simnet.Sleep(time.Second)
					}
					gaps = append(gaps, time.Since(last).Round(10*time.Second))
					last = time.Now()
				}
				for i, gap := range c.gaps {
					require.InDelta(t, gap.Seconds(), gaps[i].Seconds(), 10)
				}
				if c.gaps[len(c.gaps)-1] == 0 {
					simnet.Sleep(48 * time.Hour)
					require.Empty(t, s.take(), "a final tracker is not asked again")
					require.Zero(t, trackers.Status()[0].NextAnnounce)
				}
				require.Error(t, trackers.Status()[0].Err)
			})
		})
	}
}

func TestTrackerInterval(t *testing.T) {
	for _, c := range []struct {
		answer         string
		fed, hungryFor time.Duration
	}{
		{"8:intervali1800e", 30 * time.Minute, 5 * time.Minute},
		{"8:intervali0e", time.Minute, time.Minute},
		{"8:intervali-5e", time.Minute, time.Minute},
		{"8:intervali9223372036854775807e", 24 * time.Hour, 5 * time.Minute},
		{"8:interval4:soon", 30 * time.Minute, 5 * time.Minute},
		{"", 30 * time.Minute, 5 * time.Minute},
		{"8:intervali120e12:min intervali600e", 10 * time.Minute, 10 * time.Minute},
		{"8:intervali1800e12:min intervali120e", 30 * time.Minute, 2 * time.Minute},
		{"8:intervali1800e12:min intervali1e", 30 * time.Minute, time.Minute},
	} {
		t.Run(c.answer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
				var s said
				r.serve("10.0.1.1", honest(&s, "d"+c.answer+"e"))
				trackers, _ := r.start()
				for _, hungry := range []bool{false, true} {
					gap := c.fed
					if hungry {
						gap = c.hungryFor
					}
					simnet.Sleep(time.Second)
					s.take()
					r.mu.Lock()
					r.hungry = hungry
					r.mu.Unlock()
					trackers.Wake()
					simnet.Sleep(gap - 10*time.Second)
					require.Empty(t, s.take())
					simnet.Sleep(10 * time.Second)
					require.Equal(t, "-", s.take())
				}
			})
		})
	}
}

// TestTrackerTiers checks which trackers of each list have been asked after how many seconds.
func TestTrackerTiers(t *testing.T) {
	const silent, dead, good, empty = "silent", "dead", "good", "empty"
	for _, c := range []struct {
		name    string
		tiers   [][]string
		hungry  bool
		private bool
		want    map[int]string // by second: the trackers that have been asked, in order
	}{
		{"one good", [][]string{{good}}, true, false, map[int]string{60: "good"}},
		{"after a failure the next is asked at once", [][]string{{dead, good}}, true, false, map[int]string{1: "dead good"}},
		{"each tier by itself", [][]string{{good}, {good}, {silent}}, false, false, map[int]string{1: "good good silent"}},
		{"a hungry download waits a second", [][]string{{silent, silent, good, good}}, true, false, map[int]string{0: "silent", 1: "silent silent", 2: "silent silent good", 60: "silent silent good"}},
		{"a download with peers waits fifteen", [][]string{{silent, good}}, false, false, map[int]string{14: "silent", 15: "silent good"}},
		{"after an answer without peers the next is asked", [][]string{{empty, empty, good, good}}, true, false, map[int]string{1: "empty empty good", 60: "empty empty good"}},
		{"unless peers are not needed", [][]string{{empty, good}}, false, false, map[int]string{60: "empty"}},
		{"private: one at a time, for a minute", [][]string{{silent, empty}, {good}}, true, true, map[int]string{29: "silent", 31: "silent empty", 120: "silent empty"}},
		{"private: the next tier when all of the first failed", [][]string{{dead, dead}, {good}, {good}}, true, true, map[int]string{10: "dead dead good"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t)
				r.hungry, r.config.Private = c.hungry, c.private
				var asked said
				var urls [][]string
				for i, tier := range c.tiers {
					urls = append(urls, nil)
					for j := range tier {
						ip := fmt.Sprintf("10.1.%d.%d", i, j)
						urls[i] = append(urls[i], "http://"+ip+"/announce")
					}
				}
				r.config.Tiers = urls
				trackers := New(r.config)
				// The servers are set up after the shuffle, so that the order is that of the table.
				for i, tier := range trackers.tiers {
					for j, tr := range tier {
						kind := c.tiers[i][j]
						r.serve(tr.u.Host, func(w http.ResponseWriter, req *http.Request) {
							asked.add(kind)
							switch kind {
							case silent:
								<-req.Context().Done()
							case dead:
								http.NotFound(w, req)
							case good:
								fmt.Fprint(w, onePeer)
							case empty:
								fmt.Fprint(w, "de")
							}
						})
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer func() { cancel(); synctest.Wait() }()
				go trackers.Run(ctx)
				began := time.Now()
				for at := range 121 {
					if want, ok := c.want[at]; ok {
						simnet.Sleep(time.Until(began.Add(time.Duration(at)*time.Second + 500*time.Millisecond)))
						asked.mu.Lock()
						got := append([]string(nil), asked.events...)
						asked.mu.Unlock()
						if c.name == "each tier by itself" {
							require.ElementsMatch(t, strings.Fields(want), got)
						} else {
							require.Equal(t, want, strings.Join(got[:min(len(got), len(strings.Fields(want)))], " "), "after %d s", at)
							require.LessOrEqual(t, len(distinct(got)), len(strings.Fields(want)))
						}
					}
				}
			})
		})
	}
}

func distinct(s []string) map[string]bool {
	m := make(map[string]bool)
	for _, v := range s {
		m[v] = true
	}
	return m
}

// A private torrent leaves a tracker for another only if the download is hungry there for ten minutes at a stretch.
func TestPrivateTorrentStaysAtItsTracker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"}, []string{"http://10.0.1.2/announce"})
		r.config.Private = true
		var first, second said
		r.serve("10.0.1.1", honest(&first, "de"))
		r.serve("10.0.1.2", honest(&second, "de"))
		trackers, _ := r.start()
		for range 3 {
			for _, hungry := range []bool{true, false} {
				r.mu.Lock()
				r.hungry = hungry
				r.mu.Unlock()
				trackers.Wake()
				simnet.Sleep(hungryStay - time.Minute)
			}
		}
		require.Empty(t, second.take())
		r.mu.Lock()
		r.hungry = true
		r.mu.Unlock()
		trackers.Wake()
		simnet.Sleep(hungryStay - time.Second)
		require.Empty(t, second.take())
		simnet.Sleep(2 * time.Second)
		require.Equal(t, "started", second.take())
		require.Equal(t, []string{"http://10.0.1.1/announce"}, r.dropped)
	})
}
