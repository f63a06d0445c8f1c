package main

import (
	_ "embed"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed peer.py
var libtorrentScript []byte

// network is the first three bytes of all addresses; main sets another where it can.
var network = "127.0.0"

// peerPort is where every seed listens, each at an address of its own.
const peerPort = 6881

func host(n int) string     { return fmt.Sprintf("%s.%d", network, n) }
func peerAddr(n int) string { return net.JoinHostPort(host(n), strconv.Itoa(peerPort)) }

// arena is a swarm that waits for the client under test: a torrent, its seeds, and a tracker that names them.
type arena struct {
	content string // directory that holds the content
	torrent string // path of the torrent that names the tracker
	bare    string // path of the same without a tracker, for the seeds
	peers   []string
	ideal   time.Duration // no client can be faster than this; 0 if the machine alone decides
	note    string        // about the swarm, for the table

	closers []func()
}

func (a *arena) close() {
	for _, f := range a.closers {
		f()
	}
}

// seed starts n seeds of libtorrent, or of this library where that is missing, each of at most rate bytes
// a second (0 is no limit), at the hosts from first on.
func (b *bench) seed(a *arena, first, n, rate int) error {
	var ips []string
	for i := range n {
		ips = append(ips, host(first+i))
	}
	if b.python != "" {
		return b.background(a, b.python, append([]string{b.script(), "seed", a.bare, a.content, strconv.Itoa(rate)}, ips...)...)
	}
	a.note += "; seeds are this library's"
	for i := range n {
		err := b.background(a, b.bin+"/ours", "-seed", "-dir", a.content, "-listen", peerAddr(first+i), "-upload", strconv.Itoa(rate), a.bare)
		if err != nil {
			return err
		}
	}
	return nil
}

// background starts a program that prints "ready" once it is, and ends it with the arena.
func (b *bench) background(a *arena, name string, args ...string) error {
	p, err := start(exec.Command(name, args...))
	if err != nil {
		return err
	}
	a.closers = append(a.closers, func() { p.end() })
	return p.awaitReady(2 * time.Minute)
}

// track starts a tracker that always names the same peers, and returns its URL.
func (a *arena) track() (url string, err error) {
	l, err := net.Listen("tcp", host(1)+":0")
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var compact []byte
		for _, p := range a.peers {
			addr := netip.MustParseAddrPort(p)
			compact = append(compact, addr.Addr().AsSlice()...)
			compact = append(compact, byte(addr.Port()>>8), byte(addr.Port()))
		}
		fmt.Fprintf(w, "d8:completei%de10:incompletei0e8:intervali1800e5:peers%d:%se", len(a.peers), len(compact), compact)
	})}
	go s.Serve(l)
	a.closers = append(a.closers, func() { s.Close() })
	return "http://" + l.Addr().String() + "/announce", nil
}

// out is the directory for what a client downloads, emptied for each.
func (b *bench) out() string { return filepath.Join(b.dir, "out") }
