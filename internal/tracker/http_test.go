package tracker

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/httpguard"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/simnet"
)

func TestAnnounceURL(t *testing.T) {
	r := request{
		infoHash: rigHash, peerID: [20]byte([]byte("-SH0001-a b+c&d/e~f.")), key: 0xbeef, port: 6881,
		Progress: Progress{Uploaded: 1 << 40, Downloaded: 2, Left: 3}, numWant: 200,
	}
	const said = "info_hash=%00%20%25%2B%26%3D%FF~info.hash--%2F&peer_id=-SH0001-a%20b%2Bc%26d%2Fe~f.&port=6881" +
		"&uploaded=1099511627776&downloaded=2&left=3&compact=1&no_peer_id=1&numwant=200&key=0000BEEF"
	for _, c := range []struct {
		url  string
		edit func(*request)
		want string
	}{
		{"http://t.example/announce", nil, "http://t.example/announce?" + said},
		{"https://u:p@t.example:1/a%2Fb/announce.php?passkey=a+b%20c#top", nil, "https://u:p@t.example:1/a%2Fb/announce.php?passkey=a+b%20c&" + said},
		{"http://[::1]:80/announce?", func(r *request) { r.event = eventStarted }, "http://[::1]:80/announce?" + said + "&event=started"},
		{"http://t.example/x", func(r *request) { r.event, r.trackerID = eventStopped, "a b\x01" }, "http://t.example/x?" + said + "&event=stopped&trackerid=a%20b%01"},
	} {
		u, err := parseURL(c.url)
		require.NoError(t, err)
		req := r
		if c.edit != nil {
			c.edit(&req)
		}
		got := announceURL(u, req)
		require.Equal(t, c.want, got)
		parsed, err := url.Parse(got)
		require.NoError(t, err)
		require.Equal(t, string(rigHash[:]), parsed.Query().Get("info_hash"))
	}
}

func TestTrackerURLs(t *testing.T) {
	for _, c := range []struct{ url, reason string }{
		{"wss://t.example/announce", `scheme "wss" is not supported`},
		{"//t.example/announce", `scheme "" is not supported`},
		{"http:///announce", "URL without a host"},
		{"http://[::1/announce", "malformed URL"},
		{"udp://t.example/announce", "URL without a port"},
		{"udp://t.example:0/announce", "URL without a valid port"},
		{"udp://t.example:66000/announce", "URL without a valid port"},
	} {
		t.Run(c.url, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t, []string{c.url, "", c.url})
				trackers, _ := r.start()
				simnet.Sleep(time.Hour)
				require.Len(t, trackers.Status(), 1)
				require.EqualError(t, trackers.Status()[0].Err, "tracker "+c.url+": "+c.reason)
				require.Zero(t, trackers.Status()[0].NextAnnounce, "the tracker is not tried again")
			})
		})
	}
}

func TestParseHTTPAnswer(t *testing.T) {
	peer := func(s ...string) (peers []netip.AddrPort) {
		for _, s := range s {
			peers = append(peers, netip.MustParseAddrPort(s))
		}
		return peers
	}
	for _, c := range []struct {
		name, body string
		want       answer
		err        string
	}{
		{"all", "d8:completei1e10:downloadedi2e10:incompletei3e8:intervali900e12:min intervali60e5:peers0:10:tracker id2:xy15:warning message4:slowe",
			answer{interval: 15 * time.Minute, minInterval: time.Minute, swarm: Scrape{1, 3, 2}, trackerID: "xy", warning: "slow"}, ""},
		{"nothing", "de", answer{}, ""},
		{"followed by a newline", "de\r\n", answer{}, ""},
		{"compact", "d5:peers12:\x01\x02\x03\x04\x00\x50\x05\x06\x07\x08\x1a\xe1e", answer{peers: peer("1.2.3.4:80", "5.6.7.8:6881")}, ""},
		{"compact with bytes left over", "d5:peers9:\x01\x02\x03\x04\x00\x50\x05\x06\x07e", answer{peers: peer("1.2.3.4:80")}, ""},
		{"compact IPv6", "d6:peers618:\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50e", answer{peers: peer("[2001:db8::1]:80")}, ""},
		{"IPv4 in IPv6", "d6:peers618:\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x01\x02\x03\x04\x00\x50e", answer{peers: peer("1.2.3.4:80")}, ""},
		{"peers that cannot be dialled", "d5:peers24:\x01\x02\x03\x04\x00\x00\x00\x00\x00\x00\x00\x50\xe0\x00\x00\x01\x00\x50\xff\xff\xff\xff\x00\x50e", answer{}, ""},
		{"dictionaries", "d5:peersld2:ip7:1.2.3.47:peer id1:x4:porti80eed2:ip3:::14:porti81eed2:ip9:localhost4:porti80eed2:ip7:1.2.3.44:porti65616eed4:porti1eeled2:ip7:1.2.3.44:port2:80ei7eee",
			answer{peers: peer("1.2.3.4:80", "[::1]:81"), named: []namedPeer{{"localhost", 80}}}, ""},
		{"wrong types", "d8:complete1:a10:incompletele8:intervalde5:peersi7e6:peers6le10:tracker idi1ee", answer{}, ""},
		{"absurd numbers", "d8:completei-4e10:incompletei9223372036854775807e8:intervali-9223372036854775808e12:min intervali9223372036854775807ee",
			answer{swarm: Scrape{Leechers: 1<<31 - 1}, interval: time.Second, minInterval: 24 * time.Hour}, ""},
		{"malformed numbers", "d8:completei-0e10:downloadedi99999999999999999999e10:incompletei3e8:intervali01800e12:min intervali60e5:peers6:\x01\x02\x03\x04\x00\x50e",
			answer{peers: peer("1.2.3.4:80"), swarm: Scrape{Leechers: 3}, minInterval: time.Minute}, ""},
		{"2^63 seconds", "d8:intervali9223372036854775808ee", answer{}, ""},
		{"duplicate keys", "d8:intervali900e8:intervali1800e5:peers6:\x01\x02\x03\x04\x00\x505:peers6:\x05\x06\x07\x08\x00\x50e",
			answer{peers: peer("1.2.3.4:80", "5.6.7.8:80"), interval: 30 * time.Minute}, ""},
		{"malformed peers among others", "d5:peersld2:ip7:1.2.3.44:porti080eed2:ip7:1.2.3.54:porti80e4:porti81eed2:ip07:1.2.3.64:porti80eed2:ip7:1.2.3.74:porti80eeee",
			answer{peers: peer("1.2.3.5:81", "1.2.3.7:80")}, ""},
		{"truncated after peers", "d8:intervali900e5:peers6:\x01\x02\x03\x04\x00\x506:peers618:", answer{peers: peer("1.2.3.4:80"), interval: 15 * time.Minute}, ""},
		{"truncated within peers", "d5:peersld2:ip7:1.2.3.44:porti80eed2:ip7:1.2", answer{peers: peer("1.2.3.4:80")}, ""},
		{"truncated before peers", "d8:intervali900e5:peers12:\x01\x02\x03\x04\x00\x50", answer{}, "bencode: "},
		{"truncated after a failure reason", "d14:failure reason2:no8:interval", answer{}, "no"},
		{"an empty failure reason and peers", "d14:failure reason0:5:peers6:\x01\x02\x03\x04\x00\x50e", answer{peers: peer("1.2.3.4:80")}, ""},
		{"an empty failure reason and an interval", "d14:failure reason0:8:intervali900e5:peers0:e", answer{interval: 15 * time.Minute}, ""},
		{"a failure reason that is not a string, and peers", "d14:failure reasoni0e5:peers6:\x01\x02\x03\x04\x00\x50e", answer{peers: peer("1.2.3.4:80")}, ""},
		{"only an empty failure reason", "d14:failure reason0:e", answer{}, "refused without a reason"},
		{"an empty failure reason and retry in", "d14:failure reason0:8:retry in5:nevere", answer{}, "refused without a reason"},
		{"refused", "d14:failure reason9:no\x1b[2J\nok5:peers6:\x01\x02\x03\x04\x00\x50e", answer{}, "no [2J ok"},
		{"HTML", "<html>", answer{}, "bencode: "},
		{"no bytes", "", answer{}, "bencode: "},
		{"a list", "le", answer{}, "not a dictionary"},
		{"a length beyond the end", "d5:peers500000000:ab", answer{}, "bencode: "},
		{"depth", strings.Repeat("l", 1<<20), answer{}, "bencode: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := parseHTTPAnswer([]byte(c.body))
			if c.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.err)
			}
			require.Equal(t, c.want, a)
		})
	}
}

// An answer of 2.6 KB may unpack to 50,000 peers, which took a tenth of a second to look at.
func TestParseHTTPAnswerLooksAtFewPeers(t *testing.T) {
	const junk, good = "d2:ip3:a:b4:porti1ee", "d2:ip7:9.9.9.94:porti80ee"
	for n, want := range map[int]int{maxPeersSeen - 1: 1, maxPeersSeen: 0} {
		a, err := parseHTTPAnswer([]byte("d8:intervali60e5:peersl" + strings.Repeat(junk, n) + good + "ee"))
		require.NoError(t, err)
		require.Len(t, a.peers, want)
	}
	values := strings.Repeat("le", answerLimits.Values)
	a, err := parseHTTPAnswer([]byte("d8:intervali60e5:peersl" + good + values + "e6:peers618:" + strings.Repeat("9", 18) + "e"))
	require.NoError(t, err)
	require.Len(t, a.peers, 1, "cut after so many values")
	require.Equal(t, 1<<16, answerLimits.Values)
}

func TestParseHTTPAnswerBoundsPeers(t *testing.T) {
	compact := bytes.Repeat([]byte("\x01\x02\x03\x04\x00\x50"), 10_000)
	a, err := parseHTTPAnswer(fmt.Appendf(nil, "d5:peers%d:%se", len(compact), compact))
	require.NoError(t, err)
	require.Len(t, a.peers, maxPeersSaid)
	a, err = parseHTTPAnswer([]byte("d5:peersl" + strings.Repeat("d2:ip7:1.2.3.44:porti80ee", 10_000) + "ee"))
	require.NoError(t, err)
	require.Len(t, a.peers, maxPeersSaid)
}

// TestHTTPAnnounce checks the parameters of announces over HTTP, and that the fields of an answer are used.
func TestHTTPAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
		var got []*http.Request
		r.serve("10.0.1.1", func(w http.ResponseWriter, req *http.Request) {
			got = append(got, req)
			// The transport would not inflate this body, because it did not set Accept-Encoding itself.
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			fmt.Fprint(z, "d10:tracker id2:id15:warning message3:hum5:peers6:\x0a\x09\x09\x09\x1a\xe1e")
			z.Close()
		})
		r.config.Progress = func() Progress { return Progress{Left: -1} }
		r.config.Port = func() uint16 { return 0 }
		trackers, _ := r.start()
		simnet.Sleep(61 * time.Minute)
		require.Len(t, got, 3)
		q := got[0].URL.Query()
		require.Equal(t, "shoal-go/torrent", got[0].Header.Get("User-Agent"))
		require.Equal(t, "1", q.Get("port"), "trackers refuse port 0")
		require.Equal(t, "16384", q.Get("left"), "unknown, and 0 would mean a seed")
		require.False(t, q.Has("ip"))
		require.False(t, q.Has("trackerid"))
		require.Equal(t, "id", got[1].URL.Query().Get("trackerid"))
		require.Equal(t, q.Get("key"), got[1].URL.Query().Get("key"))
		require.Equal(t, "hum", trackers.Status()[0].Warning)
		require.NotEmpty(t, r.foundBy())
	})
}

func TestHTTPAnnouncesOverBothFamilies(t *testing.T) {
	for _, c := range []struct {
		name       string
		addrs      []string
		v4, v6     string // answer; "silent" for none, "slow" for onePeer late
		found      int
		reason     string
		withinSecs int
	}{
		{"both", []string{"10.0.1.1", "fd00::1:1"}, onePeer, onePeer, 2, "", 1},
		{"IPv6 is a black hole", []string{"10.0.1.1", "fd00::1:1"}, onePeer, "silent", 1, "", 1},
		{"IPv4 only", []string{"10.0.1.1"}, onePeer, "", 1, "", 1},
		{"IPv4 only, slow", []string{"10.0.1.1"}, "slow", "", 1, "", 26},
		{"IPv6 only", []string{"fd00::1:1"}, "", onePeer, 1, "", 1},
		{"refused over one, silent over the other", []string{"10.0.1.1", "fd00::1:1"}, "d14:failure reason2:noe", "silent", 0, "no", 16},
		{"no such name", nil, "", "", 0, "no such host", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t, []string{"http://t.example/announce"})
				r.names["t.example"] = nil
				for _, a := range c.addrs {
					ip := netip.MustParseAddr(a)
					r.names["t.example"] = append(r.names["t.example"], ip)
					answer := c.v6
					if ip.Is4() {
						answer = c.v4
					}
					r.serve(a, func(w http.ResponseWriter, req *http.Request) {
						switch answer {
						case "silent":
							<-req.Context().Done()
							return
						case "slow":
							time.Sleep(25 * time.Second)
							answer = onePeer
						}
						fmt.Fprint(w, answer)
					})
				}
				trackers, end := r.start()
				simnet.Sleep(time.Duration(c.withinSecs) * time.Second)
				require.Len(t, r.foundBy()["http://t.example/announce"], c.found)
				if c.reason != "" {
					require.ErrorContains(t, trackers.Status()[0].Err, c.reason)
				} else {
					require.Nil(t, trackers.Status()[0].Err)
				}
				end()
				began := time.Now()
				trackers.Stop(t.Context())
				require.Less(t, time.Since(began), time.Second, "`stopped` is sent only where `started` was answered")
			})
		})
	}
}

// Peers inside our network are dropped from the answers of trackers outside it.
func TestInwardPeers(t *testing.T) {
	const peers = "d8:intervali1800e5:peers18:\x0a\x09\x09\x09\x1a\xe1\x7f\x00\x00\x01\x1a\xe1\x08\x08\x08\x08\x1a\xe1e"
	for tracker, want := range map[string]int{"1.1.1.1": 1, "10.0.1.1": 3, "127.0.0.1": 3, "100.64.0.9": 3} {
		for scheme, port := range map[string]string{"http": "", "udp": ":80"} {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t, []string{scheme + "://" + tracker + port + "/announce"})
				var s said
				if scheme == "udp" {
					r.serveUDP(tracker, honestUDP(&s, []byte(peers)[len("d8:intervali1800e5:peers18:"):len(peers)-1]))
				} else {
					r.serve(tracker, honest(&s, peers))
				}
				r.start()
				simnet.Sleep(3 * time.Second)
				require.Len(t, r.foundBy()[scheme+"://"+tracker+port+"/announce"], want, "%s %s", scheme, tracker)
			})
		}
	}
}

func TestHTTPRedirects(t *testing.T) {
	for _, c := range []struct{ name, from, to, reason string }{
		{"public to public", "http://1.1.1.1/announce", "http://2.2.2.2/good", ""},
		{"private to private", "http://10.0.1.1/announce", "http://10.0.1.2/good", ""},
		{"private to public", "http://10.0.1.1/announce", "http://2.2.2.2/good", ""},
		{"public to private", "http://1.1.1.1/announce", "http://10.0.1.2/good", "redirected from a public address to a private one"},
		{"public to loopback", "http://1.1.1.1/announce", "http://127.0.0.1/good", "redirected from a public address to a private one"},
		{"public to IPv4-mapped loopback", "http://1.1.1.1/announce", "http://[::ffff:127.0.0.1]/good", "redirected from a public address to a private one"},
		{"public to localhost", "http://1.1.1.1/announce", "http://LocalHost./good", "redirected from a public address to a private one"},
		{"public to a name within", "http://1.1.1.1/announce", "http://within.example/good", "redirected from a public address to a private one"},
		{"by name, public to a name within", "http://public.example/announce", "http://within.example/good", "redirected from a public address to a private one"},
		{"by name, private to private", "http://within.example/announce", "http://10.0.1.1/good", ""},
		{"five times", "http://10.0.1.1/5", "", ""},
		{"six times", "http://10.0.1.1/6", "", "more than 5 redirects"},
		{"in a circle", "http://10.0.1.1/circle", "http://10.0.1.1/circle", "more than 5 redirects"},
		{"to a file URL", "http://10.0.1.1/announce", "file:///etc/passwd", "neither http nor https"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t)
				r.config.UserTiers = [][]string{{c.from}}
				r.names["within.example"] = []netip.Addr{netip.MustParseAddr("10.0.1.2")}
				r.names["public.example"] = []netip.Addr{netip.MustParseAddr("1.1.1.1")}
				for _, ip := range []string{"1.1.1.1", "2.2.2.2", "10.0.1.1", "10.0.1.2", "127.0.0.1"} {
					r.serve(ip, func(w http.ResponseWriter, req *http.Request) {
						require.Empty(t, req.Header.Get("Referer"))
						var n int
						if _, err := fmt.Sscanf(req.URL.Path, "/%d", &n); err == nil && n > 0 {
							http.Redirect(w, req, fmt.Sprintf("/%d", n-1), http.StatusFound)
						} else if req.URL.Path == "/good" || err == nil {
							fmt.Fprint(w, strings.Replace(onePeer, "\x0a\x09", "\x08\x09", 1)) // a public peer
						} else {
							http.Redirect(w, req, c.to, http.StatusFound)
						}
					})
				}
				trackers, _ := r.start()
				simnet.Sleep(3 * time.Second)
				if c.reason == "" {
					require.Nil(t, trackers.Status()[0].Err)
					require.NotEmpty(t, r.foundBy())
				} else {
					require.ErrorContains(t, trackers.Status()[0].Err, c.reason)
					require.Empty(t, r.foundBy())
				}
			})
		})
	}
}

// The client of NewHTTPClient checks each address before it connects to it, whatever the host name was.
func TestRedirectGuard(t *testing.T) {
	g := newGuard(NewHTTPClient(HTTPConfig{}), true)
	to, err := url.Parse("http://1.1.1.1/announce")
	require.NoError(t, err)
	require.NoError(t, g.Begin(to))
	require.NoError(t, g.Resume(to, g.Origin()))
	ctx := g.Watch(t.Context(), func(error) {})
	client := NewHTTPClient(HTTPConfig{}).Transport.(*dualTransport)
	for f, addr := range [netaddr.Families]string{netaddr.AnyFamily: "127.0.0.1:9", netaddr.IPv4: "127.0.0.1:9", netaddr.IPv6: "[::1]:9"} {
		_, err := client.by[f].DialContext(ctx, "tcp", addr)
		require.ErrorIs(t, err, httpguard.ErrInward)
	}
}

// An HTTP client of the user is used unchanged, and its CheckRedirect applies too.
func TestOwnHTTPClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://t.example/announce"})
		asked := 0
		r.config.HTTP = &http.Client{
			Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
				asked++
				return &http.Response{
					StatusCode: http.StatusFound, Header: http.Header{"Location": {"/elsewhere"}},
					Body: io.NopCloser(strings.NewReader("")), Request: req,
				}, nil
			}),
			CheckRedirect: func(*http.Request, []*http.Request) error { return fmt.Errorf("no further") },
		}
		trackers, _ := r.start()
		simnet.Sleep(time.Second)
		require.Equal(t, 1, asked)
		require.ErrorContains(t, trackers.Status()[0].Err, "no further")
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func FuzzHTTPAnswer(f *testing.F) {
	f.Add([]byte(onePeer))
	f.Add([]byte("d5:peersld2:ip3:::14:porti81eee6:peers60:8:retry in5:nevere"))
	f.Add([]byte("d14:failure reason4:busy8:retry ini7ee"))
	f.Add([]byte("d14:failure reason0:8:intervali01e8:intervali2e5:peersld2:ip6:a.test4:porti80eed4:porti-0eee"))
	f.Add([]byte("d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei1eeee"))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := parseHTTPAnswer(body)
		if err != nil {
			require.Zero(t, a)
		}
		requireSane(t, a)
		s, _ := parseHTTPScrape(body, [20]byte([]byte("aaaaaaaaaaaaaaaaaaaa")))
		require.True(t, s.Seeds >= 0 && s.Leechers >= 0 && s.Completed >= 0)
	})
}

func FuzzCompactPeers(f *testing.F) {
	f.Add(compactPeer, true)
	f.Add([]byte("\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50"), false)
	f.Fuzz(func(t *testing.T, p []byte, v4 bool) {
		size := 16
		if v4 {
			size = 4
		}
		peers := compactPeers(nil, p, size)
		require.LessOrEqual(t, len(peers), len(p)/(size+2))
		requireSane(t, answer{peers: peers})
	})
}

func requireSane(t *testing.T, a answer) {
	require.LessOrEqual(t, len(a.named), maxNamed)
	for _, p := range a.named {
		require.True(t, isHostName([]byte(p.host)) && p.port > 0, p)
	}
	require.LessOrEqual(t, len(a.peers), maxPeersSaid)
	for _, p := range a.peers {
		require.True(t, netaddr.Dialable(p), p)
		require.Equal(t, netaddr.Unmap(p), p)
	}
	require.True(t, a.interval >= 0 && a.minInterval >= 0)
	require.True(t, a.swarm.Seeds >= 0 && a.swarm.Leechers >= 0 && a.swarm.Completed >= 0)
}
