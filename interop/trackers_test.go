//go:build linux

package interop

import (
	_ "embed"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// trackerProgram is a kind of tracker that speaks HTTP and UDP.
type trackerProgram struct {
	name     string
	programs []string
	ways     []string // in which peers can meet there
	counts   bool     // it counts the downloads that said they completed
	// start starts it at an address, for one torrent, and waits until it is ready.
	start func(t *testing.T, addr netip.AddrPort, infoHash torrent.Hash)
}

//go:embed tracker.mjs
var npmTrackerScript []byte

var trackers = []trackerProgram{
	// Debian builds opentracker for IPv4.
	{"opentracker", []string{"opentracker"}, []string{"http IPv4", "udp IPv4"}, true, func(t *testing.T, addr netip.AddrPort, infoHash torrent.Hash) {
		// Debian's serves the torrents of a list alone, from a directory that it makes its root as nobody.
		list := scratch(t, "list", []byte(infoHash.String()+"\n"))
		port := strconv.Itoa(int(addr.Port()))
		p := run(t, "opentracker", "-i", addr.Addr().String(), "-p", port, "-P", port, "-d", filepath.Dir(list), "-w", filepath.Base(list))
		awaitPort(t, p, addr)
	}},
	// It names no IPv6 peers over UDP.
	{"bittorrent-tracker (npm)", []string{"bittorrent-tracker", "node"}, []string{"http IPv4", "http IPv6", "udp IPv4"}, false, func(t *testing.T, addr netip.AddrPort, _ torrent.Hash) {
		command, err := filepath.EvalSymlinks(program(t, "bittorrent-tracker"))
		require.NoError(t, err)
		pkg := filepath.Dir(filepath.Dir(command)) // which is bin/cmd.js of it
		p := run(t, "node", scratch(t, "tracker.mjs", npmTrackerScript), pkg, strconv.Itoa(int(addr.Port())))
		p.awaitText(t, "ready")
	}},
}

// lastPort counts the ports given out to trackers.
var lastPort atomic.Int32

func newPort() uint16 { return uint16(7000 + lastPort.Add(1)) }

// awaitPort waits until a program listens.
func awaitPort(t *testing.T, p *process, addr netip.AddrPort) {
	t.Helper()
	require.Eventuallyf(t, func() bool {
		c, err := net.Dial("tcp", addr.String())
		if err == nil {
			c.Close()
		}
		return err == nil
	}, patience, 20*time.Millisecond, "%s does not listen", p.name)
}
