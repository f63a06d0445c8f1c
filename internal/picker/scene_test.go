package picker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// Priorities.
const (
	skip   = 0
	normal = 1
	high   = 2
	urgent = 255
)

// A scene is a Picker whose pieces have four blocks each and are all wanted, with peers named a, b, c….
type scene struct {
	t     *testing.T
	s     *Picker
	now   time.Time
	peers map[string]*Supplier
}

func newScene(t *testing.T, pieces int) *scene {
	length := int64(4 * layout.BlockSize)
	sc := &scene{
		t:     t,
		s:     New(layout.New(length, layout.File{Length: int64(pieces) * length}), 1),
		now:   epoch,
		peers: make(map[string]*Supplier),
	}
	for i := range pieces {
		sc.s.Prioritise(i, normal)
	}
	return sc
}

// join adds a peer with a rate of 1 MiB/s that has the given pieces, or everything if none is given.
func (sc *scene) join(name string, has ...int) *Supplier {
	r := &Supplier{all: len(has) == 0, has: bits.New(sc.s.layout.NumPieces()), pace: pace{rate: 1 << 20}}
	for _, i := range has {
		r.has.Add(i)
	}
	r.Origin, r.Host = name, name
	sc.s.join(r)
	sc.peers[name] = r
	return r
}

func ids(blocks []Block) string {
	var s []string
	for _, b := range blocks {
		s = append(s, fmt.Sprintf("%d.%d", b.Piece, b.Index))
	}
	return strings.Join(s, " ")
}

func blocksOf(cancel []Request) (blocks []Block) {
	for _, c := range cancel {
		blocks = append(blocks, c.Block)
	}
	return blocks
}

// asks calls Next for n blocks. It returns the blocks, and the cancelled requests as " -peer:block".
func (sc *scene) asks(name string, n int) string {
	blocks, cancel := sc.s.Next(sc.peers[name], n, sc.now, nil)
	s := ids(blocks)
	for _, c := range cancel {
		for name, r := range sc.peers {
			if c.Supplier == r {
				s += fmt.Sprintf(" -%s:%d.%d", name, c.Block.Piece, c.Block.Index)
			}
		}
	}
	return s
}

// sends makes a peer send a block, and returns the names of the peers whose requests for it are cancelled.
func (sc *scene) sends(name string, piece, index int32, want Verdict) (cancelled string) {
	sc.t.Helper()
	got := received(sc.s, sc.peers[name], Block{piece, index}, sc.now)
	require.Equal(sc.t, want, got.Verdict)
	for name, r := range sc.peers {
		if slices.Contains(got.Cancel[:], r) {
			cancelled += name
		}
	}
	return cancelled
}

// received calls Received, but leaves the measured rate of the peer unchanged.
func received(s *Picker, r *Supplier, id Block, now time.Time) Receipt {
	pace, pipe := r.pace, r.pipe
	defer func() { r.pace, r.pipe = pace, pipe }()
	return s.Received(r, id, now)
}

func everything(Block) bool { return true }
