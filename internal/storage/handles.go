package storage

import (
	"errors"
	"os"
	"sync"
)

// maxHandles is how many files one store keeps open, unless more are in use at once.
const maxHandles = 64

// handles are the open files of one store. Their number is bounded; the least recently used one is closed first.
type handles struct {
	open func(file int, flag int) (DiskFile, error)
	max  int

	mu     sync.Mutex
	files  map[int]*handle
	uses   uint64 // counts the calls of get
	closed bool
	failed error // the first error of closing a file open for writing, until takeError
}

// handle is an open file. Its owner is handles, whose mutex guards all but f.
type handle struct {
	f        DiskFile
	file     int
	writable bool
	users    int
	used     uint64 // the value of uses at the last get
	old      bool   // removed from files while in use: its last user closes it
}

func newHandles(max int, open func(file int, flag int) (DiskFile, error)) *handles {
	return &handles{open: open, max: max, files: make(map[int]*handle)}
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
	h := &handle{f: f, file: file, writable: write, users: 1, used: p.uses}
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
	p.close(h)
}

// shrink closes files that are not in use until no more than max are open. To look through all of them costs little beside
// opening one. The caller holds p.mu.
func (p *handles) shrink() {
	for len(p.files) > p.max && p.retireOldest() {
	}
}

// makeRoom calls do. As long as that fails because the system has run out of handles, makeRoom closes a file that is not in use
// and calls do again.
func (p *handles) makeRoom(do func() error) error {
	err := do()
	for Exhausted(err) && p.closeOldest() {
		err = do()
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
