package peerlist

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// slowCandidates is a plain model of the List: one map, searched from end to end.
type slowCandidates struct {
	all    map[netip.AddrPort]*slowCandidate
	banned []netip.AddrPort
	named  map[netip.AddrPort]bool
	self   []netip.AddrPort
	us     netip.AddrPort
	turns  map[namedBy]int // when each had its last
	turnOf map[Source]int  // likewise, if it had one
	turn   int
	given  int
	shared map[namedBy][]*slowCandidate // that each named, and that belong to others
}

func newSlowCandidates(us netip.AddrPort) *slowCandidates {
	return &slowCandidates{us: us, all: make(map[netip.AddrPort]*slowCandidate), named: make(map[netip.AddrPort]bool), turns: make(map[namedBy]int), turnOf: make(map[Source]int), shared: make(map[namedBy][]*slowCandidate)}
}

type slowCandidate struct {
	addr     netip.AddrPort
	from     Source
	namer    namedBy
	crowd    int
	yielded  int
	claimed  bool
	held     bool
	failures int
	useful   bool
	doing    string // "waits", "dialling", "connected" or "given up"
	due      time.Time
}

func (m *slowCandidates) refuses(addr netip.AddrPort) bool {
	return slices.Contains(m.self, addr) || slices.ContainsFunc(m.banned, func(b netip.AddrPort) bool {
		return b == addr || b.Addr() == addr.Addr() && !addr.Addr().IsPrivate() && !m.named[addr]
	})
}

// size is how many candidates a namer has.
func (m *slowCandidates) size(n namedBy) (size int) {
	for _, k := range m.all {
		if k.namer == n {
			size++
		}
	}
	return size
}

func (m *slowCandidates) hadTurn(n namedBy) {
	m.turn++
	m.turns[n], m.turnOf[n.from] = m.turn, m.turn
}

// forget has namers without candidates begin with another turn.
func (m *slowCandidates) forget() {
	maps.DeleteFunc(m.turns, func(n namedBy, _ int) bool { return m.size(n)+len(m.shared[n]) == 0 })
}

// name has a candidate belong to the one of two of its namers that has fewer.
func (m *slowCandidates) name(k *slowCandidate, by namedBy) {
	if m.size(by)+1 < m.size(k.namer) {
		k.namer, by = by, k.namer
	}
	if !slices.Contains(m.shared[by], k) {
		m.shared[by] = append(m.shared[by], k)
	}
}

// reclaim does so for all that belong to others.
func (m *slowCandidates) reclaim() {
	byTurn := func(a, b namedBy) int { return cmp.Compare(m.turns[a], m.turns[b]) }
	gone := func(k *slowCandidate) bool { return m.all[k.addr] != k }
	sharing := slices.SortedFunc(maps.Keys(m.turns), byTurn)
	sharing = slices.DeleteFunc(sharing, func(n namedBy) bool { return len(m.shared[n]) == 0 })
	for _, n := range sharing {
		for _, k := range m.shared[n] {
			if !gone(k) && k.namer != n {
				m.name(k, n)
			}
		}
		m.shared[n] = slices.DeleteFunc(m.shared[n], func(k *slowCandidate) bool { return gone(k) || k.namer == n })
	}
	m.forget()
}

// worse reports whether k is less promising than l.
func (m *slowCandidates) worse(k, l *slowCandidate) bool {
	switch {
	case (k.doing == "given up") != (l.doing == "given up"):
		return k.doing == "given up"
	case k.yielded != l.yielded:
		return k.yielded > l.yielded
	case k.failures != l.failures:
		return k.failures > l.failures
	case k.useful != l.useful:
		return l.useful
	case k.from != l.from:
		return k.from > l.from
	case k.crowd != l.crowd:
		return k.crowd > l.crowd
	}
	p, q := netaddr.Priority(m.us, k.addr), netaddr.Priority(m.us, l.addr)
	return p < q || p == q && k.addr.Compare(l.addr) < 0
}

func (m *slowCandidates) add(addr netip.AddrPort, from Source, now time.Time) bool {
	if from == FromUser {
		m.named[addr] = true
	}
	if m.refuses(addr) {
		return false
	}
	by := namedBy{from: from}
	if m.turns[by] == 0 {
		m.turn++
		m.turns[by] = m.turn
	}
	if k, ok := m.all[addr]; ok {
		if k.namer != by {
			m.name(k, by)
		}
		m.forget()
		if from != FromIncoming && (from < k.from || k.from == FromIncoming) {
			k.from = from
		}
		if k.claimed && from != FromIncoming {
			k.hold(now)
			return false
		}
		if k.doing != "given up" {
			return false
		}
		k.doing = "waits"
		return true
	}
	near, far := 1, 1 // candidates of its /24, and of its /16, with this one
	for other := range m.all {
		if a, b := other.Addr().As4(), addr.Addr().As4(); [2]byte(a[:2]) == [2]byte(b[:2]) && !addr.Addr().IsPrivate() {
			far++
			if a[2] == b[2] {
				near++
			}
		}
	}
	m.all[addr] = &slowCandidate{addr: addr, from: from, namer: by, crowd: max(near, far/4), doing: "waits", due: now}
	users := 0
	for _, k := range m.all {
		if k.from == FromUser {
			users++
		}
	}
	if len(m.all)-users > maxCandidates {
		m.reclaim()
		idle := make(map[namedBy]int)
		for _, k := range m.all {
			if k.from != FromUser && (k.doing == "waits" || k.doing == "given up") {
				idle[k.namer]++
			}
		}
		for range maxCandidates/16 + 1 {
			most := slices.Max(slices.Collect(maps.Values(idle)))
			var worst *slowCandidate
			for _, k := range m.all {
				if k.from != FromUser && (k.doing == "waits" || k.doing == "given up") && idle[k.namer] == most && (worst == nil || m.worse(k, worst)) {
					worst = k
				}
			}
			idle[worst.namer]--
			delete(m.all, worst.addr)
		}
	}
	m.forget()
	return m.all[addr] != nil
}

func (m *slowCandidates) claim(addr netip.AddrPort, now time.Time) {
	m.add(addr, FromIncoming, now)
	switch k := m.all[addr]; {
	case k == nil || k.doing != "waits":
	case k.from == FromIncoming:
		k.doing, k.claimed = "connected", true
	default:
		k.hold(now)
	}
}

func (k *slowCandidate) hold(now time.Time) {
	if k.from != FromUser && !k.held {
		k.held = true
		k.due = slices.MaxFunc([]time.Time{k.due, now.Add(2 * time.Minute)}, time.Time.Compare)
	}
	k.doing, k.claimed = "waits", false
}

func (m *slowCandidates) next(now time.Time) (best *slowCandidate) {
	better := func(k *slowCandidate) bool {
		if m.given%4 == 3 && k.namer != best.namer {
			return cmp.Or(cmp.Compare(m.turnOf[k.namer.from], m.turnOf[best.namer.from]), cmp.Compare(m.turns[k.namer], m.turns[best.namer])) < 0
		}
		return m.worse(best, k)
	}
	for _, k := range m.all {
		if k.doing == "waits" && !k.due.After(now) && (best == nil || better(k)) {
			best = k
		}
	}
	if best != nil {
		best.doing = "dialling"
		if m.given%4 == 3 {
			m.hadTurn(best.namer)
		}
		if m.given++; m.given%reclaimEvery == 0 {
			m.reclaim()
		}
	}
	return best
}

func (m *slowCandidates) failed(k *slowCandidate, now time.Time) {
	k.failures++
	k.due = now.Add(min(time.Duration(k.failures)*time.Minute, 10*time.Minute))
	if k.from == FromUser || k.from == FromMagnet {
		k.due = now.Add(time.Duration(min(math.Pow(2, float64(k.failures)), 60)) * time.Second)
	}
	if k.doing = "waits"; k.failures >= 3 && k.from != FromUser && k.from != FromMagnet {
		k.doing = "given up"
	}
}

func (m *slowCandidates) drop() {
	maps.DeleteFunc(m.all, func(addr netip.AddrPort, _ *slowCandidate) bool { return m.refuses(addr) })
	m.forget()
}

func (m *slowCandidates) dialling() (n int) {
	for _, k := range m.all {
		if k.doing == "dialling" {
			n++
		}
	}
	return n
}

func TestCandidatesAgreeWithModel(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 6))
		us := addrPort("5.6.7.8:9")
		c := New(rng, false)
		c.SetExternal(us)
		m := newSlowCandidates(us)
		now := epoch
		hosts := 10 + rng.IntN(60)
		anyone := func() netip.AddrPort {
			ip := [4]byte{10, 0, 0, byte(rng.IntN(hosts))}
			if rng.IntN(3) > 0 {
				ip[0] = 11
			}
			return netip.AddrPortFrom(netip.AddrFrom4(ip), uint16(1+rng.IntN(3)))
		}
		for i := range 2000 {
			now = now.Add(time.Duration(rng.IntN(4000)) * time.Millisecond)
			addr := anyone()
			k := m.all[addr]
			where := fmt.Sprintf("seed %d step %d", seed, i)
			switch op := rng.IntN(20); {
			case op < 6:
				from := Source(rng.IntN(len(sourceNames)))
				require.Equal(t, m.add(addr, from, now), c.Add(addr, from, "", now), where)
			case op < 12:
				want := m.next(now)
				got, from, ok := c.Next(now)
				require.Equal(t, want != nil, ok, where)
				if ok {
					require.Equal(t, want.addr, got, where)
					require.Equal(t, want.from, from, where)
				}
			case op < 15:
				ok := rng.IntN(2) == 0
				require.Equal(t, k != nil, c.Dialled(addr, ok, now), where)
				if k != nil && k.doing == "dialling" {
					if k.doing = "connected"; !ok {
						m.failed(k, now)
					}
				}
			case op < 16:
				c.Claimed(addr, now)
				m.claim(addr, now)
			case op < 19:
				useful := rng.IntN(2) == 0
				if rng.IntN(4) == 0 {
					c.MadeRoom(addr)
					if k != nil && k.doing == "connected" && !k.from.isTheUsers() {
						k.yielded++
					}
				}
				c.Left(addr, useful, now)
				if k != nil && k.doing == "connected" {
					if k.claimed = false; !useful {
						m.failed(k, now)
					} else {
						k.doing, k.useful, k.failures, k.due = "waits", true, 0, now.Add(5*time.Second)
					}
				}
			case rng.IntN(10) == 0:
				c.Ban(addr)
				m.banned = append(m.banned, addr)
				m.drop()
			case rng.IntN(10) == 0:
				c.ExcludeSelf(addr)
				m.self = append(m.self, addr)
				m.drop()
			}
			require.Equal(t, len(m.all), c.Known(), where)
			require.Equal(t, m.dialling(), c.Dialling(), where)
			require.Equal(t, m.refuses(addr), c.Banned(addr) || slices.Contains(m.self, addr), where)
		}
	}
}
