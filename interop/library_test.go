//go:build linux

package interop

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/stretchr/testify/require"
)

// library is this library, as one of the clients.
var library = client{
	name:     "this library",
	settings: []setting{{"prefer", plainly | obscured | rc4, plainly | obscured | rc4}, {"require", rc4, rc4}, {"disable", plainly, plainly}},
	start:    func(t *testing.T, r role) peer { return startLibrary(t, r) },
}

var policies = map[string]torrent.EncryptionPolicy{
	"":        torrent.PreferEncryption,
	"prefer":  torrent.PreferEncryption,
	"require": torrent.RequireEncryption,
	"disable": torrent.DisableEncryption,
}

// libraryPeer is a download of this library in the test's own process.
type libraryPeer struct {
	*torrent.Download
	client *torrent.Client
	host   netip.Addr
	line   *line // that it is on, or nil
	failed chan struct{}
}

// newClient is a Client that lives on host alone: it listens there, and calls peers and trackers from there. Its log
// is shown if the test fails.
func newClient(t *testing.T, host netip.Addr, setting string) *torrent.Client {
	t.Helper()
	var log logBuffer
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("this library at %s logged:\n%s", host, tail(log.String(), 4000))
		}
	})
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: host.AsSlice()}}
	return &torrent.Client{
		NoDHT:      true,
		NoUTP:      true,
		Listen:     netip.AddrPortFrom(host, peerPort).String(),
		Logger:     slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Encryption: policies[setting],
		Dial:       dialer.DialContext,
		ListenPacket: func(ctx context.Context, network, addr string) (net.PacketConn, error) {
			_, port, _ := net.SplitHostPort(addr)
			if network == "udp6" {
				return nil, &net.OpError{Op: "listen", Net: network, Err: syscall.EAFNOSUPPORT}
			}
			return new(net.ListenConfig).ListenPacket(ctx, network, net.JoinHostPort(host.String(), port))
		},
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}},
	}
}

// logBuffer is a bytes.Buffer for several goroutines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startLibrary starts a download, which seeds once it is complete. A magnet link is resolved first.
func startLibrary(t *testing.T, r role, peers ...netip.AddrPort) *libraryPeer {
	t.Helper()
	p := &libraryPeer{host: r.addr(t)}
	c := newClient(t, p.host, r.setting)
	c.NoUTP, c.NoTCP = !r.utp, r.utp
	if r.site != nil {
		p.line = r.site.line
		r.site.house(t, c)
	}
	if len(r.nodes) > 0 {
		c.NoDHT, c.DHTNodes = false, addrs(r.nodes)
	}
	p.start(t, c, r, peers...)
	return p
}

func (p *libraryPeer) start(t *testing.T, c *torrent.Client, r role, peers ...netip.AddrPort) {
	t.Helper()
	p.client, p.failed = c, make(chan struct{})
	t.Cleanup(func() { p.client.Close() })
	o := &torrent.Options{Dir: r.dir, Seed: true, Peers: peers, Client: p.client}

	var tor *torrent.Torrent
	var err error
	if strings.HasPrefix(r.what, "magnet:") {
		m, err := torrent.ParseMagnet(r.what)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		tor, err = m.Resolve(ctx, o)
		require.NoError(t, err)
	} else {
		tor, err = torrent.Read(r.what)
		require.NoError(t, err)
	}
	p.Download, err = tor.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(p.stop)
	go func() {
		if _, err := p.Wait(); err != nil {
			close(p.failed)
		}
	}()
}

func (p *libraryPeer) addr() netip.Addr       { return p.host }
func (p *libraryPeer) ended() <-chan struct{} { return p.failed }
func (p *libraryPeer) String() string         { return "this library" }
func (p *libraryPeer) stop()                  { p.Close() }

// awaitComplete waits for the end of the download, and ranges over what was downloaded.
func (p *libraryPeer) awaitComplete(t *testing.T) {
	t.Helper()
	for done := false; !done; {
		select {
		case <-p.Done():
			done = true
		case <-time.After(patience):
			if p.line == nil || !p.line.carries() {
				t.Fatalf("not complete within %v: %+v", patience, p.Stats())
			}
		}
	}
	got, err := p.Wait()
	require.NoError(t, err)
	for f := range got.Files() {
		b, err := f.Bytes()
		require.NoError(t, err)
		require.EqualValues(t, f.Length(), len(b), f.Path())
	}
}

// makeWithLibrary makes torrents with Create; without a tracker, if announce is empty.
func makeWithLibrary(version torrent.Version) func(t *testing.T, dir, announce string) string {
	return makeAs(torrent.CreateOptions{Version: version, PieceLength: pieceLength})
}

// makeAs is makeWithLibrary for any options.
func makeAs(o torrent.CreateOptions) func(t *testing.T, dir, announce string) string {
	return func(t *testing.T, dir, announce string) string {
		t.Helper()
		o := o
		if announce != "" {
			o.Trackers = [][]string{{announce}}
		}
		tor, err := torrent.Create(filepath.Join(dir, contentName), &o)
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "created.torrent")
		writeTorrent(t, path, tor)
		return path
	}
}
