package boltstore_test

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/boltstore"
	"github.com/shoal-go/torrent/storagetest"
	"github.com/shoal-go/torrent/torrenttest"
)

func open(t *testing.T, path string) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, 0o666, nil)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestStorage(t *testing.T) {
	storagetest.Run(t, func(tor *torrent.Torrent) (torrent.Storage, error) { // empty each time
		db := open(t, filepath.Join(t.TempDir(), "content.db"))
		t.Cleanup(func() { db.Close() })
		return boltstore.In(db)(tor)
	})
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "content.db")
	var db *bbolt.DB
	storagetest.Reopen(t, func(tor *torrent.Torrent) (torrent.Storage, error) {
		if db != nil {
			if err := db.Close(); err != nil {
				return nil, err
			}
		}
		db = open(t, path)
		return boltstore.In(db)(tor)
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// A second run finds everything in the database, and hashes nothing.
func TestDownload(t *testing.T) {
	tor, seed := torrenttest.Seed(t, map[string]string{"tide/ebb.txt": strings.Repeat("out ", 500_000), "tide/flood.txt": "in"})
	db := open(t, filepath.Join(t.TempDir(), "content.db"))
	defer db.Close()
	for run := range 2 {
		c := &torrent.Client{NoDHT: true, NoListen: true}
		o := &torrent.Options{Storage: boltstore.In(db), Client: c}
		if run == 0 {
			o.Peers = []netip.AddrPort{seed}
		}
		d, err := tor.Start(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		files, err := d.Wait()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := files.ReadFile("tide/ebb.txt"); err != nil || string(b) != strings.Repeat("out ", 500_000) {
			t.Fatal(len(b), err)
		}
		if s := d.Stats(); run == 1 && s.Checked > 0 {
			t.Errorf("hashed %d bytes again", s.Checked)
		}
		if err := files.Close(); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}
