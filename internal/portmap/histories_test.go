package portmap_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	histories    = flag.Uint64("histories", 30, "how many histories TestHistories draws")
	firstHistory = flag.Uint64("first", 0, "seed of the first of them")
)

// Routers come and go, refuse, forget, answer late, falsely and twice. Once one is right again the port is mapped within the time
// that a retry may take, what is said to be held leads here, few packets are sent, and at the end what was held is deleted.
func TestHistories(t *testing.T) {
	var worst, worstNew time.Duration
	for seed := *firstHistory; seed < *firstHistory+*histories; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				took, had := history(t, rand.New(rand.NewPCG(seed, 3)))
				if had {
					worst = max(worst, took)
				} else {
					worstNew = max(worstNew, took)
				}
			})
		})
	}
	t.Logf("mapped %v after the router was right, or %v where there had been no mapping", worst, worstNew)
}

func history(t *testing.T, rng *rand.Rand) (took time.Duration, had bool) {
	g := newRig(t, here, gate)
	r := newRouter(g.lan, gate, public)
	speak := func() {
		g.silence()
		r.speak(rng.IntN(2) == 0, rng.IntN(2) == 0)
		if rng.IntN(2) == 0 {
			r.speakUPnP(1 + rng.IntN(2))
		}
	}
	some := func(names ...string) (name string, code int) {
		return names[rng.IntN(len(names))], []int{0, 1, 2, 3, 4, 5, 8, 11, 200, 401, 501, 718, 725, 402}[rng.IntN(14)]
	}
	speak()
	g.start()
	sent := 0
	for range 5 + rng.IntN(40) {
		for range rng.IntN(3) {
			r.set(func() {
				switch rng.IntN(12) {
				case 0, 1:
					name, code := some("announce", "map", "address", "map udp", "map tcp")
					r.refuse[name] = code % 16
				case 2, 3:
					name, code := some("GetExternalIPAddress", "GetSpecificPortMappingEntry", "AddPortMapping", "DeletePortMapping")
					r.fault[name] = code
				case 4:
					n := uint16(rng.IntN(3))
					r.assign = func(transport byte, suggested uint16) uint16 { return suggested + n*uint16(transport) }
				case 5:
					r.most = []time.Duration{0, time.Second, time.Minute, time.Hour, 1 << 31 * time.Second}[rng.IntN(5)]
				case 6:
					r.permanent = !r.permanent
				case 7:
					r.control = []string{"", "http://127.0.0.1/x", "//", "ftp://x", "ctl/IPConn"}[rng.IntN(5)]
				case 8:
					r.table[outside{tcp, port}] = inside{host: netip.MustParseAddrPort("192.168.1.9:6881")}
				case 9, 10, 11:
					clear(r.refuse)
					clear(r.fault)
				}
			})
		}
		switch rng.IntN(12) {
		case 0:
			r.restart()
		case 1:
			r.change([]string{public, "203.0.113.8", "0.0.0.0", "10.0.0.1"}[rng.IntN(4)])
		case 2, 3:
			speak()
		case 4:
			g.silence()
		case 5:
			disturb(g, rng)
		case 6:
			g.route(here, "")
		case 7, 8:
			g.route(here, gate)
		case 9:
			g.mapper.Refresh()
		}
		wait := time.Duration(rng.Int64N(int64(time.Minute)))
		if rng.IntN(3) == 0 {
			wait *= 30
		}
		time.Sleep(wait)
		synctest.Wait()
		now := g.count(gate+":5351") + g.count(gate+":1900") + g.count("239.255.255.250:1900") + len(g.dials())
		if most := 500 + int(wait/time.Minute)*100; now-sent > most {
			t.Errorf("%d packets and connections in %v", now-sent, wait)
		}
		sent = now
		held, _ := g.state()
		had = had || len(held) > 0
	}

	g.silence()
	r.set(func() {
		clear(r.refuse)
		clear(r.fault)
		clear(r.table)
		r.control, r.permanent, r.most = "", false, 24*time.Hour
		r.assign = func(_ byte, suggested uint16) uint16 { return suggested }
	})
	way := speaking[rng.IntN(len(speaking))]
	way.speak(r)
	g.route(here, gate)
	began := time.Now()
	right := func() bool {
		held, err := g.state()
		return err == nil && len(held) == 1 && r.leads(tcp, held[0].TCP) == here+":6881" && r.leads(udp, held[0].UDP) == here+":6881"
	}
	for !right() && time.Since(began) < 33*time.Minute { // a retry, and what it takes
		time.Sleep(time.Second)
		synctest.Wait()
	}
	if !right() {
		held, err := g.state()
		t.Errorf("by %s: %v, %v; the table is %v", way.name, held, err, r.table)
	}
	took = time.Since(began)
	held, _ := g.state()
	began = time.Now()
	g.stop()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("Run ended after %v", took)
	}
	for _, m := range held {
		if r.leads(tcp, m.TCP) != "" || r.leads(udp, m.UDP) != "" {
			t.Errorf("%v is still mapped: %v", m, r.table)
		}
	}
	return took, had
}

// disturb adds answers that are malformed, false, late, double, or without end.
func disturb(g *rig, rng *rand.Rand) {
	kind, rng := rng.IntN(5), rand.New(rand.NewPCG(rng.Uint64(), 4))
	var mu sync.Mutex // for rng
	g.answer(gate+":5351", func(b []byte, from netip.AddrPort) {
		mu.Lock()
		defer mu.Unlock()
		p := slices.Clone(b)
		for range 1 + rng.IntN(3) {
			switch kind {
			case 0: // as it is
			case 1:
				p = p[:1+rng.IntN(len(p))]
			case 2:
				p = append(p, 0)
				p[1] |= 0x80
				p = append(p, make([]byte, rng.IntN(1200))...)
			case 3:
				p = append(p, 0)
				p[rng.IntN(len(p))] = byte(rng.IntN(256))
				p[1] |= 0x80
			case 4:
				p = make([]byte, 60)
				p[0], p[1] = byte(2*rng.IntN(2)), 0x80+byte(rng.IntN(3))
				p[11] = byte(rng.IntN(256))
			}
			g.send(p, gate+":5351", from)
		}
	})
	g.answer(gate+":1900", func(_ []byte, from netip.AddrPort) {
		mu.Lock()
		defer mu.Unlock()
		for i := range 10 {
			at := []string{gate + ":5001", "192.168.1.9:5000", "127.0.0.1:80", gate + ":1"}[rng.IntN(4)]
			g.send(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLocation: http://%s/%d\r\n\r\n", at, i), gate+":1900", from)
		}
	})
	g.serve(gate+":5001", http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch kind {
		case 0:
			<-q.Context().Done()
		case 1:
			for i := 0; ; i++ {
				if _, err := fmt.Fprint(w, "<a>"); err != nil || i > 1e6 {
					return
				}
			}
		case 2:
			w.Header().Set("Location", "http://127.0.0.1/")
			w.WriteHeader(302)
		default:
			fmt.Fprint(w, "<root><device><serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/x</controlURL></service>")
		}
	}))
}
