package torrent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

// Start copies its options, and Select may call any method of the download.
func TestAPIOptionsAreCopied(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	seed := s.gated(t)
	dir := t.TempDir()
	o := torrent.Options{Dir: dir, Client: local(), Peers: []netip.AddrPort{seed.addr}}
	defer o.Client.Close()
	d, err := s.Start(t.Context(), &o)
	require.NoError(t, err)
	defer d.Close()
	o.Peers[0] = netip.AddrPort{}
	o = torrent.Options{Dir: "/nowhere", MaxPeers: 1, Client: o.Client}
	d.Select(func(torrent.File) torrent.Priority {
		d.Stats()
		d.Select(torrent.Glob("z.bin"))
		return torrent.Normal
	})
	require.Equal(t, s.Length(), d.Stats().Wanted)
	seed.give()
	s.same(t, complete(t, d))
	require.FileExists(t, filepath.Join(dir, "share", "a.bin"))
}

// A value that makes no sense is as the zero value.
func TestAPIOddValues(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	addr := s.seed(t, torrent.Options{})
	client := &torrent.Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0", MaxPeers: -1}
	defer client.Close()
	mapped := netip.AddrPortFrom(netip.AddrFrom16(addr.Addr().As16()), addr.Port())
	d := s.start(t, torrent.Options{
		Client: client, MaxPeers: -1, MaxMemory: -1, StallTimeout: -1,
		Peers:  []netip.AddrPort{{}, netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("224.0.0.1:5"), mapped, mapped, addr},
		Select: func(torrent.File) torrent.Priority { return 100 },
	})
	s.same(t, complete(t, d))
	require.Equal(t, 1, d.Stats().Known)
}

// A seed needs no permission to write.
func TestAPISeedsReadOnly(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	root := filepath.Join(s.dir, "share")
	require.NoError(t, os.Chmod(root, 0o555))
	require.NoError(t, os.Chmod(s.dir, 0o555))
	t.Cleanup(func() { os.Chmod(s.dir, 0o755); os.Chmod(root, 0o755) })
	addr := s.seed(t, torrent.Options{})
	files, err := s.DownloadAll(within(t), &torrent.Options{Peers: []netip.AddrPort{addr}})
	require.NoError(t, err)
	s.same(t, files)
	require.NoError(t, files.Close())
}

func TestAPIEncryption(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	seedOf := func(p torrent.EncryptionPolicy) netip.AddrPort {
		return s.seed(t, torrent.Options{Client: &torrent.Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0", Encryption: p}})
	}
	for _, seed := range []torrent.EncryptionPolicy{torrent.PreferEncryption, torrent.RequireEncryption, torrent.DisableEncryption} {
		addr := seedOf(seed)
		for _, own := range []torrent.EncryptionPolicy{torrent.PreferEncryption, torrent.RequireEncryption, torrent.DisableEncryption} {
			t.Run(fmt.Sprint(seed, own), func(t *testing.T) {
				client := &torrent.Client{NoDHT: true, NoUTP: true, NoListen: true, Encryption: own}
				defer client.Close()
				d := s.start(t, torrent.Options{Client: client, Peers: []netip.AddrPort{addr}})
				if seed != own && seed != torrent.PreferEncryption && own != torrent.PreferEncryption {
					until(t, "it is dialled in vain", func() bool { st := d.Stats(); return st.Known == 1 && st.Dialling == 0 && len(st.Peers) == 0 })
					require.Zero(t, d.Stats().Downloaded)
					return
				}
				s.same(t, complete(t, d))
			})
		}
	}
}

// A download whose only peer is named while it runs counts on from the bytes of earlier runs, reports what is
// verified, and stops sharing when SeedUntil says so.
func TestDownloadSharesUntil(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	seed := s.seed(t, torrent.Options{})
	enough := make(chan struct{})
	d := s.start(t, torrent.Options{
		Seed: true, Uploaded: 1000, Downloaded: 2000,
		SeedUntil: func(st torrent.Stats) bool {
			require.Equal(t, torrent.Seeding, st.State)
			select {
			case <-enough:
				return true
			default:
				return false
			}
		},
	})
	until(t, "it is checked", func() bool { return d.Stats().State == torrent.Downloading })
	for _, verified := range d.Files() {
		require.Zero(t, verified)
	}
	require.Zero(t, d.Verified().Count())
	d.AddPeers(seed)
	s.same(t, complete(t, d))
	require.Equal(t, s.NumPieces(), d.Verified().Count())
	for f, verified := range d.Files() {
		require.Equal(t, f.Length, verified, f.Path)
	}
	st := d.Stats()
	require.Equal(t, torrent.Seeding, st.State)
	require.EqualValues(t, 1000, st.Uploaded)
	require.EqualValues(t, 2000+len(s.raw), st.Downloaded)
	close(enough)
	until(t, "it ends", func() bool { return d.Stats().State == torrent.Stopped })
}

func TestFilesCountVerifiedBytes(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	seed := s.gated(t)
	seed.give(s.piecesOf("share/b/c.txt")...)
	d := s.start(t, torrent.Options{})
	d.AddPeers(seed.addr)
	until(t, "a piece is verified", func() bool { return d.Verified().Count() == 1 })
	total := int64(0)
	for f, verified := range d.Files() {
		require.LessOrEqual(t, verified, f.Length)
		total += verified
	}
	require.EqualValues(t, s.PieceLength(), total, "what is verified lies in several files")
}

func TestZeroTorrentIsNotStarted(t *testing.T) {
	_, err := new(torrent.Torrent).Start(t.Context(), nil)
	require.ErrorContains(t, err, "use Read")
	_, err = new(torrent.Torrent).DownloadAll(t.Context(), nil)
	require.ErrorContains(t, err, "use Read")
	_, err = new(torrent.Torrent).Verify(t.Context(), t.TempDir())
	require.ErrorContains(t, err, "use Read")
}

// DownloadAll of a torrent without any source of peers says so at once, unless there is nothing to fetch.
func TestDownloadAllWithoutPeers(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, part{"a", 50_000})
	public := makePublicShare(t, torrent.CreateOptions{}, part{"a", 50_000})
	client := &torrent.Client{Listen: "127.0.0.1:0", NoDHT: true, NoUTP: true}
	defer client.Close()
	for name, tor := range map[string]*torrent.Torrent{"private": s.Torrent, "public": public.Torrent} {
		_, err := tor.DownloadAll(t.Context(), &torrent.Options{Client: client})
		require.ErrorIs(t, err, torrent.ErrUnsupported, name)
		require.ErrorContains(t, err, "download "+tor.Name()+": no peer to ask", name)
	}
	_, err := s.DownloadAll(t.Context(), nil)
	require.ErrorIs(t, err, torrent.ErrUnsupported, "the DHT is not asked for a private torrent")
	require.Empty(t, slices.Collect(client.Downloads()))

	files, err := s.DownloadAll(t.Context(), &torrent.Options{Client: client, Dir: s.dir})
	require.NoError(t, err, "it is all there")
	require.NoError(t, files.Close())
	_, seed := torrenttest.Seed(t, map[string]string{"other": "content"})
	for name, o := range map[string]torrent.Options{
		"a peer":     {Peers: []netip.AddrPort{seed}},
		"a tracker":  {Trackers: [][]string{{torrenttest.Tracker(t)}}},
		"a web seed": {WebSeeds: []string{"http://127.0.0.1:1/"}},
		"a function": {FindPeers: func(context.Context, torrent.Hash) iter.Seq[netip.AddrPort] {
			return func(func(netip.AddrPort) bool) {}
		}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		o.Client = client
		_, err := s.DownloadAll(ctx, &o)
		require.ErrorIs(t, err, context.DeadlineExceeded, name)
		cancel()
	}

	// Start waits for peers that are named later.
	var log bytes.Buffer
	waiting := &torrent.Client{NoListen: true, NoDHT: true, NoUTP: true, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	defer waiting.Close()
	d, err := s.Start(t.Context(), &torrent.Options{Client: waiting})
	require.NoError(t, err)
	until(t, "it waits", func() bool { return d.Stats().State == torrent.Downloading })
	select {
	case <-d.Done():
		t.Error("it ended")
	default:
	}
	require.NoError(t, d.Close())
	require.Contains(t, log.String(), "no peer to ask")
}

func TestStateAsText(t *testing.T) {
	b, err := json.Marshal([]torrent.State{torrent.Checking, torrent.Downloading, torrent.Seeding, torrent.Paused, torrent.Stopped, 9})
	require.NoError(t, err)
	require.JSONEq(t, `["checking", "downloading", "seeding", "paused", "stopped", "9"]`, string(b))
}

// beside is the files that lie beside content.
func beside(t *testing.T, dir string) (suffixes []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	for _, name := range names {
		suffixes = append(suffixes, filepath.Ext(name))
	}
	return suffixes
}

// unhashed starts a download that must find so many pieces there without hashing any.
func (s *share) unhashed(t *testing.T, o torrent.Options, pieces int) *torrent.Download {
	t.Helper()
	d := s.start(t, o)
	until(t, "it has looked", func() bool { return d.Stats().State != torrent.Checking })
	require.Equal(t, pieces, d.Stats().PiecesVerified)
	require.Zero(t, d.Stats().Checked)
	return d
}

func TestAPIKeepResume(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	peer := s.gated(t)
	peer.give()
	dir := t.TempDir()
	o := torrent.Options{Dir: dir, KeepResume: true, Peers: []netip.AddrPort{peer.addr}}
	d := s.start(t, o)
	s.same(t, complete(t, d))
	require.NoError(t, d.Close())
	require.Equal(t, []string{".resume"}, beside(t, dir))

	t.Run("hashes nothing", func(t *testing.T) {
		name := filepath.Join(dir, "."+s.InfoHash().String()+".resume")
		before, err := os.Stat(name)
		require.NoError(t, err)
		c := local()
		defer c.Close()
		d := s.unhashed(t, torrent.Options{Dir: dir, KeepResume: true, Seed: true, Client: c, Uploaded: 1 << 40, Downloaded: 1 << 41}, s.NumPieces())
		complete(t, d)
		s.same(t, complete(t, s.start(t, torrent.Options{Peers: []netip.AddrPort{addrOf(c)}})))
		until(t, "the last block is counted, too", func() bool { return d.Stats().Uploaded >= 1<<40+s.Length() })
		require.EqualValues(t, 1<<40+s.Length(), d.Stats().Uploaded)
		require.Equal(t, int64(1<<41), d.Stats().Downloaded)
		require.NoError(t, d.Close())
		after, err := os.Stat(name)
		require.NoError(t, err)
		require.True(t, os.SameFile(before, after), "nor is anything written")
	})
	for _, tt := range meddlings {
		t.Run("a file is "+tt.name, func(t *testing.T) {
			s := meddled(t)
			peer := s.gated(t)
			peer.give()
			o := torrent.Options{Dir: t.TempDir(), KeepResume: true, Peers: []netip.AddrPort{peer.addr}}
			d := s.start(t, o)
			complete(t, d)
			require.NoError(t, d.Close())
			tt.do(t, filepath.Join(o.Dir, "share", "a", "a.bin"))
			have, err := s.Verify(t.Context(), o.Dir)
			require.NoError(t, err)
			before := peer.sent.Load()
			d = s.start(t, o)
			s.same(t, complete(t, d))
			require.LessOrEqual(t, d.Stats().Checked, int64(len(s.piecesOf("share/a/a.bin")))*s.PieceLength(), "no other file is hashed")
			require.LessOrEqual(t, peer.sent.Load()-before, int64(s.NumPieces()-have.Count())*s.PieceLength())
			require.NoError(t, d.Close())
			s.onDisk(t, o.Dir)
			require.NoError(t, s.unhashed(t, o, s.NumPieces()).Close())
		})
	}
	t.Run("not kept any more", func(t *testing.T) {
		o := o
		o.KeepResume = false
		complete(t, s.unhashed(t, o, s.NumPieces()))
		require.Empty(t, beside(t, dir))
	})
}

// Content made by another program is hashed once.
func TestAPIKeepResumeOfWhatWasThere(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	o := torrent.Options{Dir: s.dir, KeepResume: true, Seed: true}
	d := s.start(t, o)
	complete(t, d)
	require.Equal(t, s.Length(), d.Stats().Checked)
	require.NoError(t, d.Close())
	require.Equal(t, []string{".resume"}, beside(t, s.dir))
	complete(t, s.unhashed(t, o, s.NumPieces()))
}

// Where nothing can be written there is no sidecar, and all else is as before.
func TestAPIKeepResumeReadOnly(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	require.NoError(t, os.Chmod(s.dir, 0o555))
	defer os.Chmod(s.dir, 0o755)
	for range 2 {
		d := s.start(t, torrent.Options{Dir: s.dir, KeepResume: true, Seed: true})
		s.same(t, complete(t, d))
		require.NoError(t, d.Close())
	}
	require.Empty(t, beside(t, s.dir))
}

// Verified pieces of files that are not chosen, or that are fetched on demand, are known to the next run, too.
func TestAPIKeepResumeOfSome(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	peer := s.gated(t)
	peer.give()
	o := torrent.Options{Dir: t.TempDir(), KeepResume: true, Seed: true, Peers: []netip.AddrPort{peer.addr}}
	o.Select = torrent.Glob("d.bin")
	d := s.start(t, o)
	require.NoError(t, complete(t, d).Close())
	pieces := d.Stats().PiecesVerified
	require.NoError(t, d.Close())
	require.Less(t, pieces, s.NumPieces())

	d = s.unhashed(t, o, pieces)
	require.NoError(t, complete(t, d).Close())
	require.NoError(t, d.Close())

	o.Select = func(torrent.File) torrent.Priority { return torrent.OnDemand }
	d = s.unhashed(t, o, pieces)
	r, err := d.Open(t.Context(), "share/a.bin")
	require.NoError(t, err)
	_, err = io.CopyN(io.Discard, r, 40_000)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.NoError(t, d.Close()) // until then, more of what was asked for may arrive
	more := d.Stats().PiecesVerified
	require.Greater(t, more, pieces)

	d = s.unhashed(t, o, more)
	r, err = d.Open(t.Context(), "share/a.bin")
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	d.Select(nil)
	files := complete(t, d)
	s.same(t, files)
	require.NoError(t, files.Close())
	require.NoError(t, d.Close())
	o.Select = nil
	complete(t, s.unhashed(t, o, s.NumPieces()))
	require.NoError(t, os.Remove(filepath.Join(o.Dir, "share", "zz")))
	complete(t, s.unhashed(t, o, s.NumPieces())) // an empty file is made again
}

// Errors in Stats, of the client, too, show their text in JSON, and are still what they were.
func TestErrorsAsJSON(t *testing.T) {
	m := new(mapStorage)
	m.failWrite = fs.ErrPermission
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	peer := s.gated(t)
	peer.give()
	c := local()
	defer c.Close()
	d := s.start(t, torrent.Options{Client: c, Peers: []netip.AddrPort{peer.addr},
		Storage: func(*torrent.Torrent) (torrent.Storage, error) { return m, nil }})
	_, err := wait(t, d)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorIs(t, d.Stats().StorageError, fs.ErrPermission)
	b, err := json.Marshal(d.Stats())
	require.NoError(t, err)
	require.Contains(t, string(b), fs.ErrPermission.Error()+`"`)
	b, err = json.Marshal(c.Stats())
	require.NoError(t, err)
	require.NotContains(t, string(b), `"Err":{}`)
	require.Contains(t, string(b), c.Stats().DHT.Err.Error())
}
