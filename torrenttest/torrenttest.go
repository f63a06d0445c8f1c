// Package torrenttest has seeds, trackers and peers that lie, for tests and examples of programs that download.
//
//	func TestFetch(t *testing.T) {
//		tor, seed := torrenttest.Seed(t, map[string]string{"tide/ebb.txt": "out", "tide/flood.txt": "in"})
//		files, err := tor.DownloadAll(t.Context(), &torrent.Options{Peers: []netip.AddrPort{seed}})
//		…
//	}
//
// The functions work on loopback, with real sockets. A Network does the same in memory, for tests under
// testing/synctest. Nothing of either leaves the machine, and all of it ends with the test. The torrents are private, so that a
// download looks for no other peers.
//
// An example has no testing.TB, and passes nil. What it starts then ends with the program, and a failure panics.
package torrenttest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/shoal-go/torrent"
)

// Make makes the torrent of files, given by path.
//
// The paths are those of torrent.File, if they have their first element in common, or if the only one has no slash.
// Otherwise they lie below a directory named files. The same files make the same torrent.
func Make(tb testing.TB, files map[string]string) *torrent.Torrent {
	if tb != nil {
		tb.Helper()
	}
	t, err := makeTorrent(files)
	if err != nil {
		fail(tb, err)
	}
	return t
}

// Seed makes the torrent of files, as Make does, and has a peer on loopback share it. It returns the torrent and the peer's
// address. Several calls with the same files are several seeds of the same torrent.
func Seed(tb testing.TB, files map[string]string) (*torrent.Torrent, netip.AddrPort) {
	if tb != nil {
		tb.Helper()
	}
	return seed(tb, loopback{}, files, torrent.FSStorage(inMemory(files)))
}

// Liar is Seed, but what the peer sends is false. It says that it has everything.
func Liar(tb testing.TB, files map[string]string) (*torrent.Torrent, netip.AddrPort) {
	if tb != nil {
		tb.Helper()
	}
	return seed(tb, loopback{}, files, lies)
}

// Tracker runs an HTTP tracker on loopback and returns its announce URL. It names the peers that it is given, and those that
// announce to it.
func Tracker(tb testing.TB, peers ...netip.AddrPort) (announce string) {
	if tb != nil {
		tb.Helper()
	}
	return runTracker(tb, loopback{}, peers)
}

// A place is where peers and trackers are: the loopback interface, or a Network.
type place interface {
	// join puts a client that has not been opened there, and returns the address at which it accepts peers.
	join(c *torrent.Client) (netip.AddrPort, error)
	// listen opens a listener of no peer.
	listen() (net.Listener, error)
}

type loopback struct{}

func (loopback) join(c *torrent.Client) (netip.AddrPort, error) {
	c.Listen = "127.0.0.1:0"
	c.Dial = new(net.Dialer).DialContext // and so no UDP at all
	if err := c.Open(); err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(c.Addr().String())
}

func (loopback) listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// seed shares the torrent of files from a storage.
func seed(tb testing.TB, at place, files map[string]string, storage func(*torrent.Torrent) (torrent.Storage, error)) (*torrent.Torrent, netip.AddrPort) {
	if tb != nil {
		tb.Helper()
	}
	t := Make(tb, files)
	client := &torrent.Client{NoDHT: true}
	addr, err := at.join(client)
	if err != nil {
		fail(tb, err)
	}
	if tb != nil {
		tb.Cleanup(func() { client.Close() })
	}
	d, err := t.Start(context.Background(), &torrent.Options{Client: client, Storage: storage, Seed: true})
	if err == nil {
		_, err = d.Wait()
	}
	if err != nil {
		fail(tb, err)
	}
	return t, addr
}

func makeTorrent(files map[string]string) (*torrent.Torrent, error) {
	o := torrent.CreateOptions{Private: true}
	first := make(map[string]bool)
	for path := range files {
		name, _, _ := strings.Cut(path, "/")
		first[name] = true
	}
	if len(files) == 0 {
		return nil, errors.New("torrenttest: no files")
	}
	if len(first) > 1 {
		o.Name = "files"
	}
	return torrent.CreateFS(context.Background(), inMemory(files), &o)
}

func inMemory(files map[string]string) fstest.MapFS {
	m := make(fstest.MapFS)
	for path, content := range files {
		m[path] = &fstest.MapFile{Data: []byte(content)}
	}
	return m
}

// fail ends the test, or the program of an example.
func fail(tb testing.TB, err error) {
	if tb == nil {
		panic(err)
	}
	tb.Helper()
	tb.Fatal(err)
}
