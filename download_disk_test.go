//go:build linux

package torrent

import (
	"context"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/proctest"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// shareFiles has a client share what a directory holds, on loopback, and dial these peers.
func shareFiles(t *testing.T, tor *Torrent, dir string, peers ...netip.AddrPort) (*Download, netip.AddrPort) {
	t.Helper()
	c := &Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0"}
	d, err := tor.Start(t.Context(), &Options{Dir: dir, Seed: true, Client: c, Peers: peers})
	require.NoError(t, err)
	t.Cleanup(func() { d.Close(); c.Close() })
	return d, netip.MustParseAddrPort(c.Addr().String())
}

// outcome waits for the download to end, and returns its error.
func outcome(t *testing.T, d *Download) error {
	t.Helper()
	select {
	case <-d.Done():
	case <-time.After(2 * time.Minute):
		require.FailNow(t, "not done", "%+v", d.Stats())
	}
	_, err := d.Wait()
	return err
}

// A download that fills its disk ends with that error. Once there is room, the next run continues from there.
func TestDownloadFillsTheDisk(t *testing.T) {
	t.Parallel()
	tor, content := testContent(64<<10, 1<<20, 1<<20)
	dir, ok := proctest.InChild()
	if !ok {
		proctest.Alone(t, t.TempDir(), 0, syscall.CLONE_NEWNS)
		return
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1500k"); err != nil {
		t.Skip("cannot mount:", err)
	}
	full := t.TempDir()
	fill(t, tor, full, content)
	_, addr := shareFiles(t, tor, full)

	d, err := tor.Start(t.Context(), &Options{Dir: dir, Peers: []netip.AddrPort{addr}})
	require.NoError(t, err)
	err = outcome(t, d)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, dir)
	require.NoError(t, d.Close())
	have, err := tor.Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Greater(t, have.Count(), 16)

	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=4m"))
	d, err = tor.Start(t.Context(), &Options{Dir: dir, Peers: []netip.AddrPort{addr}})
	require.NoError(t, err)
	require.NoError(t, outcome(t, d))
	require.EqualValues(t, (tor.NumPieces()-have.Count())<<16, d.Stats().Downloaded, "nothing is fetched twice")
	require.NoError(t, d.files.Close())
	have, err = tor.Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, have.Len(), have.Count())
	require.NoError(t, syscall.Unmount(dir, 0))
}

// A download that loses permission ends with that error. A seed reports it in its Stats, and serves only what it can still read by
// a file that is open. With the permission back, the next run continues.
func TestDownloadLosesPermission(t *testing.T) {
	tor, content := testContent(16<<10, 200_000, 200_000)
	root, ok := proctest.InChild()
	if !ok {
		root = t.TempDir()
		for _, name := range []string{"leech", "half", "whole"} {
			require.NoError(t, os.Mkdir(filepath.Join(root, name), 0o755))
		}
		fill(t, tor, filepath.Join(root, "half"), content)
		require.NoError(t, os.Remove(filepath.Join(root, "half", "d", "1")))
		fill(t, tor, filepath.Join(root, "whole"), content)
		t.Cleanup(func() {
			os.Chmod(filepath.Join(root, "leech", "d"), 0o755)
			os.Chmod(filepath.Join(root, "whole", "d"), 0o755)
		})
		proctest.Alone(t, root, 1000, 0) // as an ordinary user, who owns the files
		return
	}
	dir := filepath.Join(root, "leech")
	_, half := shareFiles(t, tor, filepath.Join(root, "half"))
	d, addr := shareFiles(t, tor, dir, half)
	const there = 200_000 / (16 << 10) // pieces that are in the first file alone
	require.Eventually(t, func() bool { return d.Stats().PiecesVerified == there }, 2*time.Minute, time.Millisecond)

	require.NoError(t, os.Chmod(filepath.Join(dir, "d"), 0))
	whole, wholeAddr := shareFiles(t, tor, filepath.Join(root, "whole"), addr)
	err := outcome(t, d)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, dir)
	require.NoError(t, d.Close())

	require.NoError(t, os.Chmod(filepath.Join(dir, "d"), 0o755))
	d, err = tor.Start(t.Context(), &Options{Dir: dir, Peers: []netip.AddrPort{wholeAddr}})
	require.NoError(t, err)
	require.NoError(t, outcome(t, d))
	require.LessOrEqual(t, d.Stats().Downloaded, int64(len(content)-there<<14))
	require.NoError(t, d.files.Close())

	require.NoError(t, os.Chmod(filepath.Join(root, "whole", "d"), 0))
	whole.mu.Lock()
	clear(whole.uploading.looked) // as if that was longer ago than lookAgain
	whole.mu.Unlock()
	last := t.TempDir()
	d, err = tor.Start(t.Context(), &Options{Dir: last, Peers: []netip.AddrPort{wholeAddr}})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return whole.Stats().StorageError != nil }, 2*time.Minute, time.Millisecond)
	require.ErrorIs(t, whole.Stats().StorageError, fs.ErrPermission)
	require.Zero(t, d.Stats().Wasted)
	require.NoError(t, d.Close())
}

// If files can no longer be examined, nothing is hashed for that, however often it is found: a download ends with that error once
// it would become complete, and what reads from a seed gets the error.
func TestFilesThatCannotBeExamined(t *testing.T) {
	tor, content := testContent(16<<10, 200_000)
	root, ok := proctest.InChild()
	if !ok {
		root = t.TempDir()
		for _, name := range []string{"leech", "whole"} {
			require.NoError(t, os.Mkdir(filepath.Join(root, name), 0o755))
		}
		fill(t, tor, filepath.Join(root, "whole"), content)
		t.Cleanup(func() {
			os.Chmod(filepath.Join(root, "leech", "d"), 0o755)
			os.Chmod(filepath.Join(root, "whole", "d"), 0o755)
		})
		proctest.Alone(t, root, 1000, 0) // as an ordinary user, who owns the files
		return
	}
	dir := filepath.Join(root, "leech")
	whole, addr := shareFiles(t, tor, filepath.Join(root, "whole"))
	limit := rate.NewLimiter(1, 64<<10)
	d, err := tor.Start(t.Context(), &Options{Dir: dir, Peers: []netip.AddrPort{addr}, DownloadLimit: limit})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return d.Stats().PiecesVerified == 4 }, 2*time.Minute, time.Millisecond)
	require.NoError(t, os.Chmod(filepath.Join(dir, "d"), 0))
	limit.SetLimit(rate.Inf)
	require.ErrorIs(t, outcome(t, d), fs.ErrPermission)
	require.Equal(t, 1, d.Stats().StorageErrors)
	require.NoError(t, d.Close())

	require.NoError(t, os.Chmod(filepath.Join(root, "whole", "d"), 0))
	r, err := whole.Open(t.Context(), "d/0")
	require.NoError(t, err)
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(t, err, fs.ErrPermission)
	require.NoError(t, r.Close())
	require.Equal(t, tor.NumPieces(), whole.Verified().Count(), "nothing is in doubt")
	require.NoError(t, whole.Recheck(t.Context()))
	require.Equal(t, Seeding, whole.Stats().State)
}

// slowStorage takes 100 ms for each write.
type slowStorage struct{ *simStorage }

func (s slowStorage) WriteAt(p []byte, off int64) (int, error) {
	time.Sleep(100 * time.Millisecond)
	return s.simStorage.WriteAt(p, off)
}

// A context ends a download within a second, whatever waits for a slow disk.
func TestContextEndsASlowDisk(t *testing.T) {
	for _, pieceLength := range []int64{blockSize, 1 << 20, 16 << 20} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, pieceLength, 64<<20)
			seed := simpeer.New("seed", n.NewHost("90.0.0.1", 100e6, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
			require.NoError(t, seed.Arrive())
			defer seed.Stop()
			c := simClient(t, n.NewHost("80.0.0.1", 0, 0, time.Millisecond), nil)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			began := time.Now()
			d, err := content.Start(ctx, &Options{Client: c, Peers: []netip.AddrPort{seed.Addr()}, Storage: func(*Torrent) (Storage, error) {
				return slowStorage{newSimStorage(content)}, nil
			}})
			require.NoError(t, err)
			_, err = d.Wait()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NoError(t, d.Close())
			t.Logf("pieces of %d bytes: Wait and Close came back after %v", pieceLength, time.Since(began))
			require.Less(t, time.Since(began), 4*time.Second)
		})
	}
}

// A context ends a Start that waits for a disk, and the same torrent may be started again.
func TestContextEndsTheOpeningOfASlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := disktest.New()
		c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
		defer c.Close()
		slow := true
		c.hooks.openFiles = func(content storage.Content, dir string, log *slog.Logger) (storage.Store, error) {
			if slow {
				time.Sleep(time.Minute)
			}
			return disk.OpenFiles(content, dir, log)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := plainTorrent(10).Start(ctx, &Options{Client: c, Dir: "here"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		time.Sleep(2 * time.Minute)
		require.Empty(t, disk.Held(), "what was opened too late is closed")
		slow = false
		d, err := plainTorrent(10).Start(t.Context(), &Options{Client: c, Dir: "here"})
		require.NoError(t, err)
		require.NoError(t, d.Close())
	})
}

// A piece that cannot be read is fetched and written again, and if that does not help, the download ends. A disk that fails for a moment
// now and then ends none.
func TestDiskThatFailsNowAndThen(t *testing.T) {
	for _, fails := range []int32{2, 1000} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, blockSize, blockSize)
			seed := simpeer.New("seed", n.NewHost("90.0.0.1", 0, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
			require.NoError(t, seed.Arrive())
			defer seed.Stop()
			c := simClient(t, n.NewHost("80.0.0.1", 0, 0, time.Millisecond), nil)
			s := unreadableStorage{newSimStorage(content), new(atomic.Int32)}
			o := &Options{Client: c, Seed: true, Peers: []netip.AddrPort{seed.Addr()}, Storage: func(*Torrent) (Storage, error) { return s, nil }}
			d, err := content.Start(t.Context(), o)
			require.NoError(t, err)
			defer d.Close()
			_, err = d.Wait()
			require.NoError(t, err)
			for range 3 {
				r, err := d.Open(t.Context(), content.Name())
				require.NoError(t, err)
				s.fails.Store(fails)
				_, err = io.ReadFull(r, make([]byte, blockSize))
				require.NoError(t, r.Close())
				if fails > 2 {
					require.ErrorIs(t, err, syscall.EIO)
					require.Equal(t, Stopped, d.Stats().State)
					return
				}
				require.NoError(t, err)
				simnet.Sleep(24 * time.Hour)
			}
			require.Equal(t, Seeding, d.Stats().State)
			require.Equal(t, 6, d.Stats().StorageErrors)
		})
	}
}

// Where writes go to a cache at first, as on a network file system, only close tells that the disk is full. A download that finds it out
// is not complete.
func TestDiskThatIsFoundFullAtClose(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, blockSize, 2*blockSize)
		seed := simpeer.New("seed", n.NewHost("90.0.0.1", 0, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
		require.NoError(t, seed.Arrive())
		defer seed.Stop()
		c := simClient(t, n.NewHost("80.0.0.1", 0, 0, time.Millisecond), nil)
		disk := disktest.New()
		disk.Fail = func(call, name string) error {
			if call == "close" && name == filepath.FromSlash(content.layout.File(0).Path) {
				return syscall.ENOSPC
			}
			return nil
		}
		c.hooks.openFiles = disk.OpenFiles
		d, err := content.Start(t.Context(), &Options{Client: c, Seed: true, Dir: "here", Peers: []netip.AddrPort{seed.Addr()}})
		require.NoError(t, err)
		_, err = d.Wait()
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.False(t, d.Stats().Complete)
		d.Close()
	})
}

// Close does not wait until very many files have been looked at for changes.
func TestCloseWaitsForFewLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tor, content := testContent(blockSize, slices.Repeat([]int64{1}, 2000)...)
		disk := disktest.New()
		var looks atomic.Int32
		var closing atomic.Pointer[Download]
		disk.Fail = func(call, _ string) error {
			if d := closing.Load(); call == "stat" && d != nil && looks.Add(1) == 10 {
				<-d.life.ctx.Done()
			}
			return nil
		}
		c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
		defer c.Close()
		c.hooks.openFiles = disk.OpenFiles
		s, err := disk.OpenFiles(tor.content(), "here", nil)
		require.NoError(t, err)
		require.NoError(t, s.SetWanted(slices.Repeat([]bool{true}, 2000)))
		require.NoError(t, s.WriteBlocks([][]byte{content}, 0))
		require.NoError(t, s.Close())
		d, err := tor.Start(t.Context(), &Options{Client: c, Dir: "here", Seed: true})
		require.NoError(t, err)
		_, err = d.Wait()
		require.NoError(t, err)
		closing.Store(d)
		go d.Recheck(t.Context())
		synctest.Wait()
		require.NoError(t, d.Close())
		require.Less(t, looks.Load(), int32(100))
	})
}
