//go:build !linux

package torrent

type vectors struct{}

func (f *rootFile) writev(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		if _, err := f.WriteAt(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

func (d *rootDisk) syncAll() (bool, error) { return false, nil }
