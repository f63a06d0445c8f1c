package torrenttest

import (
	"errors"

	"github.com/shoal-go/torrent"
)

// lies opens a storage that claims to hold everything, and holds something else.
func lies(t *torrent.Torrent) (torrent.Storage, error) { return &lie{t}, nil }

type lie struct{ t *torrent.Torrent }

// Verified says that every piece is whole, so that none is hashed.
func (s *lie) Verified() (torrent.Bitfield, error) {
	all := make([]int, s.t.NumPieces())
	for i := range all {
		all[i] = i
	}
	return torrent.NewBitfield(len(all), all...), nil
}

func (s *lie) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		p[i] = "lie "[(off+int64(i))%4]
	}
	return len(p), nil
}

func (s *lie) WriteAt([]byte, int64) (int, error) {
	return 0, errors.New("torrenttest: a liar was written to")
}

func (s *lie) Sync() error  { return nil }
func (s *lie) Close() error { return nil }
