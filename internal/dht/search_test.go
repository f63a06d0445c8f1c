package dht

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

// local has nodes in the table that count as verified.
func (b *bench) local(n int) {
	for i := range n {
		b.fams[ipv4].table.answered(b.now, krpc.Contact{ID: krpc.RandomID(b.rng), Addr: local(i)}, time.Second, false)
	}
}

// idOf is the id of a node of the table.
func (b *bench) idAt(a netip.AddrPort) ID {
	for i := range b.fams[ipv4].table.buckets {
		for _, e := range b.fams[ipv4].table.buckets[i].live {
			if e.Addr == a {
				return e.ID
			}
		}
	}
	b.t.Fatalf("%v is not in the table", a)
	return ID{}
}

// serve answers all queries as say does, until there are no more. If that is false, it does not.
func (b *bench) serve(say func(m *krpc.Message, r *krpc.Message, at netip.AddrPort) bool) {
	b.t.Helper()
	for {
		messages, to := b.sent()
		if len(messages) == 0 {
			return
		}
		b.now = b.now.Add(20 * time.Millisecond)
		for i, m := range messages {
			r := krpc.Message{Kind: krpc.Response, TID: m.TID, Has: krpc.HasID, ID: b.idAt(to[i])}
			if say(&m, &r, to[i]) {
				b.receive(b.now, r.Append(nil), to[i])
			}
		}
	}
}

func (b *bench) search(s *search) *search {
	b.start(s, b.fams[:]...)
	b.pump(b.now)
	return s
}

func TestFoundPeers(t *testing.T) {
	b := newBench(t, Config{})
	b.fill(ipv4, 20)
	var found []netip.AddrPort
	by := make(map[netip.Addr]netip.AddrPort) // the nodes that named peers of their own
	s := b.search(&search{target: ID{1}, method: krpc.GetPeers, found: func(node netip.Addr, p []netip.AddrPort) {
		found = append(found, p...)
		require.Contains(t, p, by[node])
	}})
	n := 0
	b.serve(func(m, r *krpc.Message, at netip.AddrPort) bool {
		n++
		for _, a := range []string{"1.2.3.4:5", "1.2.3.4:0", "224.0.0.1:5", "0.0.0.0:5", "255.255.255.255:5", "192.168.1.1:5", "[2001:db8::1]:5"} {
			r.Values = append(r.Values, netip.MustParseAddrPort(a))
		}
		r.Values = append(r.Values, host(100+n))
		by[at.Addr()] = host(100 + n)
		return true
	})
	require.True(t, s.over)
	require.GreaterOrEqual(t, s.answers, bucketSize)
	require.Len(t, found, 1+s.answers, "each once, and only those that can be a peer's")
	require.Contains(t, found, netip.MustParseAddrPort("1.2.3.4:5"))

	// Inventing peers leaves room for others'.
	b = newBench(t, Config{})
	b.local(100)
	found = nil
	b.search(&search{target: ID{1}, method: krpc.GetPeers, found: func(_ netip.Addr, p []netip.AddrPort) { found = append(found, p...) }})
	n = 0
	answers := 0
	b.serve(func(m, r *krpc.Message, at netip.AddrPort) bool {
		answers++
		for range 150 {
			n++
			r.Values = append(r.Values, host(n))
		}
		r.Has |= krpc.HasNodes
		for range 8 {
			r.Nodes = append(r.Nodes, krpc.Contact{ID: ID{1, byte(n), byte(n >> 8)}, Addr: local(b.rng.IntN(100))})
		}
		return true
	})
	require.Less(t, len(found), maxFound)
	require.LessOrEqual(t, len(found), answers*maxPeers4)
}

// Nodes of one family that name more peers than are handed on leave room for those of the other.
func TestPeersOfEitherFamily(t *testing.T) {
	b := newBench(t, Config{IPv4: true, IPv6: true})
	var found []netip.AddrPort
	s := &search{found: func(_ netip.Addr, p []netip.AddrPort) { found = append(found, p...) }}
	four, six := &walk{search: s, family: ipv4}, &walk{search: s, family: ipv6}
	for n := range 200 {
		node := netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, byte(n), 15: 1}), 6881)
		var peers []netip.AddrPort
		for i := range maxPeers4 {
			peers = append(peers, netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x26, byte(n), byte(i), 15: 1}), 6881))
		}
		b.findPeers(six, node, peers)
	}
	require.Len(t, found, maxFound)
	b.findPeers(four, host(1), []netip.AddrPort{host(2), host(3)})
	require.Contains(t, found, host(2))
	require.Contains(t, found, host(3))
}

func TestStoring(t *testing.T) {
	for _, tc := range []struct {
		name    string
		say     func(m, r *krpc.Message) bool
		stores  int
		refusal int64
	}{
		{"all store", func(m, r *krpc.Message) bool { return true }, lookupDepth, 0},
		{"all refuse", func(m, r *krpc.Message) bool {
			if string(m.Method) == krpc.AnnouncePeer {
				*r = krpc.Message{Kind: krpc.Failure, TID: m.TID, Code: 203, Text: []byte("bad token")}
			}
			return true
		}, 0, 203},
		{"none gives a token", func(m, r *krpc.Message) bool { r.Token = nil; return true }, 0, 0},
		{"a token that is too long", func(m, r *krpc.Message) bool {
			if r.Token != nil {
				r.Token = make([]byte, 65)
			}
			return true
		}, 0, 0},
		{"none says who it is when it is to store", func(m, r *krpc.Message) bool {
			if string(m.Method) == krpc.AnnouncePeer {
				r.Has &^= krpc.HasID
			}
			return true
		}, 0, 0},
		{"none answers when it is to store", func(m, r *krpc.Message) bool { return string(m.Method) != krpc.AnnouncePeer }, 0, 0},
	} {
		b := newBench(t, Config{})
		b.local(40)
		s := b.search(&search{target: ID{1}, method: krpc.GetPeers, store: announceTo(Torrent{Hash: ID{1}, Port: 7})})
		for range 20 {
			b.serve(func(m, r *krpc.Message, at netip.AddrPort) bool {
				if string(m.Method) == krpc.GetPeers {
					r.Token = []byte(at.String())
				} else if string(m.Method) == krpc.AnnouncePeer {
					require.Equal(t, at.String(), string(m.Token), "each gets its own token")
					require.EqualValues(t, 7, m.Port)
				}
				return tc.say(m, r)
			})
			b.now = b.now.Add(time.Second)
			b.tick(b.now)
		}
		require.True(t, s.over, tc.name)
		require.Equal(t, tc.stores, s.stores, tc.name)
		if tc.refusal == 0 {
			require.Nil(t, s.refusal, tc.name)
		} else {
			require.Equal(t, tc.refusal, s.refusal.Code, tc.name)
			require.Contains(t, s.refusal.Error(), "bad token")
		}
	}
}

// Errors, answers without an id and silence are no answers, and a lookup ends all the same.
func TestSearchAmongTheUseless(t *testing.T) {
	for name, say := range map[string]func(m, r *krpc.Message, at netip.AddrPort) bool{
		"silence": func(m, r *krpc.Message, at netip.AddrPort) bool { return false },
		"errors": func(m, r *krpc.Message, at netip.AddrPort) bool {
			*r = krpc.Message{Kind: krpc.Failure, TID: m.TID, Code: krpc.ServerError}
			return true
		},
		"no id":      func(m, r *krpc.Message, at netip.AddrPort) bool { r.Has &^= krpc.HasID; return true },
		"another id": func(m, r *krpc.Message, at netip.AddrPort) bool { r.ID[19]++; return true },
	} {
		b := newBench(t, Config{})
		b.local(40)
		s := b.search(&search{target: ID{1}, method: krpc.GetPeers})
		for range 60 {
			b.serve(say)
			b.now = b.now.Add(time.Second)
			b.tick(b.now)
		}
		require.True(t, s.over, name)
		require.Zero(t, s.answers, name)
		require.LessOrEqual(t, s.walks[ipv4].lookup.asked, maxSeeds, name)
	}
}

// The budget of our own queries holds, whatever is to be looked up, and what may wait leaves some of it.
func TestQueryBudget(t *testing.T) {
	b := newBench(t, Config{})
	b.local(300)
	for i := range 200 {
		b.search(&search{target: ID{byte(i)}, method: krpc.GetPeers, low: i%2 == 0})
	}
	messages, _ := b.sent()
	require.LessOrEqual(t, len(messages), queryBurst)
	require.GreaterOrEqual(t, len(messages), queryBurst-queryMargin)
	start := b.now
	sent := 0
	for b.now.Sub(start) < 10*time.Second {
		b.now = b.next(b.now)
		b.tick(b.now)
		messages, _ := b.sent()
		sent += len(messages)
	}
	require.LessOrEqual(t, sent, 10*queryRate+queryMargin)
	require.GreaterOrEqual(t, sent, 10*queryRate/2)

	b = newBench(t, Config{})
	b.local(300)
	for i := range 200 {
		b.search(&search{target: ID{byte(i)}, method: krpc.GetPeers, low: true})
	}
	messages, _ = b.sent()
	require.Len(t, messages, queryBurst-queryMargin)
	b.search(&search{target: ID{9}, method: krpc.GetPeers})
	messages, _ = b.sent()
	require.Len(t, messages, lookupWidth, "what a caller waits for is asked at once")
}

func TestCancel(t *testing.T) {
	b := newBench(t, Config{})
	b.local(40)
	ended := false
	s := b.search(&search{target: ID{1}, method: krpc.GetPeers, ended: func(time.Time) { ended = true }})
	b.cancel(s)
	b.cancel(s)
	require.Empty(t, b.searches)
	b.serve(func(m, r *krpc.Message, at netip.AddrPort) bool { return true })
	b.pass(time.Minute)
	require.False(t, ended)

	// A family whose socket is gone takes its lookups with it.
	s = b.search(&search{target: ID{1}, method: krpc.GetPeers, ended: func(time.Time) { ended = true }})
	b.networkChanged(b.now, false, true)
	b.pass(time.Minute)
	require.True(t, s.over)
	require.True(t, ended)
}

// A node that names a well-known router as one near the target holds up no lookup: a router is asked, but is none of those that
// a lookup finds.
func TestRouterThatANodeNames(t *testing.T) {
	router := host(1)
	b := newBench(t, Config{Routers: []string{router.String()}})
	b.fill(ipv4, 40)
	b.fams[ipv4].boot.tried = true
	s := b.search(&search{target: ID{1}, method: krpc.GetPeers, store: announceTo(Torrent{Hash: ID{1}, Port: 7})})
	named := krpc.Contact{ID: ID{1, 19: 1}, Addr: router}
	asked := 0
	for range 60 {
		for range 20 {
			messages, to := b.sent()
			for i, m := range messages {
				r := krpc.Message{Kind: krpc.Response, TID: m.TID, Has: krpc.HasID | krpc.HasNodes, ID: named.ID, Token: []byte("token"), Nodes: []krpc.Contact{named}}
				if to[i] == router {
					asked++
				} else {
					r.ID = b.idAt(to[i])
				}
				b.receive(b.now, r.Append(nil), to[i])
			}
		}
		b.now = b.now.Add(time.Second)
		b.tick(b.now)
	}
	require.True(t, s.over)
	require.NotZero(t, asked)
	require.Positive(t, s.stores)
}

// A node that answers with the id that we had when it was asked holds up no lookup.
func TestAnswerWithOurFormerID(t *testing.T) {
	b := newBench(t, Config{})
	b.local(40)
	former := b.fams[ipv4].table.self
	s := b.search(&search{target: ID{1}, method: krpc.GetPeers})
	asked := b.idAt(s.walks[ipv4].lookup.nodes[0].Addr)
	b.located(b.now, netip.MustParseAddr("1.2.3.4"))
	require.NotEqual(t, former, b.fams[ipv4].table.self)
	for range 60 {
		b.serve(func(m, r *krpc.Message, at netip.AddrPort) bool {
			if r.ID == asked {
				r.ID = former
			}
			return true
		})
		b.now = b.now.Add(time.Second)
		b.tick(b.now)
	}
	require.True(t, s.over)
}
