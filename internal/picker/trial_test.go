package picker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// A trial is a download from honest peers, a web seed and liars, all drawn from a seed number, in virtual time. It does with the Picker
// what a download does, and knows the truth.
type trial struct {
	*rand.Rand
	pk      *Picker
	now     time.Time
	due     []trialEvent // soonest first
	sources []*source
	held    map[Block]uint64        // digests of the blocks that have come; that of a true block is 0
	lied    map[int]map[string]bool // who sent false blocks of a piece that failed
	banned  map[string]bool
	freed   bool
	moves   int // calls of Next since time went on
	lies    int // false blocks that were accepted
	again   int // blocks that were dropped
	faults  []string
}

type trialEvent struct {
	at time.Time
	do func()
}

// A source is a peer or a web seed. It sends one block after another.
type source struct {
	*Supplier // nil while it is away
	t         *trial
	name      string
	has       bits.Set
	rate      float64 // bytes a second
	queue     []Block
	sending   *Block
	sent      int
	rest      time.Duration

	lie    func(id Block) bool          // nil if it is honest
	pause  func(id Block) time.Duration // how long it waits before it sends a block; may be nil
	breaks func() bool                  // whether a web seed breaks off; nil for a peer
}

func (t *trial) fault(format string, args ...any) {
	t.faults = append(t.faults, fmt.Sprintf("after %v: ", t.now.Sub(epoch))+fmt.Sprintf(format, args...))
}

func (t *trial) after(d time.Duration, do func()) {
	at := t.now.Add(d)
	k, _ := slices.BinarySearchFunc(t.due, at.Add(1), func(e trialEvent, at time.Time) int { return e.at.Compare(at) })
	t.due = slices.Insert(t.due, k, trialEvent{at, do})
}

// while is after, unless the source has left by then.
func (o *source) while(d time.Duration, do func()) {
	s := o.Supplier
	o.t.after(d, func() {
		if o.Supplier == s {
			do()
		}
	})
}

func (o *source) comes() {
	if o.Supplier == nil && !o.t.banned[o.name] {
		o.Supplier = &Supplier{Owner: o, Origin: o.name, Host: o.name, Ready: true, Runs: o.breaks != nil}
		o.t.pk.Join(o.Supplier)
		o.t.pk.Bitfield(o.Supplier, o.has.Clone())
		o.t.freed = true
	}
}

func (o *source) leaves() {
	o.t.pk.Leave(o.Supplier)
	o.Supplier, o.queue, o.sending, o.t.freed = nil, nil, nil, true
}

// drops releases all requests, because the source chokes us or broke off.
func (o *source) drops() {
	o.t.pk.Release(o.Supplier, everything)
	o.queue, o.sending, o.t.freed = nil, nil, true
}

// followUp asks all sources for blocks once some have become free.
func (t *trial) followUp() {
	for rounds := 0; t.freed && rounds < 4; rounds++ {
		t.freed = false
		all := slices.Clone(t.pk.Suppliers())
		for _, k := range t.Perm(len(all)) {
			all[k].Owner.(*source).refill()
		}
	}
}

func (o *source) refill() {
	t, n := o.t, 0
	var blocks []Block
	var cancel []Request
	if o.Supplier != nil && o.Ready && o.Runs && len(o.queue) == 0 {
		n = o.RunLength()
		blocks, cancel = t.pk.NextRun(o.Supplier, n, t.now, nil)
	} else if o.Supplier != nil && !o.Runs && o.Room() > 0 {
		n = o.Room()
		blocks, cancel = t.pk.Next(o.Supplier, n, t.now, nil)
	}
	if t.moves += min(n, 1); t.moves > 100_000 {
		t.fault("suppliers take blocks without end")
	}
	t.cancel(cancel)
	o.queue = append(o.queue, blocks...)
	o.pump()
}

// pump begins to send the next block.
func (o *source) pump() {
	if o.sending != nil || len(o.queue) == 0 {
		return
	}
	if o.breaks != nil && o.breaks() {
		o.rest = min(max(2*o.rest, 5*time.Second), 10*time.Minute)
		o.Ready = false
		o.drops()
		o.while(o.rest, func() { o.Ready, o.t.freed = true, true })
		return
	}
	id, wait := o.queue[0], 50*time.Millisecond
	if o.pause != nil {
		wait += o.pause(id)
	}
	o.sending = &id
	o.while(wait+time.Duration(layout.BlockSize/o.rate*float64(time.Second)), func() {
		if o.sending == &id {
			o.sending, o.queue = nil, slices.DeleteFunc(o.queue, func(b Block) bool { return b == id })
			o.sent, o.rest = o.sent+1, 0
			o.t.receive(o, id)
			o.refill()
		}
	})
}

// cancel withdraws requests. That for a block which is on its way may come too late.
func (t *trial) cancel(all []Request) {
	for _, c := range all {
		o := c.Supplier.Owner.(*source)
		o.queue = slices.DeleteFunc(o.queue, func(b Block) bool { return b == c.Block })
		if o.sending != nil && *o.sending == c.Block && (len(o.queue) == 0 || t.IntN(2) == 0) {
			o.sending = nil
		}
		t.freed = true
	}
}

func (t *trial) receive(o *source, id Block) {
	digest := uint64(0)
	if o.lie != nil && o.lie(id) {
		digest = t.Uint64() | 1
	}
	r := t.pk.Received(o.Supplier, id, t.now)
	if r.Verdict == Unrequested {
		t.fault("%s sends %v unrequested", o.name, id)
	} else if r.Verdict == Accepted {
		t.held[id] = digest
		t.lies += one(digest != 0)
		for _, other := range r.Cancel {
			if other != nil {
				t.cancel([]Request{{other, id}})
			}
		}
		if t.pk.Started(int(id.Piece)).Left == 0 {
			t.after(time.Millisecond, func() { t.check(int(id.Piece)) })
		}
	}
}

// check hashes a complete piece.
func (t *trial) check(i int) {
	digests := make([]uint64, t.pk.layout.NumBlocks(i))
	for k := range digests {
		digests[k] = t.held[Block{int32(i), int32(k)}]
	}
	if slices.Max(digests) == 0 {
		cancel, liars := t.pk.Passed(i, digests)
		t.cancel(cancel)
		t.ban(liars)
		for name := range t.lied[i] {
			if !t.banned[name] {
				t.fault("%s lied in piece %d and is not banned", name, i)
			}
		}
		return
	}
	if t.lied[i] == nil {
		t.lied[i] = make(map[string]bool)
	}
	for k, b := range t.pk.started[int32(i)].blocks.known {
		if digests[k] != 0 {
			t.lied[i][t.pk.senders.all[b.sender].origin.(string)] = true
		}
	}
	liars := t.pk.Failed(i, digests)
	t.again += len(digests)
	if t.pk.Started(i).Attempt != 0 {
		arrived := t.pk.Arrived(i)
		t.again -= arrived.Count()
	}
	t.ban(liars)
	t.freed = true
}

func (t *trial) ban(liars []any) {
	for _, o := range t.sources {
		if slices.Contains(liars, any(o.name)) {
			if t.banned[o.name] = true; o.lie == nil {
				t.fault("%s is honest and accused", o.name)
			}
			if o.Supplier != nil {
				o.Ready = false
				o.while(time.Millisecond, o.leaves)
			}
		}
	}
	t.again += len(t.pk.Disown(func(name any) bool { return t.banned[name.(string)] }))
}

// run runs the trial until the download is complete or too much time has passed, and returns how long that took.
func (t *trial) run(atMost time.Duration) time.Duration {
	tick := epoch
	for t.pk.Needed().Count() > 0 && len(t.faults) == 0 {
		if tick.After(t.due[0].at) || t.now == t.due[0].at {
			t.moves *= one(t.now == t.due[0].at)
			do := t.due[0].do
			t.now, t.due = t.due[0].at, t.due[1:]
			do()
		} else {
			t.now, t.moves, tick = tick, 0, tick.Add(time.Second)
			for _, s := range slices.Clone(t.pk.Suppliers()) {
				if !s.Runs {
					t.cancel(t.pk.Snub(s, t.now))
				}
			}
			t.freed = true
		}
		t.followUp()
		if t.now.Sub(epoch) > atMost {
			t.fault("%d pieces are missing, though %v are banned", t.pk.Needed().Count(), t.banned)
		}
	}
	return t.now.Sub(epoch)
}
