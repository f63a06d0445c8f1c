package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent"
)

// The files of the torrent, and how long they are. They follow one another without a gap, so that
// where one ends in the middle of a piece the next begins.
var content = []struct {
	path   string
	length int
}{
	{"shoal/anchovy.bin", 20_000_003},
	{"shoal/herring.bin", 30_000_001},
	{"shoal/notes/empty.txt", 0},
	{"shoal/notes/one.txt", 1_001},
	{"shoal/notes/two.txt", 2_002},
	{"shoal/sardine.bin", 10_000_007},
}

// swarm is all that a download needs but the downloader: a .torrent file, a tracker and seeds.
type swarm struct {
	torrent string // the path of the file
	tracker *tracker
	seeds   []seed
}

type seed struct {
	kind   string
	client *torrent.Client
	addr   netip.AddrPort // where it accepts peers
}

// newSwarm makes the content and its torrent in dir, and shares it until Close.
func newSwarm(ctx context.Context, dir string) (s *swarm, err error) {
	s = &swarm{torrent: filepath.Join(dir, "shoal.torrent")}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := writeContent(dir); err != nil {
		return nil, err
	}
	if s.tracker, err = startTracker(); err != nil {
		return nil, err
	}
	t, err := torrent.Create(filepath.Join(dir, "shoal"), &torrent.CreateOptions{
		Trackers:    [][]string{{s.tracker.URL()}},
		PieceLength: 256 << 10,
	})
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer
	if _, err := t.WriteTo(&file); err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.torrent, file.Bytes(), 0o666); err != nil {
		return nil, err
	}

	// A seed verifies what it shares before it shares it, the liar's too: so it tells the truth at first.
	l := new(liar)
	for _, kind := range []struct {
		name    string
		options torrent.Options
	}{
		{"fast", torrent.Options{Dir: dir, UploadLimit: rate.NewLimiter(20e6, 256<<10)}},
		{"slow", torrent.Options{Dir: dir, UploadLimit: rate.NewLimiter(1e6, 32<<10)}},
		{"lying", torrent.Options{Storage: l.open(dir), UploadLimit: rate.NewLimiter(10e6, 256<<10)}},
	} {
		if err := s.addSeed(ctx, t, kind.name, kind.options); err != nil {
			return nil, err
		}
	}
	l.lies.Store(true)
	return s, nil
}

// addSeed shares t, and returns once the tracker knows.
func (s *swarm) addSeed(ctx context.Context, t *torrent.Torrent, kind string, o torrent.Options) error {
	o.Seed = true
	o.Client = &torrent.Client{Listen: "127.0.0.1:0", NoDHT: true}
	d, err := t.Start(ctx, &o)
	if err != nil {
		return err
	}
	s.seeds = append(s.seeds, seed{kind, o.Client, netip.MustParseAddrPort(o.Client.Addr().String())})
	if _, err := d.Wait(); err != nil {
		return err
	}
	select {
	case <-s.tracker.news:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *swarm) Close() error {
	var errs []error
	for _, seed := range s.seeds {
		errs = append(errs, seed.client.Close())
	}
	if s.tracker != nil {
		errs = append(errs, s.tracker.Close())
	}
	return errors.Join(errs...)
}

// writeContent fills the files with noise, the same at every run.
func writeContent(dir string) error {
	noise := rand.NewChaCha8([32]byte{})
	for _, f := range content {
		path := filepath.Join(dir, filepath.FromSlash(f.path))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		b := make([]byte, f.length)
		noise.Read(b)
		if err := os.WriteFile(path, b, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// liar is a Storage with the right content that, once lies is set, gets some of the reads wrong.
type liar struct {
	content []byte // of all files in torrent order
	lies    atomic.Bool
	reads   atomic.Int64
}

// open is fit for Options.Storage.
func (l *liar) open(dir string) func(*torrent.Torrent) (torrent.Storage, error) {
	return func(t *torrent.Torrent) (torrent.Storage, error) {
		for f := range t.Files() {
			b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.Path)))
			if err != nil {
				return nil, err
			}
			l.content = append(l.content, b...)
		}
		return l, nil
	}
}

func (l *liar) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(l.content)) {
		return 0, io.EOF
	}
	n := copy(p, l.content[off:])
	if l.lies.Load() && l.reads.Add(1)%50 == 0 {
		p[0] ^= 1
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (l *liar) WriteAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("it has everything: %w", errors.ErrUnsupported)
}

func (l *liar) Sync() error  { return nil }
func (l *liar) Close() error { return nil }
