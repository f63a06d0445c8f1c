package storage_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

func TestVerifyEndsWithItsContext(t *testing.T) {
	tor, content := testContent(1<<20, 4<<20)
	for i := range 4 {
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("enough")
		reads := 0
		r := readerAt(func(p []byte, off int64) (int, error) {
			if reads++; reads > i {
				cancel(cause)
			}
			return copy(p, content[off:]), nil
		})
		which := bits.New(tor.NumPieces())
		which.Add(i)
		err := storage.Verify(ctx, tor, r, which, func(int, bool) {})
		require.ErrorIs(t, err, cause)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, i+1, reads)
	}
}

// The files are looked at before anything is read, and a torrent may have very many of them.
func TestVerifyEndsWhileItLooksAtFiles(t *testing.T) {
	tor, _ := testContent(100, slices.Repeat([]int64{10}, 1000)...)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	looks := 0
	disk := disktest.New()
	for i := range tor.NumFiles() {
		require.NoError(t, disk.MkdirAll(filepath.Dir(tor.File(i).Path)))
		f, err := disk.Open(tor.File(i).Path, os.O_RDWR|os.O_CREATE)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	disk.Fail = func(call, _ string) error {
		if call == "stat" {
			if looks++; looks == 10 {
				cancel(cause)
			}
		}
		return nil
	}
	_, err := storage.VerifyDisk(ctx, tor, disk, "dir")
	require.ErrorIs(t, err, cause)
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, looks, 20)
}

func TestVerifyReadErrors(t *testing.T) {
	tor, content := testContent(100, 1000)
	bad := errors.New("input/output error")
	fail := io.ErrUnexpectedEOF
	r := readerAt(func(p []byte, off int64) (int, error) {
		if off <= 350 && off+int64(len(p)) > 350 {
			return 0, fail
		}
		return copy(p, content[off:]), nil
	})
	got := bits.New(10)
	count := func(piece int, ok bool) {
		if ok {
			got.Add(piece)
		}
	}
	require.NoError(t, storage.Verify(t.Context(), tor, r, bits.Full(10), count))
	require.Equal(t, []int{0, 1, 2, 4, 5, 6, 7, 8, 9}, slices.Collect(got.All()))
	fail = bad
	require.ErrorIs(t, storage.Verify(t.Context(), tor, r, bits.Full(10), count), bad)
	got = bits.New(10)
	require.NoError(t, storage.NewWorkers().Verify(t.Context(), "", tor, r, bits.Full(10), count, func(piece int, err error) {
		require.Equal(t, 3, piece)
		require.ErrorIs(t, err, bad)
	}))
	require.Equal(t, []int{0, 1, 2, 4, 5, 6, 7, 8, 9}, slices.Collect(got.All()))
}

type readerAt func(p []byte, off int64) (int, error)

func (f readerAt) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }
