package torrent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

func TestAPIFileSystem(t *testing.T) {
	t.Parallel()
	// Small, since TestFS reads it byte by byte.
	s := makeShare(t, torrent.CreateOptions{PieceLength: 256}, part{"a.bin", 700}, part{"b/c.txt", 17}, part{"b/d.bin", 1500}, part{"b/empty", 0}, part{"z.bin", 256})
	addr := s.seed(t, torrent.Options{})
	for name, o := range map[string]torrent.Options{
		"memory":    {},
		"directory": {Dir: t.TempDir()},
		"storage":   {Storage: new(mapStorage).open},
		"some":      {Select: torrent.Glob("c.txt", "empty")},
	} {
		t.Run(name, func(t *testing.T) {
			o.Peers = []netip.AddrPort{addr}
			files, err := s.DownloadAll(within(t), &o)
			require.NoError(t, err)
			defer func() { require.NoError(t, files.Close()) }()
			paths := slices.Sorted(maps.Keys(s.want))
			if name == "some" {
				paths = []string{"share/b/c.txt", "share/b/empty"}
			}
			require.NoError(t, fstest.TestFS(files, paths...))
			var walked []string
			require.NoError(t, fs.WalkDir(files, ".", func(path string, e fs.DirEntry, err error) error {
				if err == nil && !e.IsDir() {
					walked = append(walked, path)
				}
				return err
			}))
			require.Equal(t, paths, walked)
			for _, path := range paths {
				b, err := files.ReadFile(path)
				require.NoError(t, err)
				require.True(t, bytes.Equal(s.want[path], b), path)
				if len(b) > 0 {
					b[0]++ // a copy is the caller's own
				}
			}
			s.same(t, files, paths...)
			_, err = files.Open("share/a.bin.not")
			require.ErrorIs(t, err, fs.ErrNotExist)
			_, err = files.Open("../share")
			require.ErrorIs(t, err, fs.ErrInvalid)
		})
	}
}

func TestAPIServesRanges(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	addr := s.seed(t, torrent.Options{})
	for _, dir := range []string{"", t.TempDir()} {
		files, err := s.DownloadAll(within(t), &torrent.Options{Dir: dir, Peers: []netip.AddrPort{addr}})
		require.NoError(t, err)
		defer files.Close()
		server := httptest.NewServer(http.FileServerFS(files))
		defer server.Close()
		want := s.want["share/b/d.bin"]
		for header, c := range map[string]struct {
			status int
			want   []byte
		}{
			"":                   {http.StatusOK, want},
			"bytes=0-0":          {http.StatusPartialContent, want[:1]},
			"bytes=40000-120000": {http.StatusPartialContent, want[40000:120001]},
			"bytes=-5":           {http.StatusPartialContent, want[len(want)-5:]},
			"bytes=150000-":      {http.StatusPartialContent, want[150000:]},
			"bytes=999999-":      {http.StatusRequestedRangeNotSatisfiable, nil},
		} {
			status, b := get(t, server.URL+"/share/b/d.bin", header)
			require.Equal(t, c.status, status, header)
			if c.want != nil {
				require.True(t, bytes.Equal(c.want, b), header)
			}
		}
	}
}

func get(t *testing.T, url, ranges string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, b
}

func TestAPICompleted(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	for _, dir := range []string{"", t.TempDir()} {
		seed := s.gated(t)
		d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{seed.addr}})
		// Files come in the order in which they become whole, whatever their order in the torrent; empty ones at once.
		var got []string
		for f, err := range d.Completed() {
			require.NoError(t, err)
			b, err := f.Bytes()
			require.NoError(t, err)
			require.True(t, bytes.Equal(s.want[f.Path()], b), f.Path())
			switch got = append(got, f.Path()); len(got) {
			case 2:
				require.Equal(t, []string{"share/b/empty", "share/zz"}, got)
				seed.give(s.piecesOf("share/z.bin")...)
			case 3:
				require.Equal(t, "share/z.bin", f.Path())
				seed.give(s.piecesOf("share/b/c.txt")...)
			case 4:
				require.Equal(t, "share/b/c.txt", f.Path())
				for f, err := range d.Completed() { // several may range, and stop at any time
					require.NoError(t, err)
					require.Contains(t, got, f.Path())
					if f.Path() == "share/b/c.txt" {
						break
					}
				}
				select {
				case <-d.Done():
					require.Fail(t, "leaving the loop ended the download")
				default:
				}
				seed.give()
			}
		}
		require.ElementsMatch(t, slices.Collect(maps.Keys(s.want)), got)
		files := complete(t, d)
		n := 0
		for _, err := range d.Completed() { // those already whole
			require.NoError(t, err)
			n++
		}
		require.Equal(t, len(s.want), n)
		require.NoError(t, files.Close())
	}
}

func TestAPICompletedFails(t *testing.T) {
	t.Parallel()
	because := errors.New("because")
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	seed := s.gated(t)
	seed.give(s.piecesOf("share/b/c.txt")...)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	d, err := s.Start(ctx, &torrent.Options{Peers: []netip.AddrPort{seed.addr}, Client: local()})
	require.NoError(t, err)
	var got []string
	var last error
	for f, err := range d.Completed() {
		require.NoError(t, last, "an error is the last")
		if last = err; err != nil {
			require.Nil(t, f)
			continue
		}
		if got = append(got, f.Path()); len(got) == 3 {
			cancel(because)
		}
	}
	require.ElementsMatch(t, []string{"share/b/c.txt", "share/b/empty", "share/zz"}, got)
	require.ErrorIs(t, last, because)
	require.ErrorIs(t, last, context.Canceled)
	require.NoError(t, d.Close())
}

func TestAPISelect(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	for name, c := range map[string]struct {
		sel  func(torrent.File) torrent.Priority
		want []string
	}{
		"base name":     {torrent.Glob("*.txt"), []string{"share/b/c.txt"}},
		"path":          {torrent.Glob("share/*.bin"), []string{"share/a.bin", "share/z.bin"}},
		"several":       {torrent.Glob("a.bin", "zz"), []string{"share/a.bin", "share/zz"}},
		"empty file":    {torrent.Glob("empty"), []string{"share/b/empty"}},
		"malformed":     {torrent.Glob("[", "c.txt"), []string{"share/b/c.txt"}},
		"in the middle": {torrent.Glob("d.bin"), []string{"share/b/d.bin"}},
		"everything":    {torrent.Glob("*"), slices.Collect(maps.Keys(s.want))},
	} {
		for _, dir := range []string{"", t.TempDir()} {
			t.Run(name+dir[:min(1, len(dir))], func(t *testing.T) {
				seed := s.gated(t)
				seed.give()
				d := s.start(t, torrent.Options{Dir: dir, Select: c.sel, Peers: []netip.AddrPort{seed.addr}})
				files := complete(t, d)
				s.same(t, files, c.want...)
				wanted := int64(0)
				var pieces []int
				for _, path := range c.want {
					wanted += int64(len(s.want[path]))
					pieces = append(pieces, s.piecesOf(path)...)
				}
				slices.Sort(pieces)
				require.Equal(t, slices.Compact(pieces), seed.askedPieces())
				st := d.Stats()
				require.Equal(t, s.Length(), st.Length)
				require.Equal(t, wanted, st.Wanted)
				require.Equal(t, wanted, st.Verified)
				n := 0
				for _, err := range d.Completed() {
					require.NoError(t, err)
					n++
				}
				require.Equal(t, len(slices.Collect(files.Files())), n)
				for path := range s.want {
					if !slices.Contains(c.want, path) {
						_, err := files.Open(path)
						require.ErrorIs(t, err, fs.ErrNotExist)
						_, err = d.Open(t.Context(), path)
						require.Error(t, err)
					}
					if dir != "" {
						_, err := os.Stat(filepath.Join(dir, path))
						require.Equal(t, slices.Contains(c.want, path), err == nil, path)
					}
				}
				require.NoError(t, files.Close())
			})
		}
	}
}

func TestAPISelectHighFirst(t *testing.T) {
	t.Parallel()
	var parts []part
	for i := range 8 {
		parts = append(parts, part{fmt.Sprint(i), 16 << 10})
	}
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, parts...)
	order := make(chan int, 100)
	seed := s.script(t, func(l *line) {
		l.offer()
		for {
			piece, begin, length, err := l.request()
			if err != nil {
				return
			}
			order <- piece
			l.answer(piece, begin, length)
		}
	})
	files, err := s.DownloadAll(within(t), &torrent.Options{Peers: []netip.AddrPort{seed.addr}, Select: func(f torrent.File) torrent.Priority {
		switch f.Path {
		case "share/5", "share/2":
			return torrent.High
		case "share/0":
			return torrent.Skip
		}
		return torrent.Normal
	}})
	require.NoError(t, err)
	defer files.Close()
	var got []int
	for range 7 {
		got = append(got, <-order)
	}
	require.ElementsMatch(t, []int{2, 5}, got[:2])
	require.ElementsMatch(t, []int{1, 3, 4, 6, 7}, got[2:])
}

func TestAPISelectWhileRunning(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	for _, dir := range []string{"", t.TempDir()} {
		seed := s.gated(t)
		d := s.start(t, torrent.Options{Dir: dir, Select: torrent.Glob("a.bin"), Peers: []netip.AddrPort{seed.addr}})
		r, err := d.Open(within(t), "share/a.bin")
		require.NoError(t, err)
		defer r.Close()

		d.Select(torrent.Glob("a.bin", "z.bin")) // wider
		require.EqualValues(t, 165_536, d.Stats().Wanted)
		seed.give(s.piecesOf("share/z.bin")...)
		for f, err := range d.Completed() {
			require.NoError(t, err)
			require.Equal(t, "share/z.bin", f.Path())
			break
		}
		require.EqualValues(t, 65_536, d.Stats().Verified)
		select {
		case <-d.Done():
			require.Fail(t, "complete, with a.bin lacking")
		default:
		}
		d.Select(torrent.Glob("z.bin", "zz")) // narrower: all of it is there
		files := complete(t, d)
		s.same(t, files, "share/z.bin", "share/zz")
		require.EqualValues(t, 65_536, d.Stats().Wanted)
		require.NoError(t, files.Close())
	}
}

// A download that shares goes on with what is chosen later. Its files are those that are whole.
func TestAPISelectAfterCompletion(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	for _, dir := range []string{"", t.TempDir()} {
		seed := s.gated(t)
		seed.give(s.piecesOf("share/b/c.txt")...)
		d := s.start(t, torrent.Options{Dir: dir, Seed: true, Select: torrent.Glob("c.txt"), Peers: []netip.AddrPort{seed.addr}})
		files := complete(t, d)
		s.same(t, files, "share/b/c.txt")
		d.Select(nil)
		require.Equal(t, s.Length(), d.Stats().Wanted)
		require.False(t, d.Stats().Complete)
		for f := range files.Files() {
			b, err := f.Bytes()
			require.NoError(t, err)
			require.True(t, bytes.Equal(s.want[f.Path()], b), "%s is handed out before it is there", f.Path())
		}
		b, err := files.ReadFile("share/b/c.txt")
		require.NoError(t, err)
		require.Equal(t, s.want["share/b/c.txt"], b)
		if b, err := files.ReadFile("share/z.bin"); err == nil {
			require.True(t, bytes.Equal(s.want["share/z.bin"], b), "z.bin is handed out before it is there")
		}
		seed.give()
		until(t, "all of it is there", func() bool { return d.Stats().Complete })
		again, err := d.Wait()
		require.NoError(t, err)
		require.Same(t, files, again)
		s.same(t, files)
		require.NoError(t, files.Close())
	}
}

// A download that is complete and has ended does not change.
func TestAPISelectAfterEnd(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	for _, dir := range []string{"", t.TempDir()} {
		seed := s.gated(t)
		seed.give()
		d := s.start(t, torrent.Options{Dir: dir, Select: torrent.Glob("c.txt"), Peers: []netip.AddrPort{seed.addr}})
		files := complete(t, d)
		d.Select(nil)
		s.same(t, files, "share/b/c.txt")
		_, err := files.Open("share/z.bin")
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.NoError(t, d.Close())
		d.Select(nil)
		s.same(t, files, "share/b/c.txt")
		if dir != "" {
			_, err := os.Stat(filepath.Join(dir, "share", "z.bin"))
			require.ErrorIs(t, err, fs.ErrNotExist)
		}
		require.NoError(t, files.Close())
		d.Select(nil)
	}
}

// A wider choice does not fetch again what came with a narrower one.
func TestAPISelectWiderLater(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	dir := t.TempDir()
	sent := int64(0)
	for _, sel := range []func(torrent.File) torrent.Priority{torrent.Glob("c.txt"), torrent.Glob("c.txt", "z.bin"), nil} {
		seed := s.gated(t)
		seed.give()
		files, err := s.DownloadAll(within(t), &torrent.Options{Dir: dir, Select: sel, Peers: []netip.AddrPort{seed.addr}})
		require.NoError(t, err)
		require.NoError(t, files.Close())
		sent += seed.sent.Load()
	}
	require.Equal(t, s.Length(), sent)
	b, err := s.Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, s.NumPieces(), b.Count())
}
