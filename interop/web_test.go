//go:build linux

package interop

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

const webPort = 8080

// A webServer is a program that has files for web seeds (BEP 19).
type webServer struct {
	name     string
	programs []string
	start    func(t *testing.T, dir string, addr netip.AddrPort)
	ranges   bool
}

var webServers = []webServer{
	{"nginx", []string{"nginx"}, startNginx, true},
	{"Go's http.FileServerFS", nil, startFileServer, true},
	{"python3 -m http.server", []string{"python3"}, startPythonServer, false},
}

const nginxConfig = `
daemon off; master_process off; user root; pid nginx.pid; error_log stderr;
events {}
http {
	access_log off; sendfile on;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	server { listen %v; root %s; }
}
`

func startNginx(t *testing.T, dir string, addr netip.AddrPort) {
	config := scratch(t, "nginx.conf", fmt.Appendf(nil, nginxConfig, addr, dir))
	run(t, "nginx", "-p", filepath.Dir(config), "-c", config)
}

func startPythonServer(t *testing.T, dir string, addr netip.AddrPort) {
	run(t, "python3", "-m", "http.server", "--directory", dir, "--bind", addr.Addr().String(), fmt.Sprint(addr.Port()))
}

func startFileServer(t *testing.T, dir string, addr netip.AddrPort) {
	l, err := net.Listen("tcp", addr.String())
	require.NoError(t, err)
	s := &http.Server{Handler: http.FileServer(http.Dir(dir))}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

// libtorrentCreateWeb makes a torrent with a web seed and nothing else.
const libtorrentCreateWeb = `
import os, sys, libtorrent as lt
path, out, url, version = sys.argv[1:]
files = lt.file_storage()
lt.add_files(files, path)
t = lt.create_torrent(files, 32768, lt.create_torrent.v1_only if version == "1" else 0)
t.add_url_seed(url)
lt.set_piece_hashes(t, os.path.dirname(path))
open(out, 'wb').write(lt.bencode(t.generate()))
`

var webMakers = []string{"ours", "libtorrent's", "libtorrent's, hybrid"}

// TestWebSeeds has this library and others download from web servers alone, by torrents that this library and libtorrent
// made. Others are not tried with a server that sends no ranges: libtorrent never ends there. Nor is aria2 with a hybrid: it asks
// for padding.
func TestWebSeeds(t *testing.T) {
	downloaders := append([]client{subject()}, clients[:2]...)
	var columns []string
	for _, c := range downloaders {
		for _, maker := range webMakers {
			columns = append(columns, c.name+", torrent of "+maker)
		}
	}
	tb := newTable(t, "web server", columns...)
	for _, w := range webServers {
		t.Run(w.name, func(t *testing.T) {
			need(t, append(w.programs, pythonLibtorrent, "aria2c")...)
			row := tb.row(w.name)
			dir := t.TempDir()
			makeContent(t, dir)
			addr := netip.AddrPortFrom(newAddr(t), webPort)
			w.start(t, dir, addr)
			url := fmt.Sprintf("http://%v/", addr)
			require.Eventually(t, func() bool {
				answer, err := http.Get(url)
				if err == nil {
					answer.Body.Close()
				}
				return err == nil
			}, patience, 10*time.Millisecond)

			ours, err := torrent.Create(filepath.Join(dir, contentName), &torrent.CreateOptions{PieceLength: pieceLength, WebSeeds: []string{url}})
			require.NoError(t, err)
			made := make([]string, len(webMakers))
			for k := range made {
				made[k] = filepath.Join(t.TempDir(), "made.torrent")
			}
			writeTorrent(t, made[0], ours)
			output(t, pythonLibtorrent, "-c", libtorrentCreateWeb, filepath.Join(dir, contentName), made[1], url, "1")
			output(t, pythonLibtorrent, "-c", libtorrentCreateWeb, filepath.Join(dir, contentName), made[2], url, "hybrid")
			for _, c := range downloaders {
				for k, maker := range webMakers {
					if c.name != subject().name && !w.ranges || c.name == "aria2" && k == 2 {
						continue
					}
					column := c.name + ", torrent of " + maker
					t.Run(strings.ReplaceAll(column, " ", "-"), func(t *testing.T) {
						defer row.record(t, column)
						got := t.TempDir()
						p := c.start(t, role{what: made[k], dir: got})
						p.awaitComplete(t)
						p.stop()
						requireSame(t, dir, got)
					})
				}
			}
		})
	}
}
