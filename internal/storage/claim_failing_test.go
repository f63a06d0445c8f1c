package storage_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// failClaims makes the next n claims fail.
func failClaims(d *disktest.Disk, n int, err error) {
	d.Fail = func(call, _ string) error {
		if call != "claim" || n == 0 {
			return nil
		}
		n--
		return err
	}
}

// A claim that fails without a *Claimed, for example because the system is out of handles, does not make the store forget a file.
func TestClaimsThatFailForgetNothing(t *testing.T) {
	refused := errors.New("refused")
	tor, content := testContent(50, 200, 100, 150)
	for _, err := range []error{syscall.EMFILE, fs.ErrPermission, refused} {
		for nth := 1; nth <= 4; nth++ {
			d := disktest.New()
			s := openForgetful(t, tor, d)
			require.NoError(t, s.SetWanted(all(tor)))
			for i := range tor.NumPieces() {
				writePiece(t, tor, s, content, i)
			}
			have := bits.Full(tor.NumPieces())
			have.Remove(8)
			require.NoError(t, s.SaveResume(have, nil))
			require.NoError(t, s.Close())

			s = openForgetful(t, tor, d)
			first := only(tor, func(i int) bool { return i == 0 })
			claims := 0
			d.Fail = func(call, _ string) error {
				if call == "claim" {
					if claims++; claims == nth {
						return err
					} else if claims == 2 { // of the others at once; the two that follow are of one each
						return storage.ErrInUse
					}
				}
				return nil
			}
			require.ErrorIs(t, s.SetWanted(first), err, "claim %d", nth)
			d.Fail = nil
			require.NoError(t, s.SetWanted(first))
			claimed, _ := s.LoadResume()
			require.Equal(t, have, claimed, "claim %d: %v", nth, err)
			require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, s))
			require.NoError(t, s.Close())
		}
	}
}

// Open files that are not in use are closed if a claim needs a handle.
func TestClaimsCloseUnusedFiles(t *testing.T) {
	if !storage.Exhausted(syscall.EMFILE) {
		t.Skip("no such error here")
	}
	tor, content := testContent(50, 200, 100)
	d := disktest.New()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.Equal(t, 2, storage.OpenHandles(s))
	failClaims(d, 2, syscall.EMFILE)
	require.NoError(t, s.SetWanted(all(tor)))
	require.Zero(t, storage.OpenHandles(s))
	require.NoError(t, s.Close())
}

// If the claim of a link fails because the system is out of handles, Finish fails and can be called again. If it fails otherwise,
// the link is left out.
func TestLinksWhoseClaimsFail(t *testing.T) {
	for _, err := range []error{syscall.EMFILE, errors.New("refused")} {
		tor, content := linkedContent("d/a", "d/l > d/a")
		d := disktest.New()
		s := openForgetful(t, tor, d)
		require.NoError(t, s.SetWanted(all(tor)))
		writePiece(t, tor, s, content, 0)
		storage.DropHandle(s, 0)
		failClaims(d, 1, err)
		finished := s.Finish()
		if storage.Exhausted(err) {
			require.ErrorIs(t, finished, err)
			finished = s.Finish()
		}
		require.NoError(t, finished)
		require.NoError(t, s.Close())
	}
}

// A file under another name is not overlooked because the system is out of handles.
func TestAnAliasIsNotOverlookedWithoutAHandle(t *testing.T) {
	if !storage.Exhausted(syscall.EMFILE) {
		t.Skip("no such error here")
	}
	tor, content := testContent(50, 100)
	d := disktest.New()
	require.NoError(t, d.MkdirAll("d"))
	part := filepath.FromSlash("d/0.part")
	f, err := d.Open(part, os.O_RDWR|os.O_CREATE)
	require.NoError(t, err)
	_, err = f.WriteAt(content, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	d.Fail = func(call, name string) error {
		if call == "stat" && name == part {
			return syscall.EMFILE
		}
		return nil
	}
	_, err = storage.OpenDisk(tor, d, "disk", nil)
	require.ErrorIs(t, err, syscall.EMFILE)
	d.Fail = nil
	s := openForgetful(t, tor, d)
	require.Equal(t, bits.Full(2), s.Present(t.Context()))
	require.NoError(t, s.Close())
}

// If a choice is refused after its claims, these end, those of files that are here and not wanted too.
func TestARefusedChoiceBesideFilesThatAreHere(t *testing.T) {
	tor, content := testContent(50, 100, 100)
	d := disktest.New()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(only(tor, func(i int) bool { return i == 0 })))
	writePiece(t, tor, s, content, 0)
	require.NoError(t, s.Close())

	s = openForgetful(t, tor, d)
	d.Fail = func(call, _ string) error {
		if call == "lock" {
			return syscall.EIO
		}
		return nil
	}
	require.ErrorIs(t, s.SetWanted(only(tor, func(i int) bool { return i == 1 })), syscall.EIO)
	d.Fail = nil
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.Close())
}

// noLinkSeen is a Disk that is out of handles whenever it is asked whether a name is a symbolic link.
type noLinkSeen struct {
	storage.Disk
	name string // empty if none fails
}

func (d *noLinkSeen) Readlink(name string) (string, error) {
	if name == d.name {
		return "", syscall.EMFILE
	}
	return d.Disk.Readlink(name)
}

// A choice is refused if the system is out of handles to see whether a file that is not wanted is a symbolic link.
func TestAChoiceWithoutAHandleForAFileThatIsHere(t *testing.T) {
	if !storage.Exhausted(syscall.EMFILE) {
		t.Skip("no such error here")
	}
	tor, content := testContent(50, 100, 100)
	d := &noLinkSeen{Disk: disktest.New()}
	open := func() storage.Store {
		s, err := storage.OpenDisk(tor, d, "disk", nil)
		require.NoError(t, err)
		return s
	}
	s := open()
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, s.Close())

	s = open()
	d.name = filepath.FromSlash("d/1")
	require.ErrorIs(t, s.SetWanted(only(tor, func(i int) bool { return i == 0 })), syscall.EMFILE)
	d.name = ""
	require.NoError(t, s.SetWanted(only(tor, func(i int) bool { return i == 0 })))
	require.NoError(t, s.Close())
}
