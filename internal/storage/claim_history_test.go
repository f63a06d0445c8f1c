//go:build linux

package storage_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
)

var (
	historySeeds = flag.Int("seeds", 40, "how many histories TestClaimHistories draws")
	historyFirst = flag.Uint64("first", 1, "the seed of the first history that TestClaimHistories draws")
)

// TestClaimHistories draws histories of clients whose downloads want files of the same names in directories within each other. They
// begin, choose, write, move, sleep, end or are killed, one after the other and several at once. In half of the histories other
// programs make, remove and link files meanwhile. After each step no two downloads hold one path; what a download wrote, and the
// user's own files, are as they were written; and what was refused was refused for a download that exists, and changed nothing.
func TestClaimHistories(t *testing.T) {
	for seed := *historyFirst; seed < *historyFirst+uint64(*historySeeds); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { drawHistory(t, seed) })
	}
}

// A history is what is there, and the model of it.
type history struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	root    string
	foreign bool // other programs take part
	killed  bool // a download was
	clients []*storage.Claims
	owners  []*claimOwner
	earlier []*claimOwner     // as they were before what is done at once, and where they move to
	users   map[string]string // the user's own files, and their content
	linked  map[string]bool   // what has a second name among these
	log     []string
}

// A claimOwner is a download.
type claimOwner struct {
	name      string
	client    int
	tor       storage.Content
	content   []byte
	dir       string // relative to the root of the history, without links
	s         storage.Store
	wanted    []bool   // nil before the first choice
	have      bits.Set // what it wrote or found
	asleep    bool
	disturbed bool // by another program or the same torrent, until it hashes its files again
}

// A claimAct is what a download does.
type claimAct struct {
	what      string
	run       func() error
	done      func()  // follows if run returns no error
	dir       *string // where the download moves to, or nil
	refusable bool    // the download goes on if run fails
	err       error
}

// The names are few, so that they meet, and so are the directories, which have several paths.
var (
	historyNames = []string{"x", "X", "x.part", "d", "d/x", "d/e", "d/e/x", "e", "e/x", "x/e"}
	historyDirs  = map[string]string{"": "", "/": "", "/d": "/d", "/d/e/..": "/d", "/link": "/d", "/d/e": "/d/e", "/link/e": "/d/e", "/new": "/new"}
)

func drawHistory(t *testing.T, seed uint64) {
	h := &history{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), root: t.TempDir(), users: make(map[string]string), linked: make(map[string]bool)}
	h.foreign = h.rng.IntN(2) == 0
	for range 1 + h.rng.IntN(3) {
		h.clients = append(h.clients, new(storage.Claims))
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(strings.Join(h.log, "\n"))
		}
	})
	require.NoError(t, os.Symlink("d", h.root+"/link"))
	for range 40 {
		os.MkdirAll(h.root+"/d/e", 0o777) // the first time, and if a Move removed it
		switch {
		case h.foreign && h.rng.IntN(3) == 0:
			h.meddle()
		case len(h.owners) < 5 && h.rng.IntN(3) == 0:
			h.open()
		default:
			h.act()
		}
		h.check()
	}
	for len(h.owners) > 0 {
		h.end(h.owners[0])
	}
	for _, c := range h.clients {
		require.Zero(t, c.Directories())
	}
}

func (h *history) logf(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

func pick[E any](h *history, s []E) E { return s[h.rng.IntN(len(s))] }

func (h *history) pickDir() string { return pick(h, slices.Sorted(maps.Keys(historyDirs))) }

// open opens a torrent in some directory, unless the client has opened it already.
func (h *history) open() {
	id, dir := byte(1+h.rng.IntN(5)), h.pickDir()
	o := &claimOwner{client: h.rng.IntN(len(h.clients)), dir: historyDirs[dir]}
	o.tor, o.content = historyTorrent(h.seed, id)
	if slices.ContainsFunc(h.owners, func(other *claimOwner) bool { return other.client == o.client && h.same(o, other) }) {
		return
	}
	o.name = fmt.Sprintf("%d of client %d", id, o.client)
	var err error
	o.s, err = h.clients[o.client].OpenFiles(o.tor, h.root+dir, nil)
	h.logf("open %s in %s: %v; %v", o.name, dir, err, o.tor.Files())
	if h.justified(o, err, nil); err == nil {
		h.owners = append(h.owners, o)
	}
}

// historyTorrent returns a torrent, always the same for a history and an id.
func historyTorrent(seed uint64, id byte) (storage.Content, []byte) {
	rng := rand.New(rand.NewPCG(seed, uint64(id)))
	files := []layout.File{{Path: historyNames[rng.IntN(len(historyNames))], Length: 70}}
	for range rng.IntN(4) {
		p := historyNames[rng.IntN(len(historyNames))]
		if slices.ContainsFunc(files, func(f layout.File) bool { return overlap(f.Path, p) }) {
			continue
		}
		if rng.IntN(6) == 0 {
			files = append(files, layout.File{Path: p, Pad: true, Link: files[0].Path})
		} else {
			files = append(files, layout.File{Path: p, Length: []int64{0, 30, 100, 120}[rng.IntN(4)]})
		}
	}
	for i := range 20 * (rng.IntN(8) / 7) { // so many that they are locked by their directory
		files = append(files, layout.File{Path: fmt.Sprintf("d/many/%d", i), Length: 5})
	}
	l := layout.New(50, files...)
	content := make([]byte, l.Size())
	for i := range content {
		content[i] = byte(i) + id*37
	}
	tor := contentOf(l, content)
	tor.InfoHash = [20]byte{id, 1, 2, 3}
	return tor, content
}

// overlap reports whether one path is the other or lies below it.
func overlap(p, q string) bool {
	return strings.HasPrefix(p+"/", q+"/") || strings.HasPrefix(q+"/", p+"/")
}

func (h *history) same(o, other *claimOwner) bool { return o.tor.InfoHash == other.tor.InfoHash }

// act draws what downloads do, one or several at once.
func (h *history) act() {
	n := min(len(h.owners), 1+h.rng.IntN(3)*h.rng.IntN(2))
	before := h.state()
	acts := make(map[*claimOwner]*claimAct)
	for _, k := range h.rng.Perm(len(h.owners))[:n] {
		acts[h.owners[k]] = h.draw(h.owners[k])
	}
	h.earlier = nil
	for _, o := range h.owners {
		h.earlier = append(h.earlier, &claimOwner{client: o.client, tor: o.tor, dir: o.dir})
		if a := acts[o]; a != nil && a.dir != nil {
			h.earlier = append(h.earlier, &claimOwner{client: o.client, tor: o.tor, dir: *a.dir})
		}
	}
	var wg sync.WaitGroup
	for _, a := range acts {
		wg.Go(func() { a.err = a.run() })
	}
	wg.Wait()
	for _, o := range slices.Clone(h.owners) {
		a := acts[o]
		if a == nil {
			continue
		}
		h.logf("%s: %s, one of %d: %v", o.name, a.what, n, a.err)
		h.justified(o, a.err, a.dir)
		if n == 1 && a.refusable && errors.Is(a.err, storage.ErrInUse) {
			require.Equal(h.t, before, h.state(), "what is refused changes nothing")
		}
		if a.err == nil {
			a.done()
		} else if !a.refusable || o.wanted == nil {
			h.end(o)
		}
		for _, other := range h.owners { // the same torrent in another client is no other owner
			other.disturbed = other.disturbed || other != o && h.same(o, other)
		}
	}
	h.earlier = nil
}

// draw draws what a download does.
func (h *history) draw(o *claimOwner) *claimAct {
	nothing, n := func() {}, h.rng.IntN(12)
	lacks := 0
	for ; lacks < o.tor.NumPieces(); lacks++ {
		first, end := o.tor.FileAt(o.tor.PieceOffset(lacks)), o.tor.FileAt(o.tor.PieceEnd(lacks)-1)
		if o.wanted != nil && slices.Contains(o.wanted[first:end+1], true) && !o.have.Has(lacks) {
			break
		}
	}
	switch {
	case n == 0:
		return &claimAct{what: "end", run: func() error { return nil }, done: func() { h.end(o) }}
	case n == 1:
		h.killed = true
		return &claimAct{what: "kill", run: func() error { return storage.Abandon(o.s) }, done: func() { h.drop(o) }}
	case o.asleep:
		return &claimAct{what: "wake", run: o.s.Wake, refusable: true, done: func() {
			o.asleep = false
			h.hash(o) // others may have claimed and written its files meanwhile
		}}
	case o.wanted == nil || n == 2:
		wanted := only(o.tor, func(i int) bool { return i == 0 || h.rng.IntN(3) > 0 })
		return &claimAct{what: fmt.Sprint("choose ", wanted), run: func() error { return o.s.SetWanted(wanted) }, refusable: true, done: func() {
			o.wanted = wanted
			h.hash(o)
			h.justified(o, o.s.Settle(h.t.Context(), o.have), nil)
			h.hash(o) // a file that is not used under another name may have been made meanwhile
		}}
	case o.disturbed && n < 8:
		return &claimAct{what: "hash", run: func() error { return nil }, done: func() { h.hash(o) }}
	case n == 3:
		return &claimAct{what: "rest", run: o.s.Rest, done: func() { o.asleep = true }}
	case n == 4:
		dir, have := h.pickDir(), claim(o.have)
		at := historyDirs[dir]
		return &claimAct{what: "move to " + dir, run: func() error {
			return o.s.Move(h.t.Context(), h.root+dir, have, func(int64, int64) {})
		}, done: func() { o.dir = at }, dir: &at, refusable: true}
	case n == 5:
		return &claimAct{what: "save", run: func() error { return o.s.SaveResume(o.have, nil) }, done: nothing}
	case lacks == o.tor.NumPieces() && n == 6:
		return &claimAct{what: "finish", run: o.s.Finish, done: nothing}
	case lacks == o.tor.NumPieces():
		return &claimAct{what: "keep", run: func() error { return o.s.Keep(o.have, nil) }, done: nothing}
	}
	return &claimAct{what: fmt.Sprint("write ", lacks), run: func() error {
		return o.s.WriteBlocks([][]byte{pieceOf(o.tor, o.content, lacks)}, o.tor.PieceOffset(lacks))
	}, done: func() {
		require.NoError(h.t, o.s.PieceVerified(lacks))
		o.have.Add(lacks)
	}}
}

// hash hashes the files of a download again, as they are now. What it cannot read does not exist.
func (h *history) hash(o *claimOwner) {
	o.have, o.disturbed = bits.New(o.tor.NumPieces()), false
	for i := range o.tor.NumPieces() {
		if o.s.Changed(i) != nil {
			_, err := o.s.Refresh(i, bits.Full(o.tor.NumPieces()))
			require.NoError(h.t, err)
		}
	}
	for i := range o.s.Present(h.t.Context()).All() {
		b := make([]byte, o.tor.PieceSize(i))
		if _, err := o.s.ReadAt(b, o.tor.PieceOffset(i)); err == nil && bytes.Equal(b, pieceOf(o.tor, o.content, i)) {
			require.NoError(h.t, o.s.PieceVerified(i))
			o.have.Add(i)
		}
	}
}

func (h *history) end(o *claimOwner) {
	if err := o.s.Close(); !o.asleep {
		require.NoError(h.t, err)
	}
	h.drop(o)
}

func (h *history) drop(o *claimOwner) {
	h.owners = slices.DeleteFunc(h.owners, func(other *claimOwner) bool { return other == o })
}

// meddle draws what another program does.
func (h *history) meddle() {
	name := h.root + pick(h, []string{"", "/d", "/d/e"}) + "/" + pick(h, historyNames)
	if len(h.owners) > 0 && h.rng.IntN(3) > 0 {
		o := pick(h, h.owners)
		name = h.root + o.dir + "/" + pick(h, o.tor.Files()).Path
	}
	user := fmt.Sprintf("%s/user %d", h.root, len(h.users))
	how := pick(h, []string{"write", "remove", "remove", "hard link", "symbolic link", "back up", "make directory"})
	info, err := os.Lstat(name)
	if h.linked[name] || how == "back up" && (err != nil || !info.Mode().IsRegular()) {
		return // what is open is followed if it is moved away
	}
	if strings.HasSuffix(how, "link") {
		h.users[user] = strings.Repeat("the user's ", 1+h.rng.IntN(20))
		require.NoError(h.t, os.WriteFile(user, []byte(h.users[user]), 0o666))
	}
	if how != "back up" && how != "make directory" {
		os.Remove(name)
	}
	switch how {
	case "write":
		err = os.WriteFile(name, make([]byte, h.rng.IntN(150)), 0o666)
	case "hard link":
		err = os.Link(user, name)
	case "symbolic link":
		err = os.Symlink(strings.Repeat("../", strings.Count(name[len(h.root)+1:], "/"))+filepath.Base(user), name)
	case "back up":
		b, readErr := os.ReadFile(name)
		require.NoError(h.t, errors.Join(readErr, os.Link(name, user)))
		h.users[user], h.linked[name] = string(b), true
	case "make directory":
		err = os.Mkdir(name, 0o777)
	}
	h.logf("another program: %s %s: %v", how, name, err)
	for _, o := range h.owners {
		o.disturbed = true
	}
}
