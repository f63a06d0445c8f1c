package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/shoal-go/torrent"
)

// scenario is a swarm, and what is measured of the clients in it.
type scenario struct {
	name    string
	title   string
	racers  []racer
	columns []column
	prepare func(b *bench) (*arena, error)
	measure func(b *bench, a *arena, r racer) result
}

const (
	mebibyte  = 1 << 20
	fullSpeed = 25_000_000 // bytes a second of a limited seed
	roundTrip = 100 * time.Millisecond
)

var scenarios = []scenario{
	{"fat", "One seed without a limit, 2 GiB, pieces of 1 MiB", all(256), raceColumns("floor"), fatSeed(mebibyte), measureLeech},
	{"small-pieces", "The same with pieces of 256 KiB", all(256), raceColumns("floor"), fatSeed(mebibyte / 4), measureLeech},
	// The floor hashes a piece once it is whole, which is not the least for pieces that no cache holds.
	{"big-pieces", "The same with pieces of 16 MiB", others, raceColumns("libtorrent"), fatSeed(16 * mebibyte), measureLeech},
	{"v2", "The same with pieces of 1 MiB, of version 2", speakV2, raceColumns("libtorrent"), fatVersion(torrent.V2), measureLeech},
	{"hybrid", "The same, a hybrid of both versions", speakV2, raceColumns("libtorrent"), fatVersion(torrent.Hybrid), measureLeech},
	{"memory", "The same with pieces of 1 MiB, kept in memory (the floor writes nothing, and keeps all or nothing)",
		[]racer{floor(256, "-nowrite"), floor(256, "-keep"), oursInMemory}, raceColumns("floor -nowrite"), fatSeed(mebibyte), measureInMemory},
	{"four", "Four seeds of 25 MB/s, 1 GiB", all(256), limitColumns, limitedSeeds(4, fullSpeed, 1024*mebibyte, mebibyte), measureLeech},
	{"far", "Four seeds of 25 MB/s behind 100 ms of round trip, 1 GiB", all(256), limitColumns, farSeeds, measureLeech},
	{"thirty", "Thirty seeds of 1 MB/s, 300 MB, pieces of 256 KiB", all(16), limitColumns, limitedSeeds(30, 1_000_000, 300_000_000, mebibyte/4), measureLeech},
	crowd(20),
	crowd(80),
	crowd(500),
	{"files", "One seed without a limit, 4,000 small files, some of them empty", all(256), raceColumns("floor"), manyFiles, measureLeech},
	{"web", "A web server alone, 300 MB in one file, pieces of 1 MiB", webClients, raceColumns("libtorrent"), webFile, measureLeech},
	{"web-files", "A web server alone, 4,000 small files, some of them empty", webClients, raceColumns("libtorrent"), webFiles, measureLeech},
	{"seed", "Seeding to one libtorrent without a limit, 2 GiB (CPU and memory of the seed)",
		[]racer{ours, anacrolix, libtorrent}, raceColumns("libtorrent"), seedless(2048 * mebibyte), measureSeed},
	{"utp", "From a seed of the same kind without a limit, 2 GiB (CPU and memory of both)",
		overUTP, raceColumns("ours by TCP"), seedless(2048 * mebibyte), measurePair(measureLeech)},
	{"utp-others", "The same, 256 MiB, by uTP alone",
		allOverUTP, raceColumns("libtorrent by uTP"), seedless(256 * mebibyte), measurePair(measureLeech)},
	{"stream", "As many bytes from memory to memory, through one connection",
		streams, raceColumns("TCP"), seedless(2048 * mebibyte), measurePair(measureInMemory)},
	{"idle", "A thousand idle torrents, seeded by one process", []racer{ours, anacrolix, libtorrent}, idleColumns, manyTorrents, measureIdle},
}

var others = []racer{ours, anacrolix, aria2, libtorrent}

// speakV2 are those that verify by the hash trees of version 2.
var speakV2 = []racer{ours, libtorrent}

// webClients are those that download from web servers alone.
var webClients = []racer{ours, aria2, libtorrent}

// all are the clients and the floor, which keeps so many requests in flight a seed.
func all(requests int) []racer { return append([]racer{floor(requests)}, others...) }

// singleFile makes a file and returns its path.
func (b *bench) singleFile(size int64) (string, error) {
	size = int64(float64(size)*b.scale)/1000*1000 + 777 // the last piece is odd
	name := fmt.Sprintf("file-%d.bin", size)
	path := filepath.Join(b.dir, "single", name)
	if _, err := os.Stat(path); err != nil {
		if err := makeFile(path, size); err != nil {
			return "", err
		}
	}
	return path, nil
}

// single is an arena for one file, with a tracker and without seeds.
func (b *bench) single(size, pieceLength int64) (*arena, error) {
	path, err := b.singleFile(size)
	if err != nil {
		return nil, err
	}
	return b.arena(path, pieceLength)
}

// arena is one for what lies at root, with a tracker and without seeds.
func (b *bench) arena(root string, pieceLength int64) (*arena, error) {
	a, announce, err := b.newArena(root)
	if err != nil {
		return nil, err
	}
	return a, makeTorrents(a.torrent, a.bare, root, announce, pieceLength)
}

// newArena is an arena whose torrents are still to be made, and the URL of its tracker.
func (b *bench) newArena(root string) (a *arena, announce string, err error) {
	base := filepath.Join(b.dir, filepath.Base(root))
	a = &arena{content: filepath.Dir(root), torrent: base + ".torrent", bare: base + ".bare.torrent"}
	announce, err = a.track()
	return a, announce, err
}

func fatSeed(pieceLength int64) func(b *bench) (*arena, error) {
	return func(b *bench) (*arena, error) {
		a, err := b.single(2048*mebibyte, pieceLength)
		if err != nil {
			return nil, err
		}
		a.peers = []string{peerAddr(2)}
		return a, b.seed(a, 2, 1, 0)
	}
}

// fatVersion is fatSeed, with pieces of 1 MiB, for a torrent of another version than the first.
func fatVersion(v torrent.Version) func(b *bench) (*arena, error) {
	return func(b *bench) (*arena, error) {
		path, err := b.singleFile(2048 * mebibyte)
		if err != nil {
			return nil, err
		}
		a, announce, err := b.newArena(path)
		if err != nil {
			return nil, err
		}
		if err := makeVersion(a.torrent, a.bare, path, announce, mebibyte, v); err != nil {
			return nil, err
		}
		a.peers = []string{peerAddr(2)}
		return a, b.seed(a, 2, 1, 0)
	}
}

func limitedSeeds(n, rate int, size, pieceLength int64) func(b *bench) (*arena, error) {
	return func(b *bench) (*arena, error) {
		a, err := b.single(size, pieceLength)
		if err != nil {
			return nil, err
		}
		for i := range n {
			a.peers = append(a.peers, peerAddr(2+i))
		}
		a.setIdeal(float64(size)*b.scale/float64(n*rate), 0)
		return a, b.seed(a, 2, n, rate)
	}
}

// crowd is of so many seeds that connect to the client themselves, all at once, each as fast as the machine.
func crowd(peers int) scenario {
	return scenario{
		name:    fmt.Sprintf("crowd-%d", peers),
		title:   fmt.Sprintf("%d seeds at once without a limit, 512 MiB, pieces of 256 KiB", peers),
		racers:  []racer{oursInCrowd(peers)},
		columns: crowdColumns,
		prepare: func(b *bench) (*arena, error) {
			path, err := b.singleFile(512 * mebibyte)
			if err != nil {
				return nil, err
			}
			a, err := b.arena(path, mebibyte/4)
			if err != nil {
				return nil, err
			}
			return a, b.background(a, b.bin+"/crowd", "-peers", strconv.Itoa(peers), path, a.bare, peerAddr(2))
		},
		measure: measureLeech,
	}
}

// farSeeds puts a relay in front of each of four seeds.
func farSeeds(b *bench) (*arena, error) {
	const n, size = 4, 1024 * mebibyte
	a, err := b.single(size, mebibyte)
	if err != nil {
		return nil, err
	}
	for i := range n {
		r := relay{to: peerAddr(2 + i), delay: roundTrip / 2, rate: fullSpeed}
		l, err := r.listen(peerAddr(12 + i))
		if err != nil {
			return nil, err
		}
		a.closers = append(a.closers, func() { l.Close() })
		a.peers = append(a.peers, peerAddr(12+i))
	}
	a.setIdeal(size*b.scale/(n*fullSpeed), roundTrip)
	return a, b.seed(a, 2, n, 0)
}

func (a *arena) setIdeal(seconds float64, more time.Duration) {
	a.ideal = time.Duration(seconds*float64(time.Second)) + more
	a.note += fmt.Sprintf("; %.2f s is ideal", a.ideal.Seconds())
}

// manyFiles makes a directory of many files and returns its path.
func (b *bench) manyFiles() (string, error) {
	root := filepath.Join(b.dir, "many", "files")
	return root, makeFiles(root, max(10, int(4000*b.scale)))
}

func manyFiles(b *bench) (*arena, error) {
	root, err := b.manyFiles()
	if err != nil {
		return nil, err
	}
	a, err := b.arena(root, 64<<10)
	if err != nil {
		return nil, err
	}
	a.peers = []string{peerAddr(2)}
	return a, b.seed(a, 2, 1, 0)
}

// seedless is for clients that are the seed themselves.
func seedless(size int64) func(b *bench) (*arena, error) {
	return func(b *bench) (*arena, error) {
		a, err := b.single(size, mebibyte)
		if err == nil {
			a.peers = []string{peerAddr(2)}
		}
		return a, err
	}
}

// manyTorrents is a thousand torrents of a small file each; they lie where idleTorrents says.
func manyTorrents(b *bench) (*arena, error) {
	a := &arena{content: filepath.Join(b.dir, "idle")}
	announce, err := a.track()
	if err != nil {
		return nil, err
	}
	for i, path := range b.idleTorrents() {
		root := filepath.Join(a.content, fmt.Sprintf("%d.bin", i))
		if err := makeFile(root, 100_000); err != nil {
			return nil, err
		}
		if err := makeTorrents(path, path+".bare", root, announce, 32<<10); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (b *bench) idleTorrents() []string {
	paths := make([]string, max(2, int(1000*b.scale)))
	for i := range paths {
		paths[i] = filepath.Join(b.dir, fmt.Sprintf("idle-%d.torrent", i))
	}
	return paths
}
