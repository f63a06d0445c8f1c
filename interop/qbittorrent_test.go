//go:build linux

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// qbittorrent is the client that most people use, without its window. It is a libtorrent of its own settings, so it has a
// row where the settings matter, and no more. It knows no nodes of the DHT but the well-known ones, and those that a torrent names.
// It looks for the peers of a torrent once when that is added, and then not for minutes, so it has to know the nodes before.
var qbittorrent = client{
	name:     "qBittorrent",
	programs: []string{"qbittorrent-nox"},
	version:  func(t *testing.T) string { return versionIn(output(t, "qbittorrent-nox", "--version")) },
	settings: []setting{{"allowed", plainly | obscured | rc4, plainly | obscured | rc4}, {"forced", obscured | rc4, obscured | rc4}, {"disabled", plainly, plainly}},
	start:    startQbittorrent,
}

func startQbittorrent(t *testing.T, r role) peer {
	t.Helper()
	host := r.addr(t)
	profile, done := qbittorrentProfile(t, r, host)
	// It starts the hook on its own, so that its output is not the program's.
	program(t, "qbittorrent-nox")
	args := []string{"-c", `: >"$1"; tail -f "$1" & shift; exec "$@"`, "sh", done,
		"qbittorrent-nox", "--profile=" + profile, "--save-path=" + r.dir, "--skip-dialog=true", "--add-paused=false"}
	if len(r.nodes) > 0 {
		args = append(args, scratch(t, "nodes.torrent", torrentOfNodes(r.nodes)))
		s := newQbittorrentService(t, programPeer{r.run(t, "sh", args...), host, "finished"})
		s.awaitNodes(t, len(r.nodes))
		s.add(t, r.what, r.dir, r.seed)
		return s.programPeer
	}
	if r.seed {
		args = append(args, "--skip-hash-check")
	}
	return programPeer{r.run(t, "sh", append(args, r.what)...), host, "finished"}
}

// qbittorrentProfile makes a directory with its settings. It writes to the file done when a download is complete.
func qbittorrentProfile(t *testing.T, r role, host netip.Addr) (profile, done string) {
	t.Helper()
	profile = t.TempDir()
	transport := "TCP"
	if r.utp {
		transport = "UTP"
	}
	encryption := map[string]int{"": 0, "allowed": 0, "forced": 1, "disabled": 2}[r.setting]
	done = filepath.Join(profile, "done")
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
WebUI\Port=%[7]d
WebUI\AuthSubnetWhitelistEnabled=true
WebUI\AuthSubnetWhitelist=0.0.0.0/0
WebUI\CSRFProtection=false
WebUI\HostHeaderValidation=false
`, hook, peerPort, host, transport, encryption, len(r.nodes) > 0, pagePort), 0o644))
	return profile, done
}

const pagePort = 8080

// qbittorrentService is one qBittorrent for several torrents, which are added over its web interface.
type qbittorrentService struct {
	programPeer
	api string
}

func startQbittorrentService(t *testing.T) *qbittorrentService {
	t.Helper()
	host := newAddr(t)
	profile, _ := qbittorrentProfile(t, role{}, host)
	return newQbittorrentService(t, programPeer{run(t, "qbittorrent-nox", "--profile="+profile), host, ""})
}

// newQbittorrentService waits until the web interface of one that was started can be used.
func newQbittorrentService(t *testing.T, p programPeer) *qbittorrentService {
	t.Helper()
	at := netip.AddrPortFrom(p.host, pagePort)
	awaitPort(t, p.process, at)
	return &qbittorrentService{p, fmt.Sprintf("http://%s/api/v2/", at)}
}

// get reads what the web interface says to a path, as JSON. It reports whether it could.
func (s *qbittorrentService) get(path string, into any) bool {
	answer, err := http.Get(s.api + path)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return json.NewDecoder(answer.Body).Decode(into) == nil
}

// awaitNodes waits until it knows so many nodes of the DHT.
func (s *qbittorrentService) awaitNodes(t *testing.T, nodes int) {
	t.Helper()
	var info struct {
		Nodes int `json:"dht_nodes"`
	}
	require.Eventuallyf(t, func() bool { return s.get("transfer/info", &info) && info.Nodes >= nodes }, patience, 100*time.Millisecond,
		"it does not join the DHT: %v", &info)
}

// add has it download or seed what, a .torrent file or a magnet link.
func (s *qbittorrentService) add(t *testing.T, what, dir string, seed bool) {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for name, value := range map[string]string{"savepath": dir, "skip_checking": fmt.Sprint(seed), "paused": "false", "autoTMM": "false"} {
		require.NoError(t, form.WriteField(name, value))
	}
	if strings.HasPrefix(what, "magnet:") {
		require.NoError(t, form.WriteField("urls", what))
	} else {
		b, err := os.ReadFile(what)
		require.NoError(t, err)
		part, err := form.CreateFormFile("torrents", filepath.Base(what))
		require.NoError(t, err)
		_, err = part.Write(b)
		require.NoError(t, err)
	}
	require.NoError(t, form.Close())
	answer, err := http.Post(s.api+"torrents/add", form.FormDataContentType(), &body)
	require.NoError(t, err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, "Ok.", string(b), answer.Status)
}

// awaitAll waits until all that was added to dir is there.
func (s *qbittorrentService) awaitAll(t *testing.T, dir string) {
	t.Helper()
	require.Eventually(t, func() bool {
		var torrents []struct {
			SavePath string `json:"save_path"`
		}
		if !s.get("torrents/info?filter=completed", &torrents) {
			return false
		}
		for _, tor := range torrents {
			if filepath.Clean(tor.SavePath) == filepath.Clean(dir) {
				return true
			}
		}
		return false
	}, patience, 100*time.Millisecond)
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
