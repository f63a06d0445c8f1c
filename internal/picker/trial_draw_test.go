package picker

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

var seeds = flag.Uint64("seeds", 60, "how many trials TestTrials draws")

// drawTrial makes the trial of a seed number. It is to be complete within the bound: the time that the best of the honest peers that
// stay takes for twice the content, and the slowest of them for eight pieces, and one minute for each other source.
func drawTrial(seed uint64) (t *trial, bound time.Duration) {
	t = &trial{
		Rand: rand.New(rand.NewPCG(seed, 5)), now: epoch,
		held: make(map[Block]uint64), lied: make(map[int]map[string]bool), banned: make(map[string]bool),
	}
	length := []int64{1, 2, 4, 8, 16, 64}[t.IntN(6)] * layout.BlockSize
	l := layout.New(length, layout.File{Length: length*int64(1+t.IntN(40)) - t.Int64N(length)})
	t.pk = New(l, t.Uint64())
	for i := range l.NumPieces() {
		t.pk.Prioritise(i, normal)
	}
	best, slowest := 0., math.Inf(1)
	for k := range 1 + t.IntN(3) {
		o := t.draw(fmt.Sprint("seed ", k), 20e3, 3)
		best, slowest = max(best, o.rate), min(slowest, o.rate)
	}
	for k := range t.IntN(4) {
		t.drawPeer(fmt.Sprint("peer ", k))
	}
	if n, dies := 2+t.IntN(50), 1+t.IntN(100); t.IntN(3) == 0 {
		o := t.draw("web seed", 20e3, 1)
		o.breaks = func() bool { return o.sent >= dies || t.IntN(n) == 0 }
		if t.IntN(3) == 0 {
			o.lie = func(Block) bool { return t.IntN(n) == 0 }
		}
	}
	for k := range 1 + t.IntN(4) {
		t.drawLiars(fmt.Sprint("liar ", k))
	}
	bytes := 2*float64(l.Size())/best + 8*float64(l.PieceSize(0))/slowest
	return t, time.Duration(bytes*float64(time.Second)) + time.Duration(len(t.sources))*time.Minute
}

// between draws a number. Every order of magnitude is equally likely.
func (t *trial) between(low, high float64) float64 { return low * math.Pow(high/low, t.Float64()) }

func (t *trial) seconds(low, high float64) time.Duration {
	return time.Duration(t.between(low, high) * float64(time.Second))
}

// draw makes a source that has everything, sends at least so many bytes a second, and comes within so many seconds.
func (t *trial) draw(name string, least, within float64) *source {
	o := &source{t: t, name: name, has: bits.Full(t.pk.layout.NumPieces()), rate: t.between(least, 8e6)}
	t.sources = append(t.sources, o)
	t.after(t.seconds(0.001, within), o.comes)
	return o
}

// drawPeer makes an honest peer that lacks some pieces. It may choke, pause, or leave and come back.
func (t *trial) drawPeer(name string) {
	o, kind := t.draw(name, 2e3, 20), t.IntN(4)
	for i := range o.has.Len() {
		if t.IntN(3) == 0 {
			o.has.Remove(i)
		}
	}
	every, long := t.seconds(0.1, 30), t.seconds(0.1, 30)
	var again func()
	again = func() {
		if o.Supplier != nil && kind == 0 {
			o.Choking = true
			o.drops()
			o.while(long, func() { o.Choking, t.freed = false, true })
		} else if o.Supplier != nil && kind == 1 {
			o.leaves()
			t.after(long, o.comes)
		}
		t.after(every+long, again)
	}
	t.after(every, again)
	if at := t.IntN(30); kind == 2 {
		o.pause = func(Block) time.Duration { return time.Duration(one(o.sent == at)) * long }
	}
}

// drawLiars makes a group of liars, which lie and stall in the same way.
func (t *trial) drawLiars(name string) {
	kind, stall, n, hosts := t.IntN(8), t.IntN(5), 1+t.IntN(30), 1+t.IntN(6)*t.IntN(2)
	within := t.between(0.01, 60)
	for h := range hosts {
		o := t.draw(fmt.Sprint(name, ".", h), 5e3, within)
		lied := make(map[int32]bool)
		onParole := func(id Block) bool { p := t.pk.started[id.Piece]; return p != nil && p.parole }
		o.lie = func(id Block) bool {
			before := lied[id.Piece]
			lied[id.Piece] = true
			return []bool{
				false,
				t.IntN(n) == 0,
				t.pk.Needed().Count() <= 2,
				!onParole(id),
				!onParole(id) && t.IntN(n) == 0,
				t.pk.creditOf(o.Supplier) >= n, // once it is trusted
				!before,
				int(id.Index)%hosts == h, // they divide a piece
			}[kind]
		}
		o.pause = func(id Block) time.Duration {
			stops := []bool{false, o.sent > n, onParole(id), onParole(id) && !o.snubbed && o.sent > n, onParole(id)}[stall]
			if stall == 4 { // it is never snubbed
				return time.Duration(one(stops)) * 9 * time.Second
			}
			return time.Duration(one(stops)) * time.Hour
		}
	}
}

// However some sources lie, stall, come and go, a download becomes complete in time, no honest source is accused, all that lied in
// a piece are banned once it has passed, and little is fetched again.
func TestTrials(t *testing.T) {
	slowest, dearest := 0., 0.
	for seed := range *seeds {
		tr, bound := drawTrial(seed)
		took := tr.run(bound)
		require.Emptyf(t, tr.faults, "seed %d", seed)
		most := 3 * tr.lies * tr.pk.layout.NumBlocks(0)
		require.LessOrEqualf(t, tr.again, most, "seed %d: blocks fetched again, for %d lies", seed, tr.lies)
		slowest, dearest = max(slowest, took.Seconds()/bound.Seconds()), max(dearest, float64(tr.again)/float64(max(most, 1)))
	}
	t.Logf("at most %.2f of the time and %.2f of the blocks that a trial may take", slowest, dearest)
}
