//go:build linux

package interop

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// qbittorrent is the client that most people use, without its window. It is a libtorrent of its own settings, so it has a
// row where the settings matter, and no more. It knows no nodes of the DHT but the well-known ones, and those that a torrent names.
var qbittorrent = client{
	name:     "qBittorrent",
	programs: []string{"qbittorrent-nox"},
	version:  func(t *testing.T) string { return versionIn(output(t, "qbittorrent-nox", "--version")) },
	settings: []setting{{"allowed", plainly | obscured | rc4, plainly | obscured | rc4}, {"forced", obscured | rc4, obscured | rc4}, {"disabled", plainly, plainly}},
	start:    startQbittorrent,
}

func startQbittorrent(t *testing.T, r role) peer {
	t.Helper()
	host, profile := newAddr(), t.TempDir()
	transport := "TCP"
	if r.utp {
		transport = "UTP"
	}
	encryption := map[string]int{"": 0, "allowed": 0, "forced": 1, "disabled": 2}[r.setting]
	done := filepath.Join(profile, "done")
	hook := scratch(t, "finished.sh", fmt.Appendf(nil, "#!/bin/sh\necho finished >>%s\n", done))
	require.NoError(t, os.Chmod(hook, 0o755))
	config := filepath.Join(profile, "qBittorrent", "config")
	require.NoError(t, os.MkdirAll(config, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(config, "qBittorrent.conf"), fmt.Appendf(nil, `
[LegalNotice]
Accepted=true
[AutoRun]
enabled=true
program=%s
[BitTorrent]
Session\Port=%d
Session\InterfaceAddress=%s
Session\BTProtocol=%s
Session\Encryption=%d
Session\DHTEnabled=%t
Session\LSDEnabled=false
Session\QueueingSystemEnabled=false
Session\MultiConnectionsPerIp=true
[Network]
PortForwardingEnabled=false
[Preferences]
WebUI\Address=%[3]s
WebUI\Port=8080
`, hook, peerPort, host, transport, encryption, len(r.nodes) > 0), 0o644))
	// It starts the hook on its own, so that its output is not the program's.
	program(t, "qbittorrent-nox")
	args := []string{"-c", `: >"$1"; tail -f "$1" & shift; exec "$@"`, "sh", done,
		"qbittorrent-nox", "--profile=" + profile, "--save-path=" + r.dir, "--skip-dialog=true", "--add-paused=false"}
	if r.seed {
		args = append(args, "--skip-hash-check")
	}
	if len(r.nodes) > 0 {
		args = append(args, scratch(t, "nodes.torrent", torrentOfNodes(r.nodes)))
	}
	return programPeer{run(t, "sh", append(args, r.what)...), host, "finished"}
}

// torrentOfNodes is a torrent that no peer has, which names nodes of the DHT (BEP 5).
func torrentOfNodes(nodes []netip.AddrPort) []byte {
	b := []byte("d4:infod6:lengthi1e4:name5:nodes12:piece lengthi16384e6:pieces20:of no piece whatevere5:nodesl")
	for _, node := range nodes {
		host := node.Addr().String()
		b = fmt.Appendf(b, "l%d:%si%dee", len(host), host, node.Port())
	}
	return append(b, "ee"...)
}
