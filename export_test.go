package torrent

// OpenMemory is the storage that a download without Dir gets.
func OpenMemory(t *Torrent) (Storage, error) {
	return opened(t)(openMemory(t.content(), defaultMaxMemory))
}

// OpenFilesIn is the storage that a download gets into a directory, each into a new one.
func OpenFilesIn(dir func() string) func(*Torrent) (Storage, error) {
	return func(t *Torrent) (Storage, error) { return opened(t)(openFiles(t.content(), dir(), nil)) }
}

func opened(t *Torrent) func(contents, error) (Storage, error) {
	return func(c contents, err error) (Storage, error) {
		if err != nil {
			return nil, err
		}
		return c, c.setWanted(all(t))
	}
}
