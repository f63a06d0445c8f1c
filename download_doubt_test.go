package torrent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/storage"
)

// watchedStore calls those of its functions that are not nil: before Refresh, before the first Changed, and after ReadAt.
type watchedStore struct {
	storage.Store
	refresh func(piece int)
	changed func()
	once    sync.Once
	read    func()
}

func (s *watchedStore) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Store.ReadAt(p, off)
	if s.read != nil {
		s.read()
	}
	return n, err
}

func (s *watchedStore) Refresh(piece int, doubted bits.Set) (bits.Set, error) {
	if s.refresh != nil {
		s.refresh(piece)
	}
	return s.Store.Refresh(piece, doubted)
}

func (s *watchedStore) ChangedAt(off, n int64) error {
	if s.changed != nil {
		s.once.Do(s.changed)
	}
	return s.Store.ChangedAt(off, n)
}

// shareWatched shares two files of two pieces each, which another program has then changed.
func shareWatched(t *testing.T) (*Download, *watchedStore) {
	return shareChanged(t, 2*blockSize, 2*blockSize)
}

// shareChanged shares files of these lengths, which another program has then changed.
func shareChanged(t *testing.T, lengths ...int64) (*Download, *watchedStore) {
	tor, content := testContent(blockSize, lengths...)
	dir := t.TempDir()
	fill(t, tor, dir, content)
	s := new(watchedStore)
	c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
	c.hooks.openFiles = func(c storage.Content, dir string, log *slog.Logger) (storage.Store, error) {
		var err error
		s.Store, err = new(storage.Claims).OpenFiles(c, dir, log)
		return s, err
	}
	d, err := tor.Start(t.Context(), &Options{Dir: dir, Seed: true, Client: c})
	require.NoError(t, err)
	t.Cleanup(func() { d.Close(); c.Close() })
	_, err = d.Wait()
	require.NoError(t, err)
	for i := range lengths {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "d", strconv.Itoa(i)), make([]byte, 3*blockSize), 0o666))
	}
	return d, s
}

// While changed files are refreshed one after the other, no bytes of those already refreshed are handed out.
func TestNothingOfAChangedFileIsHandedOut(t *testing.T) {
	d, s := shareWatched(t)
	reached, hold := make(chan struct{}), make(chan struct{})
	reach, release := sync.OnceFunc(func() { close(reached) }), sync.OnceFunc(func() { close(hold) })
	defer release()
	s.refresh = func(piece int) {
		if piece == 2 {
			reach()
			<-hold
		}
	}
	hashed := make(chan (<-chan struct{}), 1)
	go func() { hashed <- d.doubtChanged() }()
	<-reached
	for i := range 2 {
		require.False(t, d.Verified().Has(i))
		require.False(t, d.readForUpload(outbox.Request{Piece: uint32(i)}, make([]byte, blockSize)))
	}
	_, err := d.files.ReadFile("d/0")
	require.Error(t, err)
	_, err = d.files.file(0).Bytes()
	require.Error(t, err)
	release()
	<-<-hashed
	require.Zero(t, d.Verified().Count())
	_, err = d.files.ReadFile("d/1")
	require.Error(t, err, "until it is fetched again")
}

// A read does not return bytes that were verified when it began and are in doubt when it ends.
func TestNothingThatComesIntoDoubtIsHandedOut(t *testing.T) {
	for name, read := range map[string]func(t *testing.T, d *Download) error{
		"upload": func(t *testing.T, d *Download) error {
			if !d.readForUpload(outbox.Request{}, make([]byte, blockSize)) {
				return errors.New("rejected")
			}
			return nil
		},
		"reader": func(t *testing.T, d *Download) error {
			r, err := d.Open(t.Context(), "d/0")
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() {
				_, err := r.Read(make([]byte, blockSize))
				done <- err
			}()
			synctest.Wait()
			require.NoError(t, r.Close())
			return <-done
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, s := shareWatched(t)
				s.changed = func() { <-d.doubtChanged() }
				require.Error(t, read(t, d))
			})
		})
	}
}

// The result of a hash from before a file changed again is discarded.
func TestAFileChangesWhileItIsHashedAgain(t *testing.T) {
	d, s := shareWatched(t)
	_, content := testContent(blockSize, 2*blockSize, 2*blockSize)
	path := filepath.Join(d.o.Dir, "d", "0")
	require.NoError(t, os.WriteFile(path, content[:2*blockSize], 0o666))
	reached, hold := make(chan struct{}), make(chan struct{})
	reach, release := sync.OnceFunc(func() { close(reached) }), sync.OnceFunc(func() { close(hold) })
	defer release()
	s.read = func() {
		reach()
		<-hold
	}
	first := d.doubt(0)
	<-reached
	require.NoError(t, os.WriteFile(path, make([]byte, 3*blockSize), 0o666))
	second := d.doubt(0)
	release()
	<-first
	<-second
	require.False(t, d.Verified().Has(0))
	require.False(t, d.Verified().Has(1))
}

// A file that is found to have changed after storage ended the download is not taken for the cause.
func TestTheErrorThatEndedStays(t *testing.T) {
	d, _ := shareWatched(t)
	why := errors.New("disk is gone")
	d.endByStorage(why)
	d.recheck(0, storage.ErrChanged)
	require.ErrorIs(t, d.Stats().StorageError, why)
}

// No sidecar is written while a changed file is accepted: it would claim what was verified before for the file as it is now.
func TestNoSidecarIsWrittenWhileAFileIsAccepted(t *testing.T) {
	d, s := shareWatched(t)
	refreshed := 0
	s.refresh = func(int) {
		refreshed++
		if d.disk.sidecar.TryLock() {
			d.disk.sidecar.Unlock()
			t.Error("a sidecar could be written")
		}
	}
	d.doubt(0)
	require.Positive(t, refreshed)
}

// Each Refresh of a piece looks at all its files, so that one for each file would take minutes for a few thousand small ones.
func TestManyChangedFilesInAPieceCostLittle(t *testing.T) {
	d, s := shareChanged(t, slices.Repeat([]int64{1}, 100)...)
	refreshed := 0
	s.refresh = func(int) { refreshed++ }
	require.NoError(t, d.Recheck(t.Context()))
	require.LessOrEqual(t, refreshed, 2)
}

func TestDoubtEndsWithTheDownload(t *testing.T) {
	d, s := shareWatched(t)
	refreshed := 0
	s.refresh = func(int) {
		refreshed++
		d.life.stop(ErrClosed)
	}
	d.doubt(0, 2)
	require.Equal(t, 1, refreshed)
}

// A file that is found to have changed once the download has ended is not looked at without end while something of it still runs,
// such as a Move.
func TestAFileThatChangedAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := shareWatched(t)
		r, err := d.Open(t.Context(), "d/0")
		require.NoError(t, err)
		defer r.Close()
		d.life.tasks.Add(1)
		d.life.stop(ErrClosed)
		_, err = r.Read(make([]byte, blockSize))
		require.ErrorIs(t, err, storage.ErrChanged)
		yielded := make(chan error)
		go func() {
			for f, err := range d.Completed() {
				require.Nil(t, f)
				yielded <- err
			}
		}()
		synctest.Wait()
		d.life.tasks.Done()
		require.ErrorIs(t, <-yielded, storage.ErrChanged)
	})
}
