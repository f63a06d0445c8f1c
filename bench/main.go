// Command bench races this library against other BitTorrent clients over swarms that it builds on this
// machine, and prints what it measured as Markdown.
//
//	go run -C bench . [-rounds N] [-size F] [-only CLIENT,...] [-dir DIR] [SCENARIO...]
//	go run -C bench . -chart README.md >bench/chart.svg
//
// Each client downloads (or seeds) as a process of its own: ours, github.com/anacrolix/torrent, aria2 and
// libtorrent (through Python) where these are installed, and the floor, the least that any Go program can
// do for the same bytes. The clients take turns, round after round, and the table gives their medians:
// wall time, CPU time of the process (user and system, as getrusage tells), and its peak of anonymous
// memory, sampled. What a client wrote is compared with the content, byte by byte.
//
// As root on Linux the swarm lives in a network namespace of its own, else on addresses of 127.0.0.0/8.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	log.SetFlags(0)
	b := &bench{}
	flag.IntVar(&b.rounds, "rounds", 5, "how often each client runs a scenario")
	flag.Float64Var(&b.scale, "size", 1, "factor on the size of the content")
	only := flag.String("only", "", "comma-separated clients to race (default all)")
	dir := flag.String("dir", os.TempDir(), "directory for the content and what is downloaded, a few times 2 GiB at full size")
	figures := flag.String("chart", "", "race nothing, but draw the tables of this Markdown `file` as SVG on standard output")
	flag.Usage = usage
	flag.Parse()
	if *figures != "" {
		if err := chart(os.Stdout, *figures); err != nil {
			log.Fatal(err)
		}
		return
	}

	enterNamespace()
	if *only != "" {
		b.only = strings.Split(*only, ",")
	}
	if err := b.run(*dir, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: go run -C bench . [flag...] [SCENARIO...]\n\nscenarios, all of them unless named:")
	for _, s := range scenarios {
		fmt.Fprintf(os.Stderr, "  %-12s %s\n", s.name, s.title)
	}
	fmt.Fprintln(os.Stderr, "\nflags:")
	flag.PrintDefaults()
}

// bench is one run of the command.
type bench struct {
	rounds int
	scale  float64
	only   []string
	dir    string // everything that is made lies here, and goes with it
	bin    string // the programs of this module
	python string // a Python that has libtorrent, or empty
}

func (b *bench) run(dir string, names []string) (err error) {
	if b.rounds < 1 || b.scale <= 0 {
		return errors.New("-rounds and -size are to be more than zero")
	}
	for _, name := range b.only {
		if !slices.ContainsFunc(scenarios, func(s scenario) bool { return slices.ContainsFunc(s.racers, func(r racer) bool { return r.is(name) }) }) {
			return fmt.Errorf("no client %q", name)
		}
	}
	chosen := scenarios
	if len(names) > 0 {
		chosen = nil
		for _, name := range names {
			i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
			if i < 0 {
				return fmt.Errorf("no scenario %q; see -help", name)
			}
			chosen = append(chosen, scenarios[i])
		}
	}
	if b.dir, err = os.MkdirTemp(dir, "torrent-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.bin = filepath.Join(b.dir, "bin")
	build := exec.Command("go", "build", "-o", b.bin+string(filepath.Separator), "./...")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the clients: %w (run this command in its directory)", err)
	}
	for _, p := range []string{"python3", "/usr/bin/python3"} {
		cmd := exec.Command(p, "-c", "import libtorrent")
		cmd.Dir = b.dir
		if b.python == "" && cmd.Run() == nil {
			b.python = p
		}
	}
	if err := os.WriteFile(b.script(), libtorrentScript, 0o644); err != nil {
		return err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		endAll()
		for range 100 {
			if os.RemoveAll(b.dir) == nil { // else something was being made there
				break
			}
		}
		os.Exit(1)
	}()
	fmt.Printf("%s; medians of %d rounds", machine(), b.rounds)
	if b.scale != 1 {
		fmt.Printf("; %g of the sizes said", b.scale)
	}
	fmt.Println()
	for _, s := range chosen {
		if err := b.race(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (b *bench) script() string { return filepath.Join(b.dir, "peer.py") }

// racers are the clients that take part in a scenario and can run here.
func (b *bench) racers(s scenario) (rs []racer) {
	for _, r := range s.racers {
		if len(b.only) > 0 && !slices.ContainsFunc(b.only, r.is) {
			continue
		}
		if r.usable == nil || r.usable(b) {
			rs = append(rs, r)
		}
	}
	return rs
}

// race lets the clients take turns at a scenario, and prints its table.
func (b *bench) race(s scenario) error {
	racers := b.racers(s)
	if len(racers) == 0 {
		log.Printf("%s: none of its clients was asked for, or can run here", s.name)
		return nil
	}
	arena, err := s.prepare(b)
	if arena != nil {
		defer arena.close()
	}
	if err != nil {
		return err
	}
	results := map[string][]result{}
	for round := range b.rounds {
		for _, r := range racers {
			if rs := results[r.name]; len(rs) > 0 && rs[len(rs)-1].failed != "" {
				continue // it would fail again
			}
			res := s.measure(b, arena, r)
			log.Printf("%s round %d: %s", s.name, round+1, res.line(r.name))
			results[r.name] = append(results[r.name], res)
		}
	}
	fmt.Printf("\n**%s**%s\n\n", s.title, arena.note)
	return printTable(os.Stdout, s.columns, racers, results)
}
