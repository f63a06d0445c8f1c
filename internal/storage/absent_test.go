package storage_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// Files in a directory that does not exist cost no system call each, also if each has a directory of its own.
func TestManyFilesThatDoNotExist(t *testing.T) {
	const many = 1000
	var files []layout.File
	for i := range many {
		files = append(files, layout.File{Path: fmt.Sprintf("top/%d/%d.part", i, i), Length: 1})
	}
	calls := 0
	disk := disktest.New()
	disk.Fail = func(string, string) error { calls++; return nil }
	s, err := storage.OpenDisk(storage.Content{Layout: layout.New(many, files...)}, disk, "", nil)
	require.NoError(t, err)
	require.Less(t, calls, 20)
	require.NoError(t, s.Close())
}
