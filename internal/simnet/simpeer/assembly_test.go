package simpeer

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// What a client may have dropped of a liar need not come again for the ledger to know that a piece may be whole, and to forgive
// what follows; what it cannot have dropped is not forgiven.
func TestLedgerOfLiars(t *testing.T) {
	const (
		liar   = "10.0.0.1:1000"
		again  = "10.0.0.1:2000" // from another port
		honest = "80.0.0.1:1000"
		other  = "80.0.0.2:1000"
	)
	type step struct {
		from  string
		block uint32
		lie   bool
		fault bool // to ask for it
	}
	for name, steps := range map[string][]step{
		"asked for what is here": {
			{from: honest, block: 0}, {from: other, block: 0, fault: true},
		},
		"asked for what came from a liar": {
			{from: liar, block: 0, lie: true}, {from: honest, block: 1}, {from: honest, block: 0}, {from: other, block: 1, fault: true},
		},
		"kept what came from another port of a liar": {
			{from: again, block: 0}, {from: liar, block: 1, lie: true}, {from: again, block: 1, lie: true}, {from: again, block: 2},
			{from: again, block: 3}, // whole and false
			{from: honest, block: 1}, {from: honest, block: 0}, {from: other, block: 0},
		},
		"dropped what came from another port of a liar": {
			{from: again, block: 0}, {from: liar, block: 1, lie: true}, {from: honest, block: 1}, {from: honest, block: 0},
			{from: honest, block: 2}, {from: other, block: 1, fault: true},
		},
		"whole, with a block of a liar": {
			{from: liar, block: 4, lie: true}, {from: liar, block: 0}, {from: honest, block: 1}, {from: honest, block: 2},
			{from: honest, block: 3}, {from: other, block: 1, fault: true},
		},
		"not whole, since a block of a liar was dropped": {
			{from: liar, block: 4, lie: true}, {from: liar, block: 0}, {from: honest, block: 1}, {from: honest, block: 2},
			{from: honest, block: 3}, {from: again, block: 0, lie: true}, // and now it is, and false
			{from: honest, block: 0}, {from: other, block: 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				l := Watch(n.NewHost("80.0.0.9", 0, 0, 0), NewContent(1, 4*layout.BlockSize, 8*layout.BlockSize))
				watches := map[string]*watch{}
				for k, s := range steps {
					simnet.Sleep(time.Second)
					w := watches[s.from]
					if w == nil {
						w = l.watch(netip.MustParseAddrPort(s.from))
						watches[s.from] = w
						w.incoming(head{id: wire.Unchoke})
					}
					m := head{id: wire.Request, index: s.block / 4, begin: s.block % 4 * layout.BlockSize, length: layout.BlockSize}
					l.account.Faults = nil
					w.Writing(true)
					w.outgoing(m)
					w.Writing(false)
					require.Equal(t, s.fault, len(l.account.Faults) > 0, "step %d: %v", k, l.account.Faults)
					simnet.Sleep(time.Second)
					m.id = wire.Piece
					w.incoming(m)
					b := append([]byte(nil), l.content.Block(m.index, m.begin, m.length)...)
					if s.lie {
						b[0]++
					}
					w.payload(b)
					w.arrived()
				}
			})
		})
	}
}
