package tracker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// A peer in a list of dictionaries has an address or a host name (BEP 3).
func TestPeersByName(t *testing.T) {
	addr := func(s ...string) (ips []netip.Addr) {
		for _, s := range s {
			ips = append(ips, netip.MustParseAddr(s))
		}
		return ips
	}
	names := map[string][]netip.Addr{
		"public.example":  addr("9.0.0.1"),
		"both.example":    addr("9.0.0.2", "2001:db8::2", "10.0.0.2", "::ffff:9.0.0.3"),
		"within.example":  addr("10.0.0.1"),
		"router":          addr("192.168.0.1"),
		"unknown.example": nil,
		"useless.test":    addr("0.0.0.0", "224.0.0.1"),
		"localhost":       addr("127.0.0.1"),
		"many.example":    addr("9.1.0.1", "9.1.0.2", "9.1.0.3", "9.1.0.4", "9.1.0.5"),
		"tracker.test":    addr("11.0.1.1"),
		"tracker.within":  addr("10.0.1.1"),
	}
	list := func(hosts ...string) string {
		b := "d8:intervali1800e5:peersl"
		for _, h := range hosts {
			b += fmt.Sprintf("d2:ip%d:%s4:porti80ee", len(h), h)
		}
		return b + "ee"
	}
	for _, c := range []struct {
		name    string
		tracker string
		body    string
		want    []string
		after   time.Duration
	}{
		{"one", "11.0.1.1", list("public.example"), []string{"9.0.0.1:80"}, 0},
		{"among addresses", "11.0.1.1", list("9.9.9.9", "public.example"), []string{"9.9.9.9:80", "9.0.0.1:80"}, 0},
		{"with several addresses", "11.0.1.1", list("both.example"), []string{"9.0.0.2:80", "[2001:db8::2]:80", "9.0.0.3:80"}, 0},
		{"with too many addresses", "11.0.1.1", list("many.example"), []string{"9.1.0.1:80", "9.1.0.2:80", "9.1.0.3:80", "9.1.0.4:80"}, 0},
		{"named twice", "11.0.1.1", list("public.example", "public.example"), []string{"9.0.0.1:80"}, 0},
		{"without a usable address", "11.0.1.1", list("unknown.example", "useless.test", "public.example"), []string{"9.0.0.1:80"}, 0},
		{"whose lookup never ends", "11.0.1.1", list("slow.example", "public.example"), []string{"9.0.0.1:80"}, namedTimeout},
		{"inside our network, from outside", "11.0.1.1", list("within.example", "router", "localhost", "x.localhost"), nil, 0},
		{"inside our network, from a name outside", "tracker.test", list("within.example", "public.example"), []string{"9.0.0.1:80"}, 0},
		{"inside our network, from inside", "10.0.1.1", list("within.example", "router", "localhost", "public.example"),
			[]string{"10.0.0.1:80", "192.168.0.1:80", "127.0.0.1:80", "9.0.0.1:80"}, 0},
		{"inside our network, from a name inside", "tracker.within", list("within.example"), []string{"10.0.0.1:80"}, 0},
		{"that is not a host name", "11.0.1.1", list("", "a b", "é", "a/b", "user@host", strings.Repeat("a", 254)), nil, 0},
		{"without a port", "11.0.1.1", "d5:peersld2:ip14:public.exampleed2:ip14:public.example4:porti0eed2:ip14:public.example4:porti65536eeee", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t, []string{"http://" + c.tracker + "/announce"})
				r.names = names
				ip := c.tracker
				if known, ok := names[c.tracker]; ok {
					ip = known[0].String()
				}
				r.serve(ip, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.body) })
				r.config.Lookup = r.lookup
				trackers, end := r.start()
				simnet.Sleep(c.after + time.Second)
				require.Nil(t, trackers.Status()[0].Err)
				var got []string
				for _, a := range r.foundBy()["http://"+c.tracker+"/announce"] {
					got = append(got, a.String())
				}
				require.Equal(t, c.want, got)
				require.Equal(t, len(c.want), trackers.Status()[0].Peers)
				began := time.Now()
				end()
				require.Less(t, time.Since(began), time.Second)
			})
		})
	}
}

// For one answer, at most maxNamed host names are looked up, namedAtOnce at a time, for at most namedTimeout. Peers with
// addresses do not wait for that.
func TestPeersByNameAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
		var b strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&b, "d2:ip8:%04d.com4:porti80ee", i)
		}
		r.serve("10.0.1.1", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "d5:peersl"+b.String()+"d2:ip7:9.9.9.94:porti80eeee")
		})
		var mu sync.Mutex
		var asked []string
		var now, most int
		var until time.Duration
		r.config.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			mu.Lock()
			asked = append(asked, host)
			now++
			most = max(most, now)
			mu.Unlock()
			defer func() {
				mu.Lock()
				now--
				until = r.net.Now()
				mu.Unlock()
			}()
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(500 * time.Millisecond):
				return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
			}
		}
		r.start()
		simnet.Sleep(time.Second / 4)
		require.Equal(t, []netip.AddrPort{netip.MustParseAddrPort("9.9.9.9:80")}, r.foundBy()["http://10.0.1.1/announce"], "at once")
		simnet.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(asked)
		require.Len(t, slices.Compact(asked), maxNamed)
		require.Equal(t, namedAtOnce, most)
		require.Less(t, until, namedTimeout+time.Second)
		require.Len(t, r.foundBy()["http://10.0.1.1/announce"], 1+maxNamed)
	})
}

// However many trackers return peers with host names, only few names are looked up: the trackers choose which name servers have
// to answer.
func TestPeersByNameOfManyTrackers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tiers [][]string
		for i := range maxTrackers {
			tiers = append(tiers, []string{fmt.Sprintf("http://10.0.1.1/announce?%d", i)})
		}
		r := newTrackerRig(t, tiers...)
		r.hungry = true
		var names, asked atomic.Int64
		r.serve("10.0.1.1", func(w http.ResponseWriter, _ *http.Request) {
			var b strings.Builder
			for range maxNamed {
				fmt.Fprintf(&b, "d2:ip13:%06d.victim4:porti80ee", names.Add(1))
			}
			fmt.Fprint(w, "d8:intervali60e5:peersl"+b.String()+"ee")
		})
		r.config.Lookup = func(context.Context, string) ([]netip.Addr, error) {
			asked.Add(1)
			return nil, errors.New("no such host")
		}
		r.start()
		simnet.Sleep(5 * time.Minute)
		t.Logf("%d of %d names", asked.Load(), names.Load())
		require.LessOrEqual(t, asked.Load(), int64(6*namedAMinute))
		require.Greater(t, asked.Load(), int64(3*namedAMinute))
	})
}

// If Config.Lookup is nil, peers with host names are left out.
func TestPeersByNameWithoutLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
		r.serve("10.0.1.1", says("d5:peersld2:ip6:a.test4:porti80eeee"))
		trackers, _ := r.start()
		simnet.Sleep(time.Second)
		require.Nil(t, trackers.Status()[0].Err)
		require.Empty(t, r.foundBy())
	})
}
