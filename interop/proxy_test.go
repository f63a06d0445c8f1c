//go:build linux

package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/internal/proxy"
)

// The network of these tests: this host, whose only neighbour is the proxy, and a peer behind that. A
// name of the peer is known to the proxy alone.
const (
	proxiedHost = "10.78.0.2"
	proxyInside = "10.78.0.1"
	proxyPort   = 1080
	proxyPeer   = "11.22.33.2"
	proxiedName = "peer.example"
)

// A proxied is a host that may reach nothing but a proxy.
type proxied struct {
	proxy, peer *host
}

// newProxied makes the network. What this host sends elsewhere than to the proxy is dropped and counted.
func newProxied(t *testing.T) *proxied {
	t.Helper()
	p := &proxied{proxy: newHost(t, "proxy"), peer: newHost(t, "peer")}
	here().write(t, "/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") // the kernel itself would speak it
	here().link(t, "lan0", p.proxy, "lan")
	p.proxy.link(t, "wan", p.peer, "wan0")
	here().ip(t, "link set lo up", "addr add "+proxiedHost+"/24 dev lan0", "route add default via "+proxyInside)
	p.proxy.ip(t, "addr add "+proxyInside+"/24 dev lan", "addr add 11.22.33.1/24 dev wan")
	p.peer.ip(t, "addr add "+proxyPeer+"/24 dev wan0")
	here().nft(t, `
table inet filter {
	counter beside { }
	chain output {
		type filter hook output priority 0
		oifname "lo" accept
		ip daddr `+proxyInside+` accept
		counter name beside drop
	}
}`)
	return p
}

// beside is how many packets this host sent, or would have, that were not for the proxy.
func (p *proxied) beside(t *testing.T) string {
	t.Helper()
	out := here().output(t, "nft", "list", "counter", "inet", "filter", "beside")
	_, count, _ := strings.Cut(out, "packets ")
	count, _, _ = strings.Cut(count, " ")
	return count
}

// run starts a proxy program, which knows the peer's name.
func (p *proxied) run(t *testing.T, ready, name string, args ...string) {
	t.Helper()
	program(t, name)
	hosts := scratch(t, "hosts", []byte("127.0.0.1 localhost\n"+proxyPeer+" "+proxiedName+"\n"))
	script := `mount --bind "$0" /etc/hosts && exec "$@"`
	d := p.proxy.run(t, "unshare", append([]string{"--mount", "sh", "-c", script, hosts, name}, args...)...)
	if ready != "" {
		d.awaitText(t, ready)
		return
	}
	require.Eventually(t, func() bool {
		c, err := here().dial("tcp", fmt.Sprintf("%s:%d", proxyInside, proxyPort))
		if err == nil {
			c.Close()
		}
		return err == nil
	}, patience, 10*time.Millisecond)
}

const danteConfig = `
logoutput: stdout
internal: 10.78.0.1 port = 1080
external: 11.22.33.1
socksmethod: none
clientmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 command: connect udpassociate }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 command: udpreply }
`

const tinyproxyConfig = `
Port 1080
Listen 10.78.0.1
BasicAuth anna secret
`

// proxyPrograms are what this host reaches the peer through.
var proxyPrograms = []struct {
	name    string
	program string
	url     string
	wrong   string // the same with a wrong password
	udp     bool
	start   func(t *testing.T, p *proxied)
}{
	{"dante", "danted", "socks5h://10.78.0.1", "", true, func(t *testing.T, p *proxied) {
		p.run(t, "", "danted", "-f", scratch(t, "danted.conf", []byte(danteConfig)), "-p", scratch(t, "pid", nil))
	}},
	{"microsocks", "microsocks", "socks5://anna:secret@10.78.0.1", "socks5://anna:wrong@10.78.0.1", false, func(t *testing.T, p *proxied) {
		p.run(t, "", "microsocks", "-i", proxyInside, "-p", "1080", "-u", "anna", "-P", "secret")
	}},
	{"tinyproxy", "tinyproxy", "http://anna:secret@10.78.0.1:1080", "http://anna:wrong@10.78.0.1:1080", false, func(t *testing.T, p *proxied) {
		p.run(t, "", "tinyproxy", "-d", "-c", scratch(t, "tinyproxy.conf", []byte(tinyproxyConfig)))
	}},
}

// TestProxy reaches a peer through each proxy by address and by name, and nothing beside it.
func TestProxy(t *testing.T) {
	t.Parallel()
	for _, tt := range proxyPrograms {
		t.Run(tt.name, func(t *testing.T) {
			need(t, tt.program, "nft", "ip", "nsenter", "unshare")
			t.Parallel()
			if !ownNetwork(t) {
				return
			}
			network := newProxied(t)
			tt.start(t, network)
			echo := network.echo(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()

			dial := func(u string) *proxy.Proxy {
				parsed, err := url.Parse(u)
				require.NoError(t, err)
				p, err := proxy.New(parsed, new(net.Dialer).DialContext, new(net.ListenConfig).ListenPacket)
				require.NoError(t, err)
				return p
			}
			p := dial(tt.url)
			for _, to := range []string{echo.String(), fmt.Sprintf("%s:%d", proxiedName, echo.Port())} {
				c, err := p.Dial(ctx, "tcp", to)
				require.NoError(t, err)
				requireEcho(t, c, 1<<20)
			}
			_, err := p.Dial(ctx, "tcp", proxyPeer+":1")
			require.ErrorContains(t, err, "the proxy says: ")
			_, err = p.Dial(ctx, "tcp", "nobody.example:1")
			require.ErrorContains(t, err, "the proxy says: ")
			if tt.wrong != "" {
				_, err = dial(tt.wrong).Dial(ctx, "tcp", echo.String())
				require.ErrorContains(t, err, "the proxy")
			}

			conn, err := p.ListenPacket(ctx, "udp4", "")
			if !tt.udp {
				require.ErrorIs(t, err, errors.ErrUnsupported)
			} else {
				require.NoError(t, err)
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				_, err := conn.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(echo))
				require.NoError(t, err)
				b := make([]byte, 2000)
				n, from, err := conn.ReadFrom(b)
				require.NoError(t, err)
				require.Equal(t, "hello", string(b[:n]))
				require.Equal(t, echo.String(), from.String())
				for _, to := range []string{echo.String(), fmt.Sprintf("%s:%d", proxiedName, echo.Port())} {
					c, err := p.Dial(ctx, "udp", to)
					require.NoError(t, err)
					requireEcho(t, c, 1400)
				}
			}
			network.whole(t, tt.url, tt.udp)
			require.Equal(t, "0", network.beside(t))
			t.Logf("%s: TCP by address and name, UDP %v, packets beside the proxy: 0", tt.name, tt.udp)

			c, err := here().dial("udp", echo.String()) // what is counted is counted
			require.NoError(t, err)
			c.Write([]byte("beside"))
			require.Equal(t, "1", network.beside(t))
		})
	}
}

// whole has whole clients download by a magnet link through the proxy: one by all that there is, and one by uTP alone.
func (p *proxied) whole(t *testing.T, proxyURL string, udp bool) {
	t.Helper()
	p.peer.ip(t, "addr add 11.22.34.2/24 dev wan0")
	p.proxy.ip(t, "addr add 11.22.34.1/24 dev wan")
	w := newWholeWorld(t, p.peer, proxyPeer, "11.22.34.2", proxiedName)
	for _, noTCP := range []bool{false, true} {
		if noTCP && !udp {
			continue
		}
		c := newWholeClient(t, w)
		c.NoTCP = noTCP
		var err error
		c.Proxy, err = url.Parse(proxyURL)
		require.NoError(t, err)
		took, _ := w.download(t, c, torrent.Options{})
		require.Nil(t, c.Addr())
		require.ErrorIs(t, c.Stats().PortMapErr, torrent.ErrUnsupported)
		if udp {
			require.Eventually(t, func() bool { return c.Stats().DHT.NodesIPv4 > 0 && len(w.announces("udp")) > 0 }, patience, 10*time.Millisecond)
			require.NoError(t, c.Stats().UDPErr)
		} else {
			require.Eventually(t, func() bool { return errors.Is(c.Stats().UDPErr, torrent.ErrUnsupported) }, patience, 10*time.Millisecond)
		}
		require.NotEmpty(t, w.announces("http"))
		st := c.Stats()
		require.NoError(t, c.Close())
		require.Equal(t, "0", p.beside(t))
		t.Logf("a whole client, TCP %v: %d bytes in %v; announces by HTTP %d, by UDP %d; DHT nodes %d, answers %d; packets beside the proxy: 0",
			!noTCP, st.Downloaded, took.Round(time.Millisecond), len(w.announces("http")), len(w.announces("udp")), st.DHT.NodesIPv4, st.DHT.AnswersReceived)
	}
	c := newWholeClient(t, w)
	c.Proxy, _ = url.Parse(proxyURL)
	took := w.downloadFromWeb(t, c)
	require.Equal(t, "0", p.beside(t))
	t.Logf("from a web seed alone: %v; packets beside the proxy: 0", took.Round(time.Millisecond))
}

// echo has the peer send back what it is sent, by TCP and UDP on one port.
func (p *proxied) echo(t *testing.T) netip.AddrPort {
	t.Helper()
	l := p.peer.listen(t, proxyPeer+":0")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	packets := p.peer.listenPacket(t, l.Addr().String())
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			packets.WriteTo(b[:n], from)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// requireEcho has a connection give back what is written to it.
func requireEcho(t *testing.T, c net.Conn, size int) {
	t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	sent := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(sent)
	go c.Write(sent)
	got := make([]byte, size)
	_, err := io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, sent, got)
}
