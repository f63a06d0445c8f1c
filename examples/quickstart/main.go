// Command quickstart shows a whole download with nothing but this machine. It makes some files and
// their torrent, starts a tracker and three seeds (one is slow, and one sends a corrupt block now and
// then), downloads the torrent from them, and checks every file against the original.
//
//	go run ./examples/quickstart
//
// This file has everything that a program of your own would do; the swarm is in swarm.go.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-go/torrent"
)

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "quickstart")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	swarm, err := newSwarm(ctx, dir)
	if err != nil {
		return err
	}
	defer swarm.Close()

	// A torrent is a file that says what there is to download, and who knows where.
	t, err := torrent.Read(swarm.torrent)
	if err != nil {
		return err
	}
	if err := t.PrintTree(os.Stdout); err != nil {
		return err
	}
	fmt.Printf("%d pieces of %d KiB, info hash %s\n\n", t.NumPieces(), t.PieceLength()>>10, t.InfoHash())

	// DownloadAll would do. Start and Wait are its two halves, for who wants to watch in between.
	// Without a Dir, the content stays in memory; the client keeps to this machine.
	began := time.Now()
	client := &torrent.Client{Listen: "127.0.0.1:0", NoDHT: true} // all of it happens on this machine
	defer client.Close()
	d, err := t.Start(ctx, &torrent.Options{Client: client})
	if err != nil {
		return err
	}
	sent := watch(d, began)
	files, err := d.Wait()
	if err != nil {
		return err
	}
	defer files.Close()
	took := time.Since(began)

	// Every file is a slice of bytes: no copy, and each of its pieces was checked against the torrent.
	fmt.Println()
	for f := range files.Files() {
		b, err := f.Bytes()
		if err != nil {
			return err
		}
		original, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.Path())))
		if err != nil {
			return err
		}
		if !bytes.Equal(b, original) {
			return fmt.Errorf("%s is not like the original", f.Path())
		}
		fmt.Printf("same as the original: %-24s %9d bytes\n", f.Path(), len(b))
	}

	s := d.Stats()
	fmt.Printf("\n%d bytes in %.1f s: %.1f MB/s\n", t.Length(), took.Seconds(), float64(t.Length())/took.Seconds()/1e6)
	for _, seed := range swarm.seeds {
		fmt.Printf("%9d from %s, the %s seed\n", sent[seed.addr], seed.addr, seed.kind)
	}
	if s.Banned != 1 {
		return fmt.Errorf("%d peers banned, not the one that lied", s.Banned)
	}
	fmt.Printf("%9d wasted, and one peer banned for it\n", s.Wasted)
	return nil
}

// watch follows a download until it is done. It prints how far it is, and returns how many bytes each
// peer has sent, those included that are no longer connected.
func watch(d *torrent.Download, began time.Time) (sent map[netip.AddrPort]int64) {
	sent = make(map[netip.AddrPort]int64)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	const every = 500 * time.Millisecond
	for next := every; ; {
		select {
		case <-look.C:
		case <-d.Done():
			return sent
		}
		s := d.Stats()
		for _, p := range s.Peers {
			sent[p.Addr] = p.Downloaded
		}
		if past := time.Since(began); past >= next {
			next += every
			fmt.Printf("%.1f s: %2d %% verified, %4.1f MB/s from %d peers, %d banned\n",
				past.Seconds(), 100*s.Verified/s.Wanted, s.DownloadRate/1e6, len(s.Peers), s.Banned)
		}
	}
}
