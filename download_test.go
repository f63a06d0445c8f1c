package torrent

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sampleDir is a directory of files that share pieces, with an odd last piece and an empty file.
func sampleDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sample")
	for name, size := range map[string]int{"a.bin": 300_000, "b/c.txt": 17, "b/d.bin": 1_000_003, "b/empty": 0, "z.bin": 65_536} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		b := make([]byte, size)
		rand.Read(b)
		require.NoError(t, os.WriteFile(path, b, 0o644))
	}
	return dir
}

// seed shares dir on loopback and returns where.
func seed(t *testing.T, tor *Torrent, dir string, client *Client) netip.AddrPort {
	t.Helper()
	if client == nil {
		client = &Client{NoDHT: true}
	}
	client.Listen = "127.0.0.1:0"
	d, err := tor.Start(t.Context(), &Options{Dir: dir, Seed: true, Client: client})
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	<-d.Done()
	return netip.MustParseAddrPort(client.Addr().String())
}

func requireSame(t *testing.T, dir string, files *Downloaded) {
	t.Helper()
	n := 0
	for f := range files.Files() {
		want, err := os.ReadFile(filepath.Join(filepath.Dir(dir), filepath.FromSlash(f.Path())))
		require.NoError(t, err)
		got, err := f.Bytes()
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), f.Path())
		n++
	}
	require.Equal(t, 5, n)
}

func TestDownloadAll(t *testing.T) {
	for name, policy := range map[string]EncryptionPolicy{"prefer": PreferEncryption, "require": RequireEncryption, "disable": DisableEncryption} {
		t.Run(name, func(t *testing.T) {
			dir := sampleDir(t)
			tor, err := Create(dir, &CreateOptions{PieceLength: 32 << 10})
			require.NoError(t, err)
			addr := seed(t, tor, filepath.Dir(dir), &Client{NoDHT: true, Encryption: policy})
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			for _, to := range []string{"", t.TempDir()} {
				files, err := tor.DownloadAll(ctx, &Options{Dir: to, Peers: []netip.AddrPort{addr}, Client: &Client{NoDHT: true, Encryption: policy}})
				require.NoError(t, err)
				requireSame(t, dir, files)
				require.NoError(t, files.Close())
			}
		})
	}
}
