package torrent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// Everything at once, from many goroutines: nothing blocks for ever, and no read gives a wrong byte.
func TestAPIAllAtOnce(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
	addrs := []netip.AddrPort{s.seed(t, torrent.Options{}), s.seed(t, torrent.Options{})}
	before := count()
	for _, dir := range []string{"", t.TempDir()} {
		client := local()
		d, err := s.Start(t.Context(), &torrent.Options{Dir: dir, Seed: true, Client: client, Peers: addrs})
		require.NoError(t, err)
		stop := make(chan struct{})
		var busy sync.WaitGroup
		again := func(do func(n int) error) {
			busy.Go(func() {
				for n := 0; ; n++ {
					if err := do(n); err != nil {
						t.Error(err)
						return
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		again(func(n int) error {
			d.Select([]func(torrent.File) torrent.Priority{nil, torrent.Glob("*.bin"), torrent.Glob("?.*")}[n%3])
			<-time.After(50 * time.Millisecond) // nothing comes to who changes his mind at every moment
			return nil
		})
		again(func(int) error {
			st := d.Stats()
			if st.Verified > st.Wanted || st.Wanted > st.Length || st.Verified < 0 {
				return fmt.Errorf("%+v", st)
			}
			return nil
		})
		for name, want := range s.want {
			again(func(int) error {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				r, err := d.Open(ctx, name)
				if err != nil {
					return nil // not chosen just now
				}
				defer r.Close()
				b, err := io.ReadAll(r)
				if !bytes.HasPrefix(want, b) || err == nil && len(b) != len(want) {
					return fmt.Errorf("%s: wrong bytes, %v", name, err)
				}
				return nil
			})
		}
		again(func(int) error {
			for f, err := range d.Completed() {
				if err != nil {
					return err
				}
				if b, err := f.Bytes(); err == nil && !bytes.Equal(b, s.want[f.Path()]) {
					return fmt.Errorf("%s is complete and wrong", f.Path())
				}
			}
			return nil
		})
		again(func(int) error {
			select {
			case <-d.Done():
			default:
				return nil
			}
			files, err := d.Wait()
			if err != nil {
				return err
			}
			for f := range files.Files() {
				if b, err := files.ReadFile(f.Path()); err == nil && !bytes.Equal(b, s.want[f.Path()]) {
					return fmt.Errorf("%s is listed and wrong", f.Path())
				}
			}
			return nil
		})
		until(t, "a good deal is there", func() bool { return d.Stats().PiecesVerified > s.NumPieces()/2 })
		close(stop)
		busy.Wait()
		d.Select(nil)
		until(t, "all of it is there", func() bool { st := d.Stats(); return st.Complete && st.Verified == s.Length() })
		files, err := d.Wait()
		require.NoError(t, err)
		s.same(t, files)
		require.NoError(t, files.Close())
		require.NoError(t, client.Close())
	}
	settled(t, before)
}

// Start copies its options, and a choice may ask the download what it likes.
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

// Values that make no sense are as none.
func TestAPIOddValues(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	addr := s.seed(t, torrent.Options{})
	client := &torrent.Client{NoDHT: true, Listen: "127.0.0.1:0", MaxPeers: -1}
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

// A seed needs no right to write.
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
		return s.seed(t, torrent.Options{Client: &torrent.Client{NoDHT: true, Listen: "127.0.0.1:0", Encryption: p}})
	}
	for _, seed := range []torrent.EncryptionPolicy{torrent.PreferEncryption, torrent.RequireEncryption, torrent.DisableEncryption} {
		addr := seedOf(seed)
		for _, own := range []torrent.EncryptionPolicy{torrent.PreferEncryption, torrent.RequireEncryption, torrent.DisableEncryption} {
			t.Run(fmt.Sprint(seed, own), func(t *testing.T) {
				client := &torrent.Client{NoDHT: true, NoListen: true, Encryption: own}
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

func TestAPIScrape(t *testing.T) {
	t.Parallel()
	s := makePublicShare(t, torrent.CreateOptions{}, mixed...)
	h := s.InfoHash()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/scrape" && r.URL.Query().Get("info_hash") == string(h[:]) {
			fmt.Fprintf(w, "d5:filesd20:%sd8:completei5e10:downloadedi50e10:incompletei10eeee", h[:])
			return
		}
		http.Error(w, "no", http.StatusNotFound)
	}))
	defer server.Close()
	s = makePublicShare(t, torrent.CreateOptions{Trackers: [][]string{{"http://127.0.0.1:1/announce"}, {server.URL + "/announce"}}}, mixed...)
	require.Equal(t, h, s.InfoHash())
	d := s.start(t, torrent.Options{})
	got, err := d.Scrape(within(t))
	require.NoError(t, err)
	require.Equal(t, torrent.Scrape{Seeds: 5, Leechers: 10, Completed: 50}, got)

	none := makeShare(t, torrent.CreateOptions{}, mixed...)
	d = none.start(t, torrent.Options{})
	_, err = d.Scrape(within(t))
	require.Error(t, err)
}

// Hashing what a directory holds ends with the context as well.
func TestAPICancelledWhileChecking(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{PieceLength: 4 << 20}, part{"", 96 << 20})
	because := errors.New("because")
	before := count()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	d, err := s.Start(ctx, &torrent.Options{Dir: s.dir})
	require.NoError(t, err)
	until(t, "checking", func() bool { st := d.Stats(); return st.Checking || st.Complete })
	cancel(because)
	_, err = wait(t, d)
	if err != nil { // a fast machine may be done
		require.ErrorIs(t, err, because)
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, d.Close())
	settled(t, before)
}
