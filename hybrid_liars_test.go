package torrent

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// lyingStorage has all content, and gives one block in twenty out wrong.
type lyingStorage struct {
	content []byte
	pieces  int
	seed    int
	lies    *atomic.Int64 // blocks given out wrong
}

func (s *lyingStorage) Verified() (Bitfield, error) {
	all := make([]int, s.pieces)
	for i := range all {
		all[i] = i
	}
	return NewBitfield(s.pieces, all...), nil
}

func (s *lyingStorage) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, s.content[off:])
	if (int(off/blockSize)+s.seed)%20 == 0 {
		s.lies.Add(1)
		p[0] ^= 1
	}
	return n, nil
}

func (s *lyingStorage) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (s *lyingStorage) Sync() error                            { return nil }
func (s *lyingStorage) Close() error                           { return nil }

// With three of four seeds lying about one block in twenty, nothing but the false blocks is fetched twice, and each liar is banned.
func TestVersion2WastesFalseBlocksAlone(t *testing.T) {
	content := make([]byte, 6<<20)
	rng := rand.NewChaCha8([32]byte{3})
	rng.Read(content)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), content, 0o644))
	tor, err := Create(filepath.Join(dir, "f"), &CreateOptions{Version: V2, PieceLength: 256 << 10, Private: true})
	require.NoError(t, err)
	seeds := []netip.AddrPort{seedV2(t, tor, dir, Options{})}
	var lies atomic.Int64
	for k := range 3 {
		s := &lyingStorage{content, tor.NumPieces(), 7 * k, &lies}
		seeds = append(seeds, seedV2(t, tor, "", Options{Storage: func(*Torrent) (Storage, error) { return s, nil }}))
	}
	var log bytes.Buffer
	c := localClient(t)
	c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d, err := tor.Start(t.Context(), &Options{Client: c, Peers: seeds})
	require.NoError(t, err)
	defer d.Close()
	files, err := d.Wait()
	require.NoError(t, err)
	got, err := files.ReadFile("f")
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
	require.NoError(t, d.Close())
	again := 0 // what came twice because two were asked is not meant
	for _, m := range regexp.MustCompile(`fetched again.* blocks=(\d+)`).FindAllStringSubmatch(log.String(), -1) {
		n, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		again += n
	}
	require.NotZero(t, again)
	require.LessOrEqual(t, again, int(lies.Load()))
	d.mu.Lock()
	defer d.mu.Unlock()
	banned := slices.DeleteFunc(slices.Clone(seeds), func(a netip.AddrPort) bool { return !d.discovery.cand.Banned(a) })
	require.NotContains(t, banned, seeds[0])
	require.NotEmpty(t, banned)
}
