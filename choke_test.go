package torrent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// chokeScene is a choker among peers called a, b, c…, who do as it says.
type chokeScene struct {
	choker  *choker
	now     time.Time
	seeding bool
	upRate  float64
	peers   []chokeState
}

// newChokeScene has peers who all connected long ago, are interested, and send and take nothing.
func newChokeScene(seed uint64, names string) *chokeScene {
	s := &chokeScene{choker: newChoker(rand.New(rand.NewPCG(seed, 3))), now: epoch}
	for _, name := range names {
		s.peers = append(s.peers, chokeState{id: int(name), interested: true, joined: epoch.Add(-time.Hour)})
	}
	return s
}

// decide asks the choker, obeys, and returns who is unchoked: in order of their names, and after a
// plus the optimistic one.
func (s *chokeScene) decide() string {
	unchoke := s.choker.decide(s.now, s.seeding, s.upRate, s.peers)
	for i := range s.peers {
		p := &s.peers[i]
		was := p.unchoked
		if p.unchoked = slices.Contains(unchoke, p.id); p.unchoked && !was {
			p.unchokedAt = s.now
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
	on := func(names string, change func(p *chokeState)) scene {
		return func(s *chokeScene) {
			for i := range s.peers {
				if strings.ContainsRune(names, rune(s.peers[i].id)) {
					change(&s.peers[i])
				}
			}
		}
	}
	gives := func(names string, rates ...float64) scene {
		return func(s *chokeScene) {
			for i, name := range names {
				on(string(name), func(p *chokeState) { p.down = rates[min(i, len(rates)-1)] })(s)
			}
		}
	}
	takes := func(names string, rate float64) scene { return on(names, func(p *chokeState) { p.up = rate }) }
	wants := func(names string, is bool) scene { return on(names, func(p *chokeState) { p.interested = is }) }
	snubs := func(names string) scene { return on(names, func(p *chokeState) { p.snubbing = true }) }
	rides := func(names string, sent, received int64, withheld bool) scene {
		return on(names, func(p *chokeState) { p.sent, p.received, p.withheld = sent, received, withheld })
	}
	hoards := func(names string, is bool) scene { return on(names, func(p *chokeState) { p.hoarding = is }) }
	leaves := func(name rune) scene {
		return func(s *chokeScene) {
			s.peers = slices.DeleteFunc(s.peers, func(p chokeState) bool { return p.id == int(name) })
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
			{0, []scene{wants("abc", false)}, "", "a slot is for those who want something"},
			{11, []scene{wants("b", true)}, "b", "the first who does gets one"},
			{12, []scene{wants("c", true)}, "bc", "the next does not wait for the round, since slots are free"},
			{13, []scene{wants("b", false)}, "c", "and who loses interest frees one at once"},
			{14, []scene{leaves('c')}, "", "as does who leaves"},
		}},
		{"a small swarm", "abcde", []step{
			{0, []scene{gives("abcd", 1)}, "abcd+e", "while there are slots, everybody has one"},
			{100, nil, "abcd+e", "however long it takes"},
		}},
		{"tit for tat", "abcde", []step{
			{0, []scene{gives("abcde", 6, 5, 4, 3, 2)}, "abcd+e", "the four best have slots; the lot falls on the other"},
			{9, []scene{gives("e", 10)}, "abcd+e", "before the round is over nobody is displaced"},
			{10, nil, "abce+d", "then e has earned a slot of its own, and d depends on the lot"},
			{11, []scene{wants("a", false)}, "bce+d", "a slot that gets free is not for who has one already"},
			{20, nil, "bcde", "but in a round d has earned it, and nobody is left to draw from"},
			{21, []scene{wants("a", true)}, "bcde+a", "until there is"},
		}},
		{"a better peer waits for the round", "abcdef", []step{
			{0, []scene{gives("abcde", 6, 5, 4, 3, 2), wants("f", false)}, "abcd+e", ""},
			{1, []scene{wants("f", true), gives("f", 9)}, "abcd+e", "all slots are in use"},
			{2, []scene{leaves('d')}, "abcf+e", "a free one goes to the best"},
		}},
		{"a snubbing peer", "abcde", []step{
			{0, []scene{gives("abcd", 5)}, "abcd+e", ""},
			{1, []scene{snubs("a")}, "bcd+e", "loses its slot, even if nobody else needs it"},
			{30, []scene{gives("e", 1)}, "bcde+a", "but may be drawn by lot"},
			{40, []scene{seeds}, "bcde+a", "a seed asks for nothing, so it minds no snubbing"},
		}},
		{"more slots on a faster link", "abcdefg", []step{
			{0, []scene{gives("abcdefg", 9, 8, 7, 6, 5, 4, 3), uploads(4 * uploadSlotRate)}, "abcdef+g", "two more at four times the rate"},
			{1, []scene{uploads(0)}, "abcdef+g", "kept for the round"},
			{10, nil, "abcd+g", "and lost when the rate is"},
		}},
		{"turns while seeding", "abcdef", []step{
			{0, []scene{seeds, takes("abcde", 9), wants("f", false), on("e", func(p *chokeState) { p.joined = epoch })}, "abcd+e", "who has waited longest comes first"},
			{1, []scene{wants("f", true)}, "abcd+e", "slots are in use"},
			{20, []scene{on("a", func(p *chokeState) { p.unchokedAt = epoch.Add(-time.Second) })}, "abcd+e", "for half a minute at least"},
			{30, nil, "bcde+?", "then who was served longest makes room for the optimistic peer, who takes as fast as the rest"},
		}},
		{"while seeding, slots are for those who use them", "abcdef", []step{
			{0, []scene{seeds, takes("abcd", 9), wants("f", false), on("e", func(p *chokeState) { p.joined = epoch })}, "abcd+e", ""},
			{1, []scene{wants("f", true)}, "abcd+e", ""},
			{10, []scene{takes("b", 0)}, "acdf+e", "b asked for nothing in ten seconds, and f is waiting"},
		}},
		{"while seeding, those who pass on what they get come first", "abcdefg", []step{
			{0, []scene{seeds, takes("abcdefg", 9), hoards("abc", true), wants("g", false)}, "?def+?", "a hoarder has only what the others leave"},
			{9, []scene{wants("g", true)}, "?def+?", "though not before the round"},
			{10, nil, "defg+?", "and the lot"},
			{20, []scene{hoards("abc", false), hoards("def", true)}, "???g+?", "until it passes something on"},
			{30, []scene{hoards("abcg", true)}, "????+?", "if all hoard, they are served as if none did"},
		}},
		{"those who give nothing take turns while leeching", "abcdef", []step{
			{0, []scene{gives("abc", 5), takes("abcd", 5), on("e", func(p *chokeState) { p.joined = epoch }), wants("f", false)}, "abcd+e", ""},
			{20, []scene{wants("f", true)}, "abcd+e", "d has time to answer in kind"},
			{30, nil, "abcf+d", "but then makes room, as e does, whom the lot has left"},
		}},
		{"a free rider", "abcde", []step{
			{0, []scene{gives("acde", 5)}, "acde+b", "has its chance"},
			{10, []scene{rides("b", creditAtFirst, 0, true)}, "acde+b", "may take as much as any stranger"},
			{15, []scene{rides("b", 1<<30, 0, true)}, "acde+b", ""},
			{20, nil, "acde", "gets nothing once it took much and gave nothing"},
			{30, []scene{rides("b", 1<<30, 1<<28, true)}, "acde+b", "until it gives"},
			{40, []scene{rides("b", 1<<30, 0, false)}, "acde+b", "or never had anything to give"},
			{50, []scene{rides("b", 1<<30, 0, true), seeds}, "acde+b", "and from a seed all the same, who wants nothing"},
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
	require.False(t, s.choker.next().After(epoch), "the first round is due at once")
	s.decide()
	require.Equal(t, epoch.Add(chokeRound), s.choker.next())
	s.now = epoch.Add(3 * time.Second)
	s.decide()
	require.Equal(t, epoch.Add(chokeRound), s.choker.next(), "what happens between rounds does not move them")
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
			if s.peers[i].down = 5; i >= 4 {
				s.peers[i].down = 0
			}
		}
		s.peers[4].joined = epoch.Add(-newcomer / 2)
		s.peers[4].snubbing, s.peers[5].snubbing, s.peers[6].snubbing, s.peers[7].snubbing = true, true, true, true
		if strings.HasSuffix(s.decide(), "+e") {
			drawn++
		}
	}
	require.InDelta(t, 1000, drawn, 100)
}

// Twenty peers who all want something from a seed for half an hour get as much time each, and a fast
// one is not sent away for a slow one while it has its turn.
func TestSeedIsFair(t *testing.T) {
	s := newChokeScene(1, "abcdefghijklmnopqrst")
	s.seeding = true
	served := make(map[int]int)
	for range 180 {
		s.decide()
		for i := range s.peers {
			p := &s.peers[i]
			if p.up = 0; p.unchoked {
				served[p.id]++
				p.up = float64(p.id)
			}
		}
		s.now = s.now.Add(chokeRound)
	}
	for id, n := range served {
		require.InDelta(t, 180*5/20, n, 20, "peer %c", id)
	}
	require.Len(t, served, 20)
}

// After any history the choice obeys the rules, told here the plain way.
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
				s.peers = append(s.peers, chokeState{id: nextID, joined: s.now, interested: rng.IntN(3) > 0})
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
					p.down = float64(rng.IntN(4)) * rng.Float64()
					p.up = float64(rng.IntN(2)) * rng.Float64()
					p.interested = rng.IntN(5) > 0
					p.snubbing = rng.IntN(6) == 0
					p.withheld = rng.IntN(3) == 0
					p.hoarding = rng.IntN(3) == 0
					p.sent += rng.Int64N(1 << 20)
					p.received += rng.Int64N(1 << 18)
				}
			}
			before := slices.Clone(s.peers)
			round := !s.now.Before(s.choker.next())
			lot, drawn, drawAt := s.choker.optimistic, s.choker.drawn, s.choker.drawAt
			s.decide()
			checkChoice(t, s, before, round)
			if drawn && s.choker.drawn && s.choker.optimistic != lot && s.now.Before(drawAt) {
				i := slices.IndexFunc(s.peers, func(p chokeState) bool { return p.id == lot })
				require.True(t, i < 0 || !s.peers[i].interested || s.peers[i].unchoked || s.peers[i].owes(s.now),
					"the optimistic peer keeps its place for its time")
			}
		}
	}
}

func checkChoice(t *testing.T, s *chokeScene, before []chokeState, round bool) {
	c := s.choker
	var regular, left []chokeState // those with a slot of their own, and those who could use one
	for i, p := range s.peers {
		was := before[i].unchoked
		entitled := p.interested && (s.seeding || !p.owes(s.now) || was && !round)
		if p.unchoked {
			require.True(t, entitled, "who is not interested, or a free rider, has no slot")
		}
		optimistic := c.drawn && c.optimistic == p.id
		require.True(t, !optimistic || p.unchoked)
		switch {
		case !entitled || optimistic:
		case p.unchoked:
			require.True(t, s.seeding || !p.snubbing, "who snubs us has no slot of its own")
			regular = append(regular, p)
		case s.seeding || !p.snubbing:
			left = append(left, p)
		default:
			require.True(t, c.drawn, "who is left could be drawn")
		}
		if was && !round && entitled && (s.seeding || !p.snubbing) {
			require.True(t, p.unchoked, "who uses a slot keeps it between rounds")
		}
	}
	require.LessOrEqual(t, len(regular), c.slots)
	if len(left) > 0 {
		require.Len(t, regular, c.slots, "no slot is free while somebody could use it")
		require.True(t, c.drawn, "and one is drawn by lot")
	}
	if !round {
		return
	}
	if s.seeding {
		if slices.ContainsFunc(left, func(p chokeState) bool { return !p.hoarding }) {
			require.False(t, slices.ContainsFunc(regular, func(p chokeState) bool { return p.hoarding }), "a hoarder gets what others leave")
		}
		return
	}
	for _, p := range left {
		for _, q := range regular {
			require.GreaterOrEqual(t, q.down, p.down, "who gives more goes first")
		}
	}
}

func TestDebts(t *testing.T) {
	var all debts
	ip := func(k int) netip.Addr { return netip.AddrFrom4([4]byte{81, 0, byte(k >> 8), byte(k)}) }
	rider := chokeState{withheld: true, sent: 1 << 30, received: 1 << 20, down: 5, joined: epoch}
	all.left(ip(1), rider, epoch)
	require.Equal(t, debts{ip(1): {1 << 30, 1 << 20}}, all)
	for name, change := range map[string]func(p *chokeState){
		"gave enough":             func(p *chokeState) { p.received = 1 << 29 },
		"took little":             func(p *chokeState) { p.sent = creditAtFirst },
		"never had anything":      func(p *chokeState) { p.withheld = false },
		"has credit by its years": func(p *chokeState) { p.joined = epoch.Add(-10000 * time.Hour) },
	} {
		p := rider
		change(&p)
		all.left(ip(2), p, epoch)
		require.Len(t, all, 1, name)
	}
	all.left(netip.MustParseAddr("10.0.0.1"), rider, epoch)
	require.Len(t, all, 1, "many may be behind a private address")
	rider.received = 1 << 30
	all.left(ip(1), rider, epoch)
	require.Empty(t, all, "it has made up for it")

	rider.received = 0
	for k := range maxDebtors + 1 {
		all.left(ip(k), rider, epoch)
		require.LessOrEqual(t, len(all), maxDebtors)
	}
}

// A free rider that calls again is known, though not at another address.
func TestFreeRiderCallsAgain(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 512*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		store := newSimStorage(content)
		for i := range uint32(256) {
			store.written.Add(int(i))
		}
		_, err := content.Start(t.Context(), &Options{Client: simClient(t, us, nil), Storage: store.open})
		require.NoError(t, err)
		simnet.Sleep(time.Second)
		for k, want := range []bool{true, false, false, true} {
			s := speak(t, n.NewHost(fmt.Sprintf("81.0.0.%d", k/3), 0, 0, 0), content, us.Addr(6881), speech{fast: true})
			s.sayID(wire.HaveNone)
			s.say(wire.AppendHave(nil, 300)) // which we lack, and will not get
			s.sayID(wire.Interested)
			simnet.Sleep(2 * chokeRound)
			require.Equal(t, want, slices.Contains(s.take(), "unchoke"), "call %d", k)
			for i := range uint32(200) {
				s.ask(i)
			}
			simnet.Sleep(2 * chokeRound)
			require.Equal(t, want, slices.Contains(s.take(), "choke"), "call %d", k)
			s.Close()
			simnet.Sleep(time.Second)
		}
	})
}
