package dht

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

// Whatever nodes answer, late or never, and whatever becomes of our addresses meanwhile: every lookup ends, and so does the
// announce after it.
func TestSearchHistories(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { searchHistory(t, rand.New(rand.NewPCG(seed, 5))) })
	}
}

func searchHistory(t *testing.T, rng *rand.Rand) {
	b := newBench(t, Config{IPv4: true, IPv6: true, Nodes: []string{host(1).String(), "name:1"}, Routers: []string{host(2).String()}})
	b.fill(ipv4, 40)
	b.fill(ipv6, 40)
	ids := []ID{{1}, {2}, {3}, b.fams[ipv4].table.self, b.fams[ipv6].table.self}
	type answer struct {
		at   time.Time
		p    []byte
		from netip.AddrPort
	}
	var answers []answer
	address := func(from netip.AddrPort) netip.AddrPort {
		if from.Addr().Is4() {
			return host(rng.IntN(300))
		}
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(rng.IntN(250)), 15: byte(rng.IntN(3))}), 6881)
	}
	say := func(m krpc.Message, to netip.AddrPort) {
		r := krpc.Message{Kind: krpc.Response, TID: m.TID, Has: krpc.HasID | krpc.HasNodes | krpc.HasNodes6, ID: krpc.RandomID(rng), Token: []byte("t")}
		for i := range b.fams {
			if h := b.fams[i]; h != nil {
				if e, ok := h.table.hosts[hostOf(to)]; ok && rng.IntN(8) > 0 {
					known, _ := h.table.buckets[e].find(hostOf(to))
					r.ID = known.ID
				}
			}
		}
		for range rng.IntN(9) {
			c := krpc.Contact{ID: krpc.WithCommon(rng, m.Target, rng.IntN(150)), Addr: address(to)}
			if to.Addr().Is4() {
				r.Nodes = append(r.Nodes, c)
			} else {
				r.Nodes6 = append(r.Nodes6, c)
			}
		}
		switch rng.IntN(14) {
		case 0:
			return
		case 1:
			r = krpc.Message{Kind: krpc.Failure, TID: m.TID, Code: int64(rng.IntN(400)), Text: []byte("no")}
		case 2:
			r.Has &^= krpc.HasID
		case 3:
			r.ID = ids[rng.IntN(len(ids))]
		case 4:
			r.Token = nil
		case 5:
			r.Value, r.Has = []byte("i1e"), r.Has|krpc.HasSeq
		case 6:
			r.IP = address(to)
		}
		late := [...]time.Duration{20 * time.Millisecond, 900 * time.Millisecond, 3 * time.Second, 10 * time.Second, 14 * time.Second, 20 * time.Second}[min(rng.IntN(16), 5)*rng.IntN(2)]
		answers = append(answers, answer{b.now.Add(late), r.Append(nil), to})
	}
	var all []*search
	var torrents []*kept
	v4, v6 := true, true
	step := func() {
		messages, to := b.sent()
		for i, m := range messages {
			if m.Kind == krpc.Query {
				m.TID = append([]byte(nil), m.TID...)
				say(m, to[i])
			}
		}
		b.now = b.now.Add(time.Duration(rng.IntN(200)) * time.Millisecond)
		waiting := answers[:0]
		for _, a := range answers {
			if a.at.After(b.now) {
				waiting = append(waiting, a)
			} else {
				b.receive(b.now, a.p, a.from)
			}
		}
		answers = waiting
		b.tick(b.now)
		for _, name := range b.lookUp {
			b.resolved(b.now, name, []netip.AddrPort{host(3)})
		}
		b.lookUp, b.found = nil, nil
	}
	for range 400 {
		step()
		switch rng.IntN(40) {
		case 0:
			k := b.keep(b.now, Torrent{Hash: krpc.RandomID(rng), Port: 7}, func(netip.Addr, []netip.AddrPort) {})
			torrents = append(torrents, k)
		case 1:
			if len(torrents) > 0 {
				b.hurry(torrents[rng.IntN(len(torrents))])
			}
		case 2, 3, 4:
			s := &search{target: krpc.RandomID(rng), method: [...]string{krpc.GetPeers, krpc.Get, krpc.FindNode}[rng.IntN(3)], low: rng.IntN(2) == 0, both: rng.IntN(2) == 0}
			if s.method == krpc.GetPeers {
				s.store, s.found = announceTo(Torrent{Hash: s.target, Port: 7}), func(netip.Addr, []netip.AddrPort) {}
			}
			if s.method == krpc.Get {
				s.store = func(m *krpc.Message, at *candidate) { m.Value, m.Token = []byte("i1e"), at.token }
			}
			all = append(all, b.search(s))
		case 5:
			ids = append(ids, b.fams[ipv4.or(b)].table.self)
			b.located(b.now, address(host(1)).Addr())
		case 6:
			if rng.IntN(3) == 0 {
				v4, v6 = rng.IntN(4) > 0, rng.IntN(4) > 0
				if !v4 && !v6 {
					v4 = true
				}
				b.networkChanged(b.now, v4, v6)
			}
		case 7:
			if len(all) > 0 {
				b.cancel(all[rng.IntN(len(all))])
			}
		case 8:
			b.tell(b.now, address(host(1)))
			b.addHost(fmt.Sprintf("h%d:1", rng.IntN(100)))
		}
	}
	for _, k := range torrents {
		b.forget(k)
	}
	for range 1200 { // two minutes
		step()
	}
	for i, s := range all {
		require.True(t, s.over, "search %d: %+v", i, s)
	}
	require.Zero(t, b.kept.running)
	b.networkChanged(b.now, true, true)
	for _, h := range b.fams {
		h.table.check(t)
	}
}

// or is the family, or the other if there is no socket of it.
func (f family) or(b *bench) family {
	if b.fams[f] == nil {
		return 1 - f
	}
	return f
}
