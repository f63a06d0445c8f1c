package sockets_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/httpguard"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simproxy"
	"github.com/shoal-go/torrent/internal/sockets"
)

func open(t *testing.T, c sockets.Config) *sockets.Sockets {
	t.Helper()
	s, err := sockets.New(c)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func parse(t *testing.T, s string) *url.URL {
	u, err := url.Parse(s)
	require.NoError(t, err)
	return u
}

// bound returns a Sockets of the real system, bound to 127.0.0.1.
func bound(t *testing.T) *sockets.Sockets {
	return open(t, sockets.Config{Bind: netip.MustParseAddr("127.0.0.1")})
}

func TestBound(t *testing.T) {
	s := bound(t)
	l, err := s.Listen(":0")
	require.NoError(t, err)
	defer l.Close()
	require.Equal(t, "127.0.0.1", netip.MustParseAddrPort(l.Addr().String()).Addr().String())
	conn, err := s.Dial(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	require.Equal(t, "127.0.0.1", netip.MustParseAddrPort(conn.LocalAddr().String()).Addr().String())

	_, err = s.Dial(t.Context(), "tcp", "[::1]:1")
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.False(t, s.Reaches(netip.MustParseAddr("::1")))
	for _, addr := range []string{"127.0.0.2:0", "[::]:x:0", "localhost:0", "[::1]:0"} {
		_, err = s.Listen(addr)
		require.Error(t, err, addr)
	}
	p, err := s.ListenPacket(t.Context(), "udp4", ":0")
	require.NoError(t, err)
	defer p.Close()
	require.Equal(t, "127.0.0.1", netip.MustParseAddrPort(p.LocalAddr().String()).Addr().String())
	_, err = s.ListenPacket(t.Context(), "udp6", ":0")
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = s.ListenPacket(t.Context(), "udp4", "127.0.0.2:0")
	require.Error(t, err)
}

// With a bound address that no interface has, nothing can be dialled or listened on.
func TestBoundToMissingAddress(t *testing.T) {
	s := open(t, sockets.Config{Bind: netip.MustParseAddr("203.0.113.77")})
	_, err := s.Dial(t.Context(), "tcp", "127.0.0.1:9")
	require.ErrorIs(t, err, sockets.ErrCutOff)
	_, err = s.Listen(":0")
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	_, err = s.Device()
	require.ErrorIs(t, err, sockets.ErrCutOff)
}

// A renewed listener listens on the same port.
func TestRenew(t *testing.T) {
	s := bound(t)
	l, err := s.Listen(":0")
	require.NoError(t, err)
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		require.Eventually(t, func() bool {
			c, err := s.Dial(t.Context(), "tcp", l.Addr().String())
			if err != nil {
				return false
			}
			c.Close()
			(<-accepted).Close()
			return true
		}, time.Minute, time.Millisecond)
		s.Renew()
	}
	require.NoError(t, l.Close())
	_, more := <-accepted
	require.False(t, more)
	require.ErrorIs(t, l.Close(), net.ErrClosed)
	s.Renew()
}

// While its address is missing, a listener waits. It listens on the same port when the address is back.
func TestListenerWithoutAddress(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		h := n.NewHost("80.0.0.1", 0, 0, 0)
		var there atomic.Bool
		there.Store(true)
		s := open(t, sockets.Config{Bind: h.IP(), System: sockets.System{
			Listen: h.Listen,
			Addrs: func() ([]netip.Addr, error) {
				if there.Load() {
					return []netip.Addr{h.IP()}, nil
				}
				return nil, nil
			},
		}})
		l, err := s.Listen(":6881")
		require.NoError(t, err)
		var accepting sync.WaitGroup
		accepting.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		})
		there.Store(false)
		s.Renew()
		simnet.Sleep(time.Hour)
		require.Equal(t, "80.0.0.1:6881", l.Addr().String())
		_, err = h.Dial(t.Context(), "tcp", "80.0.0.1:6881")
		require.Error(t, err)
		there.Store(true)
		simnet.Sleep(2 * time.Second)
		c, err := h.Dial(t.Context(), "tcp", "80.0.0.1:6881")
		require.NoError(t, err)
		c.Close()
		there.Store(false)
		s.Renew()
		simnet.Sleep(time.Second)
		require.NoError(t, l.Close(), "while Accept waits for the address")
		accepting.Wait()
	})
}

// The address of a name is learned from the answer to a query that is sent to it through the proxy, in the protocol of the
// host.
func TestLookUpByProxy(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, via, far := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("81.0.0.1", 0, 0, 0), n.NewHost("82.0.0.1", 0, 0, 0)
		p := simproxy.New(via)
		p.Names["far.sim"], p.Names["mute.sim"] = far.IP(), us.IP()
		require.NoError(t, p.Start())
		defer p.Stop()
		conn, err := far.ListenPacket("udp4", ":7000")
		require.NoError(t, err)
		defer conn.Close()
		lost := 2
		go func() {
			b := make([]byte, 100)
			for {
				n, from, err := conn.ReadFrom(b)
				if err != nil {
					return
				}
				if lost--; lost >= 0 {
					continue
				}
				if n == 16 {
					conn.WriteTo([]byte("\x00\x00\x00\x00wrong123"), from)
					conn.WriteTo(append(append([]byte{0, 0, 0, 0}, b[12:16]...), make([]byte, 8)...), from)
				} else if i := strings.Index(string(b[:n]), "1:t8:"); i >= 0 {
					conn.WriteTo([]byte("d1:rd2:id20:aaaaaaaaaaaaaaaaaaaae1:t8:"+string(b[i+5:i+13])+"1:y1:re"), from)
				}
			}
		}()
		s := open(t, sockets.Config{Proxy: parse(t, "socks5://81.0.0.1"), System: sockets.System{
			Dial: func(ctx context.Context, _ netip.Addr, network, addr string) (net.Conn, error) {
				return us.Dial(ctx, network, addr)
			},
			ListenPacket: func(_ context.Context, network, addr string) (net.PacketConn, error) {
				return us.ListenPacket(network, addr)
			},
			LookUp: func(context.Context, string) ([]netip.Addr, error) {
				t.Error("looked up without the proxy")
				return nil, nil
			},
		}})
		_, err = s.LookUpFor(sockets.Tracker)(t.Context(), "far.sim", 7000)
		require.ErrorIs(t, err, net.ErrClosed, "there is no relay yet")
		packets, err := s.ListenPacket(t.Context(), "udp4", "")
		require.NoError(t, err)
		defer packets.Close()
		go func() {
			b := make([]byte, 100)
			for {
				if _, _, err := packets.ReadFrom(b); err != nil {
					return
				}
			}
		}()
		for _, k := range []sockets.Kind{sockets.Tracker, sockets.DHT} {
			addrs, err := s.LookUpFor(k)(t.Context(), "far.sim", 7000)
			require.NoError(t, err)
			require.Equal(t, []netip.Addr{far.IP()}, addrs)
		}
		_, err = s.LookUpFor(sockets.DHT)(t.Context(), "mute.sim", 7000)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = s.LookUp(t.Context(), "far.sim")
		require.ErrorIs(t, err, errors.ErrUnsupported)
		_, err = s.ListenPacket(t.Context(), "udp6", "")
		require.Error(t, err)
		_, err = s.Listen(":0")
		require.ErrorIs(t, err, errors.ErrUnsupported)
		_, err = s.ListenNear(t.Context(), "udp4", ":0")
		require.ErrorIs(t, err, errors.ErrUnsupported)
		_, err = s.DialNear(t.Context(), "tcp", "10.0.0.1:1")
		require.ErrorIs(t, err, errors.ErrUnsupported)
	})
}

// A proxy that is out of reach is tried by one goroutine only, however many dials fail. Config.Changed is called when it is back.
func TestProxyOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tried, told, there atomic.Int32
		s := open(t, sockets.Config{
			Proxy: parse(t, "http://proxy.example"), Changed: func(bool) { told.Add(1) },
			System: sockets.System{Dial: func(_ context.Context, _ netip.Addr, _, addr string) (net.Conn, error) {
				tried.Add(1)
				if there.Load() == 0 {
					return nil, syscall.ECONNREFUSED
				}
				ours, theirs := net.Pipe()
				go func() {
					defer theirs.Close()
					http.ReadRequest(bufio.NewReader(theirs))
					io.WriteString(theirs, "HTTP/1.1 200 OK\r\n\r\n")
					io.Copy(io.Discard, theirs) // until our end is closed
				}()
				return ours, nil
			}},
		})
		require.ErrorIs(t, s.UDPErr(), errors.ErrUnsupported)
		for range 100 {
			_, err := s.Dial(t.Context(), "tcp", "peer.example:1")
			require.ErrorIs(t, err, sockets.ErrCutOff)
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}
		require.EqualValues(t, 1, tried.Load())
		time.Sleep(time.Hour)
		require.Less(t, tried.Load(), int32(130))
		require.Error(t, s.ProxyErr())
		there.Store(1)
		time.Sleep(31 * time.Second)
		require.NoError(t, s.ProxyErr())
		require.EqualValues(t, 1, told.Load())
		c, err := s.Dial(t.Context(), "tcp", "peer.example:1")
		require.NoError(t, err)
		c.Close()
		s.Close()
	})
}

// An HTTP client of the user is changed to use the bound address if its Transport is an *http.Transport. Without a proxy or
// a bound address it is not changed.
func TestObey(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) }))
	defer server.Close()
	given := &http.Client{Timeout: time.Minute}
	plain := open(t, sockets.Config{})
	require.Same(t, given, plain.Obey(given))

	s := bound(t)
	obeying := s.Obey(given)
	require.NotSame(t, given, obeying)
	require.Equal(t, given.Timeout, obeying.Timeout)
	defer obeying.CloseIdleConnections()
	resp, err := obeying.Get(server.URL)
	require.NoError(t, err)
	resp.Body.Close()
	_, err = obeying.Get("http://[::1]:1/")
	require.ErrorIs(t, err, errors.ErrUnsupported)

	other := &http.Client{Transport: http.NewFileTransport(http.Dir("."))}
	require.Same(t, other, s.Obey(other))
}

// net/http does not end a dial when the request for which it began ends, so a proxy that says nothing must.
func TestObeyEndsDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialled := make(chan net.Conn, 1)
		s := open(t, sockets.Config{
			Proxy: parse(t, "http://proxy.example"),
			System: sockets.System{Dial: func(context.Context, netip.Addr, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				dialled <- theirs
				return ours, nil
			}},
		})
		obeying := s.Obey(&http.Client{Timeout: time.Second})
		_, err := obeying.Get("http://tracker.example/announce")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		began := time.Now()
		_, err = io.Copy(io.Discard, <-dialled) // until the other end is closed
		require.NoError(t, err)
		require.Less(t, time.Since(began), time.Minute)
	})
}

// Obey replaces every dial function of the user's Transport, and does not use a default transport that the program has set.
func TestObeyReplacesDialFunctions(t *testing.T) {
	beside := func(string, string) (net.Conn, error) {
		t.Error("dialled with a function of the user's Transport")
		return nil, errors.New("bypassed")
	}
	s := open(t, sockets.Config{Bind: netip.MustParseAddr("203.0.113.77"), System: sockets.System{
		Addrs: func() ([]netip.Addr, error) { return nil, nil },
	}})
	before := http.DefaultTransport
	http.DefaultTransport = http.NewFileTransport(http.Dir("."))
	defer func() { http.DefaultTransport = before }()
	for name, given := range map[string]http.RoundTripper{
		"the default": nil,
		//lint:ignore SA1019 the transport of a user may set them
		"both": &http.Transport{Dial: beside, DialTLS: beside},
		"contexts": &http.Transport{
			DialContext:    func(_ context.Context, network, addr string) (net.Conn, error) { return beside(network, addr) },
			DialTLSContext: func(_ context.Context, network, addr string) (net.Conn, error) { return beside(network, addr) },
		},
	} {
		obeying := s.Obey(&http.Client{Transport: given})
		for _, u := range []string{"http://203.0.113.1:1/", "https://203.0.113.1:1/"} {
			_, err := obeying.Get(u)
			require.ErrorIs(t, err, sockets.ErrCutOff, "%s: %s", name, u)
		}
	}
}

// A connection of Config.Dial that does not come from the bound address is an error.
func TestDialFromAnotherAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	from := netip.MustParseAddr("127.0.0.1")
	s := open(t, sockets.Config{Bind: from, Dial: new(net.Dialer).DialContext})
	c, err := s.Dial(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	c.Close()
	s = open(t, sockets.Config{Bind: netip.MustParseAddr("203.0.113.77"), Dial: new(net.Dialer).DialContext})
	_, err = s.Dial(t.Context(), "tcp", l.Addr().String())
	require.ErrorContains(t, err, "Client.Dial connects from 127.0.0.1")
}

// A public address of this machine, or of another machine in its IPv6 network, is checked as one inside our network.
func TestOwnAddressesAreInside(t *testing.T) {
	s := open(t, sockets.Config{System: sockets.System{
		Dial: func(context.Context, netip.Addr, string, string) (net.Conn, error) {
			return nil, errors.New("nothing there")
		},
		Addrs: func() ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("2001:db8:1:2::5")}, nil
		},
	}})
	for host, want := range map[string]bool{
		"203.0.113.5": true, "::ffff:203.0.113.5": true, "203.0.113.6": false, "2001:db8:1:2::5": true, "2001:db8:1:2:ff::": true, "2001:db8:1:3::5": false,
		"name.example": false, "127.0.0.1": true,
	} {
		judged := ""
		s.DialHost(t.Context(), "tcp", net.JoinHostPort(host, "80"), func(host string) error {
			judged = host
			return nil
		})
		require.Equal(t, want, httpguard.IsInward(judged), "%s as %s", host, judged)
		if host == "127.0.0.1" {
			require.Equal(t, host, judged)
		}
	}
}

// An idle connection to an address of this machine, left by an announce, is checked as inside our network when the next
// request uses it.
func TestOwnAddressOfIdleConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var asked atomic.Int32
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) })}
	go server.Serve(l)
	defer server.Close()
	own := netip.MustParseAddrPort("203.0.113.5:80")
	s := open(t, sockets.Config{System: sockets.System{
		Dial: func(context.Context, netip.Addr, string, string) (net.Conn, error) {
			conn, err := net.Dial("tcp", l.Addr().String())
			return &connFrom{conn, own}, err
		},
		Addrs: func() ([]netip.Addr, error) { return []netip.Addr{own.Addr()}, nil },
	}})
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return s.DialHost(ctx, network, addr, func(host string) error { return httpguard.Check(ctx, host) })
	}}}
	defer client.CloseIdleConnections()
	refused := errors.New("has a query")
	get := func(u string) error {
		guard := httpguard.New(func(u *url.URL, _ bool) error {
			if u.RawQuery != "" {
				return refused
			}
			return nil
		}, func(*url.URL) bool { return true })
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		req, err := http.NewRequestWithContext(guard.Watch(ctx, cancel), http.MethodGet, u, nil)
		require.NoError(t, err)
		require.NoError(t, guard.Begin(req.URL))
		resp, err := guard.Client(client).Do(req)
		if err != nil {
			return context.Cause(ctx)
		}
		resp.Body.Close()
		return nil
	}
	require.NoError(t, get("http://203.0.113.5/announce"))
	require.ErrorIs(t, get("http://203.0.113.5/f?reboot"), refused)
	require.EqualValues(t, 1, asked.Load())
}

// A connFrom is a connection that reports another RemoteAddr.
type connFrom struct {
	net.Conn
	remote netip.AddrPort
}

func (c *connFrom) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }
