//go:build !unix && !windows

package torrent

// mmap reads the file, where there are no maps.
func (f *rootFile) mmap(n int) ([]byte, func() error, error) {
	b := make([]byte, n)
	if err := readFull(f, b, 0); err != nil {
		return nil, nil, err
	}
	return b, func() error { return nil }, nil
}
