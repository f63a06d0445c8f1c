package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/shoal-go/torrent"
)

// makeFile writes a file of random bytes, always the same ones.
func makeFile(path string, size int64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	seed := [32]byte{}
	copy(seed[:], filepath.Base(path))
	_, err = io.CopyBuffer(f, io.LimitReader(rand.NewChaCha8(seed), size), make([]byte, 1<<20))
	return errors.Join(err, f.Close())
}

// makeFiles writes a directory of n files of many sizes, some of them empty.
func makeFiles(dir string, n int) error {
	sizes := []int64{0, 1, 17, 1000, 16384, 30000, 60001, 100003}
	r := rand.New(rand.NewPCG(7, 7))
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("d%d", i%61), fmt.Sprintf("e%d", i%7), fmt.Sprintf("f%d.dat", i))
		if err := makeFile(path, sizes[r.IntN(len(sizes))]); err != nil {
			return err
		}
	}
	return nil
}

// makeTorrents makes a torrent of what lies at root, with web seeds, and the same without a tracker and these.
func makeTorrents(path, bare, root, announce string, pieceLength int64, webSeeds ...string) error {
	info := metainfo.Info{PieceLength: pieceLength}
	if err := info.BuildFromFilePath(root); err != nil {
		return err
	}
	b, err := bencode.Marshal(info)
	if err != nil {
		return err
	}
	return errors.Join(
		writeTorrent(path, metainfo.MetaInfo{Announce: announce, UrlList: webSeeds, InfoBytes: b}),
		writeTorrent(bare, metainfo.MetaInfo{InfoBytes: b}))
}

// makeVersion is makeTorrents without web seeds, for a torrent of any version.
func makeVersion(path, bare, root, announce string, pieceLength int64, v torrent.Version) error {
	for to, trackers := range map[string][][]string{path: {{announce}}, bare: nil} {
		t, err := torrent.Create(root, &torrent.CreateOptions{Version: v, PieceLength: pieceLength, Trackers: trackers})
		if err != nil {
			return err
		}
		if err := os.WriteFile(to, t.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func writeTorrent(path string, m metainfo.MetaInfo) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(m.Write(f), f.Close())
}

// compare reports whether got holds the same files and bytes as want.
func compare(want, got string) error {
	return filepath.WalkDir(want, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(want, path)
		if err != nil {
			return err
		}
		return compareFiles(path, filepath.Join(got, rel))
	})
}

func compareFiles(want, got string) error {
	w, err := os.Open(want)
	if err != nil {
		return err
	}
	defer w.Close()
	g, err := os.Open(got)
	if err != nil {
		return err
	}
	defer g.Close()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, errA := io.ReadFull(w, a)
		m, errB := io.ReadFull(g, b)
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			return fmt.Errorf("%s differs", got)
		}
		if errA != nil || errB != nil {
			if errA == errB && (errA == io.EOF || errA == io.ErrUnexpectedEOF) {
				return nil
			}
			return errors.Join(errA, errB)
		}
	}
}
