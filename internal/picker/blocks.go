package picker

// runLength is how many consecutive blocks are allocated together, when the first of them is requested or arrives.
const runLength = 64

// blockTable holds the blocks of a started piece. Runs of free blocks take no memory: a piece may have 32,768 blocks,
// and thousands of started pieces may have a single block each.
type blockTable struct {
	n    int
	runs []*[runLength]block // an entry is nil if all its blocks are free
	made int                 // how many entries are not nil
}

// blockRuns holds runs of blocks for reuse, and counts those in use.
type blockRuns struct {
	spare   []*[runLength]block
	inUse   int
	entries int // of all tables, nil or not
}

// maxSpareRuns is the greatest number of runs kept for reuse.
const maxSpareRuns = 256

// len returns the number of blocks.
func (t *blockTable) len() int { return t.n }

// at returns a copy of block k.
func (t *blockTable) at(k int) block {
	if run := t.runs[k/runLength]; run != nil {
		return run[k%runLength]
	}
	return block{sender: noSender}
}

// ref returns block k for modification. It allocates the run of the block if necessary.
func (t *blockTable) ref(k int, from *blockRuns) *block {
	run := t.runs[k/runLength]
	if run == nil {
		if last := len(from.spare) - 1; last >= 0 {
			run, from.spare = from.spare[last], from.spare[:last]
		} else {
			run = new([runLength]block)
		}
		for i := range run {
			run[i] = block{sender: noSender}
		}
		t.runs[k/runLength] = run
		t.made++
		from.inUse++
	}
	return &run[k%runLength]
}

// known yields the allocated blocks by index. These include all that are not free.
func (t *blockTable) known(yield func(k int, b *block) bool) {
	left := t.made
	for r := 0; left > 0; r++ {
		run := t.runs[r]
		if run == nil {
			continue
		}
		left--
		for i := range min(runLength, t.n-r*runLength) {
			if !yield(r*runLength+i, &run[i]) {
				return
			}
		}
	}
}

// reset makes t a table of n free blocks.
func (t *blockTable) reset(n int, from *blockRuns) {
	for _, run := range t.runs {
		if run != nil && len(from.spare) < maxSpareRuns {
			from.spare = append(from.spare, run)
		}
	}
	from.inUse -= t.made
	from.entries -= len(t.runs)
	clear(t.runs)
	runs := (n + runLength - 1) / runLength
	if cap(t.runs) < runs {
		t.runs = make([]*[runLength]block, runs)
	}
	t.n, t.runs, t.made = n, t.runs[:runs], 0
	from.entries += runs
}
