package torrent

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

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// TestMetadataHistories lets honest and lying peers come, answer, dawdle, reject and leave in any order.
// However they do, no honest one is called a liar, memory stays bounded, and once an honest one stays
// the truth is found.
func TestMetadataHistories(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 9))
		size := 1 + rng.IntN(12*wire.MetadataBlock)
		truth := randomBytes(seed, size)
		m, now := newMetadata(), epoch
		type fellow struct {
			*metadataPeer
			addr   netip.AddrPort
			claims int64
			lies   bool
			banned bool
		}
		fellows := make([]*fellow, 8)
		for k := range fellows {
			f := &fellow{addr: addrPort(fmt.Sprintf("80.0.0.%d:1", k)), claims: int64(size), lies: k > 0 && rng.IntN(2) == 0}
			if f.lies && rng.IntN(3) == 0 {
				f.claims = 1 + rng.Int64N(maxMetadata)
			}
			fellows[k] = f
		}
		found := false
		judge := func(f *fellow, d *draft, err error) {
			if err != nil {
				require.ErrorIs(t, err, errLied)
				require.True(t, f.lies, "seed %d: %v", seed, err)
				f.banned = true
			}
			switch {
			case d == nil:
			case bytes.Equal(d.text(), truth):
				found = true
				for _, liar := range m.liars(truth) {
					require.True(t, fellows[liar.Addr().As4()[3]].lies)
				}
			default:
				if liar, ok := m.refute(d); ok {
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
				if f.metadataPeer != nil {
					m.leave(f.metadataPeer)
					f.metadataPeer = nil
				}
			case f.metadataPeer == nil:
				f.metadataPeer = m.join(f.addr, now)
				judge(f, nil, m.offer(f.metadataPeer, f.claims))
			case len(f.asked) == 0:
				asked := m.next(f.metadataPeer, now)
				require.LessOrEqual(t, len(asked), metadataAtOnce)
			case step < 5000 && rng.IntN(50) == 0:
				m.leave(f.metadataPeer)
				f.metadataPeer = nil
			case rng.IntN(50) == 0:
				if m.rejected(f.metadataPeer, f.asked[0].piece, now) != nil {
					m.leave(f.metadataPeer)
					f.metadataPeer = nil
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
				d, err := m.received(f.metadataPeer, wire.MetadataMessage{Type: wire.MetadataData, Piece: i, TotalSize: f.claims, Data: b}, now)
				judge(f, d, err)
			}
			held := int64(0)
			for _, d := range m.drafts {
				if d.pieces != nil {
					held += d.size
				}
			}
			require.LessOrEqual(t, held, int64(maxDrafts))
		}
	}
}

func TestMetadataRations(t *testing.T) {
	m := newMetadata()
	var long []*metadataPeer
	for k := range 5 {
		p := m.join(addrPort(fmt.Sprintf("80.0.0.%d:1", k)), epoch)
		require.NoError(t, m.offer(p, maxMetadata-int64(k)))
		long = append(long, p)
	}
	asked := func(p *metadataPeer) int { return len(m.next(p, epoch)) }
	require.Zero(t, asked(long[0]), "the longest waits")
	require.Equal(t, metadataAtOnce, asked(long[4]))
	require.Equal(t, metadataAtOnce, asked(long[3]))

	short := m.join(addrPort("80.0.1.1:1"), epoch)
	require.NoError(t, m.offer(short, 100_000))
	require.Equal(t, metadataAtOnce, asked(short), "it comes before them")
	d, err := m.received(long[3], wire.MetadataMessage{Type: wire.MetadataData, Data: make([]byte, wire.MetadataBlock)}, epoch)
	require.NoError(t, err, "an answer for a draft that lost its memory")
	require.Nil(t, d)
	m.leave(short)
	m.leave(long[4])
	require.Equal(t, 1, asked(long[3]))
	require.Equal(t, metadataAtOnce, asked(long[2]))
	for p := range m.peers {
		m.leave(p)
	}
	require.Empty(t, m.drafts)
}

func TestMetadataAsksAnotherAfterAWhile(t *testing.T) {
	m := newMetadata()
	a, b, c := m.join(addrPort("80.0.0.1:1"), epoch), m.join(addrPort("80.0.0.2:1"), epoch), m.join(addrPort("80.0.0.3:1"), epoch)
	for _, p := range []*metadataPeer{a, b, c} {
		require.NoError(t, m.offer(p, 3*wire.MetadataBlock))
	}
	require.Equal(t, []int{0, 1, 2}, m.next(a, epoch))
	require.Empty(t, m.next(b, epoch.Add(metadataAgain-1)))
	require.Equal(t, []int{0, 1, 2}, m.next(b, epoch.Add(metadataAgain)))
	require.Empty(t, m.next(c, epoch.Add(time.Hour)), "two are enough")
	require.NoError(t, b.overdue(epoch.Add(metadataTimeout)))
	require.Error(t, a.overdue(epoch.Add(metadataTimeout)))
	require.Error(t, b.overdue(epoch.Add(metadataAgain+metadataTimeout)))
	m.leave(a)
	require.Empty(t, m.next(c, epoch.Add(metadataAgain)))
	require.Equal(t, []int{0, 1, 2}, m.next(c, epoch.Add(2*metadataAgain)))
}

// What a peer is told off for, by what it says of metadata that has two pieces.
func TestMetadataRules(t *testing.T) {
	const size = wire.MetadataBlock + 100
	piece := func(i int, n int) wire.MetadataMessage {
		return wire.MetadataMessage{Type: wire.MetadataData, Piece: i, TotalSize: size, Data: make([]byte, n)}
	}
	for _, c := range []struct {
		name string
		does func(m *metadata, p *metadataPeer) error
		lie  bool // else it is only of no use
	}{
		{"changes its mind about the length", func(m *metadata, p *metadataPeer) error { return m.offer(p, size+1) }, true},
		{"claims a length below 0", func(m *metadata, p *metadataPeer) error { return m.offer(m.join(p.addr, epoch), -1) }, true},
		{"claims 33 MiB", func(m *metadata, p *metadataPeer) error { return m.offer(m.join(p.addr, epoch), maxMetadata+1) }, true},
		{"says another length with a piece", func(m *metadata, p *metadataPeer) error {
			x := piece(0, wire.MetadataBlock)
			x.TotalSize++
			_, err := m.received(p, x, epoch)
			return err
		}, true},
		{"sends a short piece", func(m *metadata, p *metadataPeer) error {
			_, err := m.received(p, piece(0, 100), epoch)
			return err
		}, true},
		{"sends a last piece that is too long", func(m *metadata, p *metadataPeer) error {
			_, err := m.received(p, piece(1, 101), epoch)
			return err
		}, true},
		{"sends what nobody asked for, again and again", func(m *metadata, p *metadataPeer) (err error) {
			for range maxUnaskedMetadata + 1 {
				require.NoError(t, err)
				_, err = m.received(p, piece(7, 100), epoch)
			}
			return err
		}, false},
		{"rejects what nobody asked for, again and again", func(m *metadata, p *metadataPeer) (err error) {
			for range maxUnaskedMetadata + 1 {
				require.NoError(t, err)
				err = m.rejected(p, 7, epoch)
			}
			return err
		}, false},
		{"rejects all, after every pause", func(m *metadata, p *metadataPeer) (err error) {
			now := epoch
			for range maxRejectPauses + 1 {
				require.NoError(t, err)
				if err = m.rejected(p, 1, now); err == nil {
					require.NoError(t, m.rejected(p, 0, now), "two at a time count as one")
					require.Empty(t, m.next(p, now.Add(rejectPause-1)))
				}
				now = now.Add(rejectPause)
				m.next(p, now)
			}
			return err
		}, false},
		{"never says how long it is", func(m *metadata, p *metadataPeer) error {
			q := m.join(p.addr, epoch)
			require.Empty(t, m.next(q, epoch))
			require.NoError(t, q.overdue(epoch.Add(metadataPatience-1)))
			return q.overdue(epoch.Add(metadataPatience))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMetadata()
			p := m.join(addrPort("80.0.0.1:1"), epoch)
			require.NoError(t, m.offer(p, size))
			require.NoError(t, m.offer(p, size), "it may say so again")
			require.Equal(t, []int{0, 1}, m.next(p, epoch))
			err := c.does(m, p)
			require.Error(t, err)
			require.Equal(t, c.lie, errors.Is(err, errLied), err)
		})
	}
}

// Whoever claims another length than that of the truth lied, and whoever wrote other bytes of it.
func TestMetadataLiars(t *testing.T) {
	m := newMetadata()
	truth := make([]byte, 2*wire.MetadataBlock)
	honest, flips, longer := m.join(addrPort("80.0.0.1:1"), epoch), m.join(addrPort("80.0.0.2:1"), epoch), m.join(addrPort("80.0.0.3:1"), epoch)
	m.join(addrPort("80.0.0.4:1"), epoch) // has said nothing
	require.NoError(t, m.offer(honest, int64(len(truth))))
	require.NoError(t, m.offer(flips, int64(len(truth))))
	require.NoError(t, m.offer(longer, int64(len(truth))+1))
	require.Equal(t, []int{0, 1}, m.next(honest, epoch))
	require.Equal(t, []int{0, 1}, m.next(flips, epoch.Add(metadataAgain)))
	for i, p := range []*metadataPeer{honest, flips} {
		b := make([]byte, wire.MetadataBlock)
		b[9] = byte(i)
		_, err := m.received(p, wire.MetadataMessage{Type: wire.MetadataData, Piece: i, Data: b}, epoch)
		require.NoError(t, err)
	}
	require.ElementsMatch(t, []netip.AddrPort{flips.addr, longer.addr}, m.liars(truth))
}
