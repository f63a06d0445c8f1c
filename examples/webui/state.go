package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-go/torrent"
)

// state is what is kept between runs, in a hidden directory below that of the downloads: for each torrent HASH.json, and
// HASH.torrent once it is known; and the token, so that a page that was open goes on.
type state struct{ dir string }

// saved is what HASH.json says.
type saved struct {
	Magnet               string    `json:"magnet,omitempty"` // what it was added as
	Added                time.Time `json:"added"`
	Paused               bool      `json:"paused,omitempty"`
	Skipped              []int     `json:"skipped,omitempty"` // files that are fetched only to be played, by index
	Uploaded, Downloaded int64     // of earlier runs
}

func openState(dir string) (state, error) {
	s := state{filepath.Join(dir, ".webui")}
	return s, os.MkdirAll(s.dir, 0o700)
}

func (s state) token() (string, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "token"))
	if err == nil && len(b) >= 26 {
		return string(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	token := rand.Text()
	return token, s.write("token", []byte(token))
}

// write replaces a file as a whole.
func (s state) write(name string, b []byte) error {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func (s state) saveTorrent(h torrent.Hash, t *torrent.Torrent) error {
	return s.write(h.String()+".torrent", t.Bytes())
}

func (s state) save(h torrent.Hash, v saved) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return s.write(h.String()+".json", b)
}

func (s state) forget(h torrent.Hash) error {
	var errs []error
	for _, suffix := range []string{".json", ".torrent"} {
		if err := os.Remove(filepath.Join(s.dir, h.String()+suffix)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// load calls add for each torrent of an earlier run. t is nil if only a link to it is known.
func (s state) load(add func(h torrent.Hash, t *torrent.Torrent, v saved)) error {
	paths, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		var v saved
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, &v)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		h, err := torrent.ParseHash(strings.TrimSuffix(filepath.Base(path), ".json"))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		t, err := torrent.Read(strings.TrimSuffix(path, ".json") + ".torrent")
		if err != nil && !(errors.Is(err, fs.ErrNotExist) && v.Magnet != "") {
			return err
		}
		add(h, t, v)
	}
	return nil
}
