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
	"github.com/shoal-go/torrent/internal/simnet/simweb"
)

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
		s, err := simweb.Serve(host, h.content.truth, h.content.layout, kind.draw(rng, first))
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
