package torrent

import (
	"bytes"
	"crypto/sha1"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
)

// set is a bitfield of n pieces with some of them set.
func set(n int, pieces ...int) bits.Set {
	b := bits.New(n)
	for _, i := range pieces {
		b.Add(i)
	}
	return b
}

func pieces(b bits.Set) []int { return slices.Collect(b.All()) }

const sidecarName = ".0102030000000000000000000000000000000000.resume"

func TestResumeSidecar(t *testing.T) {
	const pieceLength = 4 * blockSize
	tor, content := testContent(pieceLength, 3*pieceLength, 2*pieceLength-5, 0)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	have, partial := s.loadResume()
	require.Zero(t, have.Count())
	require.Empty(t, partial)
	require.NoError(t, s.setWanted(all(tor)))
	for _, i := range []int{0, 2, 3} {
		writePiece(t, tor, s, content, i)
	}
	block := content[4*pieceLength+blockSize : 4*pieceLength+2*blockSize]
	require.NoError(t, s.writeBlocks([][]byte{block}, 4*pieceLength+blockSize))
	require.NoError(t, s.saveResume(set(5, 0, 2, 3), map[int]bits.Set{4: set(4, 1)}))
	require.Equal(t, []string{".0102030000000000000000000000000000000000.lock", sidecarName, "d/0", "d/1", "d/2"}, listing(t, dir))
	require.NoError(t, s.Close())
	require.Equal(t, []string{sidecarName, "d/0", "d/1", "d/2"}, listing(t, dir))

	t.Run("is believed", func(t *testing.T) {
		s := openDirectory(t, tor, dir)
		defer s.Close()
		have, partial := s.loadResume()
		require.Equal(t, []int{0, 2, 3}, pieces(have))
		require.Equal(t, map[int]bits.Set{4: set(4, 1)}, partial)
		require.NoError(t, s.setWanted(all(tor)))
		require.Subset(t, pieces(s.present()), []int{0, 2, 3})
	})
	t.Run("file by file", func(t *testing.T) {
		other := t.TempDir()
		require.NoError(t, os.CopyFS(other, os.DirFS(dir)))
		for _, name := range []string{"d/0", "d/1"} {
			info, err := os.Stat(filepath.Join(dir, name))
			require.NoError(t, err)
			require.NoError(t, os.Chtimes(filepath.Join(other, name), info.ModTime(), info.ModTime()))
		}
		s := openDirectory(t, tor, other)
		have, partial := s.loadResume()
		require.Equal(t, []int{0, 2, 3}, pieces(have), "a copy that keeps the times is as good")
		require.Len(t, partial, 1)
		require.NoError(t, s.Close())

		require.NoError(t, os.Chtimes(other+"/d/1", time.Time{}, time.Now().Add(time.Hour)))
		s = openDirectory(t, tor, other)
		have, partial = s.loadResume()
		require.Equal(t, []int{0, 2}, pieces(have))
		require.Empty(t, partial)
		require.NoError(t, s.setWanted(all(tor)))
		require.Contains(t, pieces(s.present()), 3, "what is not believed is worth hashing")
		require.NoError(t, s.Close())

		require.NoError(t, os.Truncate(other+"/d/0", 10))
		s = openDirectory(t, tor, other)
		have, _ = s.loadResume()
		require.Empty(t, pieces(have))
	})
	t.Run("is removed when all is there", func(t *testing.T) {
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.setWanted(all(tor)))
		for i := range 5 {
			writePiece(t, tor, s, content, i)
		}
		require.NoError(t, s.saveResume(bits.Full(5), nil))
		require.NoError(t, s.finished())
		require.NoError(t, s.saveResume(set(5, 1), nil))
		require.Equal(t, []string{"d/0", "d/1", "d/2"}, listing(t, dir))
	})
}

func TestResumeSidecarIsSetAside(t *testing.T) {
	tor, content := testContent(50, 200)
	other := *tor
	other.infoHash[19]++
	valid := func(tor *Torrent) []byte {
		dir := t.TempDir()
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.setWanted(all(tor)))
		require.NoError(t, s.saveResume(set(4, 1), nil))
		b, err := os.ReadFile(filepath.Join(dir, s.sidecar(".resume")))
		require.NoError(t, err)
		return b
	}
	for _, c := range []struct {
		name   string
		bytes  []byte
		reason string
	}{
		{"empty", nil, "not a resume sidecar"},
		{"foreign", []byte("d10:file-format22:libtorrent resume filee"), "not a resume sidecar"},
		{"cut", valid(tor)[:40], "checksum"},
		{"cut to its magic", []byte(resumeMagic), "too short"},
		{"a bit wrong", func() []byte { b := valid(tor); b[100] ^= 4; return b }(), "checksum"},
		{"newer", func() []byte { b := valid(tor); b[len(resumeMagic)+1]++; return b }(), "version 2"},
		{"of another torrent", valid(&other), "another torrent"},
		{"too large", make([]byte, 1<<20), "bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.MkdirAll(dir+"/d", 0o777))
			require.NoError(t, os.WriteFile(dir+"/d/0", content, 0o666))
			require.NoError(t, os.WriteFile(filepath.Join(dir, sidecarName), c.bytes, 0o666))
			var log bytes.Buffer
			s, err := openFiles(tor.content(), dir, slog.New(slog.NewTextHandler(&log, nil)))
			require.NoError(t, err)
			defer s.Close()
			require.Contains(t, log.String(), c.reason)
			have, _ := s.loadResume()
			require.Zero(t, have.Count())
			require.NoError(t, s.setWanted(all(tor)))
			require.Equal(t, 4, verified(t, tor, s).Count())
			kept, err := os.ReadFile(filepath.Join(dir, sidecarName+".bad"))
			require.NoError(t, err)
			require.Equal(t, len(c.bytes), len(kept))
			require.NoError(t, s.finished())
			require.Equal(t, []string{"d/0"}, listing(t, dir))
		})
	}
}

func FuzzParseResume(f *testing.F) {
	tor, _ := testContent(4*blockSize, 3*blockSize, 7*blockSize, 0, 1)
	c := tor.content()
	r := &resume{files: make([]fileClaim, 5), have: set(3, 1), partial: map[int]bits.Set{0: set(4, 2), 2: set(3, 0)}}
	b := r.append(nil, &c)
	f.Add(b[:len(b)-sha1.Size])
	f.Add([]byte(resumeMagic))
	f.Fuzz(func(t *testing.T, p []byte) {
		// With the right checksum, or nothing else would ever be reached.
		sum := sha1.Sum(p)
		p = append(p, sum[:]...)
		r, err := parseResume(p, &c)
		if err != nil {
			return
		}
		require.Equal(t, tor.NumPieces(), r.have.Len())
		for piece, blocks := range r.partial {
			require.Less(t, piece, tor.NumPieces())
			require.Equal(t, tor.layout.NumBlocks(piece), blocks.Len())
		}
		again, err := parseResume(r.append(nil, &c), &c)
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}

func TestResumeSidecarOfManyFilesAndPieces(t *testing.T) {
	tor, _ := testContent(1, slices.Repeat([]int64{1}, 2000)...)
	c := tor.content()
	r := &resume{files: make([]fileClaim, 2001), have: bits.New(2000), partial: make(map[int]bits.Set)}
	for i := range 2000 {
		r.partial[i] = set(1, 0)
	}
	b := r.append(nil, &c)
	require.LessOrEqual(t, int64(len(b)), maxResumeSize(&c))
	got, err := parseResume(b, &c)
	require.NoError(t, err)
	require.Equal(t, r, got)
	require.Len(t, maps.Clone(got.partial), 2000)
}

func TestSelectionMakesNoNeighbours(t *testing.T) {
	// Pieces:        0        1        2       3        4
	// Files:    0------ 1--2- 3---------- 4 5-----------------
	tor, content := testContent(50, 40, 20, 10, 60, 0, 120)
	require.Equal(t, 5, tor.NumPieces())
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	want := func(chosen ...int) []bool {
		return only(tor, func(i int) bool { return slices.Contains(chosen, i) })
	}
	require.NoError(t, s.setWanted(want(3)))
	for _, i := range []int{1, 2} {
		writePiece(t, tor, s, content, i)
		require.NoError(t, s.changed(i))
	}
	require.NoError(t, s.saveResume(set(5, 1, 2), nil))
	require.NoError(t, s.finished())
	require.NoError(t, s.Close())
	edges := ".0102030000000000000000000000000000000000.edges.resume"
	require.Equal(t, []string{edges, sidecarName, "d/3"}, listing(t, dir))

	s = openDirectory(t, tor, dir)
	have, _ := s.loadResume()
	require.Equal(t, []int{1, 2}, pieces(have))
	require.NoError(t, s.setWanted(want(3)))
	require.Equal(t, []int{1, 2}, pieces(verified(t, tor, s)), "also when nothing is believed")
	require.NoError(t, s.finished())
	require.NoError(t, s.Close())

	// A wider choice finds the edges in their files.
	s = openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(want(1, 2, 3, 4)))
	require.Equal(t, []int{1, 2}, pieces(verified(t, tor, s)))
	got := make([]byte, 100)
	require.NoError(t, readFull(s, got, 50))
	require.Equal(t, content[50:150], got)
	writePiece(t, tor, s, content, 0)
	require.Equal(t, []string{edges, ".0102030000000000000000000000000000000000.lock", sidecarName, "d/1", "d/2", "d/3", "d/4"}, listing(t, dir))
	b, release, err := s.file(1)
	require.NoError(t, err)
	require.Equal(t, content[40:60], b)
	require.NoError(t, release())

	// And all of it leaves nothing beside the content.
	require.NoError(t, s.setWanted(all(tor)))
	require.Equal(t, []int{0, 1, 2}, pieces(verified(t, tor, s)))
	writePiece(t, tor, s, content, 3)
	writePiece(t, tor, s, content, 4)
	require.True(t, func() bool { b := verified(t, tor, s); return b.Full() }())
	require.NoError(t, s.finished())
	require.Equal(t, []string{"d/0", "d/1", "d/2", "d/3", "d/4", "d/5"}, listing(t, dir))
}

func TestSelectionWidensWhileBlocksOfAPieceAreMissing(t *testing.T) {
	const pieceLength = 8 * blockSize
	tor, content := testContent(pieceLength, 3*blockSize, 10*blockSize, 3*blockSize)
	for name, open := range builtIn {
		t.Run(name, func(t *testing.T) {
			s := open(t, tor)
			defer s.Close()
			require.NoError(t, s.setWanted([]bool{false, true, false}))
			write := func(block int) {
				require.NoError(t, s.writeBlocks([][]byte{content[block*blockSize : (block+1)*blockSize]}, int64(block)*blockSize))
			}
			write(14) // of the last file, with nothing before it nor behind
			write(1)
			require.NoError(t, s.setWanted(all(tor)))
			for _, block := range []int{0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15} {
				write(block)
			}
			require.True(t, func() bool { b := verified(t, tor, s); return b.Full() }())
		})
	}
}

func TestEdgesThatOthersChangedAreInDoubt(t *testing.T) {
	tor, content := testContent(50, 40, 80, 80)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted([]bool{false, true, false}))
	for i := range 3 {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, os.Truncate(s.path(s.edgesFile()), 70))
	require.ErrorIs(t, s.changed(0), errChanged)
	require.NoError(t, s.changed(1), "which is in a wanted file alone")
	doubt, err := s.renew(0)
	require.NoError(t, err)
	require.Equal(t, []int{0, 2}, pieces(doubt))
	require.NoError(t, s.changed(0))
	require.Equal(t, []int{0, 1}, pieces(verified(t, tor, s)))
	writePiece(t, tor, s, content, 2)
	require.Equal(t, []int{0, 1, 2}, pieces(verified(t, tor, s)))
	require.Equal(t, set(4, 0, 1, 2).Count(), verified(t, tor, s).Count())
}

func TestAnUnwantedFileThatIsThereIsUsed(t *testing.T) {
	tor, content := testContent(50, 40, 60)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/d", 0o777))
	require.NoError(t, os.WriteFile(dir+"/d/0", content[:40], 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted([]bool{false, true}))
	writePiece(t, tor, s, content, 0)
	writePiece(t, tor, s, content, 1)
	require.Equal(t, []int{0, 1}, pieces(verified(t, tor, s)))
	require.NoError(t, s.finished())
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, dir))
}

func TestTwoIntoTheSamePlaceAreRefused(t *testing.T) {
	if runtime.GOOS == "plan9" || runtime.GOOS == "js" {
		t.Skip("no locks here")
	}
	tor, content := testContent(50, 200)
	dir := t.TempDir()
	first := openDirectory(t, tor, dir)
	require.NoError(t, first.setWanted(all(tor)))
	_, err := openFiles(tor.content(), dir, nil)
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, dir)

	another := *tor
	another.infoHash[0]++
	require.NoError(t, openDirectory(t, &another, dir).setWanted(all(tor)), "another torrent may")

	for i := range 4 {
		writePiece(t, tor, first, content, i)
	}
	require.NoError(t, first.finished())
	second := openDirectory(t, tor, dir)
	require.NoError(t, second.setWanted(all(tor)), "what is complete may be shared")
	require.True(t, func() bool { b := verified(t, tor, second); return b.Full() }())
	writePiece(t, tor, first, content, 2)
	require.ErrorIs(t, second.writeBlocks([][]byte{content[:50]}, 0), ErrInUse)
	require.NoError(t, first.Close())
	require.NoError(t, second.writeBlocks([][]byte{content[:50]}, 0))
}
