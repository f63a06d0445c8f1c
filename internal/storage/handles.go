package storage

import (
	"cmp"
	"errors"
	"os"
	"sync"
)

const (
	// maxHandles is how many files one store keeps open, unless more are in use at once.
	maxHandles = 64
	// maxIdle is how many files that are not in use all stores of a client keep open: a quarter of all handles that the program may
	// have, if that is less. A client may share thousands of torrents, and the program needs handles for its connections.
	maxIdle = 256
)

// idleHandles are the open files of all stores of a client that are not in use, in a list. The zero idleHandles is ready for use.
type idleHandles struct {
	mu          sync.Mutex // taken after that of a handles
	first, last *handle    // the least and the most recently used one
	n           int
	most        int // 0 before the first one
}

// add adds h. If there are too many, it takes out another one, for its owner to close.
func (l *idleHandles) add(h *handle) (out *handle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h.idle, h.before, h.after = true, l.last, nil
	if l.last == nil {
		l.first = h
	} else {
		l.last.after = h
	}
	l.last = h
	if l.most == 0 {
		l.most = max(1, min(maxIdle, maxOpen()/4))
	}
	if l.n++; l.n > l.most {
		out = l.first
		l.takeOut(out)
	}
	return out
}

// takeOut removes h if it is in the list. The caller holds l.mu.
func (l *idleHandles) takeOut(h *handle) {
	if !h.idle {
		return
	}
	if h.before == nil {
		l.first = h.after
	} else {
		h.before.after = h.after
	}
	if h.after == nil {
		l.last = h.before
	} else {
		h.after.before = h.before
	}
	h.idle, h.before, h.after = false, nil, nil
	l.n--
}

func (l *idleHandles) remove(h *handle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takeOut(h)
}

// closeOldest closes the least recently used one, whichever store it belongs to, in a goroutine.
func (l *idleHandles) closeOldest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.first; h != nil {
		l.takeOut(h)
		go h.owner.closeIdle(h)
	}
}

// handles are the open files of one store. Their number is bounded; the least recently used one is closed first.
type handles struct {
	open func(file int, flag int) (DiskFile, error)
	idle *idleHandles // those of these that are not in use, and other stores'

	mu     sync.Mutex
	files  map[int]*handle
	uses   uint64 // counts the calls of get
	closed bool
	failed error // the first error of closing a file open for writing, until takeError
}

// handle is an open file. The mutex of its owner guards users, used and old.
type handle struct {
	f        DiskFile
	owner    *handles
	file     int
	writable bool
	users    int
	used     uint64 // the value of uses at the last get
	old      bool   // removed from files while in use: its last user closes it

	// Guarded by the mutex of the owner's idle.
	idle          bool
	before, after *handle // in that list
}

func newHandles(idle *idleHandles, open func(file int, flag int) (DiskFile, error)) *handles {
	return &handles{open: open, idle: idle, files: make(map[int]*handle)}
}

// get returns a handle of file, open for reading or, if write is set, for reading and writing. The caller must call put. If the
// file does not exist, get makes it if create is set, and otherwise returns an error.
func (p *handles) get(file int, write, create bool) (*handle, error) {
	if h := p.lookup(file, write); h != nil {
		return h, nil
	}
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR
	}
	if create {
		flag |= os.O_CREATE
	}
	f, err := p.open(file, flag)
	if err != nil {
		return nil, err
	}
	return p.add(file, f, write)
}

// add keeps f, which is open, as the handle of file. The handle is in use, as after get.
func (p *handles) add(file int, f DiskFile, write bool) (*handle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.Join(ErrClosed, f.Close())
	}
	p.uses++
	h := &handle{f: f, owner: p, file: file, writable: write, users: 1, used: p.uses}
	// Another goroutine may have opened the same file at the same time. Both handles work; the later one is kept.
	p.retire(file)
	p.files[file] = h
	p.shrink()
	return h, nil
}

// lookup returns an open handle of file, or nil. The handle is in use, as after get.
func (p *handles) lookup(file int, write bool) *handle {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.files[file]
	if h == nil || write && !h.writable {
		return nil
	}
	p.uses++
	h.users, h.used = h.users+1, p.uses
	p.idle.remove(h)
	return h
}

// put ends the caller's use of h.
func (p *handles) put(h *handle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.users--; h.users > 0 {
		return
	}
	if h.old {
		p.close(h)
		return
	}
	p.shrink()
	if p.files[h.file] != h {
		return
	}
	if out := p.idle.add(h); out == nil {
		return
	} else if out.owner == p {
		p.retire(out.file)
	} else {
		go out.owner.closeIdle(out) // whose disk may hang
	}
}

// closeIdle closes h, unless it is in use again.
func (p *handles) closeIdle(h *handle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.users == 0 && p.files[h.file] == h {
		p.retire(h.file)
	}
}

// drop forgets the handle of file, so that the next get opens it by its name, and reports whether there was one.
func (p *handles) drop(file int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, had := p.files[file]
	p.retire(file)
	return had
}

// retire forgets the handle of file and closes it once it is not in use. The caller holds p.mu.
func (p *handles) retire(file int) {
	h := p.files[file]
	if h == nil {
		return
	}
	delete(p.files, file)
	if h.users > 0 {
		h.old = true
		return
	}
	p.idle.remove(h)
	p.close(h)
}

// shrink closes files that are not in use until no more than max are open. To look through all of them costs little beside
// opening one. The caller holds p.mu.
func (p *handles) shrink() {
	for len(p.files) > maxHandles && p.retireOldest() {
	}
}

// makeRoom calls do. As long as that fails because the system has run out of handles, makeRoom closes a file that is not in use
// and calls do again. If there is none, it has a file of another store closed, for when it is called again.
func (p *handles) makeRoom(do func() error) error {
	err := do()
	for Exhausted(err) && p.closeOldest() {
		err = do()
	}
	if Exhausted(err) {
		p.idle.closeOldest()
	}
	return err
}

// closeOldest closes the least recently used file that is not in use, and reports whether there was one.
func (p *handles) closeOldest() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.retireOldest()
}

// retireOldest is closeOldest. The caller holds p.mu.
func (p *handles) retireOldest() bool {
	var oldest *handle
	for _, h := range p.files {
		if h.users == 0 && (oldest == nil || h.used < oldest.used) {
			oldest = h
		}
	}
	if oldest != nil {
		p.retire(oldest.file)
	}
	return oldest != nil
}

// close closes the file of h and records an error of a file open for writing. The caller holds p.mu.
func (p *handles) close(h *handle) {
	if err := h.f.Close(); err != nil && h.writable && p.failed == nil {
		p.failed = err
	}
}

// closeWritten closes the files that are open for writing and not in use, and returns the first error of closing such files, until
// takeError. It does not hold p.mu while it closes them, since that may take as long as it takes to send what was written.
func (p *handles) closeWritten() error {
	var idle []*handle
	p.mu.Lock()
	for file, h := range p.files {
		if h.writable && h.users == 0 {
			delete(p.files, file)
			p.idle.remove(h)
			idle = append(idle, h)
		}
	}
	p.mu.Unlock()
	var failed error
	for _, h := range idle {
		failed = cmp.Or(failed, h.f.Close())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = cmp.Or(p.failed, failed)
	return p.failed
}

// takeError returns the first error of closing files open for writing since the last call.
func (p *handles) takeError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.failed
	p.failed = nil
	return err
}

// closeAll closes every file, and those in use at their last put. After it, get fails with ErrClosed.
func (p *handles) closeAll() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for file := range p.files {
		p.retire(file)
	}
	return p.failed
}
