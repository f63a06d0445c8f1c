package portmap_test

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/portmap"
)

// TestRefused goes on to the next protocol.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, here, gate)
		r := newRouter(g.lan, gate, public)
		r.speak(true, true)
		r.refuse["map"] = 2
		g.start()
		time.Sleep(time.Second)
		g.requireHeld(t, portmap.NATPMP, public, port, port)
	})
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, here, gate)
		r := newRouter(g.lan, gate, public)
		r.speak(true, true)
		r.speakUPnP(1)
		r.refuse["map"], r.refuse["map tcp"] = 8, 4
		g.start()
		time.Sleep(time.Second)
		g.requireHeld(t, portmap.UPnP, public, port, port)
	})
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, here, gate)
		r := newRouter(g.lan, gate, public)
		r.speak(true, true)
		r.speakUPnP(1)
		r.refuse["map"], r.refuse["map tcp"], r.fault["AddPortMapping"] = 2, 2, 606
		g.start()
		time.Sleep(10 * time.Second)
		g.requireNone(t, "PCP refused: not authorized\nNAT-PMP refused: not authorized\nAddPortMapping at http://192.168.1.1:5000/ctl/IPConn: UPnP error 606 \"no\"")
		asked := r.times("map")
		time.Sleep(25 * time.Minute)
		require.Equal(t, asked, r.times("map"), "asked again before the half hour that the router said")
		r.set(func() { clear(r.refuse) })
		time.Sleep(6 * time.Minute)
		g.requireHeld(t, portmap.PCP, public, port, port)
	})
	synctest.Test(t, func(t *testing.T) { // no address outside yet
		g := newRig(t, here, gate)
		r := newRouter(g.lan, gate, public)
		r.speak(false, true)
		r.refuse["address"] = 3
		g.start()
		time.Sleep(time.Second)
		held, err := g.state()
		require.NoError(t, err)
		require.Len(t, held, 1)
		require.False(t, held[0].External.IsValid())
		r.set(func() { clear(r.refuse) })
		time.Sleep(time.Minute)
		g.requireHeld(t, portmap.NATPMP, public, port, port)
	})
}

// TestStrangers believes answers only from where they were asked, and goes only there.
func TestStrangers(t *testing.T) {
	const liar = "192.168.1.66"
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, here, gate)
		r := newRouter(g.lan, gate, public)
		lying := newRouter(g.lan, liar, "203.0.113.66")
		// The liar sees what is asked, and answers first, from its own address.
		g.answer(gate+":5351", func(b []byte, from netip.AddrPort) {
			lying.mu.Lock()
			defer lying.mu.Unlock()
			var answer []byte
			if b[0] == 2 {
				answer = lying.pcp(b, from.Addr())
			} else {
				answer = lying.natpmp(b, from.Addr())
			}
			g.send(answer, liar+":5351", from)
			g.send(answer, gate+":5350", from)
		})
		r.speak(true, true)
		g.start()
		time.Sleep(time.Second)
		g.requireHeld(t, portmap.PCP, public, port, port)
	})
	synctest.Test(t, func(t *testing.T) { // from the router, but not to what was asked
		g := newRig(t, here, gate)
		r := newRouter(g.lan, gate, public)
		g.answer(gate+":5351", func(b []byte, from netip.AddrPort) {
			if b[0] != 2 || b[1] != 1 {
				return
			}
			wrong := newRouter(g.lan, gate, "203.0.113.66")
			for _, at := range []int{24, 35, 36, 41} { // nonce, transport, internal port
				b := slices.Clone(b)
				b[at] ^= 1
				g.send(wrong.pcp(b, from.Addr()), gate+":5351", from)
			}
			g.send([]byte{2, 0x81}, gate+":5351", from)
			g.send(make([]byte, 2000), gate+":5351", from)
		})
		r.speak(true, true)
		g.start()
		time.Sleep(time.Second)
		g.requireHeld(t, portmap.PCP, public, port, port)
	})
	synctest.Test(t, func(t *testing.T) { // leading elsewhere
		g := newRig(t, here, gate)
		g.answer("239.255.255.250:1900", func(_ []byte, from netip.AddrPort) {
			for _, location := range []string{
				"http://10.0.0.1/", "http://localhost/", "https://" + liar + "/", "file:///etc/passwd", "http://u@" + liar + "/", "http://" + liar + ":99999/", "",
			} {
				g.send([]byte("HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLocation: "+location+"\r\n\r\n"), liar+":1900", from)
			}
			g.send([]byte("HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLocation: http://198.51.100.1/\r\n\r\n"), "198.51.100.1:1900", from)
		})
		g.start()
		time.Sleep(time.Minute)
		g.requireNone(t, "no answer")
		require.Empty(t, g.dials())
	})
	for name, control := range map[string]string{
		"another host": "http://10.0.0.1:5000/ctl/IPConn", "a name": "http://localhost/ctl/IPConn", "another scheme": "https://" + gate + ":5000/ctl/IPConn",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, here, gate)
				r := newRouter(g.lan, gate, public)
				r.speakUPnP(1)
				r.control = control
				g.start()
				time.Sleep(20 * time.Second)
				g.requireNone(t, "no device that speaks UPnP maps ports")
				require.Equal(t, []string{gate + ":5000"}, slices.Compact(g.dials()))
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // a redirect
		g := newRig(t, here, gate)
		r := newRouter(g.lan, gate, public)
		r.speakUPnP(1)
		g.serve(gate+":5000", http.RedirectHandler("http://10.0.0.1/", http.StatusFound))
		g.start()
		time.Sleep(20 * time.Second)
		g.requireNone(t, "description at http://192.168.1.1:5000/desc.xml: HTTP status 302")
		require.Equal(t, []string{gate + ":5000"}, slices.Compact(g.dials()))
	})
	synctest.Test(t, func(t *testing.T) { // a document without an end
		g := newRig(t, here, gate)
		r := newRouter(g.lan, gate, public)
		r.speakUPnP(1)
		var wrote atomic.Int64
		g.serve(gate+":5000", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for {
				n, err := w.Write(make([]byte, 4096))
				if wrote.Add(int64(n)); err != nil {
					return
				}
			}
		}))
		g.start()
		time.Sleep(10 * time.Second)
		g.requireNone(t, "answer too long")
		require.Less(t, wrote.Load(), int64(1<<20))
	})
}

// TestOtherDevices asks the router before other devices, and others if it is the router's other address.
func TestOtherDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, here, gate)
		other := newRouter(g.lan, "192.168.1.254", "203.0.113.66")
		other.speakUPnP(1)
		r := newRouter(g.lan, gate, public)
		r.speakUPnP(1)
		g.start()
		time.Sleep(2 * time.Second)
		g.requireHeld(t, portmap.UPnP, public, port, port)
		require.Zero(t, other.mappings())

		g.silence()
		other.speakUPnP(1)
		time.Sleep(6 * time.Minute)
		g.requireHeld(t, portmap.UPnP, "203.0.113.66", port, port)
	})
}

// TestEmptyMappings takes a grant of nothing for a refusal.
func TestEmptyMappings(t *testing.T) {
	for name, spoil := range map[string]func(*router){
		"no time": func(r *router) { r.most = 0 },
		"no port": func(r *router) { r.assign = func(byte, uint16) uint16 { return 0 } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, here, gate)
				r := newRouter(g.lan, gate, public)
				r.speak(true, true)
				spoil(r)
				g.start()
				time.Sleep(40 * time.Second)
				g.requireNone(t, "PCP refused: an empty mapping\nNAT-PMP refused: an empty mapping\nno answer")
			})
		})
	}
}

// TestSockets has sockets fail to open, to send and to receive.
func TestSockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, here, gate)
		r := newRouter(g.lan, gate, public)
		r.speak(true, true)
		g.move()
		g.start()
		time.Sleep(time.Second)
		g.requireNone(t, "map port 6881 at 192.168.1.1: bind: ")
		g.move(here)
		time.Sleep(time.Minute)
		g.requireHeld(t, portmap.PCP, public, port, port)
	})
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, here, gate)
		r := newRouter(g.lan, gate, public)
		r.speak(true, true)
		var broken atomic.Bool
		broken.Store(true)
		g.mapper.ListenPacket = func(ctx context.Context, network, addr string) (net.PacketConn, error) {
			c, err := g.listenPacket(ctx, network, addr)
			return &brokenConn{PacketConn: c, read: 1, always: broken.Load()}, err
		}
		g.start()
		time.Sleep(time.Second)
		g.requireNone(t, "connection refused")
		broken.Store(false) // what one packet met is not what the next meets
		time.Sleep(time.Minute)
		g.requireHeld(t, portmap.PCP, public, port, port)
	})
}

// A brokenConn fails to read at first, or always.
type brokenConn struct {
	net.PacketConn
	read   int
	always bool
}

func (c *brokenConn) ReadFrom(b []byte) (int, net.Addr, error) {
	if c.read--; c.read >= 0 || c.always {
		return 0, nil, syscall.ECONNREFUSED
	}
	return c.PacketConn.ReadFrom(b)
}

// TestDeviceThatSwitchesProtocols drops a device that switches to another protocol and then says nothing: no context ends the
// reads of such a connection.
func TestDeviceThatSwitchesProtocols(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, here, gate)
		newRouter(g.lan, gate, public).speakUPnP(1)
		g.serve(gate+":5000", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chess\r\n\r\n"))
			<-t.Context().Done()
		}))
		g.start()
		time.Sleep(time.Minute)
		g.requireNone(t, "HTTP status 101")
		began := time.Now()
		g.stop()
		require.Less(t, time.Since(began), 3*time.Second)
	})
}
