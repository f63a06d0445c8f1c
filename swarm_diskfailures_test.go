package torrent

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// diskHistories are what a download does with its disk. prepare runs before calls fail.
var diskHistories = map[string]struct {
	prepare func(r *failingRig)
	history func(r *failingRig) *life
}{
	"download": {history: func(r *failingRig) *life { return r.start(Options{}).whole() }},
	"keep the sidecar": {history: func(r *failingRig) *life {
		l := r.start(Options{KeepResume: true}).whole()
		if l.err != nil {
			return l
		}
		l.end()
		return r.start(Options{KeepResume: true}).whole()
	}},
	"choose more": {history: func(r *failingRig) *life {
		l := r.start(Options{Seed: true, Select: Glob("file-0")}).whole()
		if l.err != nil {
			return l
		}
		l.Select(Glob("file-*"))
		return l.whole()
	}},
	"choose less, and go on": {
		prepare: func(r *failingRig) {
			l := r.start(Options{Select: Glob("file-2")}).whole()
			require.NoError(r.test, l.err)
			l.end()
		},
		history: func(r *failingRig) *life { return r.start(Options{}).whole() },
	},
	"go on": {
		prepare: func(r *failingRig) {
			l := r.start(Options{})
			time.Sleep(5 * time.Second)
			have := l.end()
			require.Positive(r.test, have.Count())
			require.Less(r.test, have.Count(), have.Len())
		},
		history: func(r *failingRig) *life { return r.start(Options{}).whole() },
	},
	"stop and go on": {history: func(r *failingRig) *life {
		l := r.start(Options{})
		time.Sleep(5 * time.Second)
		if l.Download == nil {
			return l
		}
		l.end()
		return r.start(Options{}).whole()
	}},
	"no memory for blocks": {history: func(r *failingRig) *life {
		r.blocks = blockSize
		return r.start(Options{}).whole()
	}},
	"found": {
		prepare: func(r *failingRig) {
			r.write("content-1/dir-0/file-0.part", 0, 70_000)
			r.write("content-1/dir-2/file-2", 2, 60_000) // too long
			r.write("other", 3, 40_000)
			require.NoError(r.test, r.disk.Link("other", r.disk, "content-1/dir-0/file-3"))
			f, err := r.disk.Open("content-1/dir-2/file-2", os.O_RDWR)
			require.NoError(r.test, err)
			_, err = f.WriteAt(make([]byte, 100), 20_000)
			require.NoError(r.test, err)
			require.NoError(r.test, f.Close())
		},
		history: func(r *failingRig) *life { return r.start(Options{}).whole() },
	},
	"another program writes": {history: func(r *failingRig) *life {
		l := r.start(Options{Seed: true}).whole()
		if l.err != nil {
			return l
		}
		fail := r.disk.Fail
		r.disk.Fail = nil
		r.write("content-1/dir-0/file-0", 2, 70_000)
		r.disk.Fail = fail
		if err := l.Recheck(r.test.Context()); err != nil {
			l.check("Recheck", err)
			return l
		}
		return l.whole()
	}},
	"share": {history: func(r *failingRig) *life {
		l := r.start(Options{Seed: true}).whole()
		if l.err != nil {
			return l
		}
		r.take(l)
		return l
	}},
}

// takesHandle are the calls that need one more handle, if only for the time being. Those of an os.Root open the
// directories that lead to the file.
var takesHandle = map[string]bool{
	"open the disk": true, "open": true, "mkdir": true, "stat": true, "rename": true, "remove": true, "link": true,
	"chtimes": true, "sync directory": true, "lock": true, "claim": true, "unlock": true,
}

// Whatever one call of the disk fails, a download ends with an error that says what failed, or becomes complete. Nothing
// that was verified is fetched again, no handle is left and nothing hangs. A lack of handles is passed through by a
// download that has begun.
func TestEachDiskCallFails(t *testing.T) {
	for name, tt := range diskHistories {
		for _, why := range []error{errInjected, syscall.EMFILE} {
			t.Run(fmt.Sprintf("%s: %v", name, why), func(t *testing.T) {
				eachCall(t, why, func(t *testing.T, c *nthCall) {
					n := simnet.New()
					defer n.Close()
					r := newFailingRig(t, n, c)
					defer r.stop()
					if tt.prepare != nil {
						tt.prepare(r)
					}
					r.disk.Fail = func(call, name string) error {
						if why == syscall.EMFILE && !takesHandle[call] {
							return nil
						}
						return c.fail(call + " " + name)
					}
					l := tt.history(r)
					if l.err != nil {
						require.ErrorContains(t, l.err, c.hit())
						require.False(t, why == syscall.EMFILE && l.Download != nil, "%v", l.err)
					}
					have := l.end()
					r.disk.Fail = nil
					r.again(have)
				})
			})
		}
	}
}
