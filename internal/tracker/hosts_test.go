package tracker

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// asks records when hosts were asked.
type asks struct {
	mu sync.Mutex
	at []time.Time
}

func (a *asks) add() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = append(a.at, time.Now())
}

// within is the largest number of asks in any interval of length d.
func (a *asks) within(d time.Duration) (most int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, at := range a.at {
		end, _ := slices.BinarySearchFunc(a.at, at.Add(d), time.Time.Compare)
		most = max(most, end-i)
	}
	return most
}

// A torrent that lists a host many times, by one name or by many, has us ask it a few times in ten seconds.
func TestManyTrackersAtOneHost(t *testing.T) {
	for _, tc := range []struct {
		name  string
		url   string
		named bool // by the user
		want  int  // asks in ten seconds
	}{
		{"http", "http://10.0.1.1/%d/announce", false, hostAsks},
		{"udp", "udp://10.0.1.1:80/%d", false, hostAsks},
		{"names over http", "http://n%d.example/announce", false, namesAsks},
		{"names over udp", "udp://n%d.example:80", false, namesAsks},
		{"the user's", "http://10.0.1.1/%d/announce", true, 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t)
				r.hungry = true
				r.config.HTTP = NewHTTPClient(HTTPConfig{NoProxy: true, Single: true, Dial: func(ctx context.Context, network, _ string, check func(string) error) (net.Conn, error) {
					if err := check("10.0.1.1"); err != nil {
						return nil, err
					}
					return r.me.Dial(ctx, network, "10.0.1.1:80")
				}})
				t.Cleanup(r.config.HTTP.CloseIdleConnections)
				var tiers [][]string
				for k := range 200 {
					tiers = append(tiers, []string{fmt.Sprintf(tc.url, k)})
					r.names[fmt.Sprintf("n%d.example", k)] = []netip.Addr{netip.MustParseAddr("10.0.1.1")}
				}
				if tc.named {
					r.config.UserTiers = tiers
				} else {
					r.config.Tiers = tiers
				}
				var a asks
				if strings.HasPrefix(tc.url, "udp") {
					r.serveUDP("10.0.1.1", func(p []byte, reply func([]byte)) {
						a.add()
						reply(append([]byte{0, 0, 0, 3}, p[12:16]...))
					})
				} else {
					r.serve("10.0.1.1", func(w http.ResponseWriter, req *http.Request) {
						a.add()
						http.NotFound(w, req)
					})
				}
				trackers := New(r.config)
				r.run(trackers)
				simnet.Sleep(time.Minute)
				asked := 0
				for _, s := range trackers.Status() {
					if !s.LastAnnounce.IsZero() {
						asked++
					}
				}
				if most := a.within(hostWindow - time.Second); tc.named { // some are under way for longer
					require.GreaterOrEqual(t, most, tc.want)
				} else {
					require.InDelta(t, tc.want, most, 2)
				}
				require.Greater(t, asked, hostAsks, "the others take their turn")
			})
		})
	}
}

// Trackers of a list as they are usual are asked as soon as ever: thirty at as many hosts, four at one.
func TestUsualListsAreNotDelayed(t *testing.T) {
	for name, url := range map[string]string{"thirty hosts": "http://n%d.example/announce", "four at one": "http://10.0.1.1/%d/announce"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := map[bool]int{true: 30, false: 4}[name == "thirty hosts"]
				r := newTrackerRig(t)
				var s said
				for k := range n {
					r.config.Tiers = append(r.config.Tiers, []string{fmt.Sprintf(url, k+1)})
					if n == 30 || k == 0 {
						ip := fmt.Sprintf("10.0.%d.1", k+1)
						r.serve(ip, honest(&s, onePeer))
						r.names[fmt.Sprintf("n%d.example", k+1)] = []netip.Addr{netip.MustParseAddr(ip)}
					}
				}
				trackers, _ := r.start()
				simnet.Sleep(time.Second)
				require.Len(t, strings.Fields(s.take()), n)
				simnet.Sleep(map[bool]time.Duration{true: hostWindow}[n == 30])
				trackers.Complete()
				simnet.Sleep(time.Second)
				require.Len(t, strings.Fields(s.take()), n)
			})
		})
	}
}
