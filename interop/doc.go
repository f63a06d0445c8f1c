// Package interop holds tests that move torrents between this library and the BitTorrent programs that
// other people run: libtorrent, aria2, Transmission, rtorrent and qBittorrent as peers, opentracker and the npm
// package bittorrent-tracker as trackers, libtorrent and the npm package bittorrent-dht as nodes of the DHT,
// mktorrent and transmission-create as makers of torrents, miniupnpd as a router, dante, microsocks and
// tinyproxy as proxies.
//
//	go test -v -count=1 ./interop
//
// runs them as root on Linux, and prints the tables of its README.md. Most programs refuse peers on
// 127.0.0.0/8, so the test binary starts itself again in network, mount and process namespaces of
// its own, whose loopback owns 10.77.0.1 and on, and 10.128.0.0/9 for nodes of the DHT; nothing leaves
// them, and nothing outlives the tests. A test that needs a router or a proxy runs in a process and a
// network of its own within.
//
// A test whose program is missing is skipped with a message; with REQUIRE_INTEROP=1 it fails.
package interop
