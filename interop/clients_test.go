//go:build linux

package interop

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// role is what one peer is to do.
type role struct {
	what    string           // path of the torrent, or a magnet link
	dir     string           // where the content is, or goes
	seed    bool             // dir holds the content already
	setting string           // of encryption, one of the client's; "" is its default
	nodes   []netip.AddrPort // of the DHT, at which it joins; without any it stays out
	utp     bool             // peers are connected to by uTP, and by TCP only where the client cannot do without it
	site    *site            // where it is; if nil, at an address of its own of the tests' network
}

// addr is the address that the peer is to have.
func (r role) addr(t *testing.T) netip.Addr {
	t.Helper()
	if r.site != nil {
		return r.site.addr
	}
	return newAddr(t)
}

// run starts the peer's program where it is to be.
func (r role) run(t *testing.T, name string, args ...string) *process {
	t.Helper()
	if r.site == nil {
		return run(t, name, args...)
	}
	p := r.site.run(t, name, args...)
	p.name, p.line = name, r.site.line
	return p
}

// peer is a client at work.
type peer interface {
	fmt.Stringer
	addr() netip.Addr
	ended() <-chan struct{} // closed when it ended by itself or was stopped
	awaitComplete(t *testing.T)
	stop()
}

// client is a kind of peer. It accepts peers on port 6881 of an address of its own, speaks to the
// torrent's tracker alone (no local discovery, uTP and the DHT only where told), and seeds what it has until stopped.
type client struct {
	name     string
	programs []string
	version  func(t *testing.T) string
	settings []setting // of encryption; the first is the default
	start    func(t *testing.T, r role) peer

	// misreadsPeers is set if it cannot read the peers that nodes of the DHT name: rtorrent 0.9.8 takes the length
	// before the first address for a part of it, and calls 54.58.x.y.
	misreadsPeers bool
}

// setting is one of a client's settings of encryption, by the client's name for it, and the ways in which the
// client then connects.
type setting struct {
	name  string
	dials ways // that it tries when it dials
	takes ways // that it accepts
}

// ways are the kinds of connections of Message Stream Encryption.
type ways uint8

const (
	plainly  ways = 1 << iota // without it
	obscured                  // its handshake, then plaintext
	rc4                       // its handshake, then RC4
)

const peerPort = 6881

var libtorrent = client{
	name:     "libtorrent",
	programs: []string{pythonLibtorrent},
	version: func(t *testing.T) string {
		return versionIn(output(t, pythonLibtorrent, "-c", "import libtorrent; print(libtorrent.__version__)"))
	},
	settings: []setting{{"enabled", plainly | obscured | rc4, plainly | obscured | rc4}, {"forced", rc4, rc4}, {"forced-plaintext", obscured, obscured}, {"disabled", plainly, plainly}},
	start:    func(t *testing.T, r role) peer { return startLibtorrent(t, r) },
}

// clients are those that the tables have a row for.
var clients = []client{
	libtorrent,
	{
		name:     "aria2",
		programs: []string{"aria2c"},
		version:  func(t *testing.T) string { return versionIn(output(t, "aria2c", "--version")) },
		settings: []setting{{"default", plainly | obscured | rc4, plainly | obscured | rc4}, {"required", obscured | rc4, obscured | rc4}, {"required-arc4", rc4, rc4}},
		start:    startAria2,
	},
	{
		name:     "Transmission",
		programs: []string{"transmission-cli"},
		version:  func(t *testing.T) string { return versionIn(output(t, "transmission-create", "--version")) },
		settings: []setting{{"preferred", plainly | rc4, plainly | rc4}, {"tolerated", plainly, plainly | rc4}, {"required", rc4, rc4}},
		start:    startTransmission,
	},
	{
		name:     "rtorrent",
		programs: []string{"rtorrent"},
		version:  func(t *testing.T) string { return versionIn(output(t, "rtorrent", "-h")) },
		settings: []setting{{"allowed", plainly | obscured | rc4, plainly | obscured | rc4}, {"required", obscured | rc4, obscured | rc4}, {"required-rc4", rc4, rc4}, {"none", plainly, plainly}},
		start:    startRtorrent,

		misreadsPeers: true,
	},
}

// overUTP is the client as one that is told to use uTP.
func overUTP(c client) client {
	start := c.start
	c.start = func(t *testing.T, r role) peer {
		r.utp = true
		return start(t, r)
	}
	return c
}

// versionIn is the first thing in s that looks like a version.
func versionIn(s string) string { return regexp.MustCompile(`\d+(\.\d+)+`).FindString(s) }

var trackerAddr = netip.MustParseAddr("10.77.0.1")

// freeHosts are the addresses that no peer has, as the last byte. 10.77.0.1 is the trackers'.
var freeHosts = make(chan byte, hosts)

func init() {
	for i := 2; i <= hosts; i++ {
		freeHosts <- byte(i)
	}
}

// newAddr is an address that no other peer has until the test has ended.
func newAddr(t *testing.T) netip.Addr {
	t.Helper()
	select {
	case n := <-freeHosts:
		t.Cleanup(func() { freeHosts <- n })
		return netip.AddrFrom4([4]byte{10, 77, 0, n})
	default:
		t.Fatal("all addresses are taken")
		panic("not reached")
	}
}

// programPeer is a peer that is a program.
type programPeer struct {
	*process
	host     netip.Addr
	complete string // printed when a download is complete
}

func (p programPeer) addr() netip.Addr           { return p.host }
func (p programPeer) ended() <-chan struct{}     { return p.done }
func (p programPeer) awaitComplete(t *testing.T) { t.Helper(); p.awaitText(t, p.complete) }
func (p programPeer) String() string             { return p.name }

// startLibtorrent starts a libtorrent peer. extra are more arguments for the script.
func startLibtorrent(t *testing.T, r role, extra ...string) programPeer {
	t.Helper()
	host := r.addr(t)
	args := []string{scratch(t, "peer.py", libtorrentScript), r.what, r.dir, host.String()}
	if r.setting != "" {
		args = append(args, "--enc", r.setting)
	}
	if r.seed {
		args = append(args, "--seed")
	}
	if r.utp {
		args = append(args, "--transport", "utp")
	}
	for _, node := range r.nodes {
		args = append(args, "--node", node.String())
	}
	return programPeer{r.run(t, pythonLibtorrent, append(args, extra...)...), host, "seeding"}
}

func startAria2(t *testing.T, r role) peer {
	t.Helper()
	host := r.addr(t)
	args := []string{
		"--no-conf", fmt.Sprintf("--enable-dht=%t", len(r.nodes) > 0), "--enable-dht6=false", "--bt-enable-lpd=false", "--disable-ipv6",
		"--interface=" + host.String(), fmt.Sprintf("--listen-port=%d", peerPort),
		"--file-allocation=none", "--disk-cache=0", "--seed-ratio=0", "--summary-interval=0", "--console-log-level=notice",
		"--check-integrity=true", "--dir=" + r.dir, "--on-bt-download-complete=" + finishedHook(t),
	}
	if len(r.nodes) > 0 {
		args = append(args, "--dht-entry-point="+r.nodes[0].String(), fmt.Sprintf("--dht-listen-port=%d", peerPort), "--dht-file-path="+filepath.Join(t.TempDir(), "dht.dat"))
	}
	switch r.setting {
	case "required":
		args = append(args, "--bt-require-crypto=true", "--bt-min-crypto-level=plain")
	case "required-arc4":
		args = append(args, "--bt-force-encryption=true")
	}
	return programPeer{r.run(t, "aria2c", append(args, r.what)...), host, "finished"}
}

// finishedHook is a script for a program that starts one when a download is complete, but does not say
// so itself in time. It prints "finished" where the program prints.
func finishedHook(t *testing.T) string {
	t.Helper()
	path := scratch(t, "finished.sh", []byte("#!/bin/sh\necho finished >/proc/$PPID/fd/1\n"))
	require.NoError(t, os.Chmod(path, 0o755))
	return path
}

func startTransmission(t *testing.T, r role) peer {
	t.Helper()
	host := r.addr(t)
	settings, err := json.Marshal(map[string]any{
		"bind-address-ipv4": host.String(), "peer-port": peerPort, "port-forwarding-enabled": false,
		"dht-enabled": len(r.nodes) > 0, "lpd-enabled": false, "utp-enabled": r.utp, "pex-enabled": true,
		"cache-size-mb": 0, "ratio-limit-enabled": false, "speed-limit-up-enabled": false, "speed-limit-down-enabled": false,
	})
	require.NoError(t, err)
	config := scratch(t, "settings.json", settings)
	var bootstrap strings.Builder
	for _, node := range r.nodes {
		fmt.Fprintln(&bootstrap, node.Addr(), node.Port())
	}
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(config), "dht.bootstrap"), []byte(bootstrap.String()), 0o644))
	args := []string{"--config-dir", filepath.Dir(config), "--download-dir", r.dir, "--port", fmt.Sprint(peerPort), "--no-portmap"}
	switch r.setting {
	case "tolerated":
		args = append(args, "--encryption-tolerated")
	case "required":
		args = append(args, "--encryption-required")
	default:
		args = append(args, "--encryption-preferred")
	}
	// It verifies what is there of a torrent that is new to it. It ends, as if it had been stopped, if it checks
	// its own state between that and its start. Then it is started again. It may have announced itself all the
	// same: only once it says that it seeds will it stay.
	program(t, "transmission-cli")
	args = append([]string{"-c", `while stdbuf -o0 "$@"; do :; done`, "sh", "transmission-cli"}, append(args, r.what)...)
	p := r.run(t, "sh", args...)
	if r.seed {
		p.awaitText(t, "Seeding")
	}
	return programPeer{p, host, `State changed from "Incomplete" to "Complete"`}
}

func startRtorrent(t *testing.T, r role) peer {
	t.Helper()
	host := r.addr(t)
	encryption := map[string]string{
		"":             "allow_incoming,try_outgoing,enable_retry",
		"allowed":      "allow_incoming,try_outgoing,enable_retry",
		"required":     "allow_incoming,try_outgoing,require",
		"required-rc4": "allow_incoming,try_outgoing,require,require_RC4",
		"none":         "none",
	}[r.setting]
	dht := "dht.mode.set = disable"
	if len(r.nodes) > 0 {
		dht = fmt.Sprintf("dht.mode.set = on\ndht.port.set = %d\n", peerPort)
		for i, node := range r.nodes {
			dht += fmt.Sprintf("schedule2 = node%d, 0, 0, ((dht.add_node, \"%s\"))\n", i, node)
		}
	}
	config := scratch(t, "rtorrent.rc", fmt.Appendf(nil, `
system.daemon.set = true
network.bind_address.set = %s
network.port_range.set = %d-%[2]d
network.port_random.set = no
directory.default.set = %s
session.path.set = %s
%s
trackers.use_udp.set = yes
protocol.pex.set = yes
protocol.encryption.set = %s
method.set_key = event.download.finished, said, "execute.nothrow=%s"
load.start = "%s"
`, host, peerPort, r.dir, t.TempDir(), dht, encryption, finishedHook(t), r.what))
	return programPeer{r.run(t, "rtorrent", "-n", "-o", "import="+config), host, "finished"}
}
