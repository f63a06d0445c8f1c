package krpc_test

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

func id(s string) (a krpc.ID) {
	copy(a[:], s)
	return a
}

func parse(t *testing.T, p string) krpc.Message {
	t.Helper()
	var m krpc.Message
	require.NoError(t, m.Parse([]byte(p)), p)
	return m
}

// The example messages of BEP 5, read and written again. The contacts that it leaves to the reader are
// filled in.
func TestExamples(t *testing.T) {
	const asker, answerer = "abcdefghij0123456789", "mnopqrstuvwxyz123456"
	node := netip.MustParseAddrPort("100.101.102.103:13622") // defg56
	for _, tc := range []struct {
		name, packet string
		want         krpc.Message
	}{
		{
			"ping", "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
			krpc.Message{Kind: krpc.Query, Method: []byte("ping"), Has: krpc.HasID, ID: id(asker)},
		}, {
			"ping answered", "d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
			krpc.Message{Kind: krpc.Response, Has: krpc.HasID, ID: id(answerer)},
		}, {
			"find_node", "d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
			krpc.Message{Kind: krpc.Query, Method: []byte("find_node"), Has: krpc.HasID | krpc.HasTarget, ID: id(asker), Target: id(answerer)},
		}, {
			"find_node answered", "d1:rd2:id20:0123456789abcdefghij5:nodes26:mnopqrstuvwxyz123456defg56e1:t2:aa1:y1:re",
			krpc.Message{Kind: krpc.Response, Has: krpc.HasID | krpc.HasNodes, ID: id("0123456789abcdefghij"), Nodes: []krpc.Contact{{ID: id(answerer), Addr: node}}},
		}, {
			"get_peers", "d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe",
			krpc.Message{Kind: krpc.Query, Method: []byte("get_peers"), Has: krpc.HasID | krpc.HasTarget, ID: id(asker), Target: id(answerer)},
		}, {
			"get_peers answered with peers", "d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
			krpc.Message{Kind: krpc.Response, Has: krpc.HasID, ID: id(asker), Token: []byte("aoeusnth"), Values: []netip.AddrPort{
				netip.MustParseAddrPort("97.120.106.101:11893"), netip.MustParseAddrPort("105.100.104.116:28269"),
			}},
		}, {
			"get_peers answered with nodes", "d1:rd2:id20:abcdefghij01234567895:nodes26:mnopqrstuvwxyz123456defg565:token8:aoeusnthe1:t2:aa1:y1:re",
			krpc.Message{Kind: krpc.Response, Has: krpc.HasID | krpc.HasNodes, ID: id(asker), Token: []byte("aoeusnth"), Nodes: []krpc.Contact{{ID: id(answerer), Addr: node}}},
		}, {
			"announce_peer", "d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
			krpc.Message{Kind: krpc.Query, Method: []byte("announce_peer"), Has: krpc.HasID | krpc.HasTarget | krpc.HasPort,
				ID: id(asker), Target: id(answerer), Port: 6881, ImpliedPort: true, Token: []byte("aoeusnth")},
		}, {
			"error", "d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee",
			krpc.Message{Kind: krpc.Failure, Code: krpc.GenericError, Text: []byte("A Generic Error Ocurred")},
		},
	} {
		tc.want.TID = []byte("aa")
		require.Equal(t, tc.packet, string(tc.want.Append(nil)), tc.name)
		got := parse(t, tc.packet)
		require.Equal(t, tc.want, trim(got), tc.name)
	}
}

// trim makes of empty lists none, as a literal has them.
func trim(m krpc.Message) krpc.Message {
	if len(m.Values) == 0 {
		m.Values = nil
	}
	if len(m.Nodes) == 0 {
		m.Nodes = nil
	}
	if len(m.Nodes6) == 0 {
		m.Nodes6 = nil
	}
	return m
}

// Fields of later BEPs are read and written again.
func TestExtensions(t *testing.T) {
	key, sig := strings.Repeat("k", 32), strings.Repeat("s", 64)
	filter := strings.Repeat("f", 256)
	for name, packet := range map[string]string{
		"want (BEP 32)":              "d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz1234564:wantl2:n42:n6ee1:q9:find_node1:t2:aa1:y1:qe",
		"nodes6 (BEP 32)":            "d1:rd2:id20:abcdefghij01234567896:nodes638:mnopqrstuvwxyz123456ABCDEFGHIJKLMNOPqre1:t2:aa1:y1:re",
		"both families' values":      "d1:rd2:id20:abcdefghij01234567896:valuesl6:axje.u18:ABCDEFGHIJKLMNOPqree1:t2:aa1:y1:re",
		"a scrape (BEP 33)":          "d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234566:noseedi1e6:scrapei1ee1:q9:get_peers1:t2:aa1:y1:qe",
		"filters (BEP 33)":           "d1:rd4:BFpe256:" + filter + "4:BFsd256:" + filter + "2:id20:abcdefghij0123456789e1:t2:aa1:y1:re",
		"a seed (BEP 33)":            "d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti1e4:seedi1e5:token1:xe1:q13:announce_peer1:t2:aa1:y1:qe",
		"ip (BEP 42)":                "d2:ip6:axje.u1:rd2:id20:abcdefghij0123456789e1:t2:aa1:v4:SH011:y1:re",
		"ip in an error (BEP 42)":    "d1:eli203e9:bad tokene2:ip6:axje.u1:t2:aa1:y1:ee",
		"read-only (BEP 43)":         "d1:ad2:id20:abcdefghij0123456789e1:q4:ping2:roi1e1:t2:aa1:y1:qe",
		"get (BEP 44)":               "d1:ad2:id20:abcdefghij01234567893:seqi7e6:target20:mnopqrstuvwxyz123456e1:q3:get1:t2:aa1:y1:qe",
		"an item (BEP 44)":           "d1:rd2:id20:abcdefghij01234567891:k32:" + key + "5:nodes0:3:seqi-4e3:sig64:" + sig + "5:token1:x1:vd1:xli1eeee1:t2:aa1:y1:re",
		"put, of an immutable":       "d1:ad2:id20:abcdefghij01234567895:token1:x1:v12:Hello World!e1:q3:put1:t2:aa1:y1:qe",
		"put, of a mutable":          "d1:ad3:casi3e2:id20:abcdefghij01234567891:k32:" + key + "4:salt3:foo3:seqi4e3:sig64:" + sig + "5:token1:x1:vlee1:q3:put1:t2:aa1:y1:qe",
		"sample_infohashes (BEP 51)": "d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q17:sample_infohashes1:t2:aa1:y1:qe",
		"samples (BEP 51)":           "d1:rd2:id20:abcdefghij01234567898:intervali21600e5:nodes0:3:numi2e7:samples20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
	} {
		m := parse(t, packet)
		require.Equal(t, packet, string(m.Append(nil)), name)
	}
}

// A key that is mistyped, malformed or too large is unsaid.
func TestUnsaid(t *testing.T) {
	require.Equal(t, krpc.Message{Kind: krpc.Query, TID: []byte("aa"), Method: []byte("get_peers")},
		trim(parse(t, "d1:ad2:idi1e4:infoi1e9:info_hash19:abcdefghij0123456784:port1:x1:k3:abc4:wanti1e3:seq0:e1:q9:get_peers2:ip6:axje.u1:t2:aa1:y1:qe")))
	require.Equal(t, krpc.Message{Kind: krpc.Query, TID: []byte("aa")}, trim(parse(t, "d1:ale1:qi1e1:t2:aa1:vle1:y1:qe")), "a is no dictionary")
	require.Equal(t, krpc.Message{Kind: krpc.Response, TID: []byte("aa")}, trim(parse(t, "d1:t2:aa1:y1:re")), "no r")
	require.Equal(t, krpc.Message{Kind: krpc.Response, TID: []byte("aa"), Samples: []byte{}},
		trim(parse(t, "d2:ip5:123451:rd4:BFsd3:abc2:id3:abc5:nodesle6:nodes6i1e7:samples19:abcdefghij0123456786:valuesl3:abci1elee3:sig1:xe1:t2:aa1:y1:re")))
	require.Equal(t, krpc.Message{Kind: krpc.Failure, TID: []byte("aa")}, trim(parse(t, "d1:e1:x1:t2:aa1:y1:ee")))
	require.Equal(t, krpc.Message{Kind: krpc.Failure, TID: []byte("aa"), Code: 1}, trim(parse(t, "d1:eli1ei2ei3ee1:t2:aa1:y1:ee")))

	m := parse(t, "d1:rd5:nodes27:mnopqrstuvwxyz123456defg56xe1:t2:aa1:y1:re")
	require.Len(t, m.Nodes, 1, "and trailing bytes of a list are ignored")
}

// Long lists are cut, whatever they claim.
func TestBounds(t *testing.T) {
	m := parse(t, "d1:rd5:nodes2600:"+strings.Repeat("mnopqrstuvwxyz123456defg56", 100)+"e1:t2:aa1:y1:re")
	require.Len(t, m.Nodes, 32)
	m = parse(t, "d1:rd6:valuesl"+strings.Repeat("6:axje.u", 300)+"ee1:t2:aa1:y1:re")
	require.Len(t, m.Values, 200)
}

func TestNoMessage(t *testing.T) {
	var m krpc.Message
	for _, p := range []string{
		"", "de", "d1:y1:q1:t1:ae"[:14],
		"l1:t2:aa1:y1:qee", "i1234567890123e", "15:aaaaaaaaaaaaaaa", // no dictionary
		"d1:q4:ping1:y1:qe",                    // no t
		"d1:q4:ping1:ti1e1:y1:qe",              // t is no string
		"d1:q4:ping1:t2:aae", "d1:t2:aa1:y0:e", // no y
		"d1:q4:ping1:t2:aa1:y2:qqe", "d1:q4:ping1:t2:aa1:yi1ee", "d1:q4:ping1:t2:aa1:y1:xe",
		"d1:t2:aa1:t2:aa1:y1:qe",             // a key twice
		"d1:ad2:idi1e2:idi2ee1:t2:aa1:y1:qe", // and within
		"d1:t65:" + strings.Repeat("t", 65) + "1:y1:qe",
		"d1:t500000000:aa1:y1:qe",
		"d1:t2:aa1:x" + strings.Repeat("l", 40) + strings.Repeat("e", 40) + "1:y1:qe", // too deep
		"d1:t2:aa1:xl" + strings.Repeat("0:", 1100) + "e1:y1:qe",                      // too many
		"d1:t2:aa1:x5000:" + strings.Repeat("x", 5000) + "1:y1:qe",                    // too long
		"d1:t2:aa1:y1:q", // the end is missing
	} {
		require.Error(t, m.Parse([]byte(p)), "%.60q", p)
	}
	require.NoError(t, m.Parse([]byte("d1:t2:aa1:y1:qe and more")), "what follows is ignored")
	require.NoError(t, m.Parse([]byte("d1:y1:q1:t2:aae")), "and so is the order of keys")
}

// An unknown query is taken for find_node, if it has a target (BEP 51).
func TestUnknownQuery(t *testing.T) {
	for _, args := range []string{"9:info_hash20:mnopqrstuvwxyz123456", "6:target20:mnopqrstuvwxyz123456", "9:info_hash20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456"} {
		m := parse(t, "d1:ad2:id20:abcdefghij0123456789"+args+"e1:q3:vie1:t2:aa1:y1:qe")
		require.Equal(t, krpc.HasID|krpc.HasTarget, m.Has)
		require.Equal(t, id("mnopqrstuvwxyz123456"), m.Target)
	}
	m := parse(t, "d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe")
	require.Equal(t, krpc.HasID, m.Has, "a known one is held to its arguments")
}

// A message is parsed into one that was used before, without anything left of that.
func TestParseAgain(t *testing.T) {
	var m krpc.Message
	require.NoError(t, m.Parse([]byte("d1:rd2:id20:abcdefghij01234567895:nodes26:mnopqrstuvwxyz123456defg565:token8:aoeusnth6:valuesl6:axje.uee1:t2:aa1:y1:re")))
	require.NoError(t, m.Parse([]byte("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe")))
	require.Equal(t, "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", string(m.Append(nil)))
}

func TestDistance(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	zero := krpc.ID{}
	require.Equal(t, 160, krpc.Common(zero, zero))
	for n := range 160 {
		a := krpc.RandomID(rng)
		b := krpc.WithCommon(rng, a, n)
		require.Equal(t, n, krpc.Common(a, b))
		require.True(t, krpc.Nearer(a, a, b))
		require.False(t, krpc.Nearer(a, b, a))
		require.False(t, krpc.Nearer(a, b, b))
		if n > 0 {
			c := krpc.WithCommon(rng, a, n-1)
			require.True(t, krpc.Nearer(a, b, c))
			require.False(t, krpc.Nearer(a, c, b))
		}
	}
	require.Equal(t, strings.Repeat("00", 20), zero.String())
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
		"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
		"d1:rd2:id20:abcdefghij01234567895:nodes26:mnopqrstuvwxyz123456defg565:token8:aoeusnth6:valuesl6:axje.uee1:t2:aa1:y1:re",
		"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee",
		"d1:ad1:k2:xx1:v4:spam4:wantl2:n42:n6ee1:q3:put1:t2:aa1:y1:qe",
		"d2:ip6:axje.u1:rd4:BFsd256:" + strings.Repeat("f", 256) + "7:samples20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
		"500000000:ab", "d1:t500000000:aa1:y1:qe", "dddddddddddddddd",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var m krpc.Message
		if m.Parse(p) != nil {
			return
		}
		// What was read is written and read to the same.
		again := m.Append(nil)
		if len(again) > krpc.MaxPacket {
			t.Skip("what was implied is said")
		}
		var n krpc.Message
		if err := n.Parse(again); err != nil {
			t.Fatalf("%v: %q", err, again)
		}
		if last := n.Append(nil); string(again) != string(last) {
			t.Fatalf("%q became %q", again, last)
		}
	})
}

// A parsed message costs a packet's scan and nothing else.
func BenchmarkParse(b *testing.B) {
	var nodes strings.Builder
	for range 8 {
		nodes.WriteString("mnopqrstuvwxyz123456defg56")
	}
	p := []byte("d2:ip6:axje.u1:rd2:id20:abcdefghij01234567895:nodes208:" + nodes.String() + "5:token8:aoeusnthe1:t4:aaaa1:v4:SH011:y1:re")
	var m krpc.Message
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Parse(p); err != nil {
			b.Fatal(err)
		}
	}
}

func TestIDString(t *testing.T) {
	a := id("abcdefghij0123456789")
	require.Equal(t, hex.EncodeToString([]byte("abcdefghij0123456789")), a.String())
}
