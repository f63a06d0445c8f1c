// Package hashfetch decides which hashes of version 2 (BEP 52) to request from which peer, and checks the hashes that peers
// send.
//
// It is plain data: it knows no connection and no clock. One Fetcher serves one download, whose lock guards it and its peers.
package hashfetch

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/merkle"
)

const (
	// AskAgain is how long a peer may take before another is asked for the same.
	AskAgain = 3 * time.Second
	// restTime is how long a peer is not asked again for hashes that it refused or did not send.
	restTime = 30 * time.Second
	// mostAtOnce is how many peers are asked for the same at once, if many were asked in vain: twice as many each time.
	mostAtOnce = 8
	// maxLength is how many hashes of a layer one request asks for.
	maxLength = 512
	// atOnce is how many requests a peer may have to answer.
	atOnce = 4
	// maxRests is how many more requests a peer may rest from than it answered before it is asked for nothing at all. Most likely
	// it has no hashes, even if there are thousands of files.
	maxRests = 16
	// maxUnasked is how many answers that were not asked for are forgiven.
	maxUnasked = 16
)

var (
	// ErrLied is an error that only a lying peer can cause.
	ErrLied = errors.New("sent false hashes")
	// ErrUnasked is the error of a peer that sends many unrequested hashes.
	ErrUnasked = errors.New("sent hashes that it was not asked for")
)

// A Peer is the state of a peer that may be asked.
type Peer struct {
	asked    map[*job]time.Time // that it has not answered
	rests    map[*job]time.Time // not to be asked for that before
	answered int
	lapses   int // requests that it did not answer in time
	unasked  int
}

// Late returns how many requests the peer did not answer in time. The owner calls Next for peers in ascending order of Late.
// Otherwise silent peers would be asked again and again before others get their turn.
func (p *Peer) Late(now time.Time) int {
	n := p.lapses
	for _, at := range p.asked {
		if now.Sub(at) >= AskAgain {
			n++
		}
	}
	return n
}

// NewPeer returns a peer that was not asked yet.
func NewPeer() *Peer {
	return &Peer{asked: make(map[*job]time.Time), rests: make(map[*job]time.Time)}
}

// A Request asks for hashes of the file with a root.
type Request struct {
	Root merkle.Hash
	merkle.Request
}

// A Found is a layer that is now known, and whose hashes and the padding behind them prove the root.
type Found struct {
	Target
	Layer []byte // without padding
}

// A Target identifies a layer: that of the pieces of a file, or that of the blocks of one of its pieces.
type Target struct {
	File  int
	Piece int // -1 for the piece layer of the file
}

// A job is one request, which several peers may have been sent.
type job struct {
	Request
	height int
	want   *want
	last   time.Time // when peers were asked last
	copies int       // how many peers are asked at once
	more   int       // of these, how many are still to be asked
	done   bool      // its hashes are proven
}

// A want is a layer, or a part of one, that is fetched.
type want struct {
	Target
	first, n int    // its first hash, and how many it has
	layer    []byte // those that are proven, in their places; nil before the first are
	left     int    // jobs that are not done
	odd      bool   // hashes follow that are no padding, so that it does not prove the root alone
}

// A Fetcher holds the hashes that are wanted from all peers.
type Fetcher struct {
	wants map[Target]*want
	jobs  map[Request]*job // that are not done
	fresh []*job           // that no peer was asked for, in order
	asked []*job           // the others, some of which are done
	done  int              // how many of asked are
	work  int64            // see Work
}

// New returns a Fetcher that wants nothing.
func New() *Fetcher {
	return &Fetcher{wants: make(map[Target]*want), jobs: make(map[Request]*job)}
}

// Work returns the number of steps taken so far to choose what to request. A step takes some tens of nanoseconds.
func (f *Fetcher) Work() int64 { return f.work }

// Wanting reports whether anything is still wanted.
func (f *Fetcher) Wanting() bool { return len(f.jobs) > 0 }

// Want adds n hashes of a level, beginning with first, of the tree with a root and a height. Layers that are wanted first are
// requested first. n and first are those of a whole piece layer, or of the blocks of a piece. While any of the hashes are wanted for
// another file with the same root, nothing is added: it most likely has the same content, and else one of them is a lie.
func (f *Fetcher) Want(t Target, root merkle.Hash, height, level, first, n int) {
	if f.wants[t] != nil {
		return
	}
	w := &want{Target: t, first: first, n: n}
	var jobs []*job
	width := 1 << merkle.Height(int64(n))
	length := min(max(width, 2), maxLength)
	for at := 0; at < n; at += length {
		j := &job{want: w, height: height, Request: Request{root, merkle.Request{
			Base: level, Index: first + at, Length: length, Proofs: height - 1 - level,
		}}}
		if f.jobs[j.Request] != nil {
			return
		}
		jobs = append(jobs, j)
	}
	w.left = len(jobs)
	f.wants[t] = w
	for _, j := range jobs {
		f.jobs[j.Request] = j
	}
	f.fresh = append(f.fresh, jobs...)
}

// Next returns the requests to send to a peer now, and counts them as sent. There may be thousands of jobs, and it is called for
// all peers whenever one of them refuses something.
func (f *Fetcher) Next(p *Peer, now time.Time) (requests []Request) {
	f.work += int64(len(p.asked) + len(p.rests))
	before := len(p.asked)
	maps.DeleteFunc(p.asked, func(_ *job, at time.Time) bool { return now.Sub(at) >= restTime })
	p.lapses += before - len(p.asked)
	maps.DeleteFunc(p.rests, func(_ *job, until time.Time) bool { return !now.Before(until) })
	if len(p.rests) >= maxRests+p.answered {
		return nil
	}
	ask := func(j *job) {
		p.asked[j], j.last = now, now
		j.more--
		requests = append(requests, j.Request)
	}
	if f.done > len(f.asked)/2 {
		f.asked = slices.DeleteFunc(f.asked, func(j *job) bool { return j.done })
		f.done = 0
	}
	for _, j := range f.asked {
		f.work++
		if len(p.asked) >= atOnce {
			return requests
		}
		if again := now.Sub(j.last) >= AskAgain; !again && j.more == 0 || j.done {
			continue
		} else if _, waits := p.asked[j]; waits || !p.rests[j].IsZero() {
			continue
		} else if again && j.last.IsZero() {
			j.more = 1
		} else if again {
			j.copies = min(2*j.copies, mostAtOnce)
			j.more = j.copies
		}
		ask(j)
	}
	for len(f.fresh) > 0 && len(p.asked) < atOnce {
		f.fresh[0].copies, f.fresh[0].more = 1, 1
		ask(f.fresh[0])
		f.asked = append(f.asked, f.fresh[0])
		f.fresh = f.fresh[1:]
	}
	return requests
}

// Received takes hashes that a peer sent, which may be unrequested, and returns the layer that they complete, if any. An error
// ends the connection; ErrLied bans the peer, too.
func (f *Fetcher) Received(p *Peer, r Request, hashes []byte) (Found, bool, error) {
	j := f.jobs[r]
	if j == nil {
		return Found{}, false, p.unwanted(r)
	}
	if _, asked := p.asked[j]; !asked && p.rests[j].IsZero() {
		return Found{}, false, p.unwanted(r)
	}
	delete(p.asked, j)
	if !merkle.Prove(r.Root, j.height, r.Request, hashes) {
		j.last = time.Time{} // another peer is asked at once
		return Found{}, false, ErrLied
	}
	w := j.want
	if w.layer == nil {
		w.layer = make([]byte, w.n*merkle.Size)
	}
	hashes = hashes[:r.Length*merkle.Size]
	copy(w.layer[(r.Index-w.first)*merkle.Size:], hashes)
	w.odd = w.odd || !j.padded(hashes)
	j.done = true
	delete(f.jobs, r)
	f.done++
	p.answered++
	if w.left--; w.left > 0 {
		return Found{}, false, nil
	}
	delete(f.wants, w.Target)
	return Found{Target: w.Target, Layer: w.layer}, !w.odd, nil
}

// padded reports whether those of the hashes that lie behind the end of the file are padding. They are not if the author gave it the
// root of a longer one.
func (j *job) padded(hashes []byte) bool {
	n := min(j.Length, j.want.first+j.want.n-j.Index)
	top := j.Base + merkle.Height(int64(j.Length))
	return n == j.Length || merkle.Root(hashes[:n*merkle.Size], j.Base, top) == merkle.Root(hashes, j.Base, top)
}

// Rejected records that a peer does not answer a request.
func (f *Fetcher) Rejected(p *Peer, r Request, now time.Time) error {
	j := f.jobs[r]
	if j == nil {
		return p.unwanted(r)
	}
	if _, asked := p.asked[j]; !asked {
		return p.unwanted(r)
	}
	delete(p.asked, j)
	p.rests[j] = now.Add(restTime)
	j.last = time.Time{} // another peer is asked at once
	return nil
}

// Leave forgets what a peer was asked for.
func (f *Fetcher) Leave(p *Peer) {
	for j := range p.asked {
		j.last = time.Time{}
	}
	clear(p.asked)
}

// unwanted counts an answer that nothing waits for. It may be one that another peer was faster with.
func (p *Peer) unwanted(r Request) error {
	for j := range p.asked {
		if j.Request == r {
			delete(p.asked, j)
			return nil
		}
	}
	if p.unasked++; p.unasked > maxUnasked {
		return ErrUnasked
	}
	return nil
}
