//go:build !unix && !windows

package storage

// Mmap reads the file into memory: this system cannot map files.
func (f *rootFile) Mmap(n int) ([]byte, func() error, error) {
	b := make([]byte, n)
	if err := readFull(f, b, 0); err != nil {
		return nil, nil, err
	}
	return b, func() error { return nil }, nil
}
