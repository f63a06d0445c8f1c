package choker

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// chokeScene is a choker among peers called a, b, c…, which are unchoked as it says.
type chokeScene struct {
	choker  *Choker
	now     time.Time
	seeding bool
	upRate  float64
	peers   []Peer
}

// newChokeScene has peers that all connected long ago, are interested, and send and take nothing.
func newChokeScene(seed uint64, names string) *chokeScene {
	s := &chokeScene{choker: New(rand.New(rand.NewPCG(seed, 3))), now: epoch}
	for _, name := range names {
		s.peers = append(s.peers, Peer{ID: int(name), Interested: true, Joined: epoch.Add(-time.Hour)})
	}
	return s
}

// decide asks the choker, obeys, and returns the unchoked peers: in order of their names, and after a
// plus the optimistic one.
func (s *chokeScene) decide() string {
	unchoke := s.choker.Decide(s.now, s.seeding, s.upRate, s.peers)
	for i := range s.peers {
		p := &s.peers[i]
		was := p.Unchoked
		if p.Unchoked = slices.Contains(unchoke, p.ID); p.Unchoked && !was {
			p.UnchokedAt = s.now
		}
	}
	regular, lot := "", ""
	for _, id := range slices.Sorted(slices.Values(unchoke)) {
		if s.choker.drawn && id == s.choker.optimistic {
			lot = "+" + string(rune(id))
		} else {
			regular += string(rune(id))
		}
	}
	return regular + lot
}

func TestChoker(t *testing.T) {
	type scene = func(s *chokeScene)
	on := func(names string, change func(p *Peer)) scene {
		return func(s *chokeScene) {
			for i := range s.peers {
				if strings.ContainsRune(names, rune(s.peers[i].ID)) {
					change(&s.peers[i])
				}
			}
		}
	}
	gives := func(names string, rates ...float64) scene {
		return func(s *chokeScene) {
			for i, name := range names {
				on(string(name), func(p *Peer) { p.Down = rates[min(i, len(rates)-1)] })(s)
			}
		}
	}
	takes := func(names string, rate float64) scene { return on(names, func(p *Peer) { p.Up = rate }) }
	wants := func(names string, is bool) scene { return on(names, func(p *Peer) { p.Interested = is }) }
	snubs := func(names string) scene { return on(names, func(p *Peer) { p.Snubbing = true }) }
	rides := func(names string, sent, received int64, withheld bool) scene {
		return on(names, func(p *Peer) { p.Sent, p.Received, p.Withheld = sent, received, withheld })
	}
	hoards := func(names string, is bool) scene { return on(names, func(p *Peer) { p.Hoarding = is }) }
	leaves := func(name rune) scene {
		return func(s *chokeScene) {
			s.peers = slices.DeleteFunc(s.peers, func(p Peer) bool { return p.ID == int(name) })
		}
	}
	uploads := func(rate float64) scene { return func(s *chokeScene) { s.upRate = rate } }
	seeds := func(s *chokeScene) { s.seeding = true }

	type step struct {
		at   int // seconds
		what []scene
		want string // the unchoked, and after a plus the optimistic one; ? is anyone
		why  string
	}
	for _, tc := range []struct {
		name  string
		peers string
		steps []step
	}{
		{"interest", "abc", []step{
			{0, []scene{wants("abc", false)}, "", "a slot is for peers that want something"},
			{11, []scene{wants("b", true)}, "b", "the first that does gets one"},
			{12, []scene{wants("c", true)}, "bc", "the next does not wait for the round, since slots are free"},
			{13, []scene{wants("b", false)}, "c", "and one that loses interest frees a slot at once"},
			{14, []scene{leaves('c')}, "", "as does one that leaves"},
		}},
		{"a small swarm", "abcde", []step{
			{0, []scene{gives("abcd", 1)}, "abcd+e", "while there are slots, every peer has one"},
			{100, nil, "abcd+e", "however long it takes"},
		}},
		{"tit for tat", "abcde", []step{
			{0, []scene{gives("abcde", 6, 5, 4, 3, 2)}, "abcd+e", "the four best have slots; the lot falls on the other"},
			{9, []scene{gives("e", 10)}, "abcd+e", "before the round is over no peer is displaced"},
			{10, nil, "abce+d", "then e has earned a slot of its own, and d depends on the lot"},
			{11, []scene{wants("a", false)}, "bce+d", "a slot that gets free is not for a peer that has one already"},
			{20, nil, "bcde", "but in a round d has earned it, and no peer is left to draw from"},
			{21, []scene{wants("a", true)}, "bcde+a", "until there is"},
		}},
		{"a better peer waits for the round", "abcdef", []step{
			{0, []scene{gives("abcde", 6, 5, 4, 3, 2), wants("f", false)}, "abcd+e", ""},
			{1, []scene{wants("f", true), gives("f", 9)}, "abcd+e", "all slots are in use"},
			{2, []scene{leaves('d')}, "abcf+e", "a free one goes to the best"},
		}},
		{"a snubbing peer", "abcde", []step{
			{0, []scene{gives("abcd", 5)}, "abcd+e", ""},
			{1, []scene{snubs("a")}, "bcd+e", "loses its slot, even if no other needs it"},
			{30, []scene{gives("e", 1)}, "bcde+a", "but may be drawn at random"},
			{40, []scene{seeds}, "bcde+a", "a seed asks for nothing, so snubbing does not matter"},
		}},
		{"more slots on a faster link", "abcdefg", []step{
			{0, []scene{gives("abcdefg", 9, 8, 7, 6, 5, 4, 3), uploads(4 * uploadSlotRate)}, "abcdef+g", "two more at four times the rate"},
			{1, []scene{uploads(0)}, "abcdef+g", "kept for the round"},
			{10, nil, "abcd+g", "and lost when the rate is"},
		}},
		{"turns while seeding", "abcdef", []step{
			{0, []scene{seeds, takes("abcde", 9), wants("f", false), on("e", func(p *Peer) { p.Joined = epoch })}, "abcd+e", "the peer that has waited longest comes first"},
			{1, []scene{wants("f", true)}, "abcd+e", "slots are in use"},
			{20, []scene{on("a", func(p *Peer) { p.UnchokedAt = epoch.Add(-time.Second) })}, "abcd+e", "for half a minute at least"},
			{30, nil, "bcde+?", "then the peer that was served longest makes room for the optimistic one, which takes as fast as the rest"},
		}},
		{"while seeding, slots are for peers that use them", "abcdef", []step{
			{0, []scene{seeds, takes("abcd", 9), wants("f", false), on("e", func(p *Peer) { p.Joined = epoch })}, "abcd+e", ""},
			{1, []scene{wants("f", true)}, "abcd+e", ""},
			{10, []scene{takes("b", 0)}, "acdf+e", "b asked for nothing in ten seconds, and f is waiting"},
		}},
		{"while seeding, peers that pass on nothing have shorter turns", "abcdefg", []step{
			{0, []scene{seeds, takes("abcdefg", 9), hoards("abc", true), wants("fg", false), on("e", func(p *Peer) { p.Joined = epoch })}, "abcd+e", "a hoarder waits no longer than others"},
			{9, []scene{wants("fg", true), on("abcd", func(p *Peer) { p.UnchokedAt = epoch.Add(-31 * time.Second) })}, "abcd+e", "and keeps its slot between rounds"},
			{10, nil, "?dfg+e", "but then makes room, however many others do"},
		}},
		{"peers that give nothing take turns while leeching", "abcdef", []step{
			{0, []scene{gives("abc", 5), takes("abcd", 5), on("e", func(p *Peer) { p.Joined = epoch }), wants("f", false)}, "abcd+e", ""},
			{20, []scene{wants("f", true)}, "abcd+e", "d has time to upload to us as well"},
			{30, nil, "abcf+d", "but then makes room, as does e, which is not drawn again"},
		}},
		{"a free rider", "abcde", []step{
			{0, []scene{gives("acde", 5)}, "acde+b", "has its chance"},
			{10, []scene{rides("b", creditAtFirst, 0, true)}, "acde+b", "may take as much as any newcomer"},
			{15, []scene{rides("b", 1<<30, 0, true)}, "acde+b", ""},
			{20, nil, "acde", "gets nothing once it took much and gave nothing"},
			{30, []scene{rides("b", 1<<30, 1<<28, true)}, "acde+b", "until it gives"},
			{40, []scene{rides("b", 1<<30, 0, false)}, "acde+b", "or never had anything to give"},
			{50, []scene{rides("b", 1<<30, 0, true), seeds}, "acde+b", "and from a seed in any case, which wants nothing"},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(20) {
				s := newChokeScene(seed, tc.peers)
				for _, step := range tc.steps {
					s.now = epoch.Add(time.Duration(step.at) * time.Second)
					for _, change := range step.what {
						change(s)
					}
					got := s.decide()
					require.Len(t, got, len(step.want), "%s at %d s, want %s: %s", got, step.at, step.want, step.why)
					for i, name := range step.want {
						require.True(t, name == '?' || got[i] == byte(name), "%s at %d s, want %s: %s", got, step.at, step.want, step.why)
					}
				}
			}
		})
	}
}

func TestChokerRounds(t *testing.T) {
	s := newChokeScene(1, "abc")
	require.False(t, s.choker.Next().After(epoch), "the first round is due at once")
	s.decide()
	require.Equal(t, epoch.Add(RoundEvery), s.choker.Next())
	s.now = epoch.Add(3 * time.Second)
	s.decide()
	require.Equal(t, epoch.Add(RoundEvery), s.choker.Next(), "changes between rounds do not move them")
}

func TestUploadSlots(t *testing.T) {
	for rate, want := range map[float64]int{-1: 4, 0: 4, 60e3: 4, 64 << 10: 5, 1 << 20: 8, 16 << 20: 20, 1e9: 32, 1e18: 32} {
		require.Equal(t, want, uploadSlots(rate), "at %.0f bytes a second", rate)
	}
}

// One newcomer among three old peers is drawn as often as all of them together.
func TestNewcomersAreLucky(t *testing.T) {
	drawn := 0
	for seed := range uint64(2000) {
		s := newChokeScene(seed, "abcdefgh")
		for i := range s.peers {
			if s.peers[i].Down = 5; i >= 4 {
				s.peers[i].Down = 0
			}
		}
		s.peers[4].Joined = epoch.Add(-newcomer / 2)
		s.peers[4].Snubbing, s.peers[5].Snubbing, s.peers[6].Snubbing, s.peers[7].Snubbing = true, true, true, true
		if strings.HasSuffix(s.decide(), "+e") {
			drawn++
		}
	}
	require.InDelta(t, 1000, drawn, 100)
}

// Those of a crowd wait for a slot as if they were one, and are drawn as rarely.
func TestCrowdHasOneTurn(t *testing.T) {
	for _, seeding := range []bool{false, true} {
		s := newChokeScene(1, "abcdefghijklmnopqrstuvwxyz")
		s.seeding = seeding
		for i := range s.peers[:20] {
			s.peers[i].Crowd = 20
		}
		turns := 0 // of the six others
		for range 3000 {
			s.decide()
			s.now = s.now.Add(RoundEvery)
			for i := range s.peers {
				if p := &s.peers[i]; p.Unchoked && p.ID >= 'u' {
					turns++
				}
			}
		}
		require.Greater(t, turns, 3000*5*6/10, "seeding: %t", seeding)
	}
}

// Twenty peers that all want something from a seed for half an hour get as much time each.
func TestSeedIsFair(t *testing.T) {
	for name, up := range map[string]func(id int) float64{
		"slow": func(id int) float64 { return float64(id) },
		"about as fast": func(id int) float64 { // one does not keep its slot because it takes a little more
			if id == 't' {
				return 66e3
			}
			return 65e3
		},
	} {
		s := newChokeScene(1, "abcdefghijklmnopqrst")
		s.seeding = true
		served := make(map[int]int)
		for range 180 {
			s.decide()
			for i := range s.peers {
				p := &s.peers[i]
				if p.Up = 0; p.Unchoked {
					served[p.ID]++
					p.Up = up(p.ID)
				}
			}
			s.now = s.now.Add(RoundEvery)
		}
		for id, n := range served {
			require.InDelta(t, 180*5/20, n, 20, "%s: peer %c", name, id)
		}
		require.Len(t, served, 20)
	}
}

// A peer that takes far more than the others keeps its slot, whenever these come and go. Of those that take as much, each has its turn.
func TestSeedServesThoseThatTakeMost(t *testing.T) {
	for name, every := range map[string]time.Duration{"stay": 0, "come and go": 19 * time.Second, "at once": 9 * time.Second} {
		s := newChokeScene(1, "abcdefghijklmnopqrst")
		s.seeding = true
		served := make(map[int]int)
		last := s.now
		for range 720 { // seconds
			if leave := every > 0 && s.now.Sub(last) >= every; leave || !s.now.Before(s.choker.Next()) {
				for i := range s.peers {
					if p := &s.peers[i]; leave && p.ID != 't' && p.Unchoked { // another takes its place
						*p = Peer{ID: p.ID + 1000, Interested: true, Joined: s.now}
						last = s.now
					}
				}
				s.decide()
			}
			for i := range s.peers {
				p := &s.peers[i]
				if p.Up = 0; p.Unchoked {
					served[p.ID]++
					p.Up = 20e3
					if p.ID == 't' {
						p.Up = 100e3
					}
				}
			}
			s.now = s.now.Add(time.Second)
		}
		t.Logf("%s: %d s", name, served['t'])
		require.Greater(t, served['t'], 480, name)
	}
}

// Peers that keep what they get come last if the others together take as much as one of them would.
func TestIndulge(t *testing.T) {
	for _, c := range []struct {
		hoarder, took float64
		others        []float64
		hoards        bool
	}{
		{0, 0, []float64{5e3, 5e3}, true},
		{0, 0, []float64{5e3, 3e3}, false}, // they leave our upload idle
		{9e3, 0, []float64{5e3, 5e3}, true},
		{19e3, 0, []float64{5e3, 5e3}, false},
		{0, 19e3, []float64{5e3, 5e3}, false},
		{0, 19e3, []float64{15e3, 5e3}, true},
		{100e3, 0, []float64{5e3, 5e3, 5e3, 5e3}, false},
		{100e3, 0, []float64{5e3, 5e3, 40e3, 50e3}, true},
	} {
		peers := []Peer{{Hoarding: true, Unchoked: c.hoarder > 0, Up: c.hoarder, Took: c.took}}
		for _, up := range c.others {
			peers = append(peers, Peer{Unchoked: true, Up: up})
		}
		Indulge(peers)
		require.Equal(t, c.hoards, peers[0].Hoarding, c)
	}
}

// After any history the choice obeys the rules, stated here the plain way.
func TestChokerRules(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 4))
		s := newChokeScene(seed, "")
		nextID := 0
		for range 200 {
			s.now = s.now.Add(time.Duration(rng.IntN(12000)) * time.Millisecond)
			switch rng.IntN(8) {
			case 0, 1:
				nextID++
				s.peers = append(s.peers, Peer{ID: nextID, Joined: s.now, Interested: rng.IntN(3) > 0})
			case 2:
				if n := len(s.peers); n > 0 {
					i := rng.IntN(n)
					s.peers = slices.Delete(s.peers, i, i+1)
				}
			case 3:
				s.seeding = rng.IntN(4) == 0
				s.upRate = rng.Float64() * 1e6
			default:
				for i := range s.peers {
					p := &s.peers[i]
					p.Down = float64(rng.IntN(4)) * rng.Float64()
					p.Up = float64(rng.IntN(2)) * rng.Float64()
					p.Interested = rng.IntN(5) > 0
					p.Snubbing = rng.IntN(6) == 0
					p.Withheld = rng.IntN(3) == 0
					p.Hoarding = rng.IntN(3) == 0
					p.Sent += rng.Int64N(1 << 20)
					p.Received += rng.Int64N(1 << 18)
				}
			}
			before := slices.Clone(s.peers)
			round := !s.now.Before(s.choker.Next())
			lot, drawn, drawAt := s.choker.optimistic, s.choker.drawn, s.choker.drawAt
			s.decide()
			checkChoice(t, s, before, round)
			if drawn && s.choker.drawn && s.choker.optimistic != lot && s.now.Before(drawAt) {
				i := slices.IndexFunc(s.peers, func(p Peer) bool { return p.ID == lot })
				require.True(t, i < 0 || !s.peers[i].Interested || s.peers[i].Unchoked || s.peers[i].owes(s.now),
					"the optimistic peer keeps its place for its time")
			}
		}
	}
}

func checkChoice(t *testing.T, s *chokeScene, before []Peer, round bool) {
	c := s.choker
	var regular, left []Peer // those with a slot of their own, and those that could use one
	for i, p := range s.peers {
		was := before[i].Unchoked
		entitled := p.Interested && (s.seeding || !p.owes(s.now) || was && !round)
		if p.Unchoked {
			require.True(t, entitled, "a peer that is not interested, or is a free rider, has no slot")
		}
		optimistic := c.drawn && c.optimistic == p.ID
		require.True(t, !optimistic || p.Unchoked)
		switch {
		case !entitled || optimistic:
		case p.Unchoked:
			require.True(t, s.seeding || !p.Snubbing, "a peer that snubs us has no slot of its own")
			regular = append(regular, p)
		case s.seeding || !p.Snubbing:
			left = append(left, p)
		default:
			require.True(t, c.drawn, "a peer that is left could be drawn")
		}
		if was && !round && entitled && (s.seeding || !p.Snubbing) {
			require.True(t, p.Unchoked, "a peer that uses a slot keeps it between rounds")
		}
	}
	require.LessOrEqual(t, len(regular), c.slots)
	if len(left) > 0 {
		require.Len(t, regular, c.slots, "no slot is free while a peer could use it")
		require.True(t, c.drawn, "and one is drawn at random")
	}
	if !round {
		return
	}
	if s.seeding {
		waits := slices.ContainsFunc(left, func(p Peer) bool {
			return !slices.ContainsFunc(before, func(q Peer) bool { return q.ID == p.ID && q.Unchoked })
		})
		late := slices.ContainsFunc(regular, func(p Peer) bool { return p.Hoarding && s.now.Sub(p.UnchokedAt) >= chokeTurn })
		require.False(t, waits && late, "a hoarder whose turn is over makes room for one that waits")
		return
	}
	for _, p := range left {
		for _, q := range regular {
			require.GreaterOrEqual(t, q.Down, p.Down, "a peer that gives more goes first")
		}
	}
}

func TestDebts(t *testing.T) {
	var all Debts
	ip := func(k int) netip.Addr { return netip.AddrFrom4([4]byte{81, 0, byte(k >> 8), byte(k)}) }
	rider := Peer{Withheld: true, Sent: 1 << 30, Received: 1 << 20, Down: 5, Joined: epoch}
	all.Left(ip(1), rider, epoch)
	require.Equal(t, Debts{ip(1): {1 << 30, 1 << 20}}, all)
	debt, owes := all.Of(ip(1))
	require.True(t, owes)
	require.Equal(t, Debt{Sent: 1 << 30, Received: 1 << 20}, debt)
	_, owes = all.Of(ip(2))
	require.False(t, owes)
	six := Debts{}
	six.Left(netip.MustParseAddr("2001:db8::1"), rider, epoch)
	_, owes = six.Of(netip.MustParseAddr("2001:db8::2"))
	require.True(t, owes, "it has the whole /64")
	_, owes = six.Of(netip.MustParseAddr("2001:db8:0:1::1"))
	require.False(t, owes)
	for name, change := range map[string]func(p *Peer){
		"gave enough":               func(p *Peer) { p.Received = 1 << 29 },
		"took little":               func(p *Peer) { p.Sent = creditAtFirst },
		"never had anything for us": func(p *Peer) { p.Withheld = false },
		"has been here for years":   func(p *Peer) { p.Joined = epoch.Add(-10000 * time.Hour) },
	} {
		p := rider
		change(&p)
		all.Left(ip(2), p, epoch)
		require.Len(t, all, 1, name)
	}
	all.Left(netip.MustParseAddr("10.0.0.1"), rider, epoch)
	require.Len(t, all, 1, "many peers may share a private address")
	rider.Received = 1 << 30
	all.Left(ip(1), rider, epoch)
	require.Empty(t, all, "it has given enough since")

	rider.Received = 0
	for k := range maxDebtors + 1 {
		all.Left(ip(k), rider, epoch)
		require.LessOrEqual(t, len(all), maxDebtors)
	}
}
