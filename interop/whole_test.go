//go:build linux

package interop

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// A wholeWorld is what one client may meet on another host: a seed, trackers that name it, and a DHT node.
type wholeWorld struct {
	link    *torrent.Magnet // of the content; names the trackers by name
	torrent *torrent.Torrent
	dir     string // where the content is
	seed    netip.AddrPort
	router  string // of the DHT, by name
	web     string // a web seed's URL, by name

	mu    sync.Mutex
	heard map[string][]netip.Addr // whom a tracker heard from: "http", "udp"
}

// newWholeWorld makes it on a host with two addresses, of which the first has a name.
func newWholeWorld(t *testing.T, h *host, ip, other, name string) *wholeWorld {
	t.Helper()
	w := &wholeWorld{dir: t.TempDir(), heard: map[string][]netip.Addr{}}
	router := startElsewhere(t, h, other)
	w.router = fmt.Sprintf("%s:%d", name, router.Addr().(*net.TCPAddr).Port)
	nodeAt := fmt.Sprintf("%s:%d", other, router.Addr().(*net.TCPAddr).Port)
	seeder := startElsewhere(t, h, ip, nodeAt)
	// The node with a name is the seed's own.
	w.seed = netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(seeder.Addr().(*net.TCPAddr).Port))
	w.router = fmt.Sprintf("%s:%d", name, w.seed.Port())
	require.NoError(t, router.DHT().Stats().Err)

	makeContent(t, w.dir)
	tor, err := torrent.Create(w.dir+"/"+contentName, &torrent.CreateOptions{PieceLength: pieceLength})
	require.NoError(t, err)
	d, err := tor.Start(t.Context(), &torrent.Options{Client: seeder, Dir: w.dir, Seed: true})
	require.NoError(t, err)
	<-d.Done()
	w.torrent, w.web = tor, w.serveFiles(t, h, ip, name)
	w.link = &torrent.Magnet{InfoHash: tor.InfoHash(), Trackers: []string{w.serveHTTP(t, h, ip, name), w.serveUDP(t, h, ip, name)}}
	return w
}

// startElsewhere opens a client all of whose sockets are on another host.
func startElsewhere(t *testing.T, h *host, ip string, nodes ...string) *torrent.Client {
	t.Helper()
	c := &torrent.Client{
		DHTNodes: append([]string{}, nodes...),
		Dial:     func(_ context.Context, network, addr string) (net.Conn, error) { return h.dial(network, addr) },
		ListenPacket: func(_ context.Context, network, addr string) (p net.PacketConn, err error) {
			if network != "udp4" {
				return nil, net.UnknownNetworkError(network)
			}
			_, port, _ := net.SplitHostPort(addr)
			err = h.do(func() error { p, err = net.ListenPacket(network, net.JoinHostPort(ip, port)); return err })
			return p, err
		},
	}
	require.NoError(t, c.Open()) // the listener is on this host, where nothing asks for it; its number counts
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.Serve(h.listen(t, net.JoinHostPort(ip, strconv.Itoa(c.Addr().(*net.TCPAddr).Port)))))
	require.NoError(t, c.DHT().Stats().Err)
	return c
}

func (w *wholeWorld) compact() []byte {
	return binary.BigEndian.AppendUint16(w.seed.Addr().AsSlice(), w.seed.Port())
}

func (w *wholeWorld) note(tracker string, from net.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, _ := netip.ParseAddrPort(from.String())
	w.heard[tracker] = append(w.heard[tracker], a.Addr())
}

// announces is from where a tracker was announced to.
func (w *wholeWorld) announces(tracker string) []netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]netip.Addr(nil), w.heard[tracker]...)
}

func (w *wholeWorld) serveHTTP(t *testing.T, h *host, ip, name string) (url string) {
	l := h.listen(t, ip+":0")
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		a, _ := netip.ParseAddrPort(r.RemoteAddr)
		w.note("http", net.TCPAddrFromAddrPort(a))
		fmt.Fprintf(rw, "d8:intervali1800e5:peers6:%se", w.compact())
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return fmt.Sprintf("http://%s:%d/announce", name, l.Addr().(*net.TCPAddr).Port)
}

// serveFiles is a web seed.
func (w *wholeWorld) serveFiles(t *testing.T, h *host, ip, name string) (url string) {
	l := h.listen(t, ip+":0")
	server := &http.Server{Handler: http.FileServer(http.Dir(w.dir))}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return fmt.Sprintf("http://%s:%d/", name, l.Addr().(*net.TCPAddr).Port)
}

// downloadFromWeb downloads from the web seed alone.
func (w *wholeWorld) downloadFromWeb(t *testing.T, c *torrent.Client) (took time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c.NoDHT = true
	began, dir := time.Now(), t.TempDir()
	files, err := w.torrent.DownloadAll(ctx, &torrent.Options{Client: c, Dir: dir, WebSeeds: []string{w.web}})
	require.NoError(t, err)
	require.NoError(t, files.Close())
	requireSame(t, w.dir, dir)
	return time.Since(began)
}

// serveUDP speaks BEP 15.
func (w *wholeWorld) serveUDP(t *testing.T, h *host, ip, name string) (url string) {
	c := h.listenPacket(t, ip+":0")
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			be := binary.BigEndian
			if n < 16 {
				continue
			}
			transaction := be.Uint32(b[12:])
			if be.Uint32(b[8:]) == 0 {
				c.WriteTo(be.AppendUint64(be.AppendUint32(make([]byte, 4), transaction), 7), from)
				continue
			}
			w.note("udp", from)
			answer := be.AppendUint32(be.AppendUint32(be.AppendUint32(nil, 1), transaction), 1800)
			c.WriteTo(append(append(answer, make([]byte, 8)...), w.compact()...), from)
		}
	}()
	return fmt.Sprintf("udp://%s:%d/announce", name, c.LocalAddr().(*net.UDPAddr).Port)
}

// newWholeClient is a client that may use all that there is, and logs if the test fails.
func newWholeClient(t *testing.T, w *wholeWorld) *torrent.Client {
	t.Helper()
	var log logBuffer
	c := &torrent.Client{
		DHTNodes: []string{w.router}, MapPorts: true, LocalDiscovery: true,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			t.Logf("the client logged:\n%s", tail(log.String(), 6000))
		}
	})
	return c
}

// download resolves the link and downloads what it is of.
func (w *wholeWorld) download(t *testing.T, c *torrent.Client, o torrent.Options) (took time.Duration, s torrent.Stats) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o.Client, o.Dir = c, t.TempDir()
	began := time.Now()
	tor, err := w.link.Resolve(ctx, &o)
	require.NoError(t, err)
	d, err := tor.Start(ctx, &o)
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Wait()
	require.NoError(t, err)
	requireSame(t, w.dir, o.Dir)
	return time.Since(began), d.Stats()
}
