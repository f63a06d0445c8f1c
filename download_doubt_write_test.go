package torrent

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/storage"
)

// meddledStore calls meddle once: after a piece was written or, if reads is set, after one was read to its end to be hashed.
type meddledStore struct {
	storage.Store
	end    int64 // of the first piece
	reads  bool
	cut    bool // before any is read
	meddle func()
	once   sync.Once
	told   sync.Once
	unseen error  // a change that the store had not accepted when the first piece was verified
	before func() // called before the first piece is verified
}

func (s *meddledStore) PieceVerified(piece int) error {
	s.told.Do(func() {
		s.unseen = s.Store.Changed(piece)
		if s.before != nil {
			s.before()
		}
	})
	return s.Store.PieceVerified(piece)
}

func (s *meddledStore) WriteBlocks(blocks [][]byte, off int64) error {
	err := s.Store.WriteBlocks(blocks, off)
	s.once.Do(s.meddle)
	return err
}

func (s *meddledStore) WriteAt(p []byte, off int64) (int, error) {
	n, err := s.Store.WriteAt(p, off)
	if !s.reads && !s.cut {
		s.once.Do(s.meddle)
	}
	return n, err
}

func (s *meddledStore) ReadAt(p []byte, off int64) (int, error) {
	if s.cut {
		s.once.Do(s.meddle)
	}
	n, err := s.Store.ReadAt(p, off)
	if s.reads && (off+int64(n))%s.end == 0 {
		s.once.Do(s.meddle)
	}
	return n, err
}

// A piece is fetched again if another program changed its file between the write of the piece and the end of its check, and the
// file was accepted as it is meanwhile.
func TestAFileChangesWhileAPieceIsWritten(t *testing.T) {
	for _, c := range []struct {
		name        string
		pieceLength int64
		reads       bool
		unnoticed   bool // until the piece fails its hash
		cut         bool // and cannot be read
	}{
		{"after it is written", 2 * blockSize, false, false, false},
		{"after a block is written", maxHeldPiece + blockSize, false, false, false},
		{"after a block is written, and is not noticed", maxHeldPiece + blockSize, false, true, false},
		{"after all blocks are written, and is cut", maxHeldPiece + blockSize, false, true, true},
		{"after all blocks are written, and is cut, which is noticed", maxHeldPiece + blockSize, false, false, true},
		{"after it is read", maxHeldPiece + blockSize, true, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, c.pieceLength, c.pieceLength)
				from := n.NewHost("80.0.0.1", 0, 0, 0)
				_, err := content.Start(t.Context(), &Options{Client: simClient(t, from, nil), Seed: true, Storage: newSimStorage(content).fill().open})
				require.NoError(t, err)

				var d *Download
				dir := t.TempDir()
				path := filepath.Join(dir, filepath.FromSlash(content.file(0).Path))
				s := &meddledStore{end: c.pieceLength, reads: c.reads, cut: c.cut}
				s.meddle = func() {
					if c.cut {
						require.NoError(t, os.Truncate(path, 100))
					} else {
						require.NoError(t, os.WriteFile(path, make([]byte, c.pieceLength), 0o666))
					}
					if !c.unnoticed {
						d.doubt(0) // finds all pieces of the file in doubt
					}
				}
				client := simClient(t, n.NewHost("80.0.0.2", 0, 0, 0), nil)
				client.hooks.openFiles = func(c storage.Content, dir string, log *slog.Logger) (storage.Store, error) {
					var err error
					s.Store, err = new(storage.Claims).OpenFiles(c, dir, log)
					return s, err
				}
				d, err = content.Start(t.Context(), &Options{Dir: dir, Client: client, Peers: []netip.AddrPort{from.Addr(6881)}})
				require.NoError(t, err)
				t.Cleanup(func() { d.Close() })
				_, err = d.Wait()
				require.NoError(t, err)
				require.NoError(t, s.unseen, "else no liar would be found later")
				b, err := os.ReadFile(path)
				require.NoError(t, err)
				require.True(t, content.truth.Equal(0, b), "the content is as the torrent says")
			})
		})
	}
}

// Another program puts a file in the place of one of which a piece is written block by block. No block is written to it before a
// piece of it is verified, and the download becomes complete.
func TestAFileIsReplacedWhileAPieceIsWritten(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be replaced here")
	}
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const pieceLength = maxHeldPiece + blockSize
		content := newSimContent(1, pieceLength, 2*pieceLength)
		from := n.NewHost("80.0.0.1", 0, 0, 0)
		_, err := content.Start(t.Context(), &Options{Client: simClient(t, from, nil), Seed: true, Storage: newSimStorage(content).fill().open})
		require.NoError(t, err)

		dir := t.TempDir()
		path := filepath.Join(dir, filepath.FromSlash(content.file(0).Path))
		foreign := []byte("another program's")
		replaced := false
		s := &meddledStore{end: pieceLength}
		s.meddle = func() {
			replaced = true
			require.NoError(t, os.WriteFile(path+".new", foreign, 0o666))
			require.NoError(t, os.Rename(path+".new", path))
		}
		var kept []byte
		s.before = func() { kept, _ = os.ReadFile(path) }
		client := simClient(t, n.NewHost("80.0.0.2", 0, 0, 0), nil)
		client.hooks.openFiles = func(c storage.Content, dir string, log *slog.Logger) (storage.Store, error) {
			var err error
			s.Store, err = new(storage.Claims).OpenFiles(c, dir, log)
			return s, err
		}
		d, err := content.Start(t.Context(), &Options{Dir: dir, Client: client, Peers: []netip.AddrPort{from.Addr(6881)}})
		require.NoError(t, err)
		t.Cleanup(func() { d.Close() })
		_, err = d.Wait()
		require.NoError(t, err)
		require.True(t, replaced)
		require.Equal(t, foreign, kept)
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, content.truth.Equal(0, b), "the content is as the torrent says")
	})
}

// Recheck does not take a piece that another program wrote for verified if its file changed again while the piece was hashed.
func TestAFileChangesWhileItIsFound(t *testing.T) {
	tor, content := testContent(blockSize, blockSize)
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "0")
	var d *Download
	s := &meddledStore{end: blockSize, reads: true}
	s.meddle = func() {
		require.NoError(t, os.WriteFile(path, make([]byte, 2*blockSize), 0o666))
		d.doubt(0)
	}
	c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
	c.hooks.openFiles = func(c storage.Content, dir string, log *slog.Logger) (storage.Store, error) {
		var err error
		s.Store, err = new(storage.Claims).OpenFiles(c, dir, log)
		return s, err
	}
	d, err := tor.Start(t.Context(), &Options{Dir: dir, Client: c})
	require.NoError(t, err)
	t.Cleanup(func() { d.Close(); c.Close() })
	require.NoError(t, d.Recheck(t.Context())) // after the check at the start
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, content, 0o666))
	require.NoError(t, d.Recheck(t.Context()))
	require.False(t, d.Verified().Has(0))
}
