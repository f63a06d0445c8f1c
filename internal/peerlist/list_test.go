package peerlist

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newTestCandidates(private bool) *List {
	return New(rand.New(rand.NewPCG(1, 5)), private)
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// A list is told what happens, and returns the peers to dial.
func TestList(t *testing.T) {
	const (
		a = "1.0.0.1:1000"
		b = "2.0.0.2:2000"
		v = "[2001:db8::1]:6000"
	)
	type scene struct {
		*List
		now  time.Time
		news bool // what the last add said
	}
	type event = func(s *scene)
	named := func(addr string, from Source) event {
		return func(s *scene) { s.news = s.Add(addrPort(addr), from, "", s.now) }
	}
	failed := func(addr string) event { return func(s *scene) { s.Dialled(addrPort(addr), false, s.now) } }
	made := func(addr string) event { return func(s *scene) { s.Dialled(addrPort(addr), true, s.now) } }
	comes := func(addr string) event { // as if it had been dialled
		return func(s *scene) {
			if k := s.all[netaddr.Unmap(addrPort(addr))]; k != nil {
				s.move(k, isConnected)
			}
		}
	}
	claimed := func(addr string) event { return func(s *scene) { s.Claimed(addrPort(addr), s.now) } }
	disowned := func(addr string) event { return func(s *scene) { s.Disown(addrPort(addr)) } }
	yields := func(addr string) event { return func(s *scene) { s.MadeRoom(addrPort(addr)) } }
	leaves := func(addr string, useful bool) event {
		return func(s *scene) { s.Left(addrPort(addr), useful, s.now) }
	}
	sated := func(addr string) event { return func(s *scene) { s.List.Sated(addrPort(addr), s.now) } }
	recalled := func(s *scene) { s.Recall(s.now) }
	banned := func(addr string) event { return func(s *scene) { s.Ban(addrPort(addr)) } }
	isSelf := func(addr string) event { return func(s *scene) { s.ExcludeSelf(addrPort(addr)) } }

	lone := func(s *scene) { s.Lone = true }

	type step struct {
		at   int // seconds
		what []event
		next string // the address that Next returns; empty if none
		why  string
	}
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"one that is alone", []step{
			{0, []event{lone, named(a, FromTracker)}, a, ""},
			{1, []event{failed(a)}, "", ""},
			{3, nil, a, "there is no other, and it may just be starting"},
			{4, []event{failed(a)}, "", ""},
			{8, nil, a, "a little later each time"},
			{9, []event{failed(a)}, "", ""},
			{17, nil, a, "but it is not given up"},
			{18, []event{named(b, FromTracker), failed(a)}, b, ""},
			{100, nil, "", "there is another"},
		}},
		{"from best to worst", []step{
			{0, []event{named(a, FromPEX), named(b, FromUser), named(v, FromTracker)}, b, "the user is trusted most"},
			{0, nil, v, "then trackers"},
			{0, nil, a, "then those that peers name"},
			{0, nil, "", "each once"},
		}},
		{"a second source", []step{
			{0, []event{named(a, FromPEX), named(b, FromTracker), named(a, FromUser)}, a, "counts if it is the better one"},
			{0, []event{named(b, FromIncoming)}, b, "and adds no second candidate"},
			{0, nil, "", ""},
		}},
		{"back-off", []step{
			{0, []event{named(a, FromTracker)}, a, ""},
			{5, []event{failed(a)}, "", "not at once after a failure"},
			{64, nil, "", ""},
			{65, nil, a, "a minute after the first"},
			{70, []event{failed(a)}, "", ""},
			{189, nil, "", ""},
			{190, nil, a, "two minutes after the second"},
			{195, []event{failed(a)}, "", ""},
			{9999, nil, "", "and after the third no more"},
			{9999, []event{named(a, FromTracker)}, a, "unless it is named again"},
			{10000, []event{failed(a)}, "", "which gives it another chance"},
			{10001, []event{named(a, FromTracker)}, "", "but not at once"},
			{10239, nil, "", ""},
			{10240, nil, a, "the fourth failure is four minutes ago"},
		}},
		{"the user's own", []step{
			{0, []event{named(a, FromUser)}, a, ""},
			{0, []event{failed(a)}, "", ""},
			{2, nil, a, "is tried soon again, for it may just be starting"},
			{2, []event{failed(a)}, "", ""},
			{6, nil, a, ""},
			{6, []event{failed(a)}, "", ""},
			{14, nil, a, "and is never given up"},
			{14, []event{failed(a)}, "", ""},
			{30, nil, a, ""},
			{30, []event{failed(a)}, "", ""},
			{62, nil, a, ""},
			{62, []event{failed(a)}, "", ""},
			{121, nil, "", ""},
			{122, nil, a, "nor kept waiting for more than a minute"},
		}},
		{"a useful peer", []step{
			{0, []event{named(a, FromTracker)}, a, ""},
			{0, []event{failed(a)}, "", ""},
			{60, nil, a, ""},
			{61, []event{made(a)}, "", "connected"},
			{100, []event{leaves(a, true)}, "", ""},
			{105, nil, a, "a peer that was useful is soon dialled again"},
			{106, []event{made(a), leaves(a, false)}, "", ""},
			{165, nil, "", ""},
			{166, nil, a, "and its failures count from one again"},
		}},
		{"something is wanted again", []step{
			{0, []event{named(a, FromTracker), named(b, FromTracker), comes(a), comes(b)}, "", ""},
			{9, []event{sated(a), leaves(b, false)}, "", ""},
			{10, []event{recalled}, a, "and a had it before"},
			{10, []event{recalled, failed(a)}, "", "which is acted on once"},
			{69, nil, b, ""},
			{69, []event{failed(b)}, "", ""},
			{70, nil, a, ""},
			{70, []event{made(a), sated(a)}, "", ""},
			{189, nil, b, ""},
			{189, []event{failed(b)}, "", "b is given up"},
			{190, nil, a, ""},
			{190, []event{made(a), sated(a)}, "", "and a"},
			{9999, nil, "", ""},
			{9999, []event{recalled}, a, "but not for good"},
			{9999, nil, "", ""},
		}},
		{"failed ones and useful ones", []step{
			{0, []event{named(a, FromTracker), comes(a), leaves(a, true), named(v, FromPEX)}, v, ""},
			{1, []event{failed(v)}, "", ""},
			{61, []event{named(b, FromUser)}, a, "one that was useful comes before one that the user named"},
			{61, nil, b, "and both before one that failed"},
			{61, nil, v, ""},
		}},
		{"one that made room", []step{
			{0, []event{named(a, FromTracker), comes(a), yields(a), leaves(a, true)}, "", ""},
			{9, []event{named(v, FromPEX)}, v, "comes after one that was never tried"},
			{9, []event{failed(v)}, a, ""},
			{9, []event{made(a), yields(a), leaves(a, true)}, "", ""},
			{70, nil, v, "and after one that failed"},
			{70, nil, a, ""},
		}},
		{"an incoming connection", []step{
			{0, []event{named(a, FromTracker), comes(a)}, "", "need not be dialled"},
			{1, []event{comes(b)}, "", "one that is not known is ignored"},
			{2, []event{leaves(a, false), leaves(b, true), failed(b)}, "", ""},
			{62, nil, a, "until it is gone"},
			{63, []event{comes(a), failed(a)}, "", "and a dial that failed meanwhile does not matter"},
		}},
		{"what a peer that connected to us says of itself", []step{
			{0, []event{claimed(a)}, "", "need not be dialled"},
			{1, []event{leaves(a, true)}, "", ""},
			{6, nil, a, "as long as it is connected"},
			{6, []event{failed(a), named(b, FromTracker), claimed(b)}, "", "what others have named may be another peer's"},
			{66, nil, a, ""},
			{66, []event{made(a), claimed(b)}, "", ""},
			{126, nil, b, "and is dialled later, as often as this is claimed"},
			{126, []event{failed(b), claimed(b)}, "", ""},
			{186, nil, b, ""},
		}},
		{"a claim before another source", []step{
			{0, []event{claimed(a), claimed(b), claimed(v)}, "", ""},
			{1, []event{named(a, FromUser)}, a, "binds nothing that the user names"},
			{1, []event{named(b, FromPEX)}, "", ""},
			{2, []event{leaves(b, false)}, "", ""},
			{121, nil, b, "and others are dialled later"},
			{121, []event{disowned(v), leaves(v, true), disowned(b), failed(b)}, "", "a liar's own claim is forgotten with it"},
			{999, nil, b, "but not what others say"},
		}},
		{"a claim of what the user named", []step{
			{0, []event{named(a, FromUser), claimed(a)}, a, "is nothing"},
			{0, []event{made(a), claimed(a), leaves(a, true)}, "", ""},
			{5, []event{claimed(a)}, a, ""},
		}},
		{"a ban of another behind the same address", []step{
			{0, []event{named(a, FromUser), named("1.0.0.1:2", FromTracker), banned("1.0.0.1:9")}, a, "leaves the user's own"},
			{0, []event{named("1.0.0.1:2", FromTracker)}, "", "but no other"},
			{0, []event{named("1.0.0.1:2", FromUser)}, "1.0.0.1:2", "until the user names it"},
			{0, []event{banned(a), named(a, FromUser)}, "", "if it lies itself it is banned"},
		}},
		{"a ban", []step{
			{0, []event{named(a, FromTracker), banned("1.0.0.1:9"), named(a, FromTracker), named("1.0.0.1:80", FromPEX)}, "", "is for every port of a public address"},
			{0, []event{named("10.0.0.1:1", FromPEX), named("10.0.0.1:2", FromPEX), banned("10.0.0.1:1")}, "10.0.0.1:2", "and for one of a private one"},
			{0, nil, "", ""},
			{0, []event{named(b, FromUser)}, b, ""},
			{0, []event{banned(b), failed(b)}, "", "a peer banned while it is dialled is gone"},
		}},
		{"ourselves", []step{
			{0, []event{named(a, FromTracker)}, a, ""},
			{0, []event{isSelf(a), isSelf(b), named(a, FromUser), named(b, FromUser)}, "", "are not worth a dial"},
		}},
		{"an IPv4 address in IPv6 form", []step{
			{0, []event{named("[::ffff:1.0.0.1]:1000", FromPEX), named(a, FromPEX)}, a, "is the same as without"},
			{0, []event{failed("[::ffff:1.0.0.1]:1000")}, "", ""},
			{60, []event{comes("[::ffff:1.0.0.1]:1000")}, "", ""},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &scene{List: newTestCandidates(false)}
			for _, step := range tc.steps {
				s.now = epoch.Add(time.Duration(step.at) * time.Second)
				for _, happens := range step.what {
					happens(s)
				}
				at, ok := s.Due()
				addr, _, found := s.Next(s.now)
				require.Equal(t, found, ok && !at.After(s.now), "Next has a peer when Due says so")
				require.Equal(t, step.next != "", found, "%s at %d s: %s", addr, step.at, step.why)
				if found {
					require.Equal(t, addrPort(step.next), addr, "at %d s: %s", step.at, step.why)
				}
			}
		})
	}
}

func TestAdd(t *testing.T) {
	for addr, want := range map[string]bool{
		"1.2.3.4:5":          true,
		"[2001:db8::1]:5":    true,
		"127.0.0.1:5":        true,
		"[fe80::1%eth0]:5":   true,
		"1.2.3.4:0":          false,
		"0.0.0.0:5":          false,
		"[::]:5":             false,
		"[::ffff:0.0.0.0]:5": false,
		"224.0.0.1:5":        false,
		"[ff02::1]:5":        false,
		"255.255.255.255:5":  false,
	} {
		c := newTestCandidates(false)
		require.Equal(t, want, c.Add(addrPort(addr), FromTracker, "", epoch), addr)
		require.Equal(t, want, c.Known() == 1, addr)
		require.False(t, c.Add(addrPort(addr), FromTracker, "", epoch), "%s is no news", addr)
	}
	require.False(t, newTestCandidates(false).Add(netip.AddrPort{}, FromTracker, "", epoch))
}

// BEP 27: a private torrent has peers from its trackers, and from its user.
func TestPrivateCandidates(t *testing.T) {
	a, b, u := addrPort("1.0.0.1:1"), addrPort("1.0.0.2:1"), addrPort("1.0.0.3:1")
	for from, name := range sourceNames {
		from := Source(from)
		require.Equal(t, name, from.String())
		require.Equal(t, name == "user" || name == "tracker" || name == "magnet" || name == "finder", newTestCandidates(true).Add(a, from, "", epoch), name)
		require.True(t, newTestCandidates(false).Add(a, from, "", epoch), name)
	}

	c := newTestCandidates(true)
	c.Add(a, FromTracker, "http://one/", epoch)
	c.Add(b, FromTracker, "http://one/", epoch)
	c.Add(u, FromTracker, "http://one/", epoch)
	c.Add(u, FromUser, "", epoch)
	c.Add(b, FromTracker, "http://two/", epoch)
	for range 3 {
		c.Next(epoch)
	}
	c.Forget("http://one/")
	require.False(t, c.Has(a))
	require.True(t, c.Has(b), "another tracker named it since")
	require.True(t, c.Has(u), "the user's own")
	require.False(t, c.Dialled(a, true, epoch), "a connection made meanwhile is not wanted")
	require.True(t, c.Dialled(u, true, epoch))
	require.Equal(t, 2, c.Known())
	require.Equal(t, 1, c.Dialling())
}

func TestBan(t *testing.T) {
	for _, tc := range []struct {
		ban, addr string
		want      bool
	}{
		{"1.2.3.4:5", "1.2.3.4:6", true},
		{"1.2.3.4:5", "[::ffff:1.2.3.4]:6", true},
		{"1.2.3.4:5", "1.2.3.5:5", false},
		{"[2001:db8::1]:5", "[2001:db8::1]:6", true},
		{"[2001:db8::1]:5", "[2001:db8::2]:5", false},
		{"127.0.0.1:5", "127.0.0.1:5", true},
		{"127.0.0.1:5", "127.0.0.1:6", false},
		{"[::ffff:127.0.0.1]:5", "127.0.0.1:5", true},
		{"[::1]:5", "[::1]:6", false},
		{"10.1.1.1:5", "10.1.1.1:6", false},
		{"192.168.1.1:5", "192.168.1.1:6", false},
		{"169.254.1.1:5", "169.254.1.1:6", false},
		{"100.64.1.1:5", "100.64.1.1:6", false},
		{"100.128.1.1:5", "100.128.1.1:6", true},
		{"[fe80::1]:5", "[fe80::1]:6", false},
		{"[fd00::1]:5", "[fd00::1]:6", false},
	} {
		c := newTestCandidates(false)
		c.Ban(addrPort(tc.ban))
		require.Equal(t, tc.want, c.Banned(addrPort(tc.addr)), "%s after a ban of %s", tc.addr, tc.ban)
		require.Equal(t, !tc.want, c.Add(addrPort(tc.addr), FromTracker, "", epoch))
		c.Ban(addrPort(tc.ban))
		require.Equal(t, 1, c.Bans())
	}
}

// A peer that dials us comes from another port each time, and is blamed as one.
func TestOrigin(t *testing.T) {
	for addr, want := range map[string]string{
		"1.2.3.4:5":          "1.2.3.4:0",
		"[::ffff:1.2.3.4]:6": "1.2.3.4:0",
		"[2001:db8::1]:5":    "[2001:db8::1]:0",
		"127.0.0.1:5":        "127.0.0.1:5",
		"1.2.3.5:7":          "1.2.3.5:7", // named by the user, and not banned with the address
	} {
		c := newTestCandidates(false)
		c.Add(addrPort("1.2.3.5:7"), FromUser, "", epoch)
		require.Equal(t, addrPort(want), c.Origin(addrPort(addr)))
	}
}

// A user bans every port of an address, which no source brings back.
func TestBanHost(t *testing.T) {
	for _, host := range []string{"1.0.0.1", "10.0.0.1"} {
		c := newTestCandidates(false)
		ip := netip.MustParseAddr(host)
		require.True(t, c.Add(netip.AddrPortFrom(ip, 1), FromUser, "", epoch))
		c.Add(netip.AddrPortFrom(ip, 2), FromTracker, "", epoch)
		require.True(t, c.Add(addrPort("2.0.0.2:1"), FromTracker, "", epoch))
		c.BanHost(netip.AddrFrom16(ip.As16()))
		require.False(t, c.Add(netip.AddrPortFrom(ip, 3), FromUser, "", epoch))
		for port := range uint16(4) {
			require.True(t, c.Banned(netip.AddrPortFrom(ip, port)))
			require.False(t, c.Has(netip.AddrPortFrom(ip, port)))
		}
		require.False(t, c.Banned(addrPort("2.0.0.2:1")))
		addr, _, ok := c.Next(epoch)
		require.True(t, ok)
		require.Equal(t, addrPort("2.0.0.2:1"), addr)
	}
}

// A candidate whose host is dialled for another download waits, and so does one that could not be tried.
func TestPostponed(t *testing.T) {
	c := newTestCandidates(false)
	a, later := addrPort("1.0.0.1:1"), epoch.Add(time.Minute)
	c.Postpone(a, later) // which is not known
	require.True(t, c.Add(a, FromTracker, "", epoch))
	_, _, ok := c.First(epoch)
	require.True(t, ok)
	c.Postpone(a, later)
	_, _, ok = c.First(later.Add(-1))
	require.False(t, ok)
	at, ok := c.Due()
	require.True(t, ok)
	require.Equal(t, later, at)

	got, _, ok := c.Next(later)
	require.True(t, ok)
	require.Equal(t, a, got)
	c.Postpone(a, later.Add(time.Minute))
	_, _, ok = c.First(later)
	require.False(t, ok)
	_, _, ok = c.First(later.Add(time.Minute))
	require.True(t, ok)
}

func TestWayIsRemembered(t *testing.T) {
	c := newTestCandidates(false)
	a := addrPort("1.0.0.1:1")
	c.SetWay(a, 2)
	require.Zero(t, c.Way(a), "it is not known")
	c.Add(a, FromTracker, "", epoch)
	require.Zero(t, c.Way(a))
	c.SetWay(a, 2)
	require.EqualValues(t, 2, c.Way(a))
}

// Among equals the canonical priority decides, once we know how the world sees us.
func TestCandidatePriority(t *testing.T) {
	c := newTestCandidates(false)
	c.SetExternal(addrPort("123.213.32.10:6881"))
	order := func() (addrs []netip.AddrPort) {
		for {
			addr, _, ok := c.Next(epoch)
			if !ok {
				return addrs
			}
			addrs = append(addrs, addr)
		}
	}
	var all []netip.AddrPort
	for i := range 50 {
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(i + 1), 2, 3, 4}), 80))
		c.Add(all[i], FromTracker, "", epoch)
	}
	by := func(us string) []netip.AddrPort {
		return slices.SortedFunc(slices.Values(all), func(a, b netip.AddrPort) int {
			return cmp.Compare(netaddr.Priority(addrPort(us), b), netaddr.Priority(addrPort(us), a))
		})
	}
	require.Equal(t, by("123.213.32.10:6881"), order())

	for _, a := range all {
		c.Dialled(a, true, epoch)
		c.Left(a, true, epoch.Add(-time.Hour))
	}
	c.SetExternal(addrPort("[2001:db8::5]:6881"))
	c.SetExternal(addrPort("9.8.7.6:6881"))
	require.Equal(t, addrPort("9.8.7.6:6881"), c.External(netaddr.IPv4))
	require.Equal(t, addrPort("[2001:db8::5]:6881"), c.External(netaddr.IPv6))
	require.Equal(t, by("9.8.7.6:6881"), order(), "and again when that changes")
}

// When there are too many the least promising go, and never those that are in use or the user's.
func TestCandidatesAreBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	us := addrPort("5.6.7.8:9")
	c := New(rng, false)
	c.SetExternal(us)
	m := newSlowCandidates(us)
	for i := range 2 * maxCandidates {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, byte(rng.IntN(256)), byte(i >> 8), byte(i)}), 1)
		from := Source(rng.IntN(len(sourceNames)))
		require.Equal(t, m.add(addr, from, epoch), c.Add(addr, from, "", epoch))
		if rng.IntN(8) == 0 {
			want := m.next(epoch)
			got, _, _ := c.Next(epoch)
			require.Equal(t, want.addr, got)
			if rng.IntN(2) == 0 {
				c.Dialled(got, false, epoch)
				m.failed(want, epoch)
			}
		}
		require.LessOrEqual(t, c.Known()-c.users, maxCandidates)
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(m.all)), slices.Collect(maps.Keys(c.all)))
}

func BenchmarkCandidates(b *testing.B) {
	c := newTestCandidates(false)
	now, i := epoch, uint32(0)
	b.ReportAllocs()
	for b.Loop() {
		i++
		now = now.Add(time.Millisecond)
		c.Add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 1), FromPEX, "", now)
		if addr, _, ok := c.Next(now); ok {
			c.Dialled(addr, false, now)
		}
	}
}

// Candidates that failed for lack of a network are tried again when there is one, and no others.
func TestRevive(t *testing.T) {
	c := New(rand.New(rand.NewPCG(1, 2)), false)
	now := time.Unix(1e9, 0)
	failed, banned := netip.MustParseAddrPort("81.0.0.1:1"), netip.MustParseAddrPort("82.0.0.1:1")
	c.Add(failed, FromTracker, "", now)
	c.Add(banned, FromTracker, "", now)
	for range maxFailures {
		for a, _, ok := c.First(now); ok; a, _, ok = c.First(now) {
			c.Next(now)
			c.Dialled(a, false, now)
		}
		now = now.Add(time.Hour)
	}
	c.Ban(banned)
	_, _, ok := c.First(now)
	require.False(t, ok, "given up")
	c.Revive(now)
	a, _, ok := c.First(now)
	require.True(t, ok)
	require.Equal(t, failed, a)
	c.Next(now)
	_, _, ok = c.First(now)
	require.False(t, ok)
}
