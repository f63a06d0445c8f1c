package torrent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/stretchr/testify/require"
)

// A tracker hears of a download that it started, completed and stopped, each once and with what is left.
func TestAPIAnnounces(t *testing.T) {
	tr := tracker(t)
	s := makeShare(t, torrent.CreateOptions{Trackers: [][]string{{tr.url}}}, mixed...)
	type heard struct {
		event, left, downloaded, numwant string
	}
	all := strconv.FormatInt(s.Length(), 10)
	txt := slices.Clone(s.piecesOf("share/b/c.txt"))
	onlyTxt := fmt.Sprint(s.pieceSize(txt[0]))
	for name, c := range map[string]struct {
		o    torrent.Options
		end  func(*torrent.Download, *torrent.Downloaded)
		want []heard
	}{
		"download": {torrent.Options{}, func(_ *torrent.Download, files *torrent.Downloaded) { files.Close() }, []heard{
			{"started", all, "0", "200"}, {"completed", "0", all, "0"}, {"stopped", "0", all, "0"},
		}},
		"and share": {torrent.Options{Seed: true}, func(d *torrent.Download, _ *torrent.Downloaded) { d.Close() }, []heard{
			{"started", all, "0", "200"}, {"completed", "0", all, "200"}, {"stopped", "0", all, "0"},
		}},
		"share what is there": {torrent.Options{Seed: true, Dir: s.dir}, func(d *torrent.Download, _ *torrent.Downloaded) { d.Close() }, []heard{
			{"started", "0", "0", "200"}, {"stopped", "0", "0", "0"},
		}},
		"a part": {torrent.Options{Seed: true, Select: torrent.Glob("c.txt")}, func(d *torrent.Download, _ *torrent.Downloaded) { d.Close() }, []heard{
			{"started", "17", "0", "200"}, {"stopped", "0", onlyTxt, "0"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			seed := s.gated(t)
			tr.mu.Lock()
			tr.said, tr.peers = nil, []netip.AddrPort{seed.addr}
			tr.mu.Unlock()
			client := local()
			c.o.Client = client
			d, err := s.Start(t.Context(), &c.o)
			require.NoError(t, err)
			until(t, "started", func() bool {
				st := d.Stats().Trackers[0]
				return !st.Announcing && !st.NextAnnounce.IsZero()
			})
			seed.give()
			files := complete(t, d)
			if c.o.Seed && len(c.want) == 3 {
				// A download that leaves before the answer says so again, as the announce may have been lost.
				until(t, "completed", func() bool { return slices.Contains(tr.events(), "completed") && !d.Stats().Trackers[0].Announcing })
			}
			c.end(d, files)
			require.NoError(t, files.Close())
			require.NoError(t, d.Close())
			var got []heard
			for i := range tr.events() {
				q := tr.heard(i)
				got = append(got, heard{q.Get("event"), q.Get("left"), q.Get("downloaded"), q.Get("numwant")})
				h := s.InfoHash()
				require.Equal(t, string(h[:]), q.Get("info_hash"))
				require.Len(t, q.Get("peer_id"), 20)
				require.Equal(t, tr.heard(0).Get("peer_id"), q.Get("peer_id"))
				require.Equal(t, tr.heard(0).Get("key"), q.Get("key"))
				require.NotEmpty(t, q.Get("key"))
				require.Equal(t, strconv.Itoa(int(addrOf(client).Port())), q.Get("port"))
				require.Equal(t, "1", q.Get("compact"))
				require.Equal(t, "0", q.Get("uploaded"))
				require.Empty(t, q.Get("ip"))
			}
			require.Equal(t, c.want, got)
			require.NoError(t, client.Close())
		})
	}
}

// A download that its context ends still announces that it stopped, and a tracker that does not answer does not
// delay the end.
func TestAPIStoppedWhenCancelled(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{Trackers: [][]string{{"http://tracker.invalid/announce"}}}, mixed...)
	synctest.Test(t, func(t *testing.T) {
		var tr announces
		client := &http.Client{Transport: roundTrips(func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			tr.ServeHTTP(w, r)
			return w.Result(), nil
		})}
		c := &torrent.Client{NoDHT: true, NoUTP: true, NoListen: true, HTTPClient: client}
		defer c.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		d, err := s.Start(ctx, &torrent.Options{Client: c})
		require.NoError(t, err)
		sleep(time.Second)
		require.Equal(t, []string{"started"}, tr.events())
		require.False(t, d.Stats().Trackers[0].Announcing, "the answer is here")
		cancel()
		_, err = d.Wait()
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, d.Close())
		require.Equal(t, []string{"started", "stopped"}, tr.events())
		require.Equal(t, strconv.FormatInt(s.Length(), 10), tr.heard(1).Get("left"))
		require.Equal(t, "0", tr.heard(1).Get("numwant"))
	})
}

// A tracker that never heard of a download does not hear that it stopped.
func TestAPINoStoppedWithoutStarted(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{Trackers: [][]string{{"http://tracker.invalid/announce"}}}, mixed...)
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		client := &http.Client{Transport: roundTrips(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			return nil, io.ErrUnexpectedEOF
		})}
		c := &torrent.Client{NoDHT: true, NoUTP: true, NoListen: true, HTTPClient: client}
		defer c.Close()
		d := s.start(t, torrent.Options{Client: c})
		sleep(time.Millisecond)
		require.ErrorIs(t, d.Stats().Trackers[0].Err, io.ErrUnexpectedEOF)
		require.NoError(t, d.Close())
		require.EqualValues(t, 1, asked.Load())
	})
}

type roundTrips func(*http.Request) (*http.Response, error)

func (f roundTrips) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Everything that goes out goes through the functions that the client was given.
func TestAPIClientHooks(t *testing.T) {
	t.Parallel()
	tr := tracker(t)
	s := makeShare(t, torrent.CreateOptions{Trackers: [][]string{{"http://tracker.invalid/announce"}}}, mixed...)
	seed := s.script(t, func(l *line) { l.offer(); l.serve() })
	fake := netip.MustParseAddrPort("192.0.2.1:1")
	tr.name(fake)
	var dialled, asked atomic.Int32
	client := &torrent.Client{
		NoDHT: true, NoUTP: true,
		NoListen: true,
		HTTPClient: &http.Client{Transport: roundTrips(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			if r.URL.Host != "tracker.invalid" {
				return nil, fmt.Errorf("asked %s", r.URL)
			}
			r = r.Clone(r.Context())
			r.URL.Host = strings.TrimSuffix(strings.TrimPrefix(tr.url, "http://"), "/announce")
			return http.DefaultTransport.RoundTrip(r)
		})},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialled.Add(1)
			if addr != fake.String() || !strings.HasPrefix(network, "tcp") {
				return nil, fmt.Errorf("dialled %s %s", network, addr)
			}
			return new(net.Dialer).DialContext(ctx, network, seed.addr.String())
		},
	}
	defer client.Close()
	d := s.start(t, torrent.Options{Client: client})
	require.Nil(t, client.Addr())
	s.same(t, complete(t, d))
	require.Positive(t, dialled.Load())
	require.Positive(t, asked.Load())
}

func TestAPIMaxPeers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ ofDownload, ofClient int }{"download": {2, 0}, "client": {0, 2}} {
		t.Run(name, func(t *testing.T) {
			s := makeShare(t, torrent.CreateOptions{PieceLength: 16 << 10}, mixed...)
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				client := clientAt(t, n.NewHost("90.0.0.1", 0, 0, time.Millisecond), &torrent.Client{MaxPeers: c.ofClient})
				o := torrent.Options{Client: client, MaxPeers: c.ofDownload}
				var open, most atomic.Int32
				for k := range 6 {
					seed := s.at(n.NewHost(fmt.Sprintf("80.%d.0.1", k), 0, 0, time.Millisecond)).script(t, func(l *line) {
						n := open.Add(1)
						defer open.Add(-1)
						for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
						}
						l.offer()
						for range 4 { // then it is another peer's turn
							piece, begin, length, err := l.request()
							if err != nil || l.answer(piece, begin, length) != nil {
								return
							}
						}
					})
					o.Peers = append(o.Peers, seed.addr)
				}
				d := s.start(t, o)
				until(t, "all of it is there", func() bool {
					require.LessOrEqual(t, len(d.Stats().Peers), 2)
					return d.Stats().Complete
				})
				s.same(t, complete(t, d))
				require.LessOrEqual(t, most.Load(), int32(3)) // one may be closed there and still closing here
			})
		})
	}
}

func TestAPIInUse(t *testing.T) {
	t.Parallel()
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	seed := s.gated(t)
	client := local()
	defer client.Close()
	dir := t.TempDir()
	o := torrent.Options{Dir: dir, Client: client, Peers: []netip.AddrPort{seed.addr}}
	d := s.start(t, o)
	_, err := s.Start(t.Context(), &o)
	require.ErrorIs(t, err, torrent.ErrInUse, "the same client")
	_, err = s.Start(t.Context(), &torrent.Options{Client: client})
	require.ErrorIs(t, err, torrent.ErrInUse, "the same client, elsewhere")
	_, err = s.Start(t.Context(), &torrent.Options{Dir: dir, Client: local()})
	require.ErrorIs(t, err, torrent.ErrInUse, "the same directory")
	require.ErrorContains(t, err, dir)
	_, err = s.Start(t.Context(), &torrent.Options{Dir: filepath.Join(dir, "..", filepath.Base(dir)), Client: local()})
	require.ErrorIs(t, err, torrent.ErrInUse, "the same directory by another name")

	// Another torrent may use the client, and so may the same one after the first download is closed.
	other := makeShare(t, torrent.CreateOptions{Name: "other"}, part{"", 10_000})
	files, err := other.DownloadAll(within(t), &torrent.Options{Dir: dir, Client: client, Peers: []netip.AddrPort{other.seed(t, torrent.Options{})}})
	require.NoError(t, err)
	require.NoError(t, files.Close())
	require.NoError(t, d.Close())
	seed.give()
	d = s.start(t, o)
	kept := complete(t, d)
	require.NoError(t, d.Close())
	again, err := s.DownloadAll(within(t), &torrent.Options{Dir: dir})
	require.NoError(t, err, "complete: any number may read it")
	s.same(t, kept)
	s.same(t, again)
	require.NoError(t, kept.Close())
	s.same(t, again)
	require.NoError(t, again.Close())
}

func TestAPIManyDownloads(t *testing.T) {
	t.Parallel()
	from, to := local(), local()
	defer to.Close()
	var shares []*share
	var addr netip.AddrPort
	for i := range 5 {
		s := makeShare(t, torrent.CreateOptions{Comment: fmt.Sprint(i), PieceLength: 16<<10 + int64(i)}, mixed...)
		addr = s.seed(t, torrent.Options{Client: from})
		shares = append(shares, s)
	}
	var all []*torrent.Download
	for i, s := range shares {
		o := torrent.Options{Client: to, Peers: []netip.AddrPort{addr}, Seed: i%2 == 0}
		if i > 2 {
			o.Dir = t.TempDir()
		}
		all = append(all, s.start(t, o))
	}
	for i, d := range all {
		s := shares[i]
		files := complete(t, d)
		s.same(t, files)
	}
	until(t, "only those that share are left", func() bool { return len(slices.Collect(to.Downloads())) == 3 })
	// One may go while the others stay.
	require.NoError(t, all[0].Close())
	require.ElementsMatch(t, []*torrent.Download{all[2], all[4]}, slices.Collect(to.Downloads()))
	files, err := shares[0].DownloadAll(within(t), &torrent.Options{Client: to, Peers: []netip.AddrPort{addr}})
	require.NoError(t, err)
	shares[0].same(t, files)
	require.NoError(t, files.Close())
	require.ElementsMatch(t, []*torrent.Download{all[2], all[4]}, slices.Collect(to.Downloads()))
}

func TestAPITorrent(t *testing.T) {
	t.Parallel()
	date := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	o := torrent.CreateOptions{
		Private: true, Trackers: [][]string{{"http://a.example/announce", "udp://b.example:1/announce"}, {"https://c.example/announce"}},
		WebSeeds: []string{"http://w.example/"}, Comment: "comment", CreatedBy: "program", CreationDate: date, PieceLength: 32 << 10,
	}
	s := makeShare(t, o, mixed...)
	var b bytes.Buffer
	n, err := s.WriteTo(&b)
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), n)
	again, err := torrent.Parse(bytes.NewReader(b.Bytes()))
	require.NoError(t, err)
	var c bytes.Buffer
	_, err = again.WriteTo(&c)
	require.NoError(t, err)
	require.Equal(t, b.Bytes(), c.Bytes())
	for _, tor := range []*torrent.Torrent{s.Torrent, again} {
		require.Equal(t, "share", tor.Name())
		require.Equal(t, s.InfoHash(), tor.InfoHash())
		require.Len(t, tor.InfoHash().String(), 40)
		require.EqualValues(t, len(s.raw), tor.Length())
		require.EqualValues(t, 32<<10, tor.PieceLength())
		require.Equal(t, (len(s.raw)+32<<10-1)/(32<<10), tor.NumPieces())
		require.True(t, tor.Private())
		require.Equal(t, o.Trackers, tor.Trackers())
		require.Equal(t, o.WebSeeds, tor.WebSeeds())
		require.Equal(t, "comment", tor.Comment())
		require.Equal(t, "program", tor.CreatedBy())
		require.True(t, date.Equal(tor.CreationDate()))
		tor.Trackers()[0][0] = "changed"
		tor.WebSeeds()[0] = "changed"
		require.Equal(t, o.Trackers, tor.Trackers(), "the caller's own copy")
		require.Equal(t, o.WebSeeds, tor.WebSeeds())
		var tree strings.Builder
		require.NoError(t, tor.PrintTree(&tree))
		for f := range tor.Files() {
			require.Contains(t, tree.String(), f.Path[strings.LastIndex(f.Path, "/")+1:])
		}
		m := tor.Magnet()
		require.Equal(t, tor.InfoHash(), m.InfoHash)
		require.Equal(t, "share", m.Name)
		require.Equal(t, []string{"http://a.example/announce", "udp://b.example:1/announce", "https://c.example/announce"}, m.Trackers)
		require.Equal(t, o.WebSeeds, m.WebSeeds)
		parsed, err := torrent.ParseMagnet(m.String())
		require.NoError(t, err)
		require.Equal(t, m, parsed)
		require.True(t, strings.HasPrefix(m.String(), "magnet:?xt=urn:btih:"+tor.InfoHash().String()))
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
