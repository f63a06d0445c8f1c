package torrent

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/storage"
)

// toggle adds piece i to have, or removes it.
func (c *choice) toggle(have *bits.Set, i int) {
	has := !have.Has(i)
	if has {
		have.Add(i)
	} else {
		have.Remove(i)
	}
	c.piece(i, has)
}

// TestChoiceAgreesWithModel chooses files, verifies pieces and takes that back in any order. After each step it
// compares with what the files and pieces say.
func TestChoiceAgreesWithModel(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		lengths := make([]int64, 1+rng.IntN(8))
		for i := range lengths {
			lengths[i] = rng.Int64N(3 * blockSize) // some are empty
			if i > 0 && lengths[i-1] > 0 && rng.IntN(4) == 0 {
				lengths[i] = -1 - rng.Int64N(blockSize) // padding
			}
		}
		lengths = append(lengths, 1)
		tor, _ := testContent(blockSize, lengths...)
		c, have := newChoice(tor), bits.New(tor.NumPieces())
		var priority []Priority
		sel := func(f File) Priority { return Priority(-3 + rng.IntN(6)) }
		for step := range 60 {
			switch i := rng.IntN(tor.NumPieces()); {
			case step == 0:
				priority = choosePriorities(tor, nil)
				c.set(priority, &have)
			case rng.IntN(10) == 0:
				priority = choosePriorities(tor, sel)
				c.set(priority, &have)
			default:
				c.toggle(&have, i)
			}

			var files, whole []int
			wanted, verified, demand := int64(0), int64(0), 0
			pieces := make([]uint8, tor.NumPieces())
			for i, f := range tor.layout.Files() {
				require.True(t, OnDemand <= priority[i] && priority[i] <= High)
				if f.Pad {
					require.Equal(t, priority[i-1], priority[i], "padding goes with the file before it")
				}
				missing := int32(0)
				for k := range tor.NumPieces() {
					begin, end := int64(k)*blockSize, int64(k)*blockSize+tor.layout.PieceSize(k)
					n := min(end, f.End()) - max(begin, f.Offset)
					if n <= 0 {
						continue
					}
					if !have.Has(k) {
						missing++
					}
					if priority[i] < Normal {
						continue
					}
					pieces[k] = max(pieces[k], map[Priority]uint8{Normal: pieceNormal, High: pieceHigh}[priority[i]])
					if !f.Pad {
						wanted += n
					}
					if !f.Pad && have.Has(k) {
						verified += n
					}
				}
				if f.Pad {
					continue
				}
				require.Equal(t, missing, c.missing[i])
				if priority[i] == OnDemand && missing > 0 {
					demand++
				}
				if priority[i] < Normal {
					continue
				}
				files = append(files, i)
				if missing == 0 {
					whole = append(whole, i)
					require.Contains(t, c.done, i)
				}
			}
			require.Equal(t, files, c.files(), "seed %d", seed)
			require.Equal(t, pieces, c.pieces(), "seed %d", seed)
			require.ElementsMatch(t, whole, c.whole(), "seed %d", seed)
			require.Equal(t, wanted, c.wanted, "seed %d", seed)
			require.Equal(t, demand, c.demand, "seed %d", seed)
			require.Len(t, files, c.chosen, "seed %d", seed)
			require.Equal(t, verified, c.verified, "seed %d", seed)
			for i := range tor.layout.NumFiles() {
				require.Equal(t, slices.Contains(c.done, i), c.isDone[i])
			}
		}
	}
}

// Of very many files that are lost one after the other, each costs the same.
func TestManyFilesAreLost(t *testing.T) {
	files := make([]layout.File, 200_000)
	for i := range files {
		files[i] = layout.File{Path: "f", Length: 1}
	}
	tor := &Torrent{layout: layout.New(1, files...)}
	c := newChoice(tor)
	none := bits.New(len(files))
	c.set(choosePriorities(tor, nil), &none)
	for i := range files {
		c.piece(i, true)
	}
	steps := 0
	for i := range files {
		before := len(c.done)
		if c.piece(i, false); c.gone == 0 { // they were gone through
			steps += before
		}
	}
	require.LessOrEqual(t, steps, 2*len(files))
	for i := range files {
		c.piece(i, true)
	}
	require.Len(t, c.done, len(files))
}

// A download that was complete for long has not stalled when more is chosen.
func TestStallAfterWiderChoice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tor, content := testContent(blockSize, blockSize, blockSize)
		st := storage.NewMemory(tor.content(), 1<<20)
		require.NoError(t, st.SetWanted([]bool{true, true}))
		_, err := st.WriteAt(content[:blockSize], 0)
		require.NoError(t, err)
		c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
		defer c.Close()
		d, err := tor.Start(t.Context(), &Options{
			Client:       c,
			Storage:      func(*Torrent) (Storage, error) { return st, nil },
			Select:       firstFile,
			Seed:         true,
			StallTimeout: time.Minute,
		})
		require.NoError(t, err)
		defer d.Close()
		_, err = d.Wait()
		require.NoError(t, err)
		time.Sleep(time.Hour)
		d.Select(nil)
		time.Sleep(50 * time.Second)
		require.NoError(t, d.life.ctx.Err())
		time.Sleep(20 * time.Second)
		require.Error(t, d.life.ctx.Err(), "no peer has the second file")
	})
}

// Completed reports a file that another program changed after the download was complete.
func TestCompletedTellsOfAChangedFile(t *testing.T) {
	tor, content := testContent(blockSize, blockSize, blockSize)
	dir := t.TempDir()
	fill(t, tor, dir, content)
	d, err := tor.Start(t.Context(), &Options{Dir: dir, Client: &Client{NoDHT: true, NoUTP: true, NoListen: true}})
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Wait()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "1"), []byte("short"), 0o666))
	var whole []string
	err = nil
	for f, e := range d.Completed() {
		if err = e; err == nil {
			whole = append(whole, f.Path())
		}
	}
	require.Equal(t, []string{"d/0"}, whole)
	require.ErrorIs(t, err, storage.ErrChanged)
}

// Once the files are closed, Completed ends with an error, also for files without content.
func TestCompletedEndsAfterClose(t *testing.T) {
	tor, content := testContent(blockSize, blockSize, 0)
	dir := t.TempDir()
	fill(t, tor, dir, content)
	d, err := tor.Start(t.Context(), &Options{Dir: dir, Client: &Client{NoDHT: true, NoUTP: true, NoListen: true}})
	require.NoError(t, err)
	defer d.Close()
	files, err := d.Wait()
	require.NoError(t, err)
	require.NoError(t, files.Close())
	for f, e := range d.Completed() {
		require.Nil(t, f)
		err = e
	}
	require.ErrorIs(t, err, ErrClosed)
}

// heldStorage has reads wait until they are let go, once hold is set.
type heldStorage struct {
	*simStorage
	hold         atomic.Bool
	begun, letGo chan struct{}
}

func (s *heldStorage) ReadAt(p []byte, off int64) (int, error) {
	if s.hold.Load() {
		select {
		case s.begun <- struct{}{}:
		default:
		}
		<-s.letGo
	}
	return s.simStorage.ReadAt(p, off)
}

// A download becomes complete, and can be asked how far it is, while one of its files is read from a disk that does not answer. If
// the read waited for a handle, both waited for each other for ever.
func TestCompletionWaitsForNoReader(t *testing.T) {
	content := newSimContent(1, blockSize, blockSize, blockSize)
	st := &heldStorage{simStorage: newSimStorage(content), begun: make(chan struct{}, 1), letGo: make(chan struct{})}
	st.written.Add(0)
	d, err := content.Start(t.Context(), &Options{
		Client:  &Client{NoDHT: true, NoUTP: true, NoListen: true},
		Storage: func(*Torrent) (Storage, error) { return st, nil },
	})
	require.NoError(t, err)
	defer d.client.Close()
	read := make(chan error, 1)
	for f, err := range d.Completed() {
		require.NoError(t, err)
		r, err := f.Open()
		require.NoError(t, err)
		st.hold.Store(true)
		go func() {
			_, err := io.ReadAll(r)
			read <- err
		}()
		break
	}
	<-st.begun
	d.Select(Glob("file-0"))
	complete := make(chan struct{})
	go func() {
		defer close(complete)
		<-d.Done()
		d.Stats()
	}()
	select {
	case <-complete:
	case <-time.After(2 * time.Minute):
		t.Error("it hangs")
	}
	close(st.letGo)
	require.NoError(t, <-read)
}

// Nothing is chosen for a while, so that the only seed, which is named once, has nothing to give, and ends each connection. It is dialled
// again once something is chosen.
func TestSeedIsDialledOnceSomethingIsChosen(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 64*blockSize)
		us, other := n.NewHost("81.0.0.1", 0, 0, time.Millisecond), n.NewHost("90.0.0.1", 1e6, 0, time.Millisecond)
		simSeed(t, simClient(t, other, nil), content)
		none := func(File) Priority { return Skip }
		d, err := content.Start(t.Context(), &Options{Client: simClient(t, us, nil), Select: none, Storage: newSimStorage(content).open})
		require.NoError(t, err)
		d.discovery.found(peerlist.FromTracker, "", other.Addr(6881))
		simnet.Sleep(time.Hour)
		d.Select(nil)
		simnet.Sleep(10 * time.Second)
		require.True(t, d.Stats().Complete)
	})
}
