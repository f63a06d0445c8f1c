// Package boltstore keeps the content of torrents in a bbolt database, as an example of a torrent.Storage. It is a module by
// itself, so that the library does not depend on bbolt.
//
//	db, err := bbolt.Open("content.db", 0o666, nil)
//	…
//	files, err := t.DownloadAll(ctx, &torrent.Options{Storage: boltstore.In(db)})
package boltstore

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/shoal-go/torrent"
)

const (
	blockSize = 16 << 10 // of what lies under one key
	maxDirty  = 512      // blocks in memory: 8 MiB
)

var (
	blocksKey   = []byte("blocks")
	verifiedKey = []byte("verified")
)

// In is for torrent.Options.Storage. A database may hold any number of torrents, each in a bucket that is named for its
// info hash.
func In(db *bbolt.DB) func(*torrent.Torrent) (torrent.Storage, error) {
	return func(t *torrent.Torrent) (torrent.Storage, error) {
		h := t.InfoHash()
		s := &store{
			db: db, bucket: h[:], size: t.Size(), pieces: t.NumPieces(), pieceLength: t.PieceLength(),
			dirty: make(map[int64][]byte), whole: make(map[int]bool),
		}
		return s, db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(s.bucket)
			if err != nil {
				return err
			}
			_, err1 := b.CreateBucketIfNotExists(blocksKey)
			_, err2 := b.CreateBucketIfNotExists(verifiedKey)
			return errors.Join(err1, err2)
		})
	}
}

// store is the content of one torrent. What is written waits in memory, so that one transaction, which syncs, is for
// many blocks. What is known to be whole goes with it: the database never says so of bytes that it has not.
type store struct {
	db          *bbolt.DB
	bucket      []byte
	size        int64
	pieces      int
	pieceLength int64

	mu    sync.RWMutex
	dirty map[int64][]byte // blocks by number
	whole map[int]bool     // pieces that became whole, or are written to again and are not
}

func key(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func (s *store) ReadAt(p []byte, off int64) (n int, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	err = s.db.View(func(tx *bbolt.Tx) error {
		blocks := tx.Bucket(s.bucket).Bucket(blocksKey)
		for n < len(p) && off < s.size {
			b, at := s.block(blocks, off/blockSize), off%blockSize
			if b == nil {
				return fs.ErrNotExist // never written
			}
			k := copy(p[n:], b[at:])
			n, off = n+k, off+int64(k)
		}
		if n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

// block is a block as it was last written, or nil.
func (s *store) block(blocks *bbolt.Bucket, i int64) []byte {
	if b := s.dirty[i]; b != nil {
		return b
	}
	return blocks.Get(key(i))
}

func (s *store) WriteAt(p []byte, off int64) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for piece := off / s.pieceLength; piece*s.pieceLength < off+int64(len(p)); piece++ {
		s.whole[int(piece)] = false
	}
	for n < len(p) {
		i, at := off/blockSize, off%blockSize
		b := s.dirty[i]
		if b == nil {
			b = make([]byte, min(blockSize, s.size-i*blockSize))
			err := s.db.View(func(tx *bbolt.Tx) error {
				copy(b, tx.Bucket(s.bucket).Bucket(blocksKey).Get(key(i)))
				return nil
			})
			if err != nil {
				return n, err
			}
			s.dirty[i] = b
		}
		k := copy(b[at:], p[n:])
		n, off = n+k, off+int64(k)
	}
	if len(s.dirty) > maxDirty {
		return n, s.flush()
	}
	return n, nil
}

// flush writes what waits in memory. The caller holds mu.
func (s *store) flush() error {
	if len(s.dirty)+len(s.whole) == 0 {
		return nil
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		blocks, verified := tx.Bucket(s.bucket).Bucket(blocksKey), tx.Bucket(s.bucket).Bucket(verifiedKey)
		for _, i := range slices.Sorted(maps.Keys(s.dirty)) {
			if err := blocks.Put(key(i), s.dirty[i]); err != nil {
				return err
			}
		}
		for i, whole := range s.whole {
			var err error
			if whole {
				err = verified.Put(key(int64(i)), []byte{1})
			} else {
				err = verified.Delete(key(int64(i)))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		clear(s.dirty)
		clear(s.whole)
	}
	return err
}

// PieceVerified is told of each piece that has its hash. The next transaction records it.
func (s *store) PieceVerified(i int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.whole[i] = true
	return nil
}

// Verified says which pieces need not be hashed when a download begins.
func (s *store) Verified() (torrent.Bitfield, error) {
	var whole []int
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(s.bucket).Bucket(verifiedKey).ForEach(func(k, _ []byte) error {
			whole = append(whole, int(binary.BigEndian.Uint64(k)))
			return nil
		})
	})
	return torrent.NewBitfield(s.pieces, whole...), err
}

func (s *store) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flush()
}

// Close leaves the database open, which others may use.
func (s *store) Close() error { return s.Sync() }
