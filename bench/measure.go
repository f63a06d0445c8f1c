package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// result is what one run of one client came to.
type result struct {
	failed string // why there are no figures; empty if there are
	wall   time.Duration
	cpu    time.Duration
	memory float64 // bytes, anonymous: at its peak, or of one idle torrent
	ideal  time.Duration

	goroutines float64 // of one idle torrent; 0 is not known
	wasted     float64 // bytes that came beyond the content, as far as the client says
}

func failure(err error) result {
	return result{failed: strings.ReplaceAll(err.Error(), "\n", " ")}
}

const (
	patience = 90 * time.Second // for a download, beside six times the ideal
	idling   = 10 * time.Second // how long idle torrents are watched
)

// measureLeech lets a client download, and compares what it wrote.
func measureLeech(b *bench, a *arena, r racer) result {
	res := measureInMemory(b, a, r)
	if res.failed != "" {
		return res
	}
	if err := a.compare(b.out()); err != nil {
		return failure(err)
	}
	return res
}

// measureInMemory lets a client download that writes nothing.
func measureInMemory(b *bench, a *arena, r racer) result {
	out := b.out()
	if err := errors.Join(os.RemoveAll(out), os.Mkdir(out, 0o755)); err != nil {
		return failure(err)
	}
	cmd := r.leech(b, a, out)
	cmd.Dir = out
	p, err := start(cmd)
	if err != nil {
		return failure(err)
	}
	if err := p.await(patience + 6*a.ideal); err != nil {
		return failure(err)
	}
	return result{wall: p.wall, cpu: p.cpu(), memory: float64(p.peakMemory()), ideal: a.ideal, wasted: float64(p.value("wasted"))}
}

// compare reports whether out holds what the torrent is of: the name that the torrent has too.
func (a *arena) compare(out string) error {
	return compare(filepath.Join(a.content, a.name()), filepath.Join(out, a.name()))
}

func (a *arena) name() string { return strings.TrimSuffix(filepath.Base(a.torrent), ".torrent") }

// measurePair lets a client download from a seed of the same kind. CPU and memory are those of both.
func measurePair(leech func(*bench, *arena, racer) result) func(*bench, *arena, racer) result {
	return func(b *bench, a *arena, r racer) result {
		res, seed := besideSeed(b, a, r, func() result { return leech(b, a, r) })
		res.cpu += seed.cpu
		res.memory += seed.memory
		return res
	}
}

// measureSeed lets libtorrent download from a client.
func measureSeed(b *bench, a *arena, r racer) result {
	if !libtorrent.usable(b) {
		return failure(errors.New("libtorrent is not installed"))
	}
	leech, seed := besideSeed(b, a, r, func() result { return measureLeech(b, a, libtorrent) })
	if leech.failed != "" {
		return leech
	}
	return result{wall: leech.wall, cpu: seed.cpu, memory: seed.memory}
}

// besideSeed has a client seed while run is measured, and returns its result, and the CPU and memory of the seed.
func besideSeed(b *bench, a *arena, r racer, run func() result) (res, cost result) {
	seed, err := start(r.seed(b, a, 2))
	if err != nil {
		return failure(err), cost
	}
	defer seed.end()
	if err := seed.awaitReady(patience); err != nil {
		return failure(err), cost
	}
	before := cpuSoFar(seed.cmd.Process.Pid)
	res = run()
	return res, result{cpu: cpuSoFar(seed.cmd.Process.Pid) - before, memory: float64(seed.peakMemory())}
}

// measureIdle measures what a torrent costs that a client seeds to no peer.
func measureIdle(b *bench, a *arena, r racer) result {
	torrents := b.idleTorrents()
	one, err := measureIdling(r, b, a, torrents[:1])
	if err != nil {
		return failure(err)
	}
	all, err := measureIdling(r, b, a, torrents)
	if err != nil {
		return failure(err)
	}
	n := float64(len(torrents) - 1)
	return result{wall: all.wall, cpu: all.cpu, memory: (all.memory - one.memory) / n, goroutines: (all.goroutines - one.goroutines) / n}
}

// measureIdling gives the memory and goroutines of the whole process, the time that it took to get
// ready, and its CPU time while it was idle.
func measureIdling(r racer, b *bench, a *arena, torrents []string) (result, error) {
	p, err := start(r.idle(b, a, 2, torrents))
	if err != nil {
		return result{}, err
	}
	defer p.end()
	if err := p.awaitReady(patience); err != nil {
		return result{}, err
	}
	ready := time.Since(p.began)
	before := cpuSoFar(p.cmd.Process.Pid)
	time.Sleep(idling)
	return result{
		wall: ready, cpu: cpuSoFar(p.cmd.Process.Pid) - before,
		memory: float64(anonymous(p.cmd.Process.Pid)), goroutines: float64(p.value("goroutines")),
	}, nil
}
