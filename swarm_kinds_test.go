package torrent

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/simnet/simweb"
	"github.com/shoal-go/torrent/internal/wire"
)

// simKind is a way to misbehave that a history may draw.
type simKind struct {
	name string
	draw func(h *simHistory, name string)
}

// simple is a kind of one peer with a script. It may be dialled, and often dials as well.
func simple(name string, script func(h *simHistory) simpeer.Script) simKind {
	return simKind{name, func(h *simHistory, name string) {
		h.misbehaves(h.newPeer(name, h.between(10e3, 8e6), script(h)))
	}}
}

// cut is a kind of one peer whose connections break in one way, each after some bytes.
func cut(name string, at func(bytes int64) simnet.Fault) simKind {
	return simKind{name, func(h *simHistory, name string) {
		p := h.newPeer(name, h.between(10e3, 8e6), simpeer.Script{})
		p.Host.Plan = func() simnet.Fault { return at(int64(h.between(100, 1e6))) }
		h.misbehaves(p)
	}}
}

// misbehaves starts a peer that the bounds do not count on.
func (h *simHistory) misbehaves(p *simpeer.Peer) {
	h.drawBuffer(p.Host)
	h.silence = true
	if p.Lies() {
		h.liars[p.Host.IP()] = true
	}
	if h.hopeless && !p.ClaimsAll {
		p.Have.Remove(h.wanted[0])
	}
	p.Come(h.seconds(0.001, 30), 0, 0)
	if h.chance(3) {
		for _, s := range h.options {
			p.Call(1, s.host.Addr(6881), h.seconds(1, 100))
		}
	}
}

// simKinds are the ways to misbehave.
var simKinds = []simKind{
	simple("lies now and then", func(h *simHistory) simpeer.Script { return simpeer.Script{Corrupt: 2 + h.rng.IntN(30)} }),
	simple("lies in one block of each piece", func(h *simHistory) simpeer.Script {
		return simpeer.Script{Corrupt: 1, Scatters: true, Fast: true}
	}),
	simple("lies always", func(h *simHistory) simpeer.Script { return simpeer.Script{Corrupt: 1} }),
	simple("lies, and drops the connection", func(h *simHistory) simpeer.Script {
		return simpeer.Script{Corrupt: 3, ResetAfter: 1 + h.rng.IntN(20)}
	}),
	simple("lies, and flaps", func(h *simHistory) simpeer.Script {
		return simpeer.Script{Corrupt: 3, Flap: h.seconds(0.1, 2)}
	}),
	simple("never answers", func(h *simHistory) simpeer.Script { return simpeer.Script{Never: simpeer.Answers, Eager: true} }),
	simple("never unchokes", func(h *simHistory) simpeer.Script { return simpeer.Script{Never: simpeer.Unchokes} }),
	simple("never shakes hands", func(h *simHistory) simpeer.Script { return simpeer.Script{Never: simpeer.ShakesHands} }),
	simple("reads nothing", func(h *simHistory) simpeer.Script { return simpeer.Script{Never: simpeer.Reads} }),
	simple("flaps", func(h *simHistory) simpeer.Script { return simpeer.Script{Flap: h.seconds(0.1, 2)} }),
	simple("flaps, without a reject", func(h *simHistory) simpeer.Script {
		return simpeer.Script{Flap: h.seconds(0.1, 2), DropsSilently: true, Fast: true}
	}),
	simple("sends after a choke", func(h *simHistory) simpeer.Script {
		return simpeer.Script{Flap: h.seconds(0.1, 5), SendsLate: true}
	}),
	simple("resets after some blocks", func(h *simHistory) simpeer.Script { return simpeer.Script{ResetAfter: 1 + h.rng.IntN(50)} }),
	simple("leaves and is found again", func(h *simHistory) simpeer.Script { return simpeer.Script{LeaveAfter: h.seconds(0.1, 20)} }),
	simple("stops in mid-block", func(h *simHistory) simpeer.Script { return simpeer.Script{StallAfter: h.rng.IntN(20) + 1} }),
	simple("drips", func(h *simHistory) simpeer.Script { return simpeer.Script{Drip: time.Second} }),
	simple("sends everything twice", func(h *simHistory) simpeer.Script { return simpeer.Script{Twice: true} }),
	simple("sends wrong lengths", func(h *simHistory) simpeer.Script { return simpeer.Script{Shortens: 1 + h.rng.IntN(20)} }),
	simple("rejects", func(h *simHistory) simpeer.Script { return simpeer.Script{Rejects: 1 + h.rng.IntN(5), Fast: true} }),
	simple("floods", func(h *simHistory) simpeer.Script { return simpeer.Script{Floods: true} }),
	simple("makes noise", func(h *simHistory) simpeer.Script {
		noises, s := simpeer.Noises(), simpeer.Script{NoiseEvery: h.seconds(0.01, 5)}
		for range 1 + h.rng.IntN(4) {
			s.Noise = append(s.Noise, noises[h.rng.IntN(len(noises))])
		}
		return s
	}),
	simple("sets spare bits", func(h *simHistory) simpeer.Script { return simpeer.Script{Opening: simpeer.SpareBits} }),
	simple("bitfield of the wrong size", func(h *simHistory) simpeer.Script {
		off := 2*h.rng.IntN(2) - 1
		return simpeer.Script{Opening: func(c *simpeer.Content) []byte {
			return wire.AppendBitfield(nil, make([]byte, (c.NumPieces()+7)/8+off))
		}}
	}),
	simple("another torrent", func(h *simHistory) simpeer.Script {
		return simpeer.Script{Handshake: func(b []byte) []byte { b[28]++; return b }}
	}),
	simple("another protocol", func(h *simHistory) simpeer.Script {
		return simpeer.Script{Handshake: func([]byte) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }}
	}),
	simple("half a handshake", func(h *simHistory) simpeer.Script {
		return simpeer.Script{Handshake: func(b []byte) []byte { return b[:30] }}
	}),
	cut("half-closes", func(at int64) simnet.Fault { return simnet.Fault{FinAfter: at} }),
	cut("falls silent anywhere", func(at int64) simnet.Fault { return simnet.Fault{StallAfter: at} }),
	{"claims everything", func(h *simHistory, name string) {
		p := h.newPeer(name, h.between(10e3, 8e6), simpeer.Script{ClaimsAll: true})
		for i := range h.content.NumPieces() {
			if h.chance(2) {
				p.Have.Remove(i)
			}
		}
		if h.hopeless {
			p.Have.Remove(h.wanted[0])
		}
		h.misbehaves(p)
	}},
	{"comes back with another port", func(h *simHistory, name string) {
		p := h.newPeer(name, h.between(10e3, 8e6), simpeer.Script{})
		if h.hopeless {
			p.Have.Remove(h.wanted[0])
		}
		h.silence = true
		p.Come(0, h.seconds(1, 20), h.seconds(1, 20))
		for _, s := range h.options {
			p.Call(1, s.host.Addr(6881), h.seconds(1, 20))
		}
	}},
	{"many from one address", func(h *simHistory, name string) {
		p := h.newPeer(name, h.between(10e3, 8e6), simpeer.Script{})
		h.misbehaves(p)
		for _, s := range h.options {
			p.Call(5+h.rng.IntN(30), s.host.Addr(6881), h.seconds(1, 20))
		}
	}},
	{"our own address", func(h *simHistory, name string) {
		for _, s := range h.options {
			h.tracker.Add(s.host.Addr(6881))
			s.options.Peers = append(s.options.Peers, s.host.Addr(6881))
		}
	}},
	{"addresses without a peer", func(h *simHistory, name string) {
		for i := range 1 + h.rng.IntN(50) {
			h.tracker.Add(h.net.NewHost(fmt.Sprintf("99.1.1.%d", i+1), 0, 0, 0).Addr(uint16(1 + h.rng.IntN(2)*i)))
		}
		h.patience += 20 * time.Second
	}},
	{"a liar behind the same address", func(h *simHistory, name string) {
		honest := h.newPeer(name, h.between(10e3, 8e6), simpeer.Script{})
		liar := simpeer.New(name, honest.Host, honest.Addr().Port()+1, h.content.truth, simpeer.Script{Corrupt: 4})
		liar.Tracker = h.tracker
		h.peers = append(h.peers, liar)
		h.misbehaves(honest)
		h.misbehaves(liar)
	}},
}

// simKindsV2 are the ways to misbehave, or to be of little help, that version 2 adds.
var simKindsV2 = []simKind{
	simple("lies about hashes", func(h *simHistory) simpeer.Script { return simpeer.Script{CorruptHashes: 1 + h.rng.IntN(4)} }),
	simple("lies in blocks and hashes", func(h *simHistory) simpeer.Script {
		return simpeer.Script{Corrupt: 2 + h.rng.IntN(10), CorruptHashes: 1 + h.rng.IntN(2)}
	}),
	simple("lies, and refuses hash requests", func(h *simHistory) simpeer.Script {
		return simpeer.Script{Corrupt: 2 + h.rng.IntN(10), RefusesHashes: true}
	}),
	simple("refuses hash requests", func(h *simHistory) simpeer.Script { return simpeer.Script{RefusesHashes: true} }),
	simple("never answers hash requests", func(h *simHistory) simpeer.Script { return simpeer.Script{Never: simpeer.AnswersHashes} }),
	simple("has hashes and sends no block", func(h *simHistory) simpeer.Script { return simpeer.Script{Never: simpeer.Answers} }),
	simple("asks for hashes", func(h *simHistory) simpeer.Script { return simpeer.Script{AsksHashes: true, Takes: true} }),
}

// A peer that sends one false block of each of many pieces costs about what it sent. It used to cost all the pieces that
// it had a hand in: 400 of 400 MiB, and twice the time.
func TestLiarCostsWhatItSends(t *testing.T) {
	t.Parallel()
	const rate = 2e6
	for name, pieceLength := range map[string]int64{"held in memory": 1 << 20, "written as they come": 8 << 20} {
		t.Run(name, func(t *testing.T) {
			found(t, newSimContent(1, pieceLength, 64<<20), func(t *testing.T, m *simMeeting) {
				for range 3 {
					m.meet(t, rate, simpeer.Script{Fast: true})
				}
				liar := m.meet(t, rate, simpeer.Script{Fast: true, Corrupt: 1, Scatters: true})
				m.run(t, time.Hour)
				s, a := m.client.Stats(), m.client.ledger.Account()
				t.Logf("took %v; %d of %d bytes wasted, after %d false bytes", m.client.took, s.Wasted, m.content.layout.Size(), a.LieBytes)
				require.NotZero(t, a.LieBytes)
				require.Less(t, s.Wasted, 3*a.LieBytes+pieceLength)
				require.Less(t, m.client.took.Seconds(), 1.2*64*(1<<20)/(3*rate))
				require.True(t, m.client.banned(liar.Addr()))
			})
		})
	}
}

// simWebKinds are the web seeds that a history may draw. Redirects lead to the first one that was drawn.
var simWebKinds = []struct {
	name string
	draw func(rng *rand.Rand, first string) simweb.Script
}{
	{"honest", func(*rand.Rand, string) simweb.Script { return simweb.Script{} }},
	{"slow to answer", func(rng *rand.Rand, _ string) simweb.Script {
		return simweb.Script{Pause: time.Duration(rng.IntN(5000)) * time.Millisecond}
	}},
	{"lies now and then", func(rng *rand.Rand, _ string) simweb.Script { return simweb.Script{Corrupt: 2 + rng.Int64N(30)} }},
	{"lies always", func(*rand.Rand, string) simweb.Script { return simweb.Script{Corrupt: 1} }},
	{"dies", func(rng *rand.Rand, _ string) simweb.Script { return simweb.Script{DiesAfter: 1 + rng.Int64N(200_000)} }},
	{"busy", func(rng *rand.Rand, _ string) simweb.Script { return simweb.Script{Busy: 1 + rng.IntN(20)} }},
	{"without ranges", func(*rand.Rand, string) simweb.Script { return simweb.Script{Rangeless: true} }},
	{"lacks a file", func(*rand.Rand, string) simweb.Script { return simweb.Script{Lacks: "1"} }},
	{"hangs", func(*rand.Rand, string) simweb.Script { return simweb.Script{Hangs: true} }},
	{"redirects", func(_ *rand.Rand, first string) simweb.Script { return simweb.Script{Redirects: first} }},
}

// drawWeb adds web seeds to one in ten histories. They come from a source of chance of their own, so that the others stay as
// they are. The bounds do not count on them.
func (h *simHistory) drawWeb(t *testing.T) {
	if h.seed%10 != 7 || h.hopeless {
		return
	}
	rng := rand.New(rand.NewPCG(h.seed, 2))
	first := ""
	for k := range 1 + rng.IntN(3) {
		kind := simWebKinds[rng.IntN(len(simWebKinds))]
		host := h.net.NewHost(fmt.Sprintf("70.0.0.%d", k+1), h.between(10e3, 8e6), 0, time.Duration(rng.IntN(100))*time.Millisecond)
		if first == "" {
			first = fmt.Sprintf("http://%v/", host.IP())
		}
		script := kind.draw(rng, first)
		h.webLies = h.webLies || script.Corrupt > 0
		s, err := simweb.Serve(host, h.content.truth, h.content.layout, script)
		require.NoError(t, err)
		h.web = append(h.web, s)
		h.kinds["web seed "+kind.name]++
		for _, o := range h.options {
			o.options.WebSeeds = append(o.options.WebSeeds, s.URL())
		}
		h.note("web seed %s at %v, %.0f bytes a second", kind.name, s.URL(), host.Uplink())
	}
	h.silence = true
	h.patience += 30 * time.Second // pieces that they spoil, and that others wait for
}

// simHTTP is how a host reaches its tracker and web seeds.
type simHTTP struct {
	tracker http.RoundTripper
	web     *http.Transport
}

func newSimHTTP(h *simnet.Host, tracker http.RoundTripper) simHTTP {
	return simHTTP{tracker, &http.Transport{DialContext: h.Dial, MaxIdleConnsPerHost: 2}}
}

func (s simHTTP) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.URL.Host, "70.0.0.") {
		return s.web.RoundTrip(r)
	}
	return s.tracker.RoundTrip(r)
}

func (s simHTTP) CloseIdleConnections() { s.web.CloseIdleConnections() }

// With three of four seeds lying in one block of twenty, a download of version 2 fetches nothing again but what was false, and
// finds every liar out by the first of its pieces that it looks into.
func TestLiarsOfVersion2CostTheirLies(t *testing.T) {
	t.Parallel()
	const rate, pieceLength, size = 2e6, 256 << 10, 16 << 20
	for name, bare := range map[string]bool{"with piece layers": false, "without": true} {
		for _, version := range []Version{V2, Hybrid} {
			t.Run(fmt.Sprintf("%s/%v", name, version), func(t *testing.T) {
				found(t, newSimVersion(version, bare, 1, pieceLength, size, 100, size/4), func(t *testing.T, m *simMeeting) {
					honest := m.meet(t, rate, simpeer.Script{Fast: true})
					for range 3 {
						m.meet(t, rate, simpeer.Script{Fast: true, Corrupt: 20})
					}
					m.run(t, time.Hour)
					s, a := m.client.Stats(), m.client.ledger.Account()
					t.Logf("took %v; wasted %d bytes, of which %d were false, by %v: %v", m.client.took, s.Wasted, a.LieBytes, a.Lies, a.Waste)
					require.LessOrEqual(t, s.Wasted, a.LieBytes+a.Waste["a second copy"])
					require.False(t, m.client.banned(honest.Addr()))
					for _, liar := range m.peers[1:] {
						require.True(t, m.client.banned(liar.Addr()))
						require.LessOrEqual(t, a.Lies[liar.Addr()], int64(2), "another is on its way when the first is found out")
					}
				})
			})
		}
	}
}
