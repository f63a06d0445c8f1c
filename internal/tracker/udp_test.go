package tracker

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

func TestUDPAnnounceRequest(t *testing.T) {
	r := request{
		infoHash: rigHash, peerID: [20]byte([]byte("-SH0001-abcdefghijkl")), key: 0xbeef, port: 6881,
		Progress: Progress{Uploaded: 1 << 40, Downloaded: 2, Left: 3},
		event:    eventStarted, numWant: 200,
	}
	head := string(rigHash[:]) + "-SH0001-abcdefghijkl" +
		"\x00\x00\x00\x00\x00\x00\x00\x02" + "\x00\x00\x00\x00\x00\x00\x00\x03" + "\x00\x00\x01\x00\x00\x00\x00\x00" +
		"\x00\x00\x00\x02" + "\x00\x00\x00\x00" + "\x00\x00\xbe\xef" + "\x00\x00\x00\xc8" + "\x1a\xe1"
	long := strings.Repeat("x", 300)
	for _, c := range []struct{ url, options string }{
		{"udp://t.example:80", ""},
		{"udp://t.example:80/announce", "\x02\x09/announce"},
		{"udp://t.example:80/a%20b?pass=1", "\x02\x0d/a%20b?pass=1"},
		{"udp://t.example:80/" + long, "\x02\xff/" + long[:254] + "\x02\x2e" + long[:46]},
	} {
		u, err := parseURL(c.url)
		require.NoError(t, err)
		require.Equal(t, head+c.options, string(appendUDPAnnounce(nil, u, r)))
	}
}

// A silent tracker is sent the first datagrams of the examples in BEP 15, at the same times. want is "second:action" for each.
func TestUDPSilence(t *testing.T) {
	for _, c := range []struct {
		name     string
		connects bool
		want     string
	}{
		{"connect times out", false, "0:connect 15:connect 45:connect"},
		{"announce times out", true, "0:connect 0:announce 15:announce 45:announce"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t, []string{"udp://10.0.1.1:80"})
				var got []string
				transactions := map[string]bool{}
				began := time.Now()
				r.serveUDP("10.0.1.1", func(p []byte, reply func([]byte)) {
					action := binary.BigEndian.Uint32(p[8:])
					got = append(got, fmt.Sprintf("%d:%s", int(time.Since(began).Seconds()), []string{"connect", "announce"}[action]))
					transactions[string(p[8:16])] = true
					if c.connects && action == 0 {
						reply(append(p[8:16:16], 1, 2, 3, 4, 5, 6, 7, 8))
					}
				})
				trackers, _ := r.start()
				simnet.Sleep(2 * time.Second)
				require.ErrorContains(t, trackers.Status()[0].Err, "no answer yet")
				require.True(t, trackers.Status()[0].Announcing)
				simnet.Sleep(103500 * time.Millisecond)
				require.Equal(t, c.want, strings.Join(got, " "))
				require.LessOrEqual(t, len(transactions), 2, "retransmissions have the same transaction id")
				require.ErrorContains(t, trackers.Status()[0].Err, "no answer")
				require.False(t, trackers.Status()[0].Announcing)
			})
		})
	}
}

func TestUDPConnectionIsKeptForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"udp://10.0.1.1:80"})
		var s said
		r.serveUDP("10.0.1.1", honestUDP(&s, nil))
		trackers, _ := r.start()
		simnet.Sleep(time.Second)
		require.Equal(t, "connect started", s.take())
		trackers.Complete()
		simnet.Sleep(time.Second)
		require.Equal(t, "completed", s.take())
		sc, err := scrape(t.Context(), trackers)
		require.NoError(t, err)
		require.Equal(t, Scrape{Seeds: 5, Leechers: 7, Completed: 70}, sc)
		require.Equal(t, "scrape", s.take())
		simnet.Sleep(time.Minute)
		_, err = scrape(t.Context(), trackers)
		require.NoError(t, err)
		require.Equal(t, "connect scrape", s.take())
	})
}

func TestUDPTrackerThatForgotTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"udp://10.0.1.1:80"})
		var s said
		r.serveUDP("10.0.1.1", honestUDP(&s, compactPeer))
		r.config.UDP.connect(netip.MustParseAddrPort("10.0.1.1:80"), 0xdead)
		r.start()
		simnet.Sleep(time.Second)
		require.Equal(t, "connect started", s.take())
		require.NotEmpty(t, r.foundBy())
	})
}

func TestUDPNextAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"udp://t.example:80"})
		var s said
		for _, a := range []string{"10.0.1.1", "10.0.1.2", "10.0.1.3"} {
			r.names["t.example"] = append(r.names["t.example"], netip.MustParseAddr(a))
		}
		r.serveUDP("10.0.1.3", honestUDP(&s, compactPeer))
		trackers, end := r.start()
		simnet.Sleep(46 * time.Second)
		require.Equal(t, "connect started", s.take(), "the third address, after 15 and 30 seconds of silence")
		simnet.Sleep(30 * time.Minute)
		require.Equal(t, "connect -", s.take(), "the next announce goes to the address that answered")
		end()
		trackers.Stop(t.Context())
		require.Equal(t, "stopped", s.take())
	})
}

func TestUDPOverBothFamilies(t *testing.T) {
	for _, silent6 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newTrackerRig(t, []string{"udp://t.example:80"})
			r.names["t.example"] = []netip.Addr{netip.MustParseAddr("fd00::1:1"), netip.MustParseAddr("10.0.1.1")}
			var s, s6 said
			r.serveUDP("10.0.1.1", honestUDP(&s, compactPeer))
			h := r.serveUDP("fd00::1:1", honestUDP(&s6, binary.BigEndian.AppendUint16(rigPeer6.Addr().AsSlice(), rigPeer6.Port())))
			if silent6 {
				h.Unplug()
			}
			trackers, end := r.start()
			simnet.Sleep(time.Second)
			require.Equal(t, "connect started", s.take())
			found := r.foundBy()["udp://t.example:80"]
			if silent6 {
				require.Equal(t, []netip.AddrPort{rigPeer}, found)
			} else {
				require.ElementsMatch(t, []netip.AddrPort{rigPeer, rigPeer6}, found)
				require.Equal(t, "connect started", s6.take())
			}
			require.Equal(t, len(found), trackers.Status()[0].Peers)
			require.Nil(t, trackers.Status()[0].Err)
			simnet.Sleep(30 * time.Minute)
			require.Equal(t, "connect -", s.take())
			end()
			began := time.Now()
			trackers.Stop(t.Context())
			require.Less(t, time.Since(began), time.Second)
		})
	}
}

// If this machine has no IPv6, the error is still that the tracker does not answer over IPv4.
func TestUDPWithoutIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"udp://t.example:80"})
		r.names["t.example"] = []netip.Addr{netip.MustParseAddr("fd00::1:1"), netip.MustParseAddr("10.0.1.1")}
		r.noIPv6 = true
		trackers, _ := r.start()
		simnet.Sleep(20 * time.Second)
		require.EqualError(t, trackers.Status()[0].Err, "tracker udp://t.example:80: no answer")
	})
}

// A forged datagram does not keep the true answer from being accepted.
func TestUDPForgery(t *testing.T) {
	be := binary.BigEndian
	for _, c := range []struct {
		name string
		lie  func(true []byte) []byte // from the tracker's address, before the true answer
	}{
		{"wrong transaction", func(p []byte) []byte { p[7]++; return p }},
		{"wrong action", func(p []byte) []byte { p[3] = 2; return p }},
		{"unknown action", func(p []byte) []byte { p[0] = 0x80; return p }},
		{"short", func(p []byte) []byte { return p[:15] }},
		{"shorter", func(p []byte) []byte { return p[:7] }},
		{"empty", func(p []byte) []byte { return nil }},
		{"error with another transaction", func(p []byte) []byte { return append(be.AppendUint32(nil, 3), "xxxxno"...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t, []string{"udp://10.0.1.1:80"})
				var s said
				r.serveUDP("10.0.1.1", func(p []byte, reply func([]byte)) {
					honestUDP(&s, compactPeer)(p, func(true []byte) {
						reply(c.lie(bytes.Clone(true)))
						reply(true)
						reply(true) // a duplicate
					})
				})
				trackers, _ := r.start()
				simnet.Sleep(5 * time.Second)
				require.Equal(t, "connect started", s.take())
				require.Nil(t, trackers.Status()[0].Err)
				require.Equal(t, []netip.AddrPort{rigPeer}, r.foundBy()["udp://10.0.1.1:80"])
			})
		})
	}
}

// A datagram from another address is ignored, even if its transaction id is right.
func TestUDPForgeryFromAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"udp://10.0.1.1:80"})
		liar, err := r.net.NewHost("10.0.1.66", 0, 0, 0).ListenPacket("udp", ":80")
		require.NoError(t, err)
		var s said
		h := r.net.NewHost("10.0.1.1", 0, 0, 40*time.Millisecond)
		c, err := h.ListenPacket("udp", ":80")
		require.NoError(t, err)
		go func() {
			p := make([]byte, 4096)
			for {
				n, from, err := c.ReadFrom(p)
				if err != nil {
					return
				}
				honestUDP(&s, compactPeer)(bytes.Clone(p[:n]), func(true []byte) {
					lie := bytes.Clone(true)
					if len(lie) > 20 {
						lie = append(lie[:20], 6, 6, 6, 6, 6, 6)
					}
					liar.WriteTo(lie, from)
					c.WriteTo(true, from)
				})
			}
		}()
		r.start()
		simnet.Sleep(5 * time.Second)
		require.Equal(t, []netip.AddrPort{rigPeer}, r.foundBy()["udp://10.0.1.1:80"])
	})
}

func TestUDPError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"udp://10.0.1.1:80"})
		asked := 0
		r.serveUDP("10.0.1.1", func(p []byte, reply func([]byte)) {
			asked++
			reply(append(append([]byte{0, 0, 0, 3}, p[12:16]...), "go \x07away"...))
		})
		trackers, _ := r.start()
		simnet.Sleep(5 * time.Second)
		require.EqualError(t, trackers.Status()[0].Err, "tracker udp://10.0.1.1:80: go  away")
		require.Equal(t, 1, asked)
		_, err := scrape(t.Context(), trackers)
		require.ErrorContains(t, err, "go  away")
	})
}

// If a datagram cannot be sent, the exchange fails with the error of the socket.
func TestUDPCannotSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"udp://10.0.1.1:80"})
		require.NoError(t, r.mux.Close())
		_, _, err := r.config.UDP.exchange(t.Context(), []netip.AddrPort{netip.MustParseAddrPort("10.0.1.1:80")}, udpScrape, nil, nil)
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

func TestScrape(t *testing.T) {
	hash := string(rigHash[:])
	for _, c := range []struct {
		name, path, body string
		want             Scrape
		err              string
	}{
		{"good", "/announce", "d5:filesd20:" + hash + "d8:completei5e10:downloadedi50e10:incompletei10eeee", Scrape{5, 10, 50}, ""},
		{"with a key", "/x/announce.php?key=1", "d5:filesd20:" + hash + "deee", Scrape{}, ""},
		{"announce not in the last element", "/announce/x", "de", Scrape{}, "cannot be scraped"},
		{"another torrent", "/announce", "d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei5eeee", Scrape{}, "the torrent is not in the answer"},
		{"refused", "/announce", "d14:failure reason2:noe", Scrape{}, "no"},
		{"garbage", "/announce", "<html>", Scrape{}, `malformed answer "<html>"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t, []string{"http://10.0.1.1" + c.path})
				r.serveHTTPScrape("10.0.1.1", c.body)
				s, err := scrape(t.Context(), New(r.config))
				if c.err == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, c.err)
				}
				require.Equal(t, c.want, s)
			})
		})
	}
}

func TestScrapeDoesNotWaitForSilentTracker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"udp://10.0.1.1:80"}, []string{"http://10.0.1.2/announce"})
		r.serveHTTPScrape("10.0.1.2", "d5:filesd20:"+string(rigHash[:])+"d8:completei5eeee")
		trackers := New(r.config)
		began := time.Now()
		s, err := scrape(t.Context(), trackers)
		require.NoError(t, err)
		require.Equal(t, 5, s.Seeds)
		require.Less(t, time.Since(began), 2*time.Second)
		synctest.Wait()

		r.config.Private = true
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = scrape(ctx, New(r.config))
		require.ErrorIs(t, err, context.DeadlineExceeded, "only one tracker is asked for a private torrent")
		_, err = scrape(t.Context(), New(r.config))
		require.ErrorContains(t, err, "tracker udp://10.0.1.1:80: no answer")
	})
}

func FuzzUDPAnswer(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x00\x00\x00\x09\x00\x00\x07\x08\x00\x00\x00\x07\x00\x00\x00\x05\x0a\x09\x09\x09\x1a\xe1"), true)
	f.Add([]byte("\x00\x00\x00\x03\x00\x00\x00\x09no"), true)
	f.Add(bytes.Repeat([]byte{0xff}, 100), false)
	f.Fuzz(func(t *testing.T, p []byte, v4 bool) {
		// One request of each action is under way. A datagram that is accepted as its answer must be long enough to be parsed.
		u := NewUDP(nil, nil)
		from := netip.MustParseAddrPort("10.0.1.1:80")
		for action := udpConnect; action <= udpScrape; action++ {
			answers := make(chan []byte, 1)
			u.asked[udpQuestion{from, 9}] = udpWaiter{action, answers}
			u.Receive(p, from)
			select {
			case got := <-answers:
				require.Equal(t, p, got)
				require.Empty(t, u.asked)
				switch binary.BigEndian.Uint32(got) {
				case 0:
					require.GreaterOrEqual(t, len(got), 16)
				case 1:
					requireSane(t, parseUDPAnswer(got, v4))
				case 2:
					require.GreaterOrEqual(t, len(got), 20)
				}
			default:
				require.Len(t, u.asked, 1)
			}
		}
	})
}

// No packet is sent to an address that is not of one host.
func TestUDPTrackerAtManyHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t)
		var mu sync.Mutex
		var sent []netip.AddrPort
		u := NewUDP(func(_ []byte, to netip.AddrPort) error {
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, to)
			return &net.OpError{Op: "write", Err: syscall.ENETUNREACH}
		}, r.lookupFor)
		r.config.UDP = u
		r.hungry = true
		r.names["many.example"] = []netip.Addr{netip.MustParseAddr("239.255.255.250"), netip.MustParseAddr("::ffff:255.255.255.255")}
		r.names["mixed.example"] = []netip.Addr{netip.MustParseAddr("ff02::1"), netip.MustParseAddr("10.0.1.1")}
		for _, host := range []string{"239.255.255.250", "255.255.255.255", "0.0.0.0", "[::]", "[ff02::1]", "[::ffff:224.0.0.1]", "10.0.1.1:0", "many.example", "mixed.example"} {
			if !strings.HasSuffix(host, ":0") {
				host += ":80"
			}
			r.config.Tiers = append(r.config.Tiers, []string{"udp://" + host})
		}
		r.config.UserTiers = [][]string{{"udp://224.0.0.2:80"}}
		trackers, _ := r.start()
		simnet.Sleep(time.Minute)
		for _, s := range trackers.Status() {
			require.NotNil(t, s.Err, s.URL)
		}
		mu.Lock()
		defer mu.Unlock()
		require.NotEmpty(t, sent)
		for _, to := range sent {
			require.Equal(t, netip.MustParseAddrPort("10.0.1.1:80"), to)
		}
	})
}

// A name with very many addresses leads to few.
func TestUDPNameWithManyAddresses(t *testing.T) {
	u := NewUDP(nil, func(context.Context, string, uint16) (all []netip.Addr, _ error) {
		for i := range 4000 {
			all = append(all, netip.AddrFrom4([4]byte{9, 9, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0x20, 1, 14: byte(i >> 8), 15: byte(i)}))
		}
		return all, nil
	})
	addrs, err := u.resolve(t.Context(), &url.URL{Scheme: "udp", Host: "many.example:80"})
	require.NoError(t, err)
	require.Len(t, addrs, 2*maxHostAddrs)
}
