package disktest

import (
	"hash/crc32"
	"path/filepath"

	"github.com/shoal-go/torrent/internal/storage"
)

// directory is one directory of a Disk, as a Disk of its own.
type directory struct {
	disk *Disk
	dir  string
}

// Sub returns a directory of the disk, made if it is not there, that loses power with it.
func (d *Disk) Sub(dir string) storage.Disk {
	d.MkdirAll(dir)
	d.SyncDir(".")
	return &directory{d, dir}
}

func (s *directory) path(name string) string { return filepath.Join(s.dir, name) }

func (s *directory) Open(name string, flag int) (storage.DiskFile, error) {
	return s.disk.Open(s.path(name), flag)
}

func (s *directory) Stat(name string) (storage.FileInfo, error) {
	info, err := s.disk.Stat(s.path(name))
	if name == "." {
		info.ID.Inode = uint64(crc32.ChecksumIEEE([]byte(s.dir))) // that of no other directory
	}
	return info, err
}

func (s *directory) Listed(name string) (bool, error) { return s.disk.Listed(s.path(name)) }

func (s *directory) Link(name string, to storage.Disk, as string) error {
	return s.disk.Link(s.path(name), to, as)
}

func (s *directory) Lock(name string, exclusive bool) (func(bool) error, error) {
	return s.disk.Lock(s.path(name), exclusive)
}

func (s *directory) MkdirAll(name string) error        { return s.disk.MkdirAll(s.path(name)) }
func (s *directory) Rename(from, to string) error      { return s.disk.Rename(s.path(from), s.path(to)) }
func (s *directory) Remove(name string) error          { return s.disk.Remove(s.path(name)) }
func (s *directory) RemoveDir(name string) error       { return s.disk.Remove(s.path(name)) }
func (s *directory) Symlink(target, name string) error { return s.disk.Symlink(target, s.path(name)) }
func (s *directory) Readlink(name string) (string, error) {
	return s.disk.Readlink(s.path(name))
}
func (s *directory) SetMtime(name string, mtime int64) error {
	return s.disk.SetMtime(s.path(name), mtime)
}
func (s *directory) SyncDir(name string) error                       { return s.disk.SyncDir(s.path(name)) }
func (s *directory) SyncAll() (bool, error)                          { return s.disk.SyncAll() }
func (s *directory) Claim([20]byte, []storage.Claim) (func(), error) { return func() {}, nil }
func (s *directory) Reopen() (storage.Disk, error)                   { return nil, nil }
func (s *directory) Close() error                                    { return nil }
