//go:build linux

package torrent_test

import (
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/internal/proctest"
)

// A process without a handle to spare gets through: peers give way to files.
func TestOutOfHandles(t *testing.T) {
	t.Parallel()
	dir, ok := proctest.InChild()
	if !ok {
		out, err := proctest.Child(t, t.TempDir(), nil).CombinedOutput()
		t.Logf("%s", out)
		require.NoError(t, err)
		return
	}
	var parts []part
	for i := range 200 {
		parts = append(parts, part{string(rune('a'+i%26)) + "/" + string(rune('a'+i/26)), 30_000})
	}
	s := makeShare(t, torrent.CreateOptions{}, parts...)
	var peers []netip.AddrPort
	var seeds []*remote
	for range 100 {
		seed := s.gated(t)
		seeds = append(seeds, seed)
		peers = append(peers, seed.addr)
	}
	d := s.start(t, torrent.Options{Dir: dir, Peers: peers, MaxPeers: 100})
	until(t, "most are connected", func() bool { return len(d.Stats().Peers) > 60 })
	// Not a single handle is free, whatever gives way, until that was felt. Then some have to give way.
	var limit, before syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before))
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	limit = before
	limit.Cur = 3
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	for _, seed := range seeds {
		seed.give()
	}
	until(t, "no file can be made", func() bool { return d.Stats().StorageErrors > 0 })
	limit.Cur = uint64(len(fds)) - 20
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	files := complete(t, d)
	st := d.Stats()
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before))
	require.NotZero(t, st.StorageErrors)
	require.ErrorIs(t, st.StorageError, syscall.EMFILE)
	t.Log(st.StorageErrors, "times out of handles, and complete")
	s.same(t, files)
}
