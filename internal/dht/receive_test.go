package dht

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

// A query that cannot be answered is refused as in BEP 5, or ignored.
func TestOddPackets(t *testing.T) {
	for _, tc := range []struct {
		name, packet string
		want         int64 // the code of an error, 0 a response, -1 silence
	}{
		{"no id", "d1:ade1:q4:ping1:t2:aa1:y1:qe", krpc.ProtocolError},
		{"no arguments", "d1:q4:ping1:t2:aa1:y1:qe", krpc.ProtocolError},
		{"short id", "d1:ad2:id19:abcdefghij012345678e1:q4:ping1:t2:aa1:y1:qe", krpc.ProtocolError},
		{"no target", "d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:y1:qe", krpc.ProtocolError},
		{"no info_hash", "d1:ad2:id20:abcdefghij0123456789e1:q9:get_peers1:t2:aa1:y1:qe", krpc.ProtocolError},
		{"unknown", "d1:ad2:id20:abcdefghij0123456789e1:q3:foo1:t2:aa1:y1:qe", krpc.MethodUnknown},
		{"no method", "d1:ad2:id20:abcdefghij0123456789e1:t2:aa1:y1:qe", krpc.MethodUnknown},
		{"unknown with a target (BEP 51)", "d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q3:foo1:t2:aa1:y1:qe", 0},
		{"an empty transaction id", "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t0:1:y1:qe", 0},
		{"keys out of order", "d1:y1:q1:t2:aa1:q4:ping1:ad2:id20:abcdefghij0123456789ee", 0},
		{"a key twice", "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:t2:aa1:y1:qe", -1},
		{"an answer to nothing", "d1:rd2:id20:abcdefghij0123456789e1:t4:aaaa1:y1:re", -1},
		{"an error to nothing", "d1:eli201e1:xe1:t4:aaaa1:y1:ee", -1},
		{"another kind", "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:xe", -1},
		{"noise", strings.Repeat("\xff", 100), -1},
		{"short", "d1:y1:qe", -1},
		{"nothing", "", -1},
	} {
		b := newBench(t, Config{})
		b.receive(b.now, []byte(tc.packet), addr1)
		messages, _ := b.sent()
		if tc.want < 0 {
			require.Empty(t, messages, tc.name)
			require.EqualValues(t, 1, b.stats.Dropped, tc.name)
			continue
		}
		require.Len(t, messages, 1, tc.name)
		require.Equal(t, tc.want, messages[0].Code, tc.name)
	}

	b := newBench(t, Config{})
	ping := []byte("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe")
	for _, from := range []string{"1.2.3.4:0", "224.0.0.1:5", "0.0.0.0:5", "255.255.255.255:5", "[2001:db8::1]:5"} {
		b.receive(b.now, ping, netip.MustParseAddrPort(from))
	}
	self := b.fams[ipv4].table.self
	_, ok := b.ask(addr1, krpc.Message{Method: []byte("ping"), Has: krpc.HasID, ID: self})
	require.False(t, ok, "it is us, or one that would be")
	messages, _ := b.sent()
	require.Empty(t, messages)
	require.EqualValues(t, 6, b.stats.Dropped)
}

// A host that floods gets 50 answers at most, and none more than the budget.
func TestSilence(t *testing.T) {
	b := newBench(t, Config{})
	b.fill(ipv4, 50)
	answers := 0
	for range 1000 {
		b.receive(b.now, []byte("d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe"), addr1)
		b.now = b.now.Add(10 * time.Millisecond)
		messages, _ := b.sent()
		answers += len(messages)
	}
	require.LessOrEqual(t, answers, 50)
	require.EqualValues(t, 1000-answers, b.stats.Silenced)

	start, bytes := b.now, 0
	for i := range 20_000 {
		b.receive(b.now, []byte("d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe"), host(i))
		b.now = b.now.Add(5 * time.Millisecond)
	}
	for p := range b.out.each {
		bytes += len(p)
	}
	require.LessOrEqual(t, float64(bytes), answerRate*(b.now.Sub(start).Seconds()+answerSaved)+1024)
}

// FuzzReceive feeds a core any datagram, as a query and as the answer to a query of its own.
func FuzzReceive(f *testing.F) {
	for _, s := range []string{
		"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
		"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q3:get1:t2:aa1:y1:qe",
		"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
		"d1:ad2:id20:abcdefghij01234567891:k32:abcdefghijklmnopqrstuvwxyz0123453:seqi1e3:sig64:" + strings.Repeat("s", 64) + "5:token8:aoeusnth1:vi1ee1:q3:put1:t2:aa1:y1:qe",
		"d2:ip6:axje.u1:rd2:id20:abcdefghij01234567895:nodes26:mnopqrstuvwxyz123456defg565:token8:aoeusnth6:valuesl6:axje.uee1:t4:TIDS1:y1:re",
		"d1:eli201e23:A Generic Error Ocurrede1:t4:TIDS1:y1:ee",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		b := newBench(t, Config{IPv4: true, IPv6: true, Nodes: []string{host(1).String(), host(2).String()}})
		b.fill(ipv4, 20)
		b.fill(ipv6, 20)
		s := &search{target: ID{5}, method: krpc.GetPeers, found: func(netip.Addr, []netip.AddrPort) {}, store: announceTo(Torrent{Hash: ID{5}, Port: 1})}
		b.start(s, b.fams[:]...)
		b.tick(b.now)
		messages, to := b.sent()
		if len(messages) == 0 {
			t.Fatal("nothing is asked")
		}
		answer := []byte(strings.Replace(string(p), "4:TIDS", "4:"+string(messages[0].TID), 1))
		b.now = b.now.Add(time.Second / 2)
		for _, from := range []netip.AddrPort{to[0], addr1, netip.MustParseAddrPort("[2001:db8:ffff::1]:6881")} {
			b.receive(b.now, answer, from)
		}
		for range 40 {
			b.now = b.now.Add(time.Second / 2)
			b.tick(b.now)
		}
		for p, to := range b.out.each {
			if len(p) > krpc.MaxAnswer || !to.IsValid() {
				t.Fatalf("%d bytes to %v", len(p), to)
			}
		}
		for _, h := range b.fams {
			h.table.check(t)
		}
	})
}
