package torrent_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// openFiles is what this process has open below dir, where the system tells.
func openFiles(dir string) (names []string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(name, dir) {
			names = append(names, name)
		}
	}
	return names
}

// mapsOf is how many maps this process has of files below dir, where the system tells.
func mapsOf(dir string) int {
	b, _ := os.ReadFile("/proc/self/maps")
	return bytes.Count(b, []byte(dir))
}

func TestAPICloseEarly(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	seed := s.gated(t)
	seed.give(s.piecesOf("share/b/c.txt")...)
	for name, end := range map[string]func(*testing.T, *torrent.Download, *torrent.Client){
		"download": func(t *testing.T, d *torrent.Download, _ *torrent.Client) { require.NoError(t, d.Close()) },
		"client":   func(t *testing.T, _ *torrent.Download, c *torrent.Client) { require.NoError(t, c.Close()) },
	} {
		for _, dir := range []string{"", t.TempDir()} {
			t.Run(name+dir[:min(len(dir), 1)], func(t *testing.T) {
				before := count()
				var client *torrent.Client
				if name == "client" {
					client = local()
				}
				d, err := s.Start(t.Context(), &torrent.Options{Dir: dir, Client: client, Peers: []netip.AddrPort{seed.addr}})
				require.NoError(t, err)
				var early []byte
				for f, err := range d.Completed() {
					require.NoError(t, err)
					b, err := f.Bytes()
					require.NoError(t, err)
					if f.Length() > 0 {
						early = b
						break
					}
				}
				require.Equal(t, s.want["share/b/c.txt"], bytes.Clone(early))
				blocked := make(chan error, 3)
				go func() { _, err := d.Wait(); blocked <- err }()
				go func() {
					var last error
					for _, err := range d.Completed() {
						last = err
					}
					blocked <- last
				}()
				r, err := d.Open(t.Context(), "share/z.bin")
				require.NoError(t, err)
				go func() { _, err := r.Read(make([]byte, 1)); blocked <- err }()
				until(t, "the reader's piece is asked for", func() bool { return seed.wasAsked(s.piecesOf("share/z.bin")[0]) })

				end(t, d, client)
				for range 3 {
					require.ErrorIs(t, finally(t, blocked), torrent.ErrClosed)
				}
				<-d.Done()
				files, err := d.Wait()
				require.ErrorIs(t, err, torrent.ErrClosed)
				require.Nil(t, files)
				require.NoError(t, d.Close(), "again")
				_, err = r.Read(make([]byte, 1))
				require.ErrorIs(t, err, torrent.ErrClosed)
				require.NoError(t, r.Close())
				d.Select(nil)
				d.Stats()
				if client != nil {
					require.NoError(t, client.Close(), "again")
					_, err := s.Start(t.Context(), &torrent.Options{Client: client})
					require.ErrorIs(t, err, torrent.ErrClosed)
					require.Empty(t, slices.Collect(client.Downloads()))
				}
				settled(t, before)
				if dir != "" {
					require.Empty(t, openFiles(dir))
					require.Zero(t, mapsOf(dir))
				}
			})
		}
	}
}

func TestAPICloseComplete(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	addr := s.seed(t, torrent.Options{})
	for name, o := range map[string]torrent.Options{
		"memory":            {},
		"directory":         {Dir: t.TempDir()},
		"memory seeding":    {Seed: true},
		"directory seeding": {Dir: t.TempDir(), Seed: true},
		"storage seeding":   {Storage: new(mapStorage).open, Seed: true},
	} {
		t.Run(name, func(t *testing.T) {
			before := count()
			client := local()
			o.Client, o.Peers = client, []netip.AddrPort{addr}
			d, err := s.Start(t.Context(), &o)
			require.NoError(t, err)
			files := complete(t, d)
			if o.Seed {
				require.Equal(t, []*torrent.Download{d}, slices.Collect(client.Downloads()))
			}
			r, err := d.Open(t.Context(), "share/a.bin")
			require.NoError(t, err)
			f, err := files.Open("share/a.bin")
			require.NoError(t, err)

			require.NoError(t, d.Close())
			require.Empty(t, slices.Collect(client.Downloads()))
			require.NoError(t, client.Close())
			s.same(t, files) // what Wait handed out stays readable
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			require.True(t, bytes.Equal(s.want["share/a.bin"], got))
			again, err := d.Wait()
			require.NoError(t, err)
			require.Same(t, files, again)

			all := slices.Collect(files.Files())
			require.NoError(t, files.Close())
			require.NoError(t, files.Close(), "again")
			for _, one := range all {
				_, err := one.Bytes()
				require.ErrorIs(t, err, torrent.ErrClosed, one.Path())
			}
			_, err = files.Open("share/a.bin")
			require.ErrorIs(t, err, torrent.ErrClosed)
			_, err = files.ReadFile("share/a.bin")
			require.ErrorIs(t, err, torrent.ErrClosed)
			_, err = files.ReadDir("share")
			require.ErrorIs(t, err, torrent.ErrClosed)
			_, err = files.Stat("share")
			require.ErrorIs(t, err, torrent.ErrClosed)
			_, err = f.Read(make([]byte, 1))
			require.ErrorIs(t, err, torrent.ErrClosed)
			require.NoError(t, f.Close())
			_, err = r.Seek(0, io.SeekStart)
			require.NoError(t, err)
			_, err = r.Read(make([]byte, 1))
			require.ErrorIs(t, err, torrent.ErrClosed)
			settled(t, before)
			if o.Dir != "" {
				require.Empty(t, openFiles(o.Dir))
				require.Zero(t, mapsOf(o.Dir))
			}
		})
	}
}

// Close of a download that nobody waited for gives its files back as well.
func TestAPICloseUnwaited(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	before := count()
	d, err := s.Start(t.Context(), &torrent.Options{Dir: s.dir, Seed: true})
	require.NoError(t, err)
	<-d.Done()
	require.NoError(t, d.Close())
	_, err = d.Wait()
	require.ErrorIs(t, err, torrent.ErrClosed)
	require.Empty(t, openFiles(s.dir))
	settled(t, before)
}

// Downloaded.Close is all that a program needs to call.
func TestAPIDownloadedCloseEndsSeeding(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	before := count()
	client := local()
	d, err := s.Start(t.Context(), &torrent.Options{Dir: s.dir, Seed: true, Client: client})
	require.NoError(t, err)
	files := complete(t, d)
	leech := s.call(t, addrOf(client), func(l *line) {
		l.say(msgInterested)
		for {
			id, _, err := l.hear()
			if id == msgUnchoke {
				l.say(msgRequest, 0, 0, 100)
			}
			if id == msgPiece {
				close(l.opened)
			}
			if err != nil {
				return
			}
		}
	})
	finally(t, leech.opened)
	until(t, "the upload is counted", func() bool { return d.Stats().Uploaded == 100 })
	require.NoError(t, files.Close())
	require.Empty(t, slices.Collect(client.Downloads()))
	require.NoError(t, d.Close())
	require.NoError(t, client.Close())
	settled(t, before)
}

// The program of the documentation closes nothing but the files.
func TestAPIDownloadAllLeavesNothing(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	addr := s.seed(t, torrent.Options{})
	before := count()
	for _, o := range []torrent.Options{{}, {Dir: t.TempDir()}, {Seed: true}} {
		o.Peers = []netip.AddrPort{addr}
		files, err := s.DownloadAll(t.Context(), &o)
		require.NoError(t, err)
		s.same(t, files)
		require.NoError(t, files.Close())
	}
	settled(t, before)
}

func TestAPIClientNeverUsed(t *testing.T) {
	t.Parallel()
	var c torrent.Client
	require.Empty(t, slices.Collect(c.Downloads()))
	require.Nil(t, c.Addr())
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
}

// Closing while everything is under way, from many goroutines, at whatever moment.
func TestAPICloseAtAnyTime(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	addr := s.seed(t, torrent.Options{})
	before := count()
	for n := range 20 {
		dir := ""
		if n%2 == 0 {
			dir = filepath.Join(t.TempDir(), "to")
		}
		client := local()
		d, err := s.Start(t.Context(), &torrent.Options{Dir: dir, Client: client, Seed: n%4 < 2, Peers: []netip.AddrPort{addr}})
		require.NoError(t, err)
		closed := make(chan error, 4)
		go func() {
			until(t, "so far", func() bool { return d.Stats().Verified >= s.Length()*int64(n)/20 })
			go func() { closed <- d.Close() }()
			go func() { closed <- d.Close() }()
			go func() { closed <- client.Close() }()
		}()
		go func() {
			files, err := d.Wait()
			if err == nil {
				err = files.Close()
			} else if errors.Is(err, torrent.ErrClosed) {
				err = nil
			}
			closed <- err
		}()
		for range 4 {
			require.NoError(t, finally(t, closed))
		}
	}
	settled(t, before)
}
