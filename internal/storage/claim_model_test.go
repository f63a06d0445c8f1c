//go:build linux

package storage_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/storage"
)

// The model of TestClaimHistories: what holds after each step.

// check compares what is there with the model.
func (h *history) check() {
	for k, o := range h.owners {
		for _, other := range h.owners[:k] {
			if !h.same(o, other) && o.wanted != nil && other.wanted != nil && !o.asleep && !other.asleep {
				require.False(h.t, h.meet(o, other, true), "%s and %s have one path", o.name, other.name)
			}
		}
		for i := range o.have.All() {
			if o.disturbed || o.asleep {
				break
			}
			changed := o.s.Changed(i)
			if h.killed && changed != nil && strings.Contains(changed.Error(), ".edges.resume") {
				continue // what was killed left it where the download moved to
			}
			require.NoError(h.t, changed, "piece %d of %s", i, o.name)
			b := make([]byte, o.tor.PieceSize(i))
			_, err := o.s.ReadAt(b, o.tor.PieceOffset(i))
			require.NoError(h.t, err, "piece %d of %s", i, o.name)
			require.Equal(h.t, pieceOf(o.tor, o.content, i), b, "piece %d of %s", i, o.name)
		}
	}
	for user, want := range h.users {
		b, err := os.ReadFile(user)
		require.NoError(h.t, err)
		require.Equal(h.t, want, string(b), user)
	}
}

// meet reports whether a wanted file of one download is in the way of one of the other; or whether any file or link is, under a name
// that it may have.
func (h *history) meet(o, other *claimOwner, wanted bool) bool {
	for i, f := range o.tor.Files() {
		for k, g := range other.tor.Files() {
			p, q := o.dir+"/"+f.Path, other.dir+"/"+g.Path
			if wanted && o.wanted[i] && other.wanted[k] && !f.Pad && !g.Pad && overlap(p, q) ||
				!wanted && (overlap(p, q) || p == q+".part" || q == p+".part" || o.tor.NumFiles() > 16 || other.tor.NumFiles() > 16) {
				return true
			}
		}
	}
	return false
}

// justified fails if a download was refused for another that does not exist, or has no path of it in the directory, if one is given;
// or if something failed although no other program, nor another torrent's file, is in the way.
func (h *history) justified(o *claimOwner, err error, dir *string) {
	at := *o
	if dir != nil {
		at.dir = *dir
	}
	ok := err == nil || !errors.Is(err, storage.ErrInUse) && (h.foreign || dir != nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist))
	for _, inTheWay := range []string{"not a regular file", "not a directory", "is a directory", "escapes from parent"} {
		ok = ok || strings.Contains(err.Error(), inTheWay)
	}
	var taken *storage.Claimed
	named := errors.As(err, &taken)
	for _, other := range slices.Concat(h.owners, h.earlier) {
		switch {
		case ok || other.client == o.client && h.same(o, other) || named && other.tor.InfoHash != taken.Owner:
		case named && !h.same(o, other):
			ok = h.foreign || h.meet(&at, other, false)
		default:
			ok = h.same(o, other) // which has the lock of the torrent
		}
	}
	require.True(h.t, ok, "%s: %v", o.name, err)
}

// state is all that a refusal must not change.
func (h *history) state() string {
	var all []string
	require.NoError(h.t, filepath.WalkDir(h.root, func(p string, d fs.DirEntry, err error) error {
		info, statErr := os.Lstat(p)
		if err = errors.Join(err, statErr); err != nil || h.killed && strings.HasSuffix(p, ".lock") {
			return err
		}
		line := p + " " + info.Mode().String()
		if info.Mode().IsRegular() {
			b, readErr := os.ReadFile(p)
			err = readErr
			line += fmt.Sprint(info.ModTime(), b)
		}
		all = append(all, line)
		return err
	}))
	for i, c := range h.clients {
		all = append(all, fmt.Sprint(i, c.Claimed()))
	}
	return strings.Join(all, "\n")
}
