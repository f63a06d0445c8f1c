package torrent

import "github.com/shoal-go/torrent/internal/storage"

// OpenMemory is the storage that a download without Dir gets.
func OpenMemory(t *Torrent) (Storage, error) {
	s := storage.NewMemory(t.content(), defaultMaxMemory)
	return s, s.SetWanted(all(t))
}

// OpenFilesIn is the storage that a download gets into a directory, each into a new one.
func OpenFilesIn(dir func() string) func(*Torrent) (Storage, error) {
	return func(t *Torrent) (Storage, error) {
		s, err := storage.OpenFiles(t.content(), dir(), nil)
		if err != nil {
			return nil, err
		}
		return s, s.SetWanted(all(t))
	}
}
