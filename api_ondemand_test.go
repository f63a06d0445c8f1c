package torrent_test

import (
	"context"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

// films are a large file, of which reading ahead takes but a part, and two small ones.
func films() map[string]string {
	line := func(b byte) string { return string(slices.Repeat([]byte{b}, 1023)) + "\n" }
	return map[string]string{
		"films/long.mkv":   strings.Repeat(line('a')+line('b')+line('c'), 4<<10),
		"films/short.mkv":  strings.Repeat(line('d'), 64),
		"films/readme.txt": "three films",
	}
}

// swarm runs f in a bubble with a seed of films, and a client to download them.
func swarm(t *testing.T, f func(t *testing.T, n *torrenttest.Network, tor *torrent.Torrent, o torrent.Options)) {
	synctest.Test(t, func(t *testing.T) {
		n := torrenttest.NewNetwork(t)
		tor, seed := n.Seed(films())
		var c torrent.Client
		n.Join(&c)
		f(t, n, tor, torrent.Options{Client: &c, Peers: []netip.AddrPort{seed}})
	})
}

// only chooses by path, and gives the rest another priority.
func only(rest torrent.Priority, paths ...string) func(torrent.File) torrent.Priority {
	return func(f torrent.File) torrent.Priority {
		if slices.Contains(paths, f.Path) {
			return torrent.Normal
		}
		return rest
	}
}

func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Files on demand are fetched where a reader reads, and not elsewhere.
func TestOnDemand(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", t.TempDir()} {
		swarm(t, func(t *testing.T, n *torrenttest.Network, tor *torrent.Torrent, o torrent.Options) {
			o.Dir, o.Seed, o.Select, o.StallTimeout = dir, true, only(torrent.OnDemand), time.Minute
			d, err := tor.Start(t.Context(), &o)
			require.NoError(t, err)
			sleep(time.Hour)
			s := d.Stats()
			require.Zero(t, s.Downloaded)
			require.Zero(t, s.Wanted)
			require.Equal(t, torrent.Downloading, s.State)
			require.False(t, s.Complete)
			if dir != "" {
				entries, err := os.ReadDir(dir)
				require.NoError(t, err)
				require.Empty(t, entries)
			}

			began := time.Now()
			r, err := d.Open(t.Context(), "films/long.mkv")
			require.NoError(t, err)
			_, err = r.Seek(5<<20, io.SeekStart)
			require.NoError(t, err)
			b := make([]byte, 1000)
			_, err = io.ReadFull(r, b)
			require.NoError(t, err)
			require.Less(t, time.Since(began), 10*time.Second)
			require.Equal(t, films()["films/long.mkv"][5<<20:5<<20+1000], string(b))
			sleep(time.Minute)
			fetched := d.Stats().Downloaded
			require.Less(t, fetched, int64(8<<20), "what is read, and what follows it")
			require.Equal(t, torrent.Downloading, d.Stats().State)
			require.NoError(t, r.Close())
			sleep(time.Hour)
			require.Equal(t, fetched, d.Stats().Downloaded)

			// Again, from what is here, and then the rest.
			r, err = d.Open(t.Context(), "films/long.mkv")
			require.NoError(t, err)
			all, err := io.ReadAll(r)
			require.NoError(t, err)
			require.Equal(t, films()["films/long.mkv"], string(all))
			require.NoError(t, r.Close())
			require.Less(t, d.Stats().Downloaded, tor.Length(), "the others were not fetched, and nothing twice")
			require.Zero(t, d.Stats().Wasted)

			// What was on demand may be chosen.
			d.Select(nil)
			files, err := d.Wait()
			require.NoError(t, err)
			require.Equal(t, tor.Length(), d.Stats().Downloaded)
			b, err = files.ReadFile("films/short.mkv")
			require.NoError(t, err)
			require.Equal(t, films()["films/short.mkv"], string(b))
			require.NoError(t, files.Close())
		})
	}
}

// Wait and Completed are about what is chosen. With Seed, what is on demand is fetched after that, too.
func TestOnDemandBesideWhatIsChosen(t *testing.T) {
	swarm(t, func(t *testing.T, n *torrenttest.Network, tor *torrent.Torrent, o torrent.Options) {
		o.Seed, o.Select = true, only(torrent.OnDemand, "films/readme.txt")
		d, err := tor.Start(t.Context(), &o)
		require.NoError(t, err)
		for f, err := range d.Completed() {
			require.NoError(t, err)
			require.Equal(t, "films/readme.txt", f.Path())
		}
		files, err := d.Wait()
		require.NoError(t, err)
		defer files.Close()
		_, err = files.ReadFile("films/short.mkv")
		require.ErrorIs(t, err, fs.ErrNotExist)
		s := d.Stats()
		require.EqualValues(t, len("three films"), s.Wanted)
		require.Equal(t, torrent.Seeding, s.State)
		sleep(time.Hour)
		require.Equal(t, s.Downloaded, d.Stats().Downloaded)
		began := time.Now()
		r, err := d.Open(t.Context(), "films/short.mkv")
		require.NoError(t, err)
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, films()["films/short.mkv"], string(b))
		require.Less(t, time.Since(began), 10*time.Second)
		require.Equal(t, torrent.Seeding, d.Stats().State)
		require.NoError(t, r.Close())
		require.True(t, d.Verified().Count() < tor.NumPieces())
	})
}

// Memory is taken for what is opened, and not before.
func TestOnDemandInTooLittleMemory(t *testing.T) {
	swarm(t, func(t *testing.T, n *torrenttest.Network, tor *torrent.Torrent, o torrent.Options) {
		o.MaxMemory, o.Select = 1<<20, only(torrent.OnDemand)
		d, err := tor.Start(t.Context(), &o)
		require.NoError(t, err)
		_, err = d.Open(t.Context(), "films/long.mkv")
		require.ErrorIs(t, err, torrent.ErrTooLarge)
		r, err := d.Open(t.Context(), "films/short.mkv")
		require.NoError(t, err)
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Len(t, b, 64<<10)
	})
}

// Nothing chosen is no download that is complete: it waits for a choice.
func TestNothingChosenWaits(t *testing.T) {
	swarm(t, func(t *testing.T, n *torrenttest.Network, tor *torrent.Torrent, o torrent.Options) {
		o.Select, o.StallTimeout = torrent.Glob(), time.Minute
		d, err := tor.Start(t.Context(), &o)
		require.NoError(t, err)
		var completed []string
		over := make(chan error)
		go func() {
			var last error
			for f, err := range d.Completed() {
				if last = err; err == nil {
					completed = append(completed, f.Path())
				}
			}
			over <- last
		}()
		sleep(time.Hour)
		select {
		case <-d.Done():
			t.Fatal("done")
		case <-over:
			t.Fatal("completed")
		default:
		}
		d.Select(torrent.Glob("readme.txt"))
		files, err := d.Wait()
		require.NoError(t, err)
		require.NoError(t, <-over)
		require.Equal(t, []string{"films/readme.txt"}, completed)
		require.NoError(t, files.Close())
	})
}

// A complete download that shares can be widened: then it is complete once the new choice is.
func TestSelectWidensWhatIsComplete(t *testing.T) {
	swarm(t, func(t *testing.T, n *torrenttest.Network, tor *torrent.Torrent, o torrent.Options) {
		o.Seed, o.Select = true, torrent.Glob("readme.txt")
		d, err := tor.Start(t.Context(), &o)
		require.NoError(t, err)
		first, err := d.Wait()
		require.NoError(t, err)
		sleep(time.Hour)
		d.Select(torrent.Glob("readme.txt", "short.mkv"))
		select {
		case <-d.Done():
			t.Fatal("done")
		default:
		}
		var completed []string
		for f, err := range d.Completed() {
			require.NoError(t, err)
			completed = append(completed, f.Path())
		}
		require.Equal(t, []string{"films/readme.txt", "films/short.mkv"}, completed)
		second, err := d.Wait()
		require.NoError(t, err)
		require.Equal(t, first, second)
		b, err := second.ReadFile("films/short.mkv")
		require.NoError(t, err)
		require.Len(t, b, 64<<10)

		// The end of what was widened again is an error, but not for what was returned.
		d.AddPeers() // none
		d.Pause()
		d.Select(nil)
		over := make(chan error)
		go func() { _, err := d.Wait(); over <- err }()
		sleep(time.Second)
		require.NoError(t, d.Close())
		require.ErrorIs(t, <-over, torrent.ErrClosed)
		<-d.Done()
		b, err = second.ReadFile("films/readme.txt")
		require.NoError(t, err)
		require.Equal(t, "three films", string(b))
		require.NoError(t, second.Close())
	})
}

// Open of a file is the way that cannot crash.
func TestDownloadedFileOpen(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	d := s.start(t, torrent.Options{Dir: s.dir})
	for f, err := range d.Completed() {
		require.NoError(t, err)
		r, err := f.Open()
		require.NoError(t, err)
		info, err := r.Stat()
		require.NoError(t, err)
		require.Equal(t, f.Length(), info.Size())
		require.Implements(t, (*io.ReaderAt)(nil), r)
		require.Implements(t, (*io.Seeker)(nil), r)
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, s.want[f.Path()], b)
	}
	files := complete(t, d)
	var a *torrent.DownloadedFile
	for f := range files.Files() {
		if f.Path() == "share/a.bin" {
			a = f
		}
	}
	r, err := a.Open()
	require.NoError(t, err)
	require.NoError(t, os.Truncate(s.dir+"/share/a.bin", 0))
	_, err = r.Read(make([]byte, 1))
	require.ErrorContains(t, err, "changed by another program")
	require.NoError(t, files.Close())
	_, err = a.Open()
	require.ErrorIs(t, err, torrent.ErrClosed)
}

// Slices of files outlive a Close of the download, as in a loop over Completed with a deferred Close.
func TestBytesOutliveClose(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	for _, o := range []torrent.Options{{}, {Dir: t.TempDir()}, {Storage: new(mapStorage).open}} {
		o.Peers = []netip.AddrPort{s.seed(t, torrent.Options{})}
		got := make(map[string][]byte)
		var d *torrent.Download
		func() {
			var err error
			d, err = s.Start(context.Background(), &o)
			require.NoError(t, err)
			defer d.Close()
			for f, err := range d.Completed() {
				require.NoError(t, err)
				got[f.Path()], err = f.Bytes()
				require.NoError(t, err)
			}
		}()
		require.Equal(t, s.want, got)
		files, err := d.Wait()
		require.NoError(t, err)
		if o.Storage == nil {
			s.same(t, files)
		} else {
			_, err := files.ReadFile("share/a.bin")
			require.ErrorIs(t, err, torrent.ErrClosed)
		}
		require.NoError(t, files.Close())
	}
}
