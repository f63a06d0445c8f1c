package torrent_test

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// A client whose port is taken opens once the port is free.
func TestClientOpensAgain(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &torrent.Client{NoDHT: true, Listen: taken.Addr().String()}
	require.ErrorIs(t, c.Open(), syscall.EADDRINUSE)
	require.Nil(t, c.Addr())
	require.NoError(t, taken.Close())

	require.NoError(t, c.Open())
	require.Equal(t, c.Listen, c.Addr().String(), "before any Start")
	require.NoError(t, c.Open(), "a second time does nothing")
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Open(), torrent.ErrClosed)
	_, err = net.Dial("tcp", c.Listen)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// A client takes peers from a listener of the caller's, too, and closes it with itself.
func TestClientServes(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	mine, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &torrent.Client{NoDHT: true, NoListen: true}
	require.NoError(t, c.Serve(mine))
	require.Equal(t, mine.Addr(), c.Addr())
	s.seed(t, torrent.Options{Client: c})
	s.same(t, complete(t, s.start(t, torrent.Options{Peers: []netip.AddrPort{addrOf(c)}})))
	require.NoError(t, c.Close())
	_, err = mine.Accept()
	require.ErrorIs(t, err, net.ErrClosed)

	late, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.ErrorIs(t, c.Serve(late), torrent.ErrClosed)
	_, err = late.Accept()
	require.ErrorIs(t, err, net.ErrClosed, "what is not served is closed")
}

// A client may be asked for its downloads at any time, while the first begins too.
func TestClientDownload(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	c := local()
	defer c.Close()
	done := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			for d := range c.Downloads() {
				d.Stats()
			}
			c.Download(s.InfoHash())
			c.Addr()
			select {
			case <-done:
				return
			default:
			}
		}
	})
	_, ok := c.Download(s.InfoHash())
	require.False(t, ok)
	d := s.start(t, torrent.Options{Client: c, Seed: true, Dir: s.dir})
	found, ok := c.Download(s.InfoHash())
	require.True(t, ok)
	require.Same(t, d, found)
	require.NoError(t, d.Close())
	_, ok = c.Download(s.InfoHash())
	require.False(t, ok)
	close(done)
	asking.Wait()
}

// What a client says that its downloads brought stays when they are gone.
func TestClientStats(t *testing.T) {
	s := makeShare(t, torrent.CreateOptions{}, mixed...)
	from, to := local(), local()
	require.ErrorIs(t, to.Stats().DHT.Err, torrent.ErrUnsupported)
	d := s.start(t, torrent.Options{Client: to, Downloaded: 1 << 40, Peers: []netip.AddrPort{s.seed(t, torrent.Options{Client: from})}})
	complete(t, d)
	until(t, "both ends count all", func() bool {
		there, here := from.Stats(), to.Stats()
		return here.Downloaded >= int64(len(s.raw)) && there.Uploaded >= int64(len(s.raw))
	})
	require.Equal(t, 1, from.Stats().Downloads)
	require.Equal(t, from.Addr(), from.Stats().Addr)
	require.NoError(t, d.Close())
	st := to.Stats()
	require.Zero(t, st.Downloads)
	require.Zero(t, st.Peers)
	require.Zero(t, st.Memory)
	require.EqualValues(t, 32<<20, st.MemoryMost)
	require.EqualValues(t, len(s.raw), st.Downloaded-st.Wasted)
	require.NoError(t, to.Close())
	require.Equal(t, st.Downloaded, to.Stats().Downloaded)
}
