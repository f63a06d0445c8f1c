// Command metrics shares the content of torrents, and tells monitoring how that goes: /metrics is a page for Prometheus, and
// /debug/vars the same as JSON. All of it comes from Client.Stats.
//
//	go run ./examples/metrics -dir DIR [-http ADDR] [-dht HOST:PORT,…|off] [-transport tcp|utp|both] [-proxy URL] [-bind ADDR] [-map] TORRENT…
package main

import (
	"context"
	"expvar"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/internal/clientflags"
)

func main() {
	log.SetFlags(0)
	dir := flag.String("dir", ".", "the `directory` that holds the files")
	addr := flag.String("http", "127.0.0.1:9147", "the `address` of the page")
	client := new(torrent.Client)
	clientflags.Register(client)
	flag.Parse()
	if err := run(client, *dir, *addr, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(client *torrent.Client, dir, addr string, paths []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	defer client.Close()
	for _, path := range paths {
		t, err := torrent.Read(path)
		if err != nil {
			return err
		}
		if _, err := t.Start(ctx, &torrent.Options{Dir: dir, Seed: true, KeepResume: true, Client: client}); err != nil {
			return err
		}
	}
	expvar.Publish("torrent", expvar.Func(func() any { return client.Stats() }))
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) { page(w, client.Stats()) })
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("http://%s/metrics\n", l.Addr())
	context.AfterFunc(ctx, func() { l.Close() })
	if err := http.Serve(l, nil); ctx.Err() == nil {
		return err
	}
	return nil
}

// page writes what Prometheus reads: totals, which never fall, and gauges.
func page(w io.Writer, s torrent.ClientStats) {
	for _, m := range []struct {
		name, kind, help string
		value            int64
	}{
		{"torrent_downloaded_bytes_total", "counter", "Payload received.", s.Downloaded},
		{"torrent_uploaded_bytes_total", "counter", "Payload sent.", s.Uploaded},
		{"torrent_wasted_bytes_total", "counter", "Payload received in vain.", s.Wasted},
		{"torrent_downloads", "gauge", "Downloads under way, sharing ones included.", int64(s.Downloads)},
		{"torrent_resolving", "gauge", "Magnet links being resolved.", int64(len(s.Resolving))},
		{"torrent_peers", "gauge", "Connected peers.", int64(s.Peers)},
		{"torrent_dialling", "gauge", "Addresses being dialled.", int64(s.Dialling)},
		{"torrent_memory_bytes", "gauge", "Memory of unfinished pieces.", s.Memory},
		{"torrent_dht_nodes", "gauge", "Nodes in the routing tables of the DHT.", int64(s.DHT.NodesIPv4 + s.DHT.NodesIPv6)},
		{"torrent_dht_sent_bytes_total", "counter", "Packets of the DHT sent.", s.DHT.BytesSent},
		{"torrent_dht_received_bytes_total", "counter", "Packets of the DHT received.", s.DHT.BytesReceived},
		{"torrent_mapped_ports", "gauge", "Ports that routers keep open.", int64(len(s.PortMappings))},
	} {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", m.name, m.help, m.name, m.kind, m.name, m.value)
	}
}
