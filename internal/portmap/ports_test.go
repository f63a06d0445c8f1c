package portmap_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/portmap"
)

// TestPorts has routers give other ports than they are asked for.
func TestPorts(t *testing.T) {
	neighbour := inside{host: netip.MustParseAddrPort("192.168.1.6:6881")}
	for _, tt := range []struct {
		name   string
		speak  func(*router)
		by     portmap.Protocol
		same   bool // one port in the end
		wanted bool // the port that was asked for first
		asked  string
		most   int // times
	}{
		{"UPnP, taken for TCP", func(r *router) { r.speakUPnP(1); r.table[outside{tcp, port}] = neighbour }, portmap.UPnP, true, false, "AddPortMapping", 2},
		{"UPnP, taken for UDP", func(r *router) { r.speakUPnP(1); r.table[outside{udp, port}] = neighbour }, portmap.UPnP, true, false, "AddPortMapping", 3},
		{"UPnP, taken, as the router says late", func(r *router) {
			r.speakUPnP(1)
			r.table[outside{udp, port}] = neighbour
			r.fault["GetSpecificPortMappingEntry"] = 501
		}, portmap.UPnP, true, false, "AddPortMapping", 4},
		{"UPnP, permanent leases", func(r *router) { r.speakUPnP(1); r.permanent = true }, portmap.UPnP, true, true, "AddPortMapping", 3},
		{"PCP, another for UDP", func(r *router) {
			r.speak(true, false)
			r.table[outside{udp, port}] = neighbour
			r.assign = func(transport byte, suggested uint16) uint16 {
				for r.table[outside{transport, suggested}].host.IsValid() {
					suggested++
				}
				return suggested
			}
		}, portmap.PCP, true, false, "map", 6},
		{"PCP, others for both", func(r *router) {
			r.speak(true, false)
			r.assign = func(_ byte, suggested uint16) uint16 { return suggested | 1<<15 }
		}, portmap.PCP, true, false, "map", 2},
		{"NAT-PMP, never one", func(r *router) {
			r.speak(false, true)
			r.assign = func(transport byte, suggested uint16) uint16 { return 1000 + uint16(transport) }
		}, portmap.NATPMP, false, false, "map tcp", 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, here, gate)
				r := newRouter(g.lan, gate, public)
				tt.speak(r)
				others := r.mappings()
				g.start()
				time.Sleep(20 * time.Second)
				held, err := g.state()
				require.NoError(t, err)
				require.Len(t, held, 1)
				m := held[0]
				require.Equal(t, tt.by, m.By)
				require.Equal(t, tt.same, m.TCP == m.UDP)
				require.Equal(t, tt.wanted, m.TCP == port && m.UDP == port)
				require.Equal(t, here+":6881", r.leads(tcp, m.TCP))
				require.Equal(t, here+":6881", r.leads(udp, m.UDP))
				require.Equal(t, 2+others, r.mappings(), "nothing else is left")
				require.LessOrEqual(t, r.times(tt.asked), tt.most)

				asked := r.times(tt.asked)
				time.Sleep(50 * time.Minute)
				require.LessOrEqual(t, r.times(tt.asked)-asked, 2, "renewed, not made again")
				r.restart()
				time.Sleep(6 * time.Minute)
				again, err := g.state()
				require.NoError(t, err)
				require.Equal(t, held, again, "the same ports after a restart")
				g.stop()
				require.Zero(t, r.mappings())
			})
		})
	}
}

// TestOneTransport maps what is wanted and nothing else.
func TestOneTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, here, gate)
		r := newRouter(g.lan, gate, public)
		r.speak(true, true)
		g.mapper.UDP = false
		g.start()
		time.Sleep(time.Second)
		g.requireHeld(t, portmap.PCP, public, port, 0)
		require.Equal(t, 1, r.mappings())
	})
}

// TestServices takes the service of a device that has a line, and of those the one that is public.
func TestServices(t *testing.T) {
	const answer = `<Envelope><Body><GetExternalIPAddressResponse><NewExternalIPAddress>%s</NewExternalIPAddress></GetExternalIPAddressResponse></Body></Envelope>`
	for _, tt := range []struct {
		name   string
		others []string // external addresses of the services before it
		public string   // of the one that is to be taken
	}{
		{"the only one with a line", []string{"0.0.0.0", "", "nonsense"}, "10.9.8.7"},
		{"the public one", []string{"10.0.0.1", "100.64.0.1"}, public},
		{"the first of two alike", []string{"0.0.0.0"}, public},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, here, gate)
				r := newRouter(g.lan, gate, tt.public)
				r.speakUPnP(1)
				own := g.http[netip.MustParseAddrPort(gate+":5000")]
				mux := http.NewServeMux()
				var services strings.Builder
				for i, external := range append(tt.others, "own") {
					control := fmt.Sprintf("/ctl/%d", i)
					if external == "own" {
						control = "/ctl/IPConn"
					}
					fmt.Fprintf(&services, "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>%s</controlURL></service>", control)
					mux.HandleFunc(fmt.Sprintf("/ctl/%d", i), func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, answer, external) })
				}
				mux.HandleFunc("/desc.xml", func(w http.ResponseWriter, _ *http.Request) {
					fmt.Fprintf(w, "<root>%s</root>", services.String())
				})
				mux.Handle("/ctl/IPConn", own)
				g.serve(gate+":5000", mux)
				g.start()
				time.Sleep(2 * time.Second)
				g.requireHeld(t, portmap.UPnP, tt.public, port, port)
				require.Equal(t, 2, r.mappings())
			})
		})
	}
}
