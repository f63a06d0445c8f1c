package storage

// What tests of package storage look at beside its interface.

const (
	MaxHandles  = maxHandles
	ResumeMagic = resumeMagic
)

// OpenHandles is how many files s has open.
func OpenHandles(s Store) int {
	p := s.(*fileStore).handles
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.files)
}

// DropHandle has file i opened by its name again.
func DropHandle(s Store, i int) { s.(*fileStore).handles.drop(i) }
