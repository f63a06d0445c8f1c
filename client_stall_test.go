package torrent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
)

// A user's function may wait for a network that is not there before it opens a UDP socket. Nothing else waits for it longer than
// for a context or Close.
func TestListenPacketThatStalls(t *testing.T) {
	content := newSimContent(1, blockSize, 4*blockSize)
	stalls := func(ctx context.Context, _, _ string) (net.PacketConn, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	client := func(t *testing.T, n *simnet.Network, tracker *simtracker.Tracker) *Client {
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), tracker)
		c.NoDHT, c.NoUTP, c.NoListen, c.ListenPacket = false, false, true, stalls
		return c
	}
	run := func(name string, do func(*testing.T, *simnet.Network)) {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				do(t, n)
				require.LessOrEqual(t, n.Now(), 10*time.Second)
			})
		})
	}
	for name, end := range map[string]func(*Client, *Download, context.CancelFunc){
		"Download.Close": func(_ *Client, d *Download, _ context.CancelFunc) { d.Close() },
		"Client.Close":   func(c *Client, _ *Download, _ context.CancelFunc) { c.Close() },
		"context": func(_ *Client, d *Download, cancel context.CancelFunc) {
			cancel()
			d.Close()
		},
	} {
		run(name, func(t *testing.T, n *simnet.Network) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := client(t, n, nil)
			d, err := content.own().Start(ctx, &Options{Client: c})
			require.NoError(t, err)
			simnet.Sleep(5 * time.Second)
			c.Stats()
			end(c, d, cancel)
			require.True(t, d.isGone())
		})
	}
	run("DHT", func(t *testing.T, n *simnet.Network) {
		c := client(t, n, nil)
		time.AfterFunc(5*time.Second, func() { c.Close() })
		require.Error(t, c.DHT().Stats().Err)
	})
	run("Start", func(t *testing.T, n *simnet.Network) { // which listens, and waits for that
		c := client(t, n, nil)
		c.NoListen = false
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := content.own().Start(ctx, &Options{Client: c})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = (&Magnet{InfoHash: content.infoHash}).Resolve(ctx, &Options{Client: c})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		c.Stats()
		c.Close()
	})
	run("other sources", func(t *testing.T, n *simnet.Network) {
		seed := n.NewHost("80.0.0.1", 0, 0, 0)
		simSeed(t, simClient(t, seed, nil), content)
		tracker := simtracker.New(1)
		tracker.Add(seed.Addr(6881))
		tor := content.own()
		tor.trackers = [][]string{{"http://10.0.9.9/announce"}}
		d, err := tor.Start(t.Context(), &Options{Client: client(t, n, tracker)})
		require.NoError(t, err)
		_, err = d.Wait()
		require.NoError(t, err)
	})
}

// A UDP socket that cannot be opened or read at first costs a download the DHT, and the client the peers that come by uTP, only
// until it can.
func TestSocketThatIsOpenedLater(t *testing.T) {
	for name, early := range map[string]func(network string) (net.PacketConn, error){
		"no socket": func(string) (net.PacketConn, error) { return nil, syscall.EMFILE },
		"no socket of one family": func(network string) (net.PacketConn, error) {
			if network == "udp4" {
				return nil, syscall.EMFILE
			}
			return new(unreadable), nil
		},
		"sockets that cannot be read": func(string) (net.PacketConn, error) { return new(unreadable), nil },
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, blockSize, 4*blockSize)
				router := dhtNetwork(t, n, 5)
				simSeed(t, dhtClient(t, n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), router), content)
				simnet.Sleep(time.Minute)

				us := n.NewHost("85.0.0.1", 0, 0, 10*time.Millisecond)
				c := dhtClient(t, us, router)
				c.NoUTP = false
				later := time.Now().Add(30 * time.Second)
				c.ListenPacket = func(_ context.Context, network, addr string) (net.PacketConn, error) {
					if time.Now().Before(later) {
						return early(network)
					}
					return us.ListenPacket(network, addr)
				}
				require.NoError(t, c.Open())
				simnet.Sleep(time.Second) // the sockets that could be opened have failed
				d := simLeech(t, c, content)
				simnet.Sleep(3 * time.Minute)
				require.True(t, d.Stats().Complete)

				d = simLeech(t, utpClient(t, n.NewHost("86.0.0.1", 0, 0, 10*time.Millisecond), false), content, us.Addr(6881))
				simnet.Sleep(time.Minute)
				require.True(t, d.Stats().Complete)
			})
		})
	}
}

// A client that sends no packets by itself opens its UDP sockets again, too, so that peers can connect by uTP.
func TestSocketThatIsOpenedForPeersAlone(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		us := n.NewHost("85.0.0.1", 0, 0, 10*time.Millisecond)
		c := utpClient(t, us, true)
		later := time.Now().Add(time.Hour)
		c.ListenPacket = func(_ context.Context, network, addr string) (net.PacketConn, error) {
			if time.Now().Before(later) {
				return nil, syscall.EMFILE
			}
			return us.ListenPacket(network, addr)
		}
		simSeed(t, c, content)
		simnet.Sleep(time.Hour + time.Minute)
		d := simLeech(t, utpClient(t, n.NewHost("86.0.0.1", 0, 0, 10*time.Millisecond), false), content, us.Addr(6881))
		simnet.Sleep(time.Minute)
		require.True(t, d.Stats().Complete)
	})
}

// An unreadable connection is one of which all reads fail.
type unreadable struct{ net.PacketConn }

func (*unreadable) ReadFrom([]byte) (int, net.Addr, error)    { return 0, nil, syscall.EIO }
func (*unreadable) WriteTo(b []byte, _ net.Addr) (int, error) { return len(b), nil }
func (*unreadable) LocalAddr() net.Addr                       { return &net.UDPAddr{Port: 6881} }
func (*unreadable) Close() error                              { return nil }

// The name of a peer that a link has is looked up again until it has addresses.
func TestResolveLooksUpAgain(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 4, false)
		seed := n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond)
		simSeed(t, simClient(t, seed, nil), content)
		c := simClient(t, n.NewHost("85.0.0.1", 0, 0, 10*time.Millisecond), nil)
		later, looked := time.Now().Add(time.Hour), 0
		c.hooks.lookup = func(_ context.Context, name string) ([]netip.Addr, error) {
			if name == "none.sim" {
				require.Equal(t, later, time.Now().Add(time.Hour), "a name that is not there is looked up once")
				return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
			}
			if looked++; time.Now().Before(later) {
				return nil, errors.New("no network yet")
			}
			return []netip.Addr{seed.IP()}, nil
		}
		m := &Magnet{InfoHash: content.infoHash, Peers: []string{"none.sim:6881", "peer.sim:6881"}}
		_, err := m.Resolve(t.Context(), &Options{Client: c})
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(later), 10*time.Minute)
		require.Less(t, looked, 20)
	})
}

// A connection that a peer made to a listener of the user's, and that is slow to close, does not hold up the client.
func TestSlowCloseOfHandshakes(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, stranger := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("81.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.NoListen = true
		l, err := us.Listen("tcp", ":7000")
		require.NoError(t, err)
		require.NoError(t, c.Serve(slowListener{l}))
		for range maxHandshakesPerAddress + 1 {
			conn, err := stranger.Dial(t.Context(), "tcp", "80.0.0.1:7000")
			require.NoError(t, err)
			defer conn.Close()
		}
		simnet.Sleep(time.Second)
		require.Equal(t, maxHandshakesPerAddress, c.Stats().Greeting)
		conn, err := n.NewHost("82.0.0.1", 0, 0, 0).Dial(t.Context(), "tcp", "80.0.0.1:7000")
		require.NoError(t, err)
		defer conn.Close()
		simnet.Sleep(time.Second)
		require.Equal(t, maxHandshakesPerAddress+1, c.Stats().Greeting, "the one that is refused does not hold up others")
	})
}

// However many connections a listener of the user's accepts that are refused and slow to close, few of them are closed at once.
func TestFewConnectionsCloseAtOnce(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, stranger := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("81.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.NoListen = true
		l, err := us.Listen("tcp", ":7000")
		require.NoError(t, err)
		var closing atomic.Int32
		require.NoError(t, c.Serve(onceSlowListener{l, &closing}))
		for range 2 * maxRefusals {
			conn, err := stranger.Dial(t.Context(), "tcp", "80.0.0.1:7000")
			require.NoError(t, err)
			defer conn.Close()
		}
		simnet.Sleep(time.Second)
		require.EqualValues(t, maxRefusals+1, closing.Load(), "the last of them holds up the listener")
		simnet.Sleep(5 * time.Minute)
		require.Zero(t, closing.Load())
		require.Zero(t, c.Stats().Greeting)
	})
}

// onceSlowListener is a listener whose connections are onceSlow.
type onceSlowListener struct {
	net.Listener
	closing *atomic.Int32
}

func (l onceSlowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return onceSlow{conn, new(atomic.Bool), l.closing}, nil
}

// slowListener is a listener whose connections are slow to close.
type slowListener struct{ net.Listener }

func (l slowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return slowToClose{conn}, nil
}
