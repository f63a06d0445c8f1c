package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/proxy"
)

// A relay is a SOCKS proxy on the loopback that supports UDP. The test reads and writes the packets of the relay itself.
type relay struct {
	net.PacketConn               // the socket of the relay
	control        chan net.Conn // each TCP connection, after its request was answered
	asked          string        // the request on the last connection
}

// newRelay starts a relay that answers a request with bound followed by the port of its socket, and then sends early.
func newRelay(t *testing.T, bound string, early ...string) (*proxy.Proxy, *relay) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { packets.Close() })
	packets.SetDeadline(time.Now().Add(2 * time.Minute))
	r := &relay{PacketConn: packets, control: make(chan net.Conn, 1)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 10)
			io.ReadFull(c, b[:3])
			c.Write([]byte(greeted))
			io.ReadFull(c, b)
			r.asked = string(b)
			port := packets.LocalAddr().(*net.UDPAddr).Port
			c.Write(append([]byte(bound), byte(port>>8), byte(port)))
			for _, s := range early {
				c.Write([]byte(s))
			}
			r.control <- c
		}
	}()
	var d net.Dialer
	var lc net.ListenConfig
	p, err := proxy.New(&url.URL{Scheme: "socks5", Host: l.Addr().String()}, d.DialContext, lc.ListenPacket)
	require.NoError(t, err)
	return p, r
}

const boundHere = "\x05\x00\x00\x01\x7f\x00\x00\x01"

// read returns the next packet that the relay receives, and its sender.
func (r *relay) read(t *testing.T) (string, net.Addr) {
	b := make([]byte, 1<<16)
	n, from, err := r.ReadFrom(b)
	require.NoError(t, err)
	return string(b[:n]), from
}

func TestListenPacket(t *testing.T) {
	p, r := newRelay(t, boundHere)
	conn, err := p.ListenPacket(t.Context(), "udp4", "0.0.0.0:6881")
	require.NoError(t, err)
	control := <-r.control
	defer control.Close()
	require.Equal(t, "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", r.asked)
	conn.SetDeadline(time.Now().Add(2 * time.Minute))

	for _, tt := range []struct {
		to   net.Addr
		want string
	}{
		{&net.UDPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 6881}, "\x00\x00\x00\x01\xcb\x00\x71\x07\x1a\xe1hello"},
		{&net.UDPAddr{IP: net.ParseIP("2001:db8::7"), Port: 1}, "\x00\x00\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x01hello"},
		{named("tracker.example:80"), "\x00\x00\x00\x03\x0ftracker.example\x00\x50hello"},
	} {
		n, err := conn.WriteTo([]byte("hello"), tt.to)
		require.NoError(t, err)
		require.Equal(t, 5, n)
		got, from := r.read(t)
		require.Equal(t, tt.want, got)
		require.Equal(t, conn.LocalAddr().(*net.UDPAddr).Port, from.(*net.UDPAddr).Port)
	}
	from := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: conn.LocalAddr().(*net.UDPAddr).Port}

	// Packets that do not come from the relay, and malformed ones, are ignored.
	stranger, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer stranger.Close()
	stranger.WriteTo([]byte("\x00\x00\x00\x01\xcb\x00\x71\x07\x1a\xe1false"), from)
	for _, b := range []string{"", "\x00\x00\x00", "\x00\x00\x00\x01\xcb\x00", "\x00\x00\x01\x01\xcb\x00\x71\x07\x1a\xe1part", "\x00\x00\x00\x02\xcb\x00\x71\x07\x1a\xe1", "\x00\x00\x00\x03\x00\x00\x50"} {
		r.WriteTo([]byte(b), from)
	}
	b := make([]byte, 100)
	for _, tt := range []struct {
		packet, data, from string
	}{
		{"\x00\x00\x00\x01\xcb\x00\x71\x07\x1a\xe1hello", "hello", "203.0.113.7:6881"},
		{"\x00\x00\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x01", "", "[2001:db8::7]:1"},
		{"\x00\x00\x00\x03\x0ftracker.example\x00\x50x", "x", "tracker.example:80"},
	} {
		r.WriteTo([]byte(tt.packet), from)
		n, addr, err := conn.ReadFrom(b)
		require.NoError(t, err)
		require.Equal(t, tt.data, string(b[:n]))
		require.Equal(t, tt.from, addr.String())
		require.Equal(t, "udp", addr.Network())
	}

	_, err = conn.WriteTo(b, named("nonsense"))
	require.ErrorContains(t, err, "send by proxy: ")
	_, err = conn.WriteTo(b, &net.UDPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 1})
	require.ErrorContains(t, err, "address with a zone")

	require.NoError(t, conn.SetReadDeadline(time.Unix(1, 0)))
	_, _, err = conn.ReadFrom(b)
	require.True(t, err.(net.Error).Timeout())

	require.NoError(t, conn.Close())
	_, err = control.Read(b)
	require.Equal(t, io.EOF, err, "the TCP connection is closed")
	_, _, err = conn.ReadFrom(b)
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = conn.WriteTo(b, from)
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, conn.Close())
}

// named is a net.Addr with a host name.
type named string

func (named) Network() string  { return "udp" }
func (n named) String() string { return string(n) }

// TestAssociationEnds checks that reads and writes fail after the proxy ended the association.
func TestAssociationEnds(t *testing.T) {
	p, r := newRelay(t, boundHere)
	conn, err := p.ListenPacket(t.Context(), "udp4", "")
	require.NoError(t, err)
	(<-r.control).Close()
	_, _, err = conn.ReadFrom(make([]byte, 10))
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorContains(t, err, "the proxy ended the UDP association")
	_, err = conn.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(1, 2, 3, 4), Port: 5})
	require.ErrorContains(t, err, "the proxy ended the UDP association")

	p, _ = newRelay(t, boundHere, "hello") // a proxy must send nothing after its reply
	conn, err = p.ListenPacket(t.Context(), "udp4", "")
	require.NoError(t, err)
	_, _, err = conn.ReadFrom(make([]byte, 10))
	require.ErrorContains(t, err, "unexpected data on its TCP connection")
}

func TestDialUDP(t *testing.T) {
	for to, tt := range map[string]struct {
		sent   string
		others []string // senders whose packets are ignored
		from   string
	}{
		"203.0.113.7:6881": {"\x00\x00\x00\x01\xcb\x00\x71\x07\x1a\xe1", []string{"\x01\xcb\x00\x71\x07\x1a\xe2", "\x01\xcb\x00\x71\x08\x1a\xe1", "\x03\x01a\x1a\xe1"}, "\x01\xcb\x00\x71\x07\x1a\xe1"},
		"a:80":             {"\x00\x00\x00\x03\x01a\x00\x50", []string{"\x01\xcb\x00\x71\x07\x1a\xe1"}, "\x01\xcb\x00\x71\x07\x00\x50"},
	} {
		t.Run(to, func(t *testing.T) {
			p, r := newRelay(t, "\x05\x00\x00\x01\x00\x00\x00\x00") // zeros: the address of the proxy
			conn, err := p.Dial(t.Context(), "udp", to)
			require.NoError(t, err)
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(2 * time.Minute))
			require.Equal(t, to, conn.RemoteAddr().String())
			_, err = conn.Write([]byte("hello"))
			require.NoError(t, err)
			got, from := r.read(t)
			require.Equal(t, tt.sent+"hello", got)
			for _, other := range tt.others {
				r.WriteTo([]byte("\x00\x00\x00"+other+"false"), from)
			}
			r.WriteTo([]byte("\x00\x00\x00"+tt.from+"answer"), from)
			b := make([]byte, 100)
			n, err := conn.Read(b)
			require.NoError(t, err)
			require.Equal(t, "answer", string(b[:n]))
		})
	}
}

// TestNoUDP checks that only the error of a proxy without UDP matches errors.ErrUnsupported, not that of a failure.
func TestNoUDP(t *testing.T) {
	for reply, unsupported := range map[string]bool{"\x07": true, "\x02": true, "\x01": false, "\x05": false} {
		p, _ := newRelay(t, "\x05"+reply+"\x00\x01\x00\x00\x00\x00")
		_, err := p.ListenPacket(t.Context(), "udp4", "")
		require.ErrorContains(t, err, "listen for UDP by proxy socks5://127.0.0.1:")
		require.Equal(t, unsupported, errors.Is(err, errors.ErrUnsupported), "%v", err)
		_, err = p.Dial(t.Context(), "udp", "a:1")
		require.Equal(t, unsupported, errors.Is(err, errors.ErrUnsupported), "%v", err)
	}
	p, r := newRelay(t, boundHere)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.ListenPacket(ctx, "udp4", "")
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, r.control)
}
