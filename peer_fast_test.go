package torrent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/choker"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// fastRig is a client that shares 64 pieces of two blocks, a host to speak to it from, and the pieces
// that the client lets that host ask for in spite of a choke.
type fastRig struct {
	content *simContent
	us      netip.AddrPort
	seed    *Download
	them    *simnet.Host
	set     []uint32
	others  []uint32 // the rest of the pieces
}

func newFastRig(t *testing.T, n *simnet.Network) *fastRig {
	r := &fastRig{content: newSimContent(1, 2*blockSize, 64*2*blockSize), them: n.NewHost("80.4.4.200", 0, 0, 0)}
	us := n.NewHost("80.0.0.1", 0, 0, 0)
	r.us = us.Addr(6881)
	r.seed = simSeed(t, simClient(t, us, nil), r.content)
	r.set = choker.AllowedFast(r.them.IP(), r.content.infoHash, 64, fastSetSize)
	for i := range uint32(64) {
		if !slices.Contains(r.set, i) {
			r.others = append(r.others, i)
		}
	}
	simnet.Sleep(time.Second)
	return r
}

// several is the same message for each number, as a speaker hears them.
func several(format string, numbers ...uint32) (words []string) {
	for _, i := range numbers {
		words = append(words, fmt.Sprintf(format, i))
	}
	return words
}

func TestAllowedFastWhileChoked(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newFastRig(t, n)
		s := speak(t, r.them, r.content, r.us, speech{fast: true})
		s.sayID(wire.HaveNone)
		simnet.Sleep(time.Second)
		require.Equal(t, append([]string{"have all"}, several("allowed fast %d", slices.Sorted(slices.Values(r.set))...)...), s.take())

		s.ask(r.set[0], r.others[0], r.set[1])
		simnet.Sleep(time.Second)
		require.ElementsMatch(t, append(several("piece %d/0", r.set[:2]...), several("reject %d/0", r.others[0])...), s.take(),
			"a choke stops only what is not in the set")

		for i := range uint32(fastSetBelow + 1) {
			s.say(wire.AppendHave(nil, i))
		}
		s.ask(r.set[2])
		simnet.Sleep(time.Second)
		require.Equal(t, several("reject %d/0", r.set[2]), s.take(), "it has enough to trade with")
	})
}

// All peers of one network share one allowance, so that calling again brings no more.
func TestAllowedFastOfANetwork(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newFastRig(t, n)
		hosts := []*simnet.Host{r.them, n.NewHost("80.4.4.7", 0, 0, 0), r.them}
		for k, h := range hosts {
			s := speak(t, h, r.content, r.us, speech{fast: true})
			s.sayID(wire.HaveNone)
			simnet.Sleep(time.Second)
			require.Equal(t, k < allowedTimes, slices.Contains(s.take(), fmt.Sprintf("allowed fast %d", r.set[0])))
			s.say(wire.AppendRequest(wire.AppendRequest(nil, r.set[0], 0, blockSize), r.set[0], blockSize, blockSize))
			simnet.Sleep(time.Second)
			require.Equal(t, k < allowedTimes, slices.Contains(s.take(), fmt.Sprintf("piece %d/0", r.set[0])))
		}
		s := speak(t, n.NewHost("80.4.5.200", 0, 0, 0), r.content, r.us, speech{fast: true})
		simnet.Sleep(time.Second)
		require.Len(t, s.take(), 1+fastSetSize, "the next network has its own")
	})
}

// A seed suggests something else to each of its peers, and what no peer has yet.
func TestSuggest(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newFastRig(t, n)
		var all []*speaker
		var suggested []string
		for k := range 3 {
			s := speak(t, n.NewHost(fmt.Sprintf("90.0.%d.1", k), 0, 0, 0), r.content, r.us, speech{fast: true})
			s.sayID(wire.HaveNone)
			all = append(all, s)
		}
		simnet.Sleep(time.Second)
		for _, s := range all {
			s.take()
			s.ask(60) // whichever peer asks for it will have it
			s.sayID(wire.Interested)
			simnet.Sleep(time.Second)
			said := s.take()
			require.Equal(t, "unchoke", said[len(said)-1], "the suggestions come before, so that it asks for these")
			for _, w := range said {
				if strings.HasPrefix(w, "suggest") {
					suggested = append(suggested, w)
				}
			}
		}
		require.Equal(t, several("suggest %d", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), suggested)

		all[0].ask(12, 13)
		simnet.Sleep(time.Second)
		require.Equal(t, several("piece %d/0", 12, 13), all[0].take())
		all[0].say(wire.AppendHave(nil, 1))
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"suggest 14"}, all[0].take(), "what one peer asked for is not suggested to others")
		all[1].say(wire.AppendHave(nil, 1))
		simnet.Sleep(time.Second)
		require.Empty(t, all[1].take(), "it has got what was not suggested to it")
		all[2].say(wire.AppendHave(nil, 15))
		simnet.Sleep(time.Second)
		all[0].say(wire.AppendHave(nil, 0))
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"suggest 16"}, all[0].take(), "a peer has 15 now")
	})
}

// Each request has one answer: the block, or a reject.
func TestChokeRejects(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newFastRig(t, n)
		r.seed.uploadLimits = ratelimit.Limits{drained(1, blockSize)} // what is asked for waits
		s := speak(t, r.them, r.content, r.us, speech{fast: true})
		s.say(wire.AppendSimple(wire.AppendSimple(nil, wire.HaveNone), wire.Interested))
		simnet.Sleep(time.Second)
		require.Contains(t, s.take(), "unchoke")

		s.ask(r.others[0], r.set[0], r.others[1], r.others[2])
		s.say(wire.AppendCancel(nil, r.others[1], 0, blockSize))
		simnet.Sleep(time.Second)
		require.Equal(t, several("reject %d/0", r.others[1]), s.take(), "a cancel is answered")

		s.sayID(wire.NotInterested)
		simnet.Sleep(time.Second)
		require.Equal(t, append([]string{"choke"}, several("reject %d/0", r.others[0], r.others[2])...), s.take(),
			"first the choke, so that it does not ask again; then a reject for each but what is allowed fast")
	})
}

// The messages of BEP 6 may only be sent where both ends speak it.
func TestFastMessagesWithoutFast(t *testing.T) {
	for name, b := range map[string][]byte{
		"have all":     wire.AppendSimple(nil, wire.HaveAll),
		"have none":    wire.AppendSimple(nil, wire.HaveNone),
		"suggest":      wire.AppendSuggest(nil, 1),
		"allowed fast": wire.AppendAllowedFast(nil, 1),
		"reject":       wire.AppendReject(nil, 1, 0, blockSize),
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				r := newFastRig(t, n)
				s := speak(t, r.them, r.content, r.us, speech{})
				s.say(b)
				simnet.Sleep(time.Second)
				require.True(t, s.hungUp())
			})
		})
	}
}

// Without BEP 6 a request that is not granted has no answer.
func TestRequestsWithoutFast(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newFastRig(t, n)
		s := speak(t, r.them, r.content, r.us, speech{})
		s.ask(r.set[0], r.others[0])
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"bitfield"}, s.take())
		s.sayID(wire.Interested)
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"unchoke"}, s.take())
		s.ask(r.others[0])
		simnet.Sleep(time.Second)
		require.Equal(t, several("piece %d/0", r.others[0]), s.take())
	})
}
