//go:build linux

package interop

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent"
)

// The network of these tests: this host has two interfaces, by both of which the other is reached. The routes prefer
// the one that is not to be used.
const (
	boundAddr   = "10.79.0.2"
	besideAddr  = "10.80.0.2"
	boundRouter = "10.79.0.1"
	boundPeer   = "11.22.33.2"
)

type twoWays struct {
	peer *host
	w    *wholeWorld
}

// newTwoWays makes the network. What this host sends by the wrong interface is dropped and counted.
func newTwoWays(t *testing.T) *twoWays {
	t.Helper()
	n := &twoWays{peer: newHost(t, "peer")}
	here().write(t, "/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") // the kernel itself would speak it
	n.peer.ip(t, "addr add "+boundPeer+"/32 dev lo", "addr add 11.22.34.2/32 dev lo")
	here().link(t, "beside0", n.peer, "beside1")
	here().ip(t, "link set lo up", "addr add "+besideAddr+"/24 dev beside0", "route add default via 10.80.0.1 metric 1")
	n.peer.ip(t, "addr add 10.80.0.1/24 dev beside1")
	n.connect(t)
	here().nft(t, `
table inet filter {
	counter beside { }
	chain output {
		type filter hook output priority 0
		oifname "lo" accept
		oifname "bound0" accept
		meta l4proto icmp drop
		tcp flags rst drop # as ICMP, what the kernel says for no socket, to whoever still sends to one that has closed
		counter name beside drop
	}
}`)
	n.resolve(t)
	n.w = newWholeWorld(t, n.peer, boundPeer, "11.22.34.2", "peer.example")
	return n
}

// connect makes the interface that is to be used.
func (n *twoWays) connect(t *testing.T) {
	t.Helper()
	here().link(t, "bound0", n.peer, "bound1")
	n.peer.ip(t, "addr add "+boundRouter+"/24 dev bound1")
	here().ip(t, "addr add "+boundAddr+"/24 dev bound0", "route add default via "+boundRouter+" metric 1000")
}

// beside is how many packets this host would have sent by the wrong interface.
func (n *twoWays) beside(t *testing.T) string { return (&proxied{}).beside(t) }

// resolve has a name server on the peer know its name.
func (n *twoWays) resolve(t *testing.T) {
	t.Helper()
	c := n.peer.listenPacket(t, boundPeer+":53")
	go func() {
		b := make([]byte, 1500)
		for {
			size, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:size]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA && q.Name.String() == "peer.example." {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
					Body:   &dnsmessage.AResource{A: netip.MustParseAddr(boundPeer).As4()},
				})
			}
			if answer, err := m.Pack(); err == nil {
				c.WriteTo(answer, from)
			}
		}
	}()
	require.NoError(t, unix.Mount(scratch(t, "resolv.conf", []byte("nameserver "+boundPeer+"\n")), "/etc/resolv.conf", "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH) })
}

// TestBind has a whole client use one interface of two, which vanishes on the way and comes back.
func TestBind(t *testing.T) {
	t.Parallel()
	need(t, "nft", "ip", "nsenter")
	if !ownNetwork(t) {
		return
	}
	n := newTwoWays(t)
	for _, noTCP := range []bool{false, true} {
		c := newWholeClient(t, n.w)
		c.Bind, c.NoTCP = netip.MustParseAddr(boundAddr), noTCP
		took, _ := n.w.download(t, c, torrent.Options{})
		require.Equal(t, boundAddr, c.Addr().(interface{ AddrPort() netip.AddrPort }).AddrPort().Addr().String())
		require.Eventually(t, func() bool { return c.Stats().DHT.NodesIPv4 > 0 && len(n.w.announces("udp")) > 0 }, patience, 10*time.Millisecond)
		require.NoError(t, c.Close())
		require.Equal(t, "0", n.beside(t))
		t.Logf("a whole client, TCP %v: %v; announces by HTTP %d, by UDP %d; packets beside the interface: 0",
			!noTCP, took.Round(time.Millisecond), len(n.w.announces("http")), len(n.w.announces("udp")))
	}
	web := newWholeClient(t, n.w)
	web.Bind = netip.MustParseAddr(boundAddr)
	took := n.w.downloadFromWeb(t, web)
	require.Equal(t, "0", n.beside(t))
	t.Logf("from a web seed alone: %v; packets beside the interface: 0", took.Round(time.Millisecond))
	for _, transport := range []string{"tcp", "utp"} {
		n.vanish(t, transport)
	}
	for tracker, want := range map[string]string{"http": boundAddr, "udp": boundAddr} {
		for _, from := range n.w.announces(tracker) {
			require.Equal(t, want, from.String())
		}
	}
	c, err := here().dial("udp", boundPeer+":9") // what is counted is counted
	require.NoError(t, err)
	c.Write([]byte("beside"))
	require.Equal(t, "1", n.beside(t))
}

// vanish takes the interface away in the middle of a download, and gives it back.
func (n *twoWays) vanish(t *testing.T, transport string) {
	t.Helper()
	c := newWholeClient(t, n.w)
	c.Bind, c.NoTCP, c.NoUTP = netip.MustParseAddr(boundAddr), transport == "utp", transport == "tcp"
	c.DownloadLimit = rate.NewLimiter(200<<10, 64<<10)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o := torrent.Options{Client: c, Dir: t.TempDir()}
	tor, err := n.w.link.Resolve(ctx, &o)
	require.NoError(t, err)
	d, err := tor.Start(ctx, &o)
	require.NoError(t, err)
	defer d.Close()
	require.Eventually(t, func() bool { return d.Stats().Verified > 200<<10 }, patience, 10*time.Millisecond)
	here().ip(t, "link del bound0")
	gone := time.Now()
	require.Eventually(t, func() bool { return len(d.Stats().Peers) == 0 }, patience, 10*time.Millisecond)
	stopped, had := time.Since(gone), d.Stats().Downloaded
	time.Sleep(5 * time.Second) // what could happen is given the time to
	require.Equal(t, had, d.Stats().Downloaded)
	require.Less(t, d.Stats().Verified, d.Stats().Wanted)
	require.Equal(t, "0", n.beside(t))
	c.DownloadLimit.SetLimit(rate.Inf)
	n.connect(t)
	back := time.Now()
	_, err = d.Wait()
	require.NoError(t, err)
	requireSame(t, n.w.dir, o.Dir)
	again := time.Since(back)
	c.Close()
	require.Equal(t, "0", n.beside(t))
	t.Logf("%s, and the interface gone for %v after %d bytes: dropped after %v, complete %v after it was back; packets beside the interface: 0",
		transport, back.Sub(gone).Round(time.Millisecond), had, stopped.Round(time.Millisecond), again.Round(time.Millisecond))
}

// TestMachineMoves has a client without such a bound see its machine's cable pulled and its address change: it says so, and
// goes on.
func TestMachineMoves(t *testing.T) {
	t.Parallel()
	need(t, "nft", "ip", "nsenter")
	if !ownNetwork(t) {
		return
	}
	n := newTwoWays(t)
	here().ip(t, "link del beside0")
	c := newWholeClient(t, n.w)
	c.DownloadLimit = rate.NewLimiter(20<<10, 64<<10)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o := torrent.Options{Client: c, Dir: t.TempDir()}
	tor, err := n.w.link.Resolve(ctx, &o)
	require.NoError(t, err)
	d, err := tor.Start(ctx, &o)
	require.NoError(t, err)
	defer d.Close()
	require.Eventually(t, func() bool { return d.Stats().Verified > 100<<10 }, patience, 10*time.Millisecond)
	n.peer.ip(t, "link set bound1 down")
	require.Eventually(t, func() bool { return len(d.Stats().Peers) == 0 }, time.Minute, 10*time.Millisecond)
	had := d.Stats().Downloaded
	time.Sleep(20 * time.Second) // what is tried meanwhile fails
	require.Equal(t, had, d.Stats().Downloaded)
	n.peer.ip(t, "link set bound1 up")
	back := time.Now()
	require.Eventually(t, func() bool { return d.Stats().Downloaded > had }, time.Minute, 10*time.Millisecond)
	t.Logf("no cable: on again %v after it was back", time.Since(back).Round(time.Millisecond))

	moved := time.Now()
	here().ip(t, "addr del "+boundAddr+"/24 dev bound0", "addr add 10.79.0.3/24 dev bound0", "route replace default via "+boundRouter)
	heard := func(tracker string) bool {
		all := n.w.announces(tracker)
		return len(all) > 0 && all[len(all)-1].String() == "10.79.0.3"
	}
	require.Eventually(t, func() bool { return heard("http") && heard("udp") }, time.Minute, 10*time.Millisecond)
	told := time.Since(moved)
	c.DownloadLimit.SetLimit(rate.Inf)
	_, err = d.Wait()
	require.NoError(t, err)
	requireSame(t, n.w.dir, o.Dir)
	t.Logf("another address: trackers told after %v, complete after %v", told.Round(time.Millisecond), time.Since(moved).Round(time.Millisecond))
}
