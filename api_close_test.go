package torrent_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shoal-go/torrent"
	"github.com/stretchr/testify/require"
)

// openFiles lists what this process has open below dir, on systems that tell.
func openFiles(dir string) (names []string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(name, dir) {
			names = append(names, name)
		}
	}
	return names
}

// mapsOf is how many maps this process has of files below dir, on systems that tell.
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
				}
				require.Equal(t, s.want["share/b/c.txt"], bytes.Clone(early), "still")
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
			s.same(t, files) // what Wait returned stays readable
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

// Close of a download without a Wait has nothing open any more, but a later Wait finds the files.
func TestAPICloseUnwaited(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	before := count()
	d, err := s.Start(t.Context(), &torrent.Options{Dir: s.dir, Seed: true})
	require.NoError(t, err)
	<-d.Done()
	require.NoError(t, d.Close())
	require.Empty(t, openFiles(s.dir))
	settled(t, before)
	again, err := s.Start(t.Context(), &torrent.Options{Dir: s.dir})
	require.NoError(t, err)
	require.NoError(t, complete(t, again).Close())
	files, err := d.Wait()
	require.NoError(t, err)
	s.same(t, files)
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "share", "b", "c.txt"), []byte("another"), 0o666))
	_, err = files.ReadFile("share/b/c.txt")
	require.ErrorContains(t, err, "changed by another program")
	require.NoError(t, files.Close())
	require.Empty(t, openFiles(s.dir))
	_, err = files.ReadFile("share/a.bin")
	require.ErrorIs(t, err, torrent.ErrClosed)
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

// Close from many goroutines at any moment, while everything is under way.
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

// A client also accepts peers from a listener of the caller's, and closes it with itself.
func TestClientServes(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	mine, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &torrent.Client{NoDHT: true, NoUTP: true, NoListen: true}
	require.NoError(t, c.Serve(mine))
	require.Equal(t, mine.Addr(), c.Addr())
	s.seed(t, torrent.Options{Client: c})
	s.same(t, complete(t, s.start(t, torrent.Options{Peers: []netip.AddrPort{addrOf(c)}})))
	require.NoError(t, c.Close())
	_, err = mine.Accept()
	require.ErrorIs(t, err, net.ErrClosed)

	late, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.ErrorIs(t, c.Serve(late), torrent.ErrClosed)
	_, err = late.Accept()
	require.ErrorIs(t, err, net.ErrClosed, "what is not served is closed")
	require.ErrorContains(t, new(torrent.Client).Serve(nil), "no listener")
}

// A client may be asked for its downloads at any time, even while the first begins.
func TestClientDownload(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	c := local()
	defer c.Close()
	done := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			for d := range c.Downloads() {
				d.Stats()
			}
			c.Download(s.InfoHash())
			c.Addr()
			select {
			case <-done:
				return
			default:
			}
		}
	})
	_, ok := c.Download(s.InfoHash())
	require.False(t, ok)
	d := s.start(t, torrent.Options{Client: c, Seed: true, Dir: s.dir})
	found, ok := c.Download(s.InfoHash())
	require.True(t, ok)
	require.Same(t, d, found)
	require.NoError(t, d.Close())
	_, ok = c.Download(s.InfoHash())
	require.False(t, ok)
	close(done)
	asking.Wait()
}

// The totals of a client include downloads that are gone.
func TestClientStats(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	from, to := local(), local()
	require.ErrorIs(t, to.Stats().DHT.Err, torrent.ErrUnsupported)
	d := s.start(t, torrent.Options{Client: to, Downloaded: 1 << 40, Peers: []netip.AddrPort{s.seed(t, torrent.Options{Client: from})}})
	complete(t, d)
	until(t, "both ends count all", func() bool {
		there, here := from.Stats(), to.Stats()
		return here.Downloaded >= int64(len(s.raw)) && there.Uploaded >= int64(len(s.raw))
	})
	require.Equal(t, 1, from.Stats().Downloads)
	require.Equal(t, from.Addr(), from.Stats().Addr)
	require.NoError(t, d.Close())
	st := to.Stats()
	require.Zero(t, st.Downloads)
	require.Zero(t, st.Peers)
	require.Zero(t, st.Memory)
	require.EqualValues(t, 32<<20, st.MemoryMost)
	require.EqualValues(t, len(s.raw), st.Downloaded-st.Wasted)
	require.NoError(t, to.Close())
	require.Equal(t, st.Downloaded, to.Stats().Downloaded)
}
