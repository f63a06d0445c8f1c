//go:build !linux

package storage

type vectors struct{}

func (f *rootFile) Writev(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		if _, err := f.WriteAt(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

func (d *rootDisk) SyncAll() (bool, error) { return false, nil }
