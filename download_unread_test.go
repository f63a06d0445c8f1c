package torrent

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/netip"

	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// seedOnDisk downloads content from a first seed to a disk, as another seed, at 80.0.0.1, that sends 1 MiB/s. The first one stays.
func seedOnDisk(t *testing.T, n *simnet.Network, disk *disktest.Disk, keepResume bool) (*simContent, *simpeer.Peer, *Download, *Downloaded) {
	content := newSimContent(1, 8*blockSize, 64*blockSize, 64*blockSize)
	first := simpeer.New("first", n.NewHost("90.0.0.1", 0, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
	require.NoError(t, first.Arrive())
	t.Cleanup(first.Stop)
	c := simClient(t, n.NewHost("80.0.0.1", 1<<20, 1<<20, time.Millisecond), nil)
	c.hooks.openFiles = disk.OpenFiles
	o := &Options{Client: c, Seed: true, Dir: "here", KeepResume: keepResume, Peers: []netip.AddrPort{first.Addr()}}
	d, err := content.own().Start(t.Context(), o)
	require.NoError(t, err)
	files, err := d.Wait()
	require.NoError(t, err)
	return content, first, d, files
}

// A seed whose disk cannot be read for a while, as a network share, has everything again once it can, whatever peers asked for meanwhile.
// Handles of the time before are of no use then.
func TestDiskThatIsBack(t *testing.T) {
	for k, away := range []time.Duration{time.Second, 5 * time.Minute, 24 * time.Hour} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			disk := disktest.New()
			var isAway, reopened, readOnly atomic.Bool
			reopened.Store(true)
			var failed atomic.Int32
			disk.Fail = func(call, _ string) error {
				switch call {
				case "stat", "fstat", "close", "unlock": // which need no disk
					return nil
				case "open":
					reopened.Store(reopened.Load() || !isAway.Load())
				case "read", "sync":
				default:
					if readOnly.Load() {
						return syscall.EROFS
					}
				}
				if isAway.Load() || call == "read" && !reopened.Load() {
					failed.Add(1)
					return syscall.EIO
				}
				return nil
			}
			content, first, d, _ := seedOnDisk(t, n, disk, k == 1)
			first.Stop()
			readOnly.Store(true)                                  // as the system may make it after errors
			for _, ip := range []string{"70.0.0.1", "70.0.0.2"} { // it may be away again soon after
				leech := simLeech(t, simClient(t, n.NewHost(ip, 0, 0, time.Millisecond), nil), content, netip.MustParseAddrPort("80.0.0.1:6881"))
				simnet.Sleep(500 * time.Millisecond)
				isAway.Store(true)
				reopened.Store(false)
				r, err := d.Open(t.Context(), content.file(1).Path)
				require.NoError(t, err)
				read := make(chan error, 1)
				go func() {
					_, err := io.ReadFull(r, make([]byte, 64*blockSize))
					read <- err
				}()
				simnet.Sleep(away)
				require.Less(t, d.Verified().Count(), content.NumPieces())
				require.Less(t, leech.Verified().Count(), content.NumPieces())
				require.Less(t, failed.Load(), int32(3000), "calls in vain")
				isAway.Store(false)
				simnet.Sleep(min(2*away, lastReread) + 15*time.Second)
				require.Equal(t, content.NumPieces(), d.Verified().Count(), away)
				require.Equal(t, Seeding, d.Stats().State)
				require.NoError(t, <-read)
				require.NoError(t, r.Close())
				require.Equal(t, content.NumPieces(), leech.Verified().Count(), away)
				require.NoError(t, leech.Close())
			}
		})
	}
}

// So has a seed whose disk is mounted again. What it had not synced is hashed again before any of it is handed out.
func TestSeedWhoseDiskIsMountedAgain(t *testing.T) {
	for k, away := range []time.Duration{time.Second, 5 * time.Minute, 24 * time.Hour} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			disk := disktest.New()
			content, first, d, files := seedOnDisk(t, n, disk, k == 1)
			first.Stop()
			leech := simLeech(t, simClient(t, n.NewHost("70.0.0.1", 0, 0, time.Millisecond), nil), content, netip.MustParseAddrPort("80.0.0.1:6881"))
			simnet.Sleep(500 * time.Millisecond)
			disk.Unmount()
			simnet.Sleep(away)
			require.Less(t, leech.Verified().Count(), content.NumPieces())
			disk.Mount(nil)
			simnet.Sleep(min(2*away, lastReread) + 15*time.Second)
			require.Equal(t, content.NumPieces(), d.Verified().Count(), away)
			require.Equal(t, Seeding, d.Stats().State)
			require.Equal(t, content.NumPieces(), leech.Verified().Count(), away)
			require.Zero(t, leech.Stats().Wasted)
			for f := range files.Files() {
				_, err := files.ReadFile(f.Path())
				require.NoError(t, err)
			}
			require.NoError(t, leech.Close())
			require.NoError(t, d.Close())
			require.NoError(t, files.Close())
		})
	}
}

// A part of a file that cannot be read at the start is fetched again. What can be read is used, and the log and Stats say what happened.
func TestBadSectorAtTheStart(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 16*blockSize, slices.Repeat([]int64{16 * blockSize}, 4)...)
		seed := simpeer.New("seed", n.NewHost("90.0.0.1", 0, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
		require.NoError(t, seed.Arrive())
		defer seed.Stop()
		disk := disktest.New()
		s, err := disk.OpenFiles(content.content(), "here", nil)
		require.NoError(t, err)
		require.NoError(t, s.SetWanted(slices.Repeat([]bool{true}, 4)))
		_, err = s.WriteAt(content.truth.Run(0, content.Size()), 0)
		require.NoError(t, err)
		require.NoError(t, s.SaveResume(bits.New(4), nil))
		require.NoError(t, s.Close())
		var written atomic.Bool
		disk.Fail = func(call, name string) error {
			if name == content.file(3).Path && call == "write" {
				written.Store(true)
			} else if name == content.file(3).Path && call == "read" && !written.Load() {
				return syscall.EIO
			}
			return nil
		}
		var log bytes.Buffer
		c := simClient(t, n.NewHost("80.0.0.1", 0, 0, time.Millisecond), nil)
		c.Logger, c.hooks.openFiles = slog.New(slog.NewTextHandler(&log, nil)), disk.OpenFiles
		d, err := content.Start(t.Context(), &Options{Client: c, Dir: "here", Peers: []netip.AddrPort{seed.Addr()}})
		require.NoError(t, err)
		_, err = d.Wait()
		require.NoError(t, err)
		st := d.Stats()
		require.NoError(t, d.Close())
		require.EqualValues(t, 16*blockSize, st.Downloaded)
		require.ErrorIs(t, st.StorageError, syscall.EIO)
		require.Contains(t, log.String(), "input/output error")
	})
}

// So is a piece of which an earlier run has written a part that cannot be read, also if that shows only once the rest is there.
func TestBadSectorOfAPartOfAPiece(t *testing.T) {
	for missing, fetched := range map[int]int64{3: 16 * blockSize, 15: 17 * blockSize} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, 16*blockSize, 16*blockSize)
			disk := disktest.New()
			s, err := disk.OpenFiles(content.content(), "here", nil)
			require.NoError(t, err)
			require.NoError(t, s.SetWanted([]bool{true}))
			part := bits.Full(16)
			part.Remove(missing)
			for k := range part.All() {
				_, err = s.WriteAt(content.truth.Run(int64(k)*blockSize, blockSize), int64(k)*blockSize)
				require.NoError(t, err)
			}
			require.NoError(t, s.SaveResume(bits.New(1), map[int]bits.Set{0: part}))
			require.NoError(t, s.Close())
			var writes atomic.Int32
			disk.Fail = func(call, name string) error {
				if call == "write" && name == content.Name() {
					writes.Add(1)
				} else if call == "read" && name == content.Name() && writes.Load() < 2 {
					return syscall.EIO
				}
				return nil
			}

			seed := simpeer.New("seed", n.NewHost("90.0.0.1", 0, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
			require.NoError(t, seed.Arrive())
			defer seed.Stop()
			c := simClient(t, n.NewHost("80.0.0.1", 0, 0, time.Millisecond), nil)
			c.hooks.openFiles = disk.OpenFiles
			d, err := content.Start(t.Context(), &Options{Client: c, Dir: "here", Peers: []netip.AddrPort{seed.Addr()}})
			require.NoError(t, err)
			_, err = d.Wait()
			require.NoError(t, err)
			require.Equal(t, fetched, d.Stats().Downloaded)
			require.NoError(t, d.Close())
		})
	}
}

// A seed that has lost a piece to a bad sector, and cannot write its sidecar because the disk is full, goes on with what it has.
func TestBadSectorOnAFullDisk(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 16*blockSize, 24*blockSize, 24*blockSize)
		first := simpeer.New("first", n.NewHost("90.0.0.1", 0, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
		require.NoError(t, first.Arrive())
		defer first.Stop()
		disk := disktest.New()
		var bad atomic.Bool
		disk.Fail = func(call, name string) error {
			switch {
			case !bad.Load():
			case call == "read" && strings.HasSuffix(name, ".edges.resume"):
				return syscall.EIO
			case call == "open" && strings.HasSuffix(name, ".tmp"):
				return syscall.ENOSPC
			}
			return nil
		}
		us := n.NewHost("80.0.0.1", 0, 0, time.Millisecond)
		c := simClient(t, us, nil)
		c.hooks.openFiles = disk.OpenFiles
		one := func(f File) Priority {
			if f.Index == 0 {
				return Normal
			}
			return Skip
		}
		d, err := content.Start(t.Context(), &Options{Client: c, Seed: true, Dir: "here", Select: one, Peers: []netip.AddrPort{first.Addr()}})
		require.NoError(t, err)
		_, err = d.Wait()
		require.NoError(t, err)
		first.Stop()
		bad.Store(true)
		leech := simLeech(t, simClient(t, n.NewHost("70.0.0.1", 0, 0, time.Millisecond), nil), content, us.Addr(6881))
		simnet.Sleep(2 * time.Minute)
		require.Equal(t, 1, leech.Verified().Count())
		require.Equal(t, 1, d.Verified().Count())
		require.False(t, d.ended())
		require.NoError(t, d.Close())
	})
}

// A seed whose disk is away fetches what it cannot read from another. That it cannot write it either is not its end.
func TestSeedThatCanNeitherReadNorWrite(t *testing.T) {
	for _, away := range []time.Duration{time.Second, 5 * time.Minute, 24 * time.Hour} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			disk := disktest.New()
			content, _, d, _ := seedOnDisk(t, n, disk, false)
			leech := simLeech(t, simClient(t, n.NewHost("70.0.0.1", 0, 1<<20, time.Millisecond), nil), content, netip.MustParseAddrPort("80.0.0.1:6881"))
			simnet.Sleep(500 * time.Millisecond)
			disk.Unmount()
			simnet.Sleep(away)
			require.NoError(t, context.Cause(d.life.ctx))
			require.NotZero(t, d.Stats().StorageErrors)
			disk.Mount(nil)
			simnet.Sleep(min(2*away, lastReread) + 15*time.Second)
			require.Equal(t, content.NumPieces(), d.Verified().Count(), away)
			require.Equal(t, Seeding, d.Stats().State)
			require.LessOrEqual(t, d.Stats().Downloaded, 2*content.Size())
			require.NoError(t, leech.Close())
			require.NoError(t, d.Close())
		})
	}
}
