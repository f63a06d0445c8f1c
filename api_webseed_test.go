package torrent_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/stretchr/testify/require"
)

func webBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// webTorrent makes a torrent of files in memory, with web seeds.
func webTorrent(t *testing.T, files fstest.MapFS, pieceLength int64, urls ...string) *torrent.Torrent {
	tor, err := torrent.CreateFS(t.Context(), files, &torrent.CreateOptions{PieceLength: pieceLength, WebSeeds: urls, Private: true})
	require.NoError(t, err)
	return tor
}

// A webNet is a simulated network with web servers, and a client that has no peers. What the tests count there does not depend on how
// fast this machine is.
type webNet struct {
	*simnet.Network
	host    *simnet.Host // of the client
	http    *http.Client // of the client
	servers int
}

// inWebNet runs a test in such a network.
func inWebNet(t *testing.T, f func(t *testing.T, n *webNet)) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		host := n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond)
		f(t, &webNet{Network: n, host: host, http: &http.Client{Transport: &http.Transport{DialContext: host.Dial}}})
	})
}

// listen adds a host for a web server, which sends 20 MB/s.
func (n *webNet) listen(t *testing.T) net.Listener {
	n.servers++
	l, err := n.NewHost(fmt.Sprintf("70.0.0.%d", n.servers), 20e6, 0, 10*time.Millisecond).Listen("tcp", ":80")
	require.NoError(t, err)
	return l
}

// serve adds a web server.
func (n *webNet) serve(t *testing.T, h http.Handler) (*webLog, string) {
	log, l := &webLog{next: h}, n.listen(t)
	s := &http.Server{Handler: log}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return log, "http://" + l.Addr().String()
}

// start starts a download that has only web seeds.
func (n *webNet) start(t *testing.T, tor *torrent.Torrent, o torrent.Options) *torrent.Download {
	o.Client = &torrent.Client{NoDHT: true, NoUTP: true, NoListen: true, HTTPClient: n.http}
	t.Cleanup(func() { o.Client.Close() })
	return webStart(t, tor, o)
}

// webStart starts a download that has only web seeds, and ends with the test.
func webStart(t *testing.T, tor *torrent.Torrent, o torrent.Options) *torrent.Download {
	d, err := tor.Start(t.Context(), &o)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// requireWebContent waits for a download, and requires that it is what it should be.
func requireWebContent(t *testing.T, d *torrent.Download, files fstest.MapFS) torrent.Stats {
	select {
	case <-d.Done():
	case <-time.After(2 * time.Minute):
		require.FailNow(t, "not done", "%+v", d.Stats())
	}
	got, err := d.Wait()
	require.NoError(t, err)
	defer got.Close()
	n := 0
	for f := range got.Files() {
		b, err := f.Bytes()
		require.NoError(t, err)
		want := files[f.Path()]
		require.NotNil(t, want, f.Path())
		require.True(t, bytes.Equal(want.Data, b), f.Path())
		n++
	}
	require.Equal(t, len(files), n)
	return d.Stats()
}

// A webLog records what a server was asked for.
type webLog struct {
	next http.Handler

	mu       sync.Mutex
	requests []string // path, query and range
	sent     int64
}

func (l *webLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	l.requests = append(l.requests, r.URL.RequestURI()+" "+r.Header.Get("Range"))
	l.mu.Unlock()
	l.next.ServeHTTP(&webCounter{w, l}, r)
}

type webCounter struct {
	http.ResponseWriter
	l *webLog
}

func (c *webCounter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.l.sent += int64(n)
	return n, err
}

func (c *webCounter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (l *webLog) asked() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.requests...)
}

var webOdd = fstest.MapFS{
	"dir/a b/ü?#%41&+;=.bin": {Data: webBytes(1, 3<<20+77)},
	"dir/c":                  {Data: webBytes(2, 100)},
	"dir/empty":              {},
	"dir/z":                  {Data: webBytes(3, 5<<20+1)},
}

// A directory whose files have odd names comes from a web server alone, whichever way the web seed was named.
func TestWebSeedAlone(t *testing.T) {
	for name, start := range map[string]func(t *testing.T, n *webNet, server string) *torrent.Download{
		"torrent": func(t *testing.T, n *webNet, server string) *torrent.Download {
			return n.start(t, webTorrent(t, webOdd, 64<<10, server), torrent.Options{})
		},
		"slash": func(t *testing.T, n *webNet, server string) *torrent.Download {
			return n.start(t, webTorrent(t, webOdd, 64<<10, server+"/"), torrent.Options{Dir: t.TempDir()})
		},
		"options": func(t *testing.T, n *webNet, server string) *torrent.Download {
			return n.start(t, webTorrent(t, webOdd, 16<<10), torrent.Options{WebSeeds: []string{server + "/?key=1"}})
		},
		"large pieces": func(t *testing.T, n *webNet, server string) *torrent.Download {
			return n.start(t, webTorrent(t, webOdd, 8<<20, server), torrent.Options{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWebNet(t, func(t *testing.T, n *webNet) {
				log, server := n.serve(t, http.FileServerFS(webOdd))
				s := requireWebContent(t, start(t, n, server), webOdd)
				require.GreaterOrEqual(t, s.WebSeeds[0].Downloaded, s.Length)
				require.NoError(t, s.WebSeeds[0].Err)
				require.LessOrEqual(t, s.Wasted, int64(64<<10))
				for _, r := range log.asked() {
					require.NotContains(t, r, "empty", "nothing is asked for a file of no bytes")
				}
			})
		})
	}
}

// One file comes from the URL of the file, and from that of its directory.
func TestWebSeedOneFile(t *testing.T) {
	files := fstest.MapFS{"one file.iso": {Data: webBytes(1, 20<<20+5)}}
	for _, path := range []string{"/", "", "/one%20file.iso"} {
		inWebNet(t, func(t *testing.T, n *webNet) {
			log, server := n.serve(t, http.FileServerFS(files))
			s := requireWebContent(t, n.start(t, webTorrent(t, files, 256<<10, server+path), torrent.Options{}), files)
			require.LessOrEqual(t, s.Wasted, int64(64<<10), "a stream may take over what another is about to read")
			require.Less(t, len(log.asked()), 40, "runs, not pieces")
		})
	}
}

// A server without ranges sends the file once.
func TestWebSeedWithoutRanges(t *testing.T) {
	files := fstest.MapFS{"d/a": {Data: webBytes(1, 10<<20+5)}, "d/b": {Data: webBytes(2, 12<<20)}, "d/c": {Data: webBytes(3, 1000)}}
	inWebNet(t, func(t *testing.T, n *webNet) {
		log, server := n.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Write(files[strings.TrimPrefix(r.URL.Path, "/")].Data)
		}))
		requireWebContent(t, n.start(t, webTorrent(t, files, 256<<10, server), torrent.Options{}), files)
		t.Log(log.asked())
		log.mu.Lock()
		defer log.mu.Unlock()
		require.LessOrEqual(t, log.sent, int64(22<<20+1005+4<<20), "but for what was under way when it turned out")
	})
}

// Bodies that break off are gone on with where they broke.
func TestWebSeedBreaksOff(t *testing.T) {
	files := fstest.MapFS{"f": {Data: webBytes(1, 4<<20)}}
	whole := http.FileServerFS(files)
	inWebNet(t, func(t *testing.T, n *webNet) {
		log, server := n.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			whole.ServeHTTP(&webCut{w, 100_001}, r)
		}))
		s := requireWebContent(t, n.start(t, webTorrent(t, files, 256<<10, server), torrent.Options{}), files)
		require.LessOrEqual(t, s.Wasted, int64(64<<10))
		require.Greater(t, len(log.asked()), 40)
	})
}

// webCut breaks an answer off after so many bytes.
type webCut struct {
	http.ResponseWriter
	left int
}

func (c *webCut) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// Beside one that lies and one that is busy, an honest server sends all of it, and the liar is banned.
func TestWebSeedsLieAndRefuse(t *testing.T) {
	files := fstest.MapFS{"f": {Data: webBytes(1, 8<<20)}}
	lies := fstest.MapFS{"f": {Data: webBytes(2, 8<<20)}}
	inWebNet(t, func(t *testing.T, n *webNet) {
		_, honest := n.serve(t, http.FileServerFS(files))
		_, liar := n.serve(t, http.FileServerFS(lies))
		busy, refuses := n.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "7200")
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		missing, lacks := n.serve(t, http.NotFoundHandler())
		d := n.start(t, webTorrent(t, files, 64<<10, honest), torrent.Options{WebSeeds: []string{liar, refuses, lacks, "gopher://x/", honest}})
		s := requireWebContent(t, d, files)
		require.Equal(t, torrent.WebSeedBanned, s.WebSeeds[0].State, "%+v", s.WebSeeds[0])
		require.ErrorContains(t, s.WebSeeds[0].Err, "false piece")
		require.Equal(t, torrent.WebSeedResting, s.WebSeeds[1].State)
		require.ErrorContains(t, s.WebSeeds[1].Err, "503")
		require.InDelta(t, 7200, time.Until(s.WebSeeds[1].Next).Seconds(), 60)
		require.ErrorContains(t, s.WebSeeds[2].Err, "404")
		require.Equal(t, torrent.WebSeedBanned, s.WebSeeds[3].State)
		require.ErrorContains(t, s.WebSeeds[3].Err, "neither http nor https")
		require.Len(t, s.WebSeeds, 5, "one that is named twice is one")
		require.LessOrEqual(t, len(busy.asked()), 2, "one of each request that was under way")
		require.LessOrEqual(t, len(missing.asked()), 2)
	})
}

// Where a redirect led is remembered for each file.
func TestWebSeedRedirects(t *testing.T) {
	files := fstest.MapFS{"d/a": {Data: webBytes(1, 40<<20)}, "d/b": {Data: webBytes(2, 1<<20)}}
	inWebNet(t, func(t *testing.T, n *webNet) {
		_, mirror := n.serve(t, http.FileServerFS(files))
		log, server := n.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, mirror+r.URL.Path, http.StatusFound)
		}))
		requireWebContent(t, n.start(t, webTorrent(t, files, 256<<10), torrent.Options{WebSeeds: []string{server}}), files)
		require.LessOrEqual(t, len(log.asked()), 4, "%v", log.asked())
	})
}

// Over TLS, and by HTTP/2, with an HTTPClient that knows the certificate.
func TestWebSeedTLS(t *testing.T) {
	files := fstest.MapFS{"d/a": {Data: webBytes(1, 10<<20)}}
	for k := range 200 {
		files[fmt.Sprintf("d/small/%d", k)] = &fstest.MapFile{Data: webBytes(byte(k), 1000+k)}
	}
	for _, h2 := range []bool{false, true} {
		inWebNet(t, func(t *testing.T, n *webNet) {
			var mu sync.Mutex
			protos := map[string]int{}
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				protos[r.Proto]++
				mu.Unlock()
				http.FileServerFS(files).ServeHTTP(w, r)
			}))
			server.EnableHTTP2 = h2
			conns := 0
			server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					mu.Lock()
					conns++
					mu.Unlock()
				}
			}
			server.Listener.Close()
			server.Listener = n.listen(t)
			server.StartTLS()
			defer server.Close()
			knows := server.Client().Transport.(*http.Transport)
			knows.DialContext, knows.TLSClientConfig.ServerName = n.host.Dial, "example.com"
			n.http = server.Client()
			requireWebContent(t, n.start(t, webTorrent(t, files, 32<<10, server.URL), torrent.Options{}), files)
			mu.Lock()
			defer mu.Unlock()
			require.Len(t, protos, 1)
			require.Equal(t, h2, protos["HTTP/2.0"] > 0)
			require.LessOrEqual(t, conns, 10, "connections are used again")
			t.Log(protos, conns)
		})
	}
}

// A magnet link's web seeds are used once its metadata is known.
func TestWebSeedOfMagnet(t *testing.T) {
	files := fstest.MapFS{"f": {Data: webBytes(1, 1<<20)}}
	server := httptest.NewServer(http.FileServerFS(files))
	t.Cleanup(server.Close)
	tor := webTorrent(t, files, 64<<10)
	m, err := torrent.ParseMagnet(tor.Magnet().String() + "&ws=" + url.QueryEscape(server.URL+"/f"))
	require.NoError(t, err)
	seeding := &torrent.Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0"}
	defer seeding.Close()
	s, err := tor.Start(t.Context(), &torrent.Options{Client: seeding, Seed: true}) // it has the metadata alone
	require.NoError(t, err)
	defer s.Close()
	c := &torrent.Client{NoDHT: true, NoUTP: true, NoListen: true}
	defer c.Close()
	m.Peers = []string{seeding.Addr().String()}
	got, err := m.Resolve(t.Context(), &torrent.Options{Client: c})
	require.NoError(t, err)
	require.Equal(t, []string{server.URL + "/f"}, got.WebSeeds())
	requireWebContent(t, webStart(t, got, torrent.Options{Client: c}), files)
}

// Every version comes from web servers, and a false one is found out in each.
func TestWebSeedVersions(t *testing.T) {
	other := fstest.MapFS{}
	for name, f := range webOdd {
		other[name] = &fstest.MapFile{Data: append([]byte(nil), f.Data...)}
		for i := range other[name].Data {
			other[name].Data[i] ^= 1
		}
	}
	for _, version := range []torrent.Version{torrent.V1, torrent.Hybrid, torrent.V2} {
		t.Run(version.String(), func(t *testing.T) {
			inWebNet(t, func(t *testing.T, n *webNet) {
				_, honest := n.serve(t, http.FileServerFS(webOdd))
				_, liar := n.serve(t, http.FileServerFS(other))
				tor, err := torrent.CreateFS(t.Context(), webOdd, &torrent.CreateOptions{PieceLength: 64 << 10, Version: version, WebSeeds: []string{honest}, Private: true})
				require.NoError(t, err)
				s := requireWebContent(t, n.start(t, tor, torrent.Options{WebSeeds: []string{liar}}), webOdd)
				require.Equal(t, torrent.WebSeedBanned, s.WebSeeds[0].State, "%+v", s.WebSeeds)
			})
		})
	}
}
