package dht

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

// bench is one core that is asked by hand.
type bench struct {
	*core
	t   testing.TB
	now time.Time
	rng *rand.Rand
}

func newBench(t testing.TB, cfg Config) *bench {
	if !cfg.IPv4 && !cfg.IPv6 {
		cfg.IPv4 = true
	}
	b := &bench{t: t, now: epoch, rng: rand.New(rand.NewPCG(3, 3))}
	b.core = newCore(b.now, &cfg, rand.New(rand.NewPCG(3, 4)))
	return b
}

// out takes what the core sent.
func (b *bench) sent() (messages []krpc.Message, to []netip.AddrPort) {
	b.t.Helper()
	for p, a := range b.core.out.each {
		var m krpc.Message
		require.NoError(b.t, m.Parse(slices.Clone(p)))
		messages, to = append(messages, m), append(to, a)
	}
	b.core.out.reset()
	return messages, to
}

// ask sends a query and returns the answer to it, or false if there is none.
func (b *bench) ask(from netip.AddrPort, m krpc.Message) (krpc.Message, bool) {
	b.t.Helper()
	b.sent()
	m.Kind = krpc.Query
	if m.TID == nil {
		m.TID = []byte("tt")
	}
	if m.Has&krpc.HasID == 0 {
		m.Has, m.ID = m.Has|krpc.HasID, ID{byte(from.Port())}
	}
	b.receive(b.now, m.Append(nil), from)
	b.now = b.now.Add(time.Second)
	messages, to := b.sent()
	for i, r := range messages {
		if r.Kind != krpc.Query {
			require.Equal(b.t, from, to[i])
			require.Equal(b.t, string(m.TID), string(r.TID))
			require.Equal(b.t, from, r.IP, "who asks is told where he is (BEP 42)")
			return r, true
		}
	}
	return krpc.Message{}, false
}

func (b *bench) answered(from netip.AddrPort, m krpc.Message) krpc.Message {
	b.t.Helper()
	r, ok := b.ask(from, m)
	require.True(b.t, ok)
	require.Equal(b.t, krpc.Response, r.Kind, string(r.Text))
	return r
}

// query is one with a target.
func ask(method string, target ID) krpc.Message {
	return krpc.Message{Method: []byte(method), Has: krpc.HasTarget, Target: target}
}

// fill has nodes in the table.
func (b *bench) fill(f family, n int) {
	for i := range n {
		a := host(i)
		if f == ipv6 {
			a = netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i), 15: 1}), 6881)
		}
		b.fams[f].table.answered(b.now, krpc.Contact{ID: krpc.RandomID(b.rng), Addr: a}, time.Second, false)
	}
}

func TestPingAndFindNode(t *testing.T) {
	b := newBench(t, Config{Version: "SH01"})
	self := b.fams[ipv4].table.self
	r := b.answered(addr1, krpc.Message{Method: []byte("ping")})
	require.Equal(t, self, r.ID)
	require.Equal(t, "SH01", string(r.Version))
	require.Zero(t, r.Has&(krpc.HasNodes|krpc.HasNodes6))

	target := krpc.RandomID(b.rng)
	r = b.answered(addr1, ask("find_node", target))
	require.NotZero(t, r.Has&krpc.HasNodes, "an empty list is one, too")
	require.Empty(t, r.Nodes)

	b.fill(ipv4, 200)
	r = b.answered(addr1, ask("find_node", target))
	require.Len(t, r.Nodes, 8)
	require.Equal(t, b.fams[ipv4].table.closest(target, make([]krpc.Contact, 0, 8), func(*entry) bool { return true }), r.Nodes)
	require.Nil(t, r.Token)

	b.fams[ipv4].table.failed(r.Nodes[0].Addr)
	again := b.answered(addr1, ask("find_node", target))
	require.NotContains(t, again.Nodes, r.Nodes[0], "only good nodes are named")
	require.Len(t, again.Nodes, 8)

	again = b.answered(r.Nodes[1].Addr, ask("find_node", target))
	require.NotContains(t, again.Nodes, r.Nodes[1], "and no node to itself")
}

// BEP 32: the family asked over, or what is wanted.
func TestWant(t *testing.T) {
	b := newBench(t, Config{IPv4: true, IPv6: true})
	b.fill(ipv4, 50)
	b.fill(ipv6, 50)
	six := netip.MustParseAddrPort("[2001:db8:ffff::1]:6881")
	for _, tc := range []struct {
		name   string
		from   netip.AddrPort
		has    krpc.Fields
		w4, w6 bool
		n4, n6 int
	}{
		{"over IPv4", addr1, 0, false, false, 8, 0},
		{"over IPv6", six, 0, false, false, 0, 8},
		{"both", addr1, krpc.HasWant, true, true, 8, 8},
		{"the other", addr1, krpc.HasWant, false, true, 0, 8},
		{"neither that we know", six, krpc.HasWant, false, false, 0, 8},
	} {
		m := ask("find_node", ID{7})
		m.Has, m.Want4, m.Want6 = m.Has|tc.has, tc.w4, tc.w6
		r := b.answered(tc.from, m)
		require.Len(t, r.Nodes, tc.n4, tc.name)
		require.Len(t, r.Nodes6, tc.n6, tc.name)
	}
	require.NotEqual(t, b.fams[ipv4].table.self, b.fams[ipv6].table.self)
	require.Equal(t, b.fams[ipv6].table.self, b.answered(six, krpc.Message{Method: []byte("ping")}).ID)

	four := newBench(t, Config{})
	_, ok := four.ask(six, krpc.Message{Method: []byte("ping")})
	require.False(t, ok, "there is no socket of that family")
	mapped := netip.MustParseAddrPort("[::ffff:11.1.1.1]:6881")
	four.receive(four.now, []byte("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"), mapped)
	_, to := four.sent()
	require.Contains(t, to, addr1, "an address has one form")
}

// Local nodes are named to local nodes only.
func TestLocalNodesAreNotNamed(t *testing.T) {
	b := newBench(t, Config{})
	local := krpc.Contact{ID: ID{7}, Addr: netip.MustParseAddrPort("192.168.1.5:6881")}
	b.fams[ipv4].table.answered(b.now, local, time.Second, false)
	require.Empty(t, b.answered(addr1, ask("find_node", ID{7})).Nodes)
	require.Equal(t, []krpc.Contact{local}, b.answered(netip.MustParseAddrPort("192.168.1.6:6881"), ask("find_node", ID{7})).Nodes)
}

func TestAnnounce(t *testing.T) {
	b := newBench(t, Config{})
	b.fill(ipv4, 50)
	hash := krpc.RandomID(b.rng)
	r := b.answered(addr1, ask("get_peers", hash))
	require.Len(t, r.Token, tokenSize)
	require.Len(t, r.Nodes, 8)
	require.Empty(t, r.Values)

	announce := func(from netip.AddrPort, change func(m *krpc.Message)) krpc.Message {
		m := ask("announce_peer", hash)
		m.Has |= krpc.HasPort
		m.Port, m.Token = 4321, r.Token
		if change != nil {
			change(&m)
		}
		answer, ok := b.ask(from, m)
		require.True(t, ok)
		return answer
	}
	for name, change := range map[string]func(m *krpc.Message){
		"no token":     func(m *krpc.Message) { m.Token = nil },
		"false token":  func(m *krpc.Message) { m.Token = []byte("12345678") },
		"other hash":   func(m *krpc.Message) { m.Target[0]++ },
		"no hash":      func(m *krpc.Message) { m.Has &^= krpc.HasTarget },
		"no port":      func(m *krpc.Message) { m.Has &^= krpc.HasPort; m.Port = 0 },
		"port 0":       func(m *krpc.Message) { m.Port = 0 },
		"port 65536":   func(m *krpc.Message) { m.Port = 65536 },
		"negative one": func(m *krpc.Message) { m.Port = -1 },
	} {
		answer := announce(addr1, change)
		require.Equal(t, krpc.Failure, answer.Kind, name)
		require.EqualValues(t, krpc.ProtocolError, answer.Code, name)
		b.now = b.now.Add(time.Second)
	}
	require.Equal(t, krpc.Failure, announce(host(9), nil).Kind, "another's token")
	require.Empty(t, b.fams[ipv4].peers.swarms)

	require.Equal(t, krpc.Response, announce(netip.AddrPortFrom(addr1.Addr(), 1), nil).Kind, "the port does not matter")
	r = b.answered(host(1), ask("get_peers", hash))
	require.Equal(t, []netip.AddrPort{netip.AddrPortFrom(addr1.Addr(), 4321)}, r.Values)
	require.Len(t, r.Nodes, 8, "and nodes beside")

	r = b.answered(host(2), ask("get_peers", hash))
	require.Equal(t, krpc.Response, announce(host(2), func(m *krpc.Message) { m.ImpliedPort, m.Seed = true, true }).Kind)
	r = b.answered(host(3), ask("get_peers", hash))
	require.ElementsMatch(t, []netip.AddrPort{netip.AddrPortFrom(addr1.Addr(), 4321), host(2)}, r.Values)
	m := ask("get_peers", hash)
	m.NoSeed = true
	require.Len(t, b.answered(host(4), m).Values, 1)

	m.Scrape = true
	r = b.answered(host(5), m)
	require.Len(t, r.SeedFilter, 256)
	require.Len(t, r.PeerFilter, 256)
	var seeds filter
	seeds.add(host(2).Addr())
	require.Equal(t, seeds[:], r.SeedFilter)
	m.Target = ID{1}
	require.Nil(t, b.answered(host(6), m).SeedFilter, "of an unknown swarm there are none")

	b.now = b.now.Add(peerLife + 2*sweepEvery)
	b.tick(b.now)
	require.Empty(t, b.answered(host(7), ask("get_peers", hash)).Values)
}

// No answer is over 1,024 bytes, but for one large value.
func TestAnswerSizes(t *testing.T) {
	b := newBench(t, Config{IPv4: true, IPv6: true, Version: "SH01"})
	b.fill(ipv4, 50)
	b.fill(ipv6, 50)
	hash := krpc.RandomID(b.rng)
	for i := range 300 {
		b.fams[ipv4].peers.announce(b.now, ID{}, hash, host(i), i%2 == 0)
		b.fams[ipv6].peers.announce(b.now, ID{}, hash, netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 2, byte(i), byte(i >> 8)}), 1), false)
		b.fams[ipv4].peers.announce(b.now, ID{}, krpc.RandomID(b.rng), host(i), false)
	}
	six := netip.MustParseAddrPort("[2001:db8:ffff::1]:6881")
	for i, method := range []string{"find_node", "get_peers", "get", "sample_infohashes", "new_query"} {
		for j, from := range []netip.AddrPort{addr1, six} {
			for _, both := range []bool{false, true} {
				m := ask(method, hash)
				m.Scrape = true
				m.TID = []byte(strings.Repeat("t", 64))
				if both {
					m.Has |= krpc.HasWant
					m.Want4, m.Want6 = true, true
				}
				r := b.answered(from, m)
				require.LessOrEqual(t, len(r.Append(nil)), krpc.MaxAnswer, "%s %v %v", method, from, both)
				own := r.Nodes
				if j == 1 {
					own = r.Nodes6
				}
				require.Len(t, own, 8, "%s %v %v", method, from, both)
				b.now = b.now.Add(time.Duration(10+i) * time.Second)
			}
		}
	}
	r := b.answered(addr1, ask("get_peers", hash))
	require.Len(t, r.Values, 88, "as many as fit, below the hundred")
	require.InDelta(t, krpc.MaxAnswer, len(r.Append(nil)), 8)
	r = b.answered(six, ask("get_peers", hash))
	require.Len(t, r.Values, 25)

	r = b.answered(addr1, ask("sample_infohashes", ID{}))
	require.Len(t, r.Samples, 20*20)
	require.EqualValues(t, 301, r.Num)
	require.EqualValues(t, 21600, r.Interval)
	require.Len(t, r.Nodes, 8)
	empty := newBench(t, Config{}).answered(addr1, ask("sample_infohashes", ID{}))
	require.NotNil(t, empty.Samples, "none are said to be none (BEP 51)")
}

func TestItems(t *testing.T) {
	b := newBench(t, Config{})
	b.fill(ipv4, 50)
	put := func(item *Item, change func(m *krpc.Message)) krpc.Message {
		b.now = b.now.Add(10 * time.Second)
		token := b.answered(addr1, ask("get", item.Target())).Token
		require.NotNil(t, token)
		m := krpc.Message{Method: []byte("put"), Token: token, Value: item.Value, Key: item.Key, Salt: item.Salt, Seq: item.Seq, Sig: item.Sig}
		if item.Key != nil {
			m.Has |= krpc.HasSeq
		}
		if change != nil {
			change(&m)
		}
		r, ok := b.ask(addr1, m)
		require.True(t, ok)
		return r
	}
	immutable := &Item{Value: []byte("12:Hello World!")}
	require.Equal(t, krpc.Response, put(immutable, nil).Kind)
	r := b.answered(host(1), ask("get", immutable.Target()))
	require.Equal(t, "12:Hello World!", string(r.Value))
	require.Nil(t, r.Key)
	require.Len(t, r.Nodes, 8)

	key := newKey(1)
	one := Sign(key, []byte("salt"), []byte("d1:ai1ee"), 1)
	require.Equal(t, krpc.Response, put(one, nil).Kind)
	r = b.answered(host(2), ask("get", one.Target()))
	require.Equal(t, one.Value, r.Value)
	require.Equal(t, []byte(one.Key), r.Key)
	require.Equal(t, one.Sig, r.Sig)
	require.EqualValues(t, 1, r.Seq)
	for seq, want := range []bool{true, false, false} {
		m := ask("get", one.Target())
		m.Has |= krpc.HasSeq
		m.Seq = int64(seq)
		r := b.answered(host(3+seq), m)
		require.Equal(t, want, r.Value != nil, "with a number of %d", seq)
		require.Equal(t, want, r.Sig != nil)
		require.EqualValues(t, 1, r.Seq, "its own is said in any case")
	}

	two := Sign(key, []byte("salt"), []byte("d1:ai2ee"), 2)
	for _, tc := range []struct {
		name   string
		item   *Item
		change func(m *krpc.Message)
		want   int64
	}{
		{"expects another", two, func(m *krpc.Message) { m.CAS, m.Has = 7, m.Has|krpc.HasCAS }, krpc.CASMismatch},
		{"signed otherwise", two, func(m *krpc.Message) { m.Value = []byte("i3e") }, krpc.InvalidSignature},
		{"no token", two, func(m *krpc.Message) { m.Token = nil }, krpc.ProtocolError},
		{"no number", two, func(m *krpc.Message) { m.Has &^= krpc.HasSeq }, krpc.ProtocolError},
		{"no signature", two, func(m *krpc.Message) { m.Sig = nil }, krpc.ProtocolError},
		{"no value", two, func(m *krpc.Message) { m.Value = nil }, krpc.ProtocolError},
		{"no key, so another target", two, func(m *krpc.Message) { m.Key = nil }, krpc.ProtocolError},
		{"another salt, so another target", two, func(m *krpc.Message) { m.Salt = nil }, krpc.ProtocolError},
		{"too much salt", two, func(m *krpc.Message) { m.Salt = []byte(strings.Repeat("x", 65)) }, krpc.SaltTooBig},
		{"too large", two, func(m *krpc.Message) { m.Value = []byte("997:" + strings.Repeat("x", 997)) }, krpc.ValueTooBig},
		{"older", Sign(key, []byte("salt"), []byte("i0e"), 0), nil, krpc.SeqTooLow},
	} {
		r := put(tc.item, tc.change)
		require.Equal(t, krpc.Failure, r.Kind, tc.name)
		require.Equal(t, tc.want, r.Code, tc.name)
	}
	require.Equal(t, krpc.Response, put(two, func(m *krpc.Message) { m.CAS, m.Has = 1, m.Has|krpc.HasCAS }).Kind)

	// What is around a large value gives way to it.
	for _, size := range []int{500, 750, 850, 996} {
		for _, item := range []*Item{
			{Value: fmt.Appendf(nil, "%d:%s", size, strings.Repeat("x", size))},
			Sign(newKey(byte(size/50)), nil, fmt.Appendf(nil, "%d:%s", size, strings.Repeat("y", size)), 3),
		} {
			stored := put(item, nil)
			require.Equal(t, krpc.Response, stored.Kind, string(stored.Text))
			b.now = b.now.Add(10 * time.Second)
			r := b.answered(host(20), ask("get", item.Target()))
			require.Equal(t, item.Value, r.Value)
			if n := len(r.Append(nil)); n > krpc.MaxAnswer {
				require.Empty(t, r.Nodes)
				require.Less(t, n, 1250)
			}
		}
	}
}

func TestReadOnly(t *testing.T) {
	b := newBench(t, Config{ReadOnly: true, Nodes: []string{addr1.String()}})
	b.tick(b.now)
	messages, _ := b.sent()
	require.Len(t, messages, 1)
	require.True(t, messages[0].ReadOnly)
	_, ok := b.ask(addr1, krpc.Message{Method: []byte("ping")})
	require.False(t, ok)

	b = newBench(t, Config{})
	b.answered(addr1, krpc.Message{Method: []byte("ping"), ReadOnly: true})
	require.Empty(t, b.fams[ipv4].table.hosts, "one that is read-only is answered, and not remembered")
	b.answered(host(1), krpc.Message{Method: []byte("ping")})
	require.Len(t, b.fams[ipv4].table.hosts, 1)
}

func TestAllow(t *testing.T) {
	b := newBench(t, Config{Nodes: []string{addr1.String(), host(1).String()}, Allow: func(ip netip.Addr) bool { return ip != addr1.Addr() }})
	b.tick(b.now)
	_, to := b.sent()
	require.Equal(t, []netip.AddrPort{host(1)}, to)
	_, ok := b.ask(addr1, krpc.Message{Method: []byte("ping")})
	require.False(t, ok)
	b.addNode(b.now, addr1)
	require.Empty(t, b.fams[ipv4].greeted)
}
