//go:build linux

package interop

import (
	"flag"
	"slices"
	"testing"
)

// baseline puts libtorrent in this library's place, which tells a fault of the tests from a fault of ours.
var baseline = flag.Bool("baseline", false, "test libtorrent in place of this library, where that is possible")

// subject is the client under test.
func subject() client {
	if *baseline {
		return libtorrent
	}
	return library
}

// TestClients moves a torrent between this library and each client, both ways.
func TestClients(t *testing.T) {
	t.Parallel()
	from, to := "we download from it", "it downloads from us"
	tb := newTable(t, "client", from, to)
	for _, c := range append(slices.Clip(clients), qbittorrent) {
		t.Run(c.name, func(t *testing.T) {
			need(t, append(c.programs, "mktorrent")...)
			row := tb.row(c.name + " " + c.version(t))
			t.Parallel() // from here on, so that the rows are in order
			t.Run("from", func(t *testing.T) {
				t.Parallel()
				defer row.record(t, from)
				transfer(t, mktorrent, c, "", subject(), "")
			})
			t.Run("to", func(t *testing.T) {
				t.Parallel()
				defer row.record(t, to)
				transfer(t, mktorrent, subject(), "", c, "")
			})
		})
	}
}

// TestMakers moves torrents that other programs made, both ways between this library and libtorrent.
func TestMakers(t *testing.T) {
	t.Parallel()
	from, to := "we download it from libtorrent", "libtorrent downloads it from us"
	tb := newTable(t, "torrent made by", from, to)
	for _, m := range makers {
		t.Run(m.name, func(t *testing.T) {
			need(t, append(libtorrent.programs, m.programs...)...)
			row := tb.row(m.name)
			t.Parallel()
			t.Run("from", func(t *testing.T) {
				t.Parallel()
				defer row.record(t, from)
				transfer(t, m, libtorrent, "", subject(), "")
			})
			t.Run("to", func(t *testing.T) {
				t.Parallel()
				defer row.record(t, to)
				transfer(t, m, subject(), "", libtorrent, "")
			})
		})
	}
}

// TestEncryption moves a torrent at each setting of encryption of each client and at each policy of this
// library, both ways, wherever the two have a way to connect in common. The one that downloads dials: the seed
// knows of no peer.
func TestEncryption(t *testing.T) {
	t.Parallel()
	columns := map[string][2]string{} // by policy
	var titles []string
	for _, ours := range library.settings {
		columns[ours.name] = [2]string{ours.name + ": from it", ours.name + ": to it"}
		titles = append(titles, columns[ours.name][0], columns[ours.name][1])
	}
	tb := newTable(t, "client: its setting", titles...)
	for _, c := range clients {
		for _, theirs := range c.settings {
			t.Run(c.name+"/"+theirs.name, func(t *testing.T) {
				need(t, append(c.programs, "mktorrent")...)
				row := tb.row(c.name + ": " + theirs.name)
				t.Parallel()
				for _, ours := range library.settings {
					if ours.dials&theirs.takes != 0 {
						t.Run(ours.name+"/from", func(t *testing.T) {
							t.Parallel()
							defer row.record(t, columns[ours.name][0])
							transfer(t, mktorrent, c, theirs.name, library, ours.name)
						})
					}
					if theirs.dials&ours.takes != 0 {
						t.Run(ours.name+"/to", func(t *testing.T) {
							t.Parallel()
							defer row.record(t, columns[ours.name][1])
							transfer(t, mktorrent, library, ours.name, c, theirs.name)
						})
					}
				}
			})
		}
	}
}

// TestUTP moves a torrent over uTP alone, both ways, plainly and encrypted.
func TestUTP(t *testing.T) {
	t.Parallel()
	columns := map[string][2]string{"disable": {"plain: from it", "plain: to it"}, "require": {"encrypted: from it", "encrypted: to it"}}
	tb := newTable(t, "uTP: client", columns["disable"][0], columns["disable"][1], columns["require"][0], columns["require"][1])
	us := overUTP(library)
	for _, c := range append(slices.Clip(clients), qbittorrent) {
		theirs := map[string]map[string]string{ // their setting by ours
			"libtorrent":   {"disable": "disabled", "require": "forced"},
			"Transmission": {"disable": "tolerated", "require": "required"},
			"qBittorrent":  {"disable": "disabled", "require": "forced"},
		}[c.name]
		if theirs == nil {
			continue // it has no uTP
		}
		t.Run(c.name, func(t *testing.T) {
			need(t, append(c.programs, "mktorrent")...)
			row := tb.row(c.name + " " + c.version(t))
			t.Parallel()
			for ours, theirs := range theirs {
				t.Run(ours+"/from", func(t *testing.T) {
					t.Parallel()
					defer row.record(t, columns[ours][0])
					transfer(t, mktorrent, overUTP(c), theirs, us, ours)
				})
				t.Run(ours+"/to", func(t *testing.T) {
					t.Parallel()
					defer row.record(t, columns[ours][1])
					transfer(t, mktorrent, us, ours, overUTP(c), theirs)
				})
			}
		})
	}
}
