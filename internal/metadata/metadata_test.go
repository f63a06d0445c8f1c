package metadata

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/wire"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// TestMetadataHistories has honest and lying peers come, answer, delay, reject and leave in any order.
// In each history no honest one is called a liar, memory stays bounded, and once an honest one stays the
// truth is found.
func TestMetadataHistories(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 9))
		size := 1 + rng.IntN(12*wire.MetadataBlock)
		truth := randomBytes(seed, size)
		m, now := New(), epoch
		m.most = 2 * maxSize
		type fellow struct {
			*Peer
			addr   netip.AddrPort
			claims int64
			lies   bool
			banned bool
		}
		fellows := make([]*fellow, 8)
		for k := range fellows {
			f := &fellow{addr: addrPort(fmt.Sprintf("80.0.0.%d:1", k)), claims: int64(size), lies: k > 0 && rng.IntN(2) == 0}
			if f.lies && rng.IntN(3) == 0 {
				f.claims = 1 + rng.Int64N(maxSize)
			}
			fellows[k] = f
		}
		found := false
		judge := func(f *fellow, d *Draft, err error) {
			if err != nil {
				require.ErrorIs(t, err, ErrLied)
				require.True(t, f.lies, "seed %d: %v", seed, err)
				f.banned = true
			}
			switch {
			case d == nil:
			case bytes.Equal(d.Text(), truth):
				found = true
				for _, liar := range m.Liars(truth) {
					require.True(t, fellows[liar.Addr().As4()[3]].lies)
				}
			default:
				if liar, ok := m.Refute(d); ok {
					f := fellows[liar.Addr().As4()[3]]
					require.True(t, f.lies, "seed %d: %v is honest", seed, liar)
					f.banned = true
				}
			}
		}
		for step := 0; !found; step++ {
			require.Less(t, step, 20_000, "seed %d", seed)
			now = now.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)
			f := fellows[rng.IntN(len(fellows))]
			switch {
			case f.banned:
				if f.Peer != nil {
					m.Leave(f.Peer)
					f.Peer = nil
				}
			case f.Peer == nil:
				f.Peer = m.Join(f.addr, now)
				judge(f, nil, m.Offer(f.Peer, f.claims))
			case len(f.asked) == 0:
				asked := m.Next(f.Peer, now)
				require.LessOrEqual(t, len(asked), askedAtOnce)
			case step < 5000 && rng.IntN(50) == 0:
				m.Leave(f.Peer)
				f.Peer = nil
			case rng.IntN(50) == 0:
				if m.Rejected(f.Peer, f.asked[0].piece, now) != nil {
					m.Leave(f.Peer)
					f.Peer = nil
				}
			default:
				i := f.asked[rng.IntN(len(f.asked))].piece
				begin := int64(i) * wire.MetadataBlock
				b := make([]byte, min(wire.MetadataBlock, f.claims-begin))
				if begin < int64(size) {
					copy(b, truth[begin:])
				}
				if f.lies && rng.IntN(3) == 0 {
					b[rng.IntN(len(b))]++
				}
				d, err := m.Received(f.Peer, wire.MetadataMessage{Type: wire.MetadataData, Piece: i, TotalSize: f.claims, Data: b}, now)
				judge(f, d, err)
			}
			held := int64(0)
			for _, d := range m.drafts {
				if d.pieces != nil {
					held += d.size
				}
			}
			require.LessOrEqual(t, held, m.most)
			kept := 0
			for _, d := range m.drafts {
				kept += pieceOverhead * len(d.pieces)
				for _, w := range d.pieces {
					kept += len(w.data)
				}
			}
			require.Equal(t, kept, m.Held())
		}
	}
}

func TestMetadataRations(t *testing.T) {
	m := New()
	m.most = 2 * maxSize
	var long []*Peer
	for k := range 5 {
		p := m.Join(addrPort(fmt.Sprintf("80.0.0.%d:1", k)), epoch)
		require.NoError(t, m.Offer(p, maxSize-int64(k)))
		long = append(long, p)
	}
	asked := func(p *Peer) int { return len(m.Next(p, epoch)) }
	require.Zero(t, asked(long[0]), "the longest waits")
	require.Equal(t, askedAtOnce, asked(long[4]))
	require.Equal(t, askedAtOnce, asked(long[3]))

	short := m.Join(addrPort("80.0.1.1:1"), epoch)
	require.NoError(t, m.Offer(short, 100_000))
	require.Equal(t, askedAtOnce, asked(short), "it comes before them")
	d, err := m.Received(long[3], wire.MetadataMessage{Type: wire.MetadataData, Data: make([]byte, wire.MetadataBlock)}, epoch)
	require.NoError(t, err, "an answer for a draft that lost its memory")
	require.Nil(t, d)
	m.Leave(short)
	m.Leave(long[4])
	require.Equal(t, 1, asked(long[3]))
	require.Equal(t, askedAtOnce, asked(long[2]))
	for p := range m.peers {
		m.Leave(p)
	}
	require.Empty(t, m.drafts)
}

// A few liars of as many networks claim shorter lengths than the true one, and send hardly anything. The honest peer is asked all
// the same.
func TestMetadataOfFewNetworks(t *testing.T) {
	const size = 10 << 20
	m := New()
	for k := range 24 {
		p := m.Join(addrPort(fmt.Sprintf("66.%d.0.1:1", k)), epoch)
		require.NoError(t, m.Offer(p, size-1-int64(k)))
		require.NotEmpty(t, m.Next(p, epoch))
	}
	honest := m.Join(addrPort("90.0.0.1:1"), epoch)
	require.NoError(t, m.Offer(honest, size))
	require.NotEmpty(t, m.Next(honest, epoch))
	require.Less(t, m.Held(), 2<<20, "before anything came")
}

// With many peers that write in one draft it costs little to see that a peer is asked for enough, or that there is nothing to ask it
// for: each of them is looked at when any of them leaves.
func TestMetadataOfManyPeersCostsLittle(t *testing.T) {
	m := New()
	var all []*Peer
	for k := range 80 {
		p := m.Join(addrPort(fmt.Sprintf("80.%d.0.1:1", k)), epoch)
		require.NoError(t, m.Offer(p, 70*wire.MetadataBlock))
		all = append(all, p)
	}
	later := epoch.Add(askAgain)
	for _, now := range []time.Time{epoch, later} {
		for _, p := range all {
			m.Next(p, now)
		}
	}
	busy, free := all[0], all[len(all)-1]
	require.Len(t, busy.asked, askedAtOnce)
	require.Empty(t, free.asked)
	require.EqualValues(t, 2*70, free.Steps(), "what it is charged for")
	require.Zero(t, testing.AllocsPerRun(10, func() { m.Next(busy, later) }))
	require.Zero(t, testing.AllocsPerRun(10, func() { m.Next(free, later) }))
}

// A crowd of one network claims more shorter lengths than there is memory for. The honest peer is asked all the same.
func TestMetadataCrowd(t *testing.T) {
	for _, first := range []bool{false, true} {
		m := New()
		m.most = 2 * maxSize
		join := func(addr string, size int64) *Peer {
			p := m.Join(addrPort(addr), epoch)
			require.NoError(t, m.Offer(p, size))
			return p
		}
		const size = 2 << 20
		var honest *Peer
		if first {
			honest = join("90.0.0.1:1", size)
			require.NotEmpty(t, m.Next(honest, epoch))
		}
		for k := range 40 {
			p := join(fmt.Sprintf("66.0.0.%d:1", k+1), size-1-int64(k))
			m.Next(p, epoch)
		}
		if !first {
			honest = join("90.0.0.1:1", size)
			require.NotEmpty(t, m.Next(honest, epoch))
		}
		_, err := m.Received(honest, wire.MetadataMessage{Type: wire.MetadataData, Data: make([]byte, wire.MetadataBlock)}, epoch)
		require.NoError(t, err)
		require.True(t, honest.Useful())
	}
}

func TestMetadataAsksAnotherAfterAWhile(t *testing.T) {
	m := New()
	a, b, c := m.Join(addrPort("80.0.0.1:1"), epoch), m.Join(addrPort("80.0.0.2:1"), epoch), m.Join(addrPort("80.0.0.3:1"), epoch)
	for _, p := range []*Peer{a, b, c} {
		require.NoError(t, m.Offer(p, 3*wire.MetadataBlock))
	}
	require.Equal(t, []int{0, 1, 2}, m.Next(a, epoch))
	require.Empty(t, m.Next(b, epoch.Add(askAgain-1)))
	require.Equal(t, []int{0, 1, 2}, m.Next(b, epoch.Add(askAgain)))
	require.Empty(t, m.Next(c, epoch.Add(time.Hour)), "two are enough")
	other, third := m.Join(addrPort("90.0.0.1:1"), epoch), m.Join(addrPort("91.0.0.1:1"), epoch)
	require.NoError(t, m.Offer(other, 3*wire.MetadataBlock))
	require.NoError(t, m.Offer(third, 3*wire.MetadataBlock))
	require.Empty(t, m.Next(other, epoch.Add(2*askAgain-1)))
	require.Equal(t, []int{0, 1, 2}, m.Next(other, epoch.Add(2*askAgain)), "unless they are of one network")
	require.Empty(t, m.Next(third, epoch.Add(3*askAgain-1)))
	require.Equal(t, []int{0, 1, 2}, m.Next(third, epoch.Add(3*askAgain)), "or the others are late, too")
	require.Empty(t, m.Next(c, epoch.Add(time.Hour)))
	m.Leave(other)
	m.Leave(third)
	require.NoError(t, b.Overdue(epoch.Add(Timeout)))
	require.Error(t, a.Overdue(epoch.Add(Timeout)))
	require.Error(t, b.Overdue(epoch.Add(askAgain+Timeout)))
	m.Leave(a)
	require.Empty(t, m.Next(c, epoch.Add(askAgain)))
	require.Equal(t, []int{0, 1, 2}, m.Next(c, epoch.Add(2*askAgain)))
}

// Peers that never answer come back from many networks as soon as they are dropped. They are asked for late pieces after one that
// was there before.
func TestMetadataSilentPeersComeAgain(t *testing.T) {
	m, now := New(), epoch
	join := func(addr string) *Peer {
		p := m.Join(addrPort(addr), now)
		require.NoError(t, m.Offer(p, wire.MetadataBlock))
		return p
	}
	a, b, honest := join("80.0.0.1:1"), join("81.0.0.1:1"), join("90.0.0.1:1")
	require.Len(t, m.Next(a, now), 1)
	now = now.Add(askAgain)
	fresh := join("82.0.0.1:1")
	require.Empty(t, m.Next(fresh, now), "it has only just come")
	require.Len(t, m.Next(b, now), 1)
	m.Leave(a)
	m.Leave(b)
	a, b = join("80.0.0.1:2"), join("81.0.0.1:2")
	require.Len(t, m.Next(a, now), 1, "no other is asked")
	now = now.Add(askAgain)
	require.Empty(t, m.Next(b, now))
	require.Len(t, m.Next(honest, now), 1)
	now = now.Add(Timeout)
	require.Len(t, m.Next(b, now), 1, "it may be slow")

	m = New()
	a, b = join("10.0.0.1:1"), join("10.0.0.1:2")
	require.Len(t, m.Next(a, now), 1)
	m.Leave(a)
	a = join("10.0.0.1:3")
	require.Len(t, m.Next(b, now), 1)
	now = now.Add(askAgain)
	require.Len(t, m.Next(a, now), 1, "others may share a local address")
}

// Each peer does something wrong about metadata that has two pieces.
func TestMetadataRules(t *testing.T) {
	const size = wire.MetadataBlock + 100
	piece := func(i int, n int) wire.MetadataMessage {
		return wire.MetadataMessage{Type: wire.MetadataData, Piece: i, TotalSize: size, Data: make([]byte, n)}
	}
	for _, c := range []struct {
		name string
		does func(m *Assembler, p *Peer) error
		lie  bool // else it is only useless
	}{
		{"claims one length, then another", func(m *Assembler, p *Peer) error { return m.Offer(p, size+1) }, true},
		{"claims a length below 0", func(m *Assembler, p *Peer) error { return m.Offer(m.Join(p.addr, epoch), -1) }, true},
		{"claims 33 MiB", func(m *Assembler, p *Peer) error { return m.Offer(m.Join(p.addr, epoch), maxSize+1) }, true},
		{"says another length with a piece", func(m *Assembler, p *Peer) error {
			x := piece(0, wire.MetadataBlock)
			x.TotalSize++
			_, err := m.Received(p, x, epoch)
			return err
		}, true},
		{"sends a short piece", func(m *Assembler, p *Peer) error {
			_, err := m.Received(p, piece(0, 100), epoch)
			return err
		}, true},
		{"sends a last piece that is too long", func(m *Assembler, p *Peer) error {
			_, err := m.Received(p, piece(1, 101), epoch)
			return err
		}, true},
		{"sends pieces that were not asked for, again and again", func(m *Assembler, p *Peer) (err error) {
			for range maxUnasked + 1 {
				require.NoError(t, err)
				_, err = m.Received(p, piece(7, 100), epoch)
			}
			return err
		}, false},
		{"rejects pieces that were not asked for, again and again", func(m *Assembler, p *Peer) (err error) {
			for range maxUnasked + 1 {
				require.NoError(t, err)
				err = m.Rejected(p, 7, epoch)
			}
			return err
		}, false},
		{"rejects all, after every pause", func(m *Assembler, p *Peer) (err error) {
			now := epoch
			for range maxRejectPauses + 1 {
				require.NoError(t, err)
				if err = m.Rejected(p, 1, now); err == nil {
					require.NoError(t, m.Rejected(p, 0, now), "two at a time count as one")
					require.Empty(t, m.Next(p, now.Add(rejectPause-1)))
				}
				now = now.Add(rejectPause)
				m.Next(p, now)
			}
			return err
		}, false},
		{"never says how long it is", func(m *Assembler, p *Peer) error {
			q := m.Join(p.addr, epoch)
			require.Empty(t, m.Next(q, epoch))
			require.NoError(t, q.Overdue(epoch.Add(sizePatience-1)))
			return q.Overdue(epoch.Add(sizePatience))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New()
			p := m.Join(addrPort("80.0.0.1:1"), epoch)
			require.NoError(t, m.Offer(p, size))
			require.NoError(t, m.Offer(p, size), "it may say so again")
			require.Equal(t, []int{0, 1}, m.Next(p, epoch))
			err := c.does(m, p)
			require.Error(t, err)
			require.Equal(t, c.lie, errors.Is(err, ErrLied), err)
		})
	}
}

// A peer that claims another length than that of the truth lied, and so did one that wrote other bytes.
func TestProgress(t *testing.T) {
	m := New()
	is := func(have, size int64) {
		t.Helper()
		gotHave, gotSize := m.Progress()
		require.Equal(t, [2]int64{have, size}, [2]int64{gotHave, gotSize})
	}
	is(0, 0)
	a, b := m.Join(addrPort("80.0.0.1:1"), epoch), m.Join(addrPort("80.0.0.2:1"), epoch)
	is(0, 0)
	size := int64(2*wire.MetadataBlock + 5)
	require.NoError(t, m.Offer(a, size))
	is(0, size)
	require.NoError(t, m.Offer(b, size-1))
	is(0, size-1)
	require.Equal(t, []int{0, 1, 2}, m.Next(a, epoch))
	_, err := m.Received(a, wire.MetadataMessage{Piece: 2, Data: make([]byte, 5)}, epoch)
	require.NoError(t, err)
	is(5, size)
	_, err = m.Received(a, wire.MetadataMessage{Piece: 0, Data: make([]byte, wire.MetadataBlock)}, epoch)
	require.NoError(t, err)
	is(wire.MetadataBlock+5, size)
	m.Leave(a)
	is(wire.MetadataBlock+5, size) // another peer may go on with it
}

func TestMetadataLiars(t *testing.T) {
	m := New()
	truth := make([]byte, 2*wire.MetadataBlock)
	honest, flips, longer := m.Join(addrPort("80.0.0.1:1"), epoch), m.Join(addrPort("80.0.0.2:1"), epoch), m.Join(addrPort("80.0.0.3:1"), epoch)
	m.Join(addrPort("80.0.0.4:1"), epoch) // has said nothing
	require.NoError(t, m.Offer(honest, int64(len(truth))))
	require.NoError(t, m.Offer(flips, int64(len(truth))))
	require.NoError(t, m.Offer(longer, int64(len(truth))+1))
	require.Equal(t, []int{0, 1}, m.Next(honest, epoch))
	require.Equal(t, []int{0, 1}, m.Next(flips, epoch.Add(askAgain)))
	for i, p := range []*Peer{honest, flips} {
		b := make([]byte, wire.MetadataBlock)
		b[9] = byte(i)
		_, err := m.Received(p, wire.MetadataMessage{Type: wire.MetadataData, Piece: i, Data: b}, epoch)
		require.NoError(t, err)
	}
	require.True(t, honest.Useful())
	require.False(t, longer.Useful(), "it was not asked for anything")
	require.ElementsMatch(t, []netip.AddrPort{flips.addr, longer.addr}, m.Liars(truth))
}

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// Peers come, send a byte of metadata of a length of their own, and leave. Few of their drafts are kept, so that the next peers
// cost little, and the one that has the most of the truth is among them.
func TestMetadataOfPeersThatLeave(t *testing.T) {
	m := New()
	visit := func(k int, size int64, piece int) {
		p := m.Join(netip.AddrPortFrom(netip.AddrFrom4([4]byte{80 + byte(k>>16), byte(k >> 8), byte(k), 1}), 1), epoch)
		require.NoError(t, m.Offer(p, size))
		require.Contains(t, m.Next(p, epoch), piece)
		x := wire.MetadataMessage{Type: wire.MetadataData, Piece: piece, TotalSize: size}
		x.Data = make([]byte, min(wire.MetadataBlock, size-int64(piece)*wire.MetadataBlock))
		_, err := m.Received(p, x, epoch)
		require.NoError(t, err)
		m.Leave(p)
	}
	const size = 40 * wire.MetadataBlock
	visit(0, size, 0)
	visit(1, size, 1)
	for k := range 1000 {
		visit(2+k, wire.MetadataBlock+1+int64(k), 1)
	}
	require.LessOrEqual(t, len(m.drafts), maxLeft)
	have, of := m.Progress()
	require.Equal(t, []int64{2 * wire.MetadataBlock, size}, []int64{have, of})
}

// The draft that takes the most gives way, with those that write in it.
func TestGiveWay(t *testing.T) {
	m := New()
	require.Empty(t, m.GiveWay())
	join := func(k byte, size int64, pieces int) *Peer {
		p := m.Join(netip.AddrPortFrom(netip.AddrFrom4([4]byte{80, 0, 0, k}), 1), epoch)
		require.NoError(t, m.Offer(p, size))
		for range pieces {
			for _, i := range m.Next(p, epoch)[:1] {
				_, err := m.Received(p, wire.MetadataMessage{Piece: i, Data: make([]byte, wire.MetadataBlock)}, epoch)
				require.NoError(t, err)
				p.asked = nil
			}
		}
		return p
	}
	short, long := join(1, 10*wire.MetadataBlock, 2), join(2, 20*wire.MetadataBlock, 5)
	other := join(3, 20*wire.MetadataBlock, 3)
	held := m.Held()
	require.ElementsMatch(t, []*Peer{long, other}, m.GiveWay())
	require.Equal(t, held-8*wire.MetadataBlock-20*pieceOverhead, m.Held())
	require.Empty(t, m.Next(long, epoch))
	m.Leave(long)
	m.Leave(other)
	require.Equal(t, 2*wire.MetadataBlock+10*pieceOverhead, m.Held())
	require.Len(t, m.Next(short, epoch), askedAtOnce)
	require.Equal(t, []*Peer{short}, m.GiveWay())
}

// Peers that write a false draft together and leave are remembered within bounds.
func TestSuspectsAreForgotten(t *testing.T) {
	const size = wire.MetadataBlock + 1
	m, now := New(), epoch
	for k := range 2 * maxSuspects {
		for i, part := range [][]byte{make([]byte, wire.MetadataBlock), {0}} {
			a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{80 + byte(i), byte(k >> 8), byte(k), 1}), 1)
			p := m.Join(a, now)
			require.NoError(t, m.Offer(p, size))
			now = now.Add(20 * time.Second)
			require.Contains(t, m.Next(p, now), i)
			d, err := m.Received(p, wire.MetadataMessage{Type: wire.MetadataData, Piece: i, TotalSize: size, Data: part}, now)
			require.NoError(t, err)
			if d != nil {
				m.Refute(d)
			}
			m.Leave(p)
		}
	}
	require.Len(t, m.suspects, maxSuspects)
}
