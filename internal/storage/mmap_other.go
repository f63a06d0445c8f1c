//go:build !unix && !windows

package storage

// Mmap reads the file: this system has no maps.
func (f *rootFile) Mmap(n int) ([]byte, func() error, error) {
	b := make([]byte, n)
	if err := readFull(f, b, 0); err != nil {
		return nil, nil, err
	}
	return b, func() error { return nil }, nil
}
